"""Coarse to fine with real sweeps: `Study.refine`."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

from caviar.errors import SettingsError, StudyBusy
from caviar.records import Direction, TrialState
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.study import Study, create_study

SPACE = SearchSpace(
    learning_rate=Float(1e-4, 1.0, scale="log"), hidden_units=Int(4, 16), layers=1, batch_size=Categorical(16, 32)
)


def swept(storage: Storage, n_trials: int = 60, metric: str = "val_accuracy") -> Study:
    study = create_study("s", SPACE, data="iris", epochs=4, metric=metric, storage=storage)
    study.sweep(n_trials, n_workers=0)
    return study


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_trials_of_the_narrower_space_are_better(storage: Storage, metric: str) -> None:
    """They are drawn from version 2, which says so; their median is better than that of the coarse ones."""
    study = swept(storage, metric=metric)

    found = study.refine()
    study.sweep(100, n_workers=0)

    assert (found.n_trials, found.n_best, found.version) == (60, 7, 2)
    assert found.params[0].name == "learning_rate" and found.params[0].after.low > 1e-2
    assert storage.spaces("s") == [SPACE.to_dict(), found.space.to_dict()]
    coarse = [trial.value for trial in study.trials(where="space_version = 1")]
    fine = [trial.value for trial in study.trials(where="space_version = 2")]
    assert (len(coarse), len(fine)) == (60, 40)
    sign = study.spec.direction.sign
    assert sign * statistics.median(fine) < sign * statistics.median(coarse)
    assert (study.spec.direction is Direction.MAXIMIZE) == (metric == "val_accuracy")


def test_a_refinement_can_be_looked_at_without_keeping_it(storage: Storage) -> None:
    """The study stays as it is; asked once more, it says the same."""
    study = swept(storage)

    found = study.refine(keep=False)

    assert found.is_narrower and found.version is None
    assert storage.spaces("s") == [SPACE.to_dict()]
    kept = study.refine()
    assert dataclasses.replace(kept, version=None) == found
    assert study.spec.space == found.space.to_dict() and study.spec.space_version == 2


def test_trials_of_an_earlier_space_count_where_the_later_could_have_drawn_them(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed, babysat and other trials do not."""
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path))
    study = swept(storage)
    narrower = SearchSpace(**dict(SPACE) | {"hidden_units": Int(4, 10)})
    study = create_study("s", narrower, new_space=True, storage=storage)
    expected = study.trials(where="hidden_units <= 10 and state = 'COMPLETE'")
    with study.panda(expected[0], more_epochs=1) as panda:
        list(panda)
    with study.panda(params=dict(expected[0].params), epochs=1) as panda:
        list(panda)

    found = study.refine(keep=False)

    assert study.summary().counts[TrialState.COMPLETE] == 62
    assert found.n_trials == len(expected) < 60


def test_a_study_that_is_swept_is_left_alone(storage: Storage) -> None:
    """Its coordinator goes on with the space that it has."""
    study = swept(storage)
    storage.acquire_lease("s", "other", 60)

    with pytest.raises(StudyBusy):
        study.refine()

    assert storage.spaces("s") == [SPACE.to_dict()]


@pytest.mark.parametrize(
    ("n_trials", "n_best", "message"),
    [
        (3, None, "expected at least 20 COMPLETE trials"),
        (24, 13, "must be 3 to 12"),
        (24, 2.5, "must be a whole number"),
    ],
)
def test_too_few_trials_are_refused(storage: Storage, n_trials: int, n_best: int | None, message: str) -> None:
    """The error says how many there are."""
    study = swept(storage, n_trials)

    with pytest.raises(SettingsError, match=message):
        study.refine(n_best)
