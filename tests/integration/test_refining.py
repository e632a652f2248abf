"""Coarse to fine with real sweeps: `Study.refine`."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

from caviar.errors import SettingsError, StudyBusy
from caviar.opening import create_study, load_study
from caviar.records import Direction, Trial, TrialState
from caviar.repeats import first_trials, untended_trials
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.study import Study

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


def test_trials_of_an_earlier_space_count_where_it_contains_the_later(storage: Storage) -> None:
    """Those that the later could have drawn: they were drawn alike. Of a space that is narrower anywhere, none does."""
    study = swept(storage)
    narrower = SearchSpace(**dict(SPACE) | {"hidden_units": Int(4, 10)})
    study = create_study("s", narrower, new_space=True, storage=storage)

    expected = study.trials(where="hidden_units <= 10")
    assert study.refine(keep=False).n_trials == len(expected) < 60

    wider = SearchSpace(**dict(narrower) | {"learning_rate": Float(1e-4, 2.0, scale="log")})
    study = create_study("s", wider, new_space=True, storage=storage)
    with pytest.raises(SettingsError, match="drawn from the space, or from an earlier one around it, found 0; sweep"):
        study.refine()
    study.sweep(85, n_workers=0)
    assert study.refine(keep=False).n_trials == 25


def test_only_what_was_drawn_and_told_something_counts(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that diverged do, as bad ones; lost, waiting, babysat, branched and repeated trials do not."""
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path))
    study = swept(storage)
    best = study.trials(sort="-value", limit=20)
    coarse = study.refine(keep=False)
    others = [dict(trial.params, learning_rate=1e-4 + place * 1e-6) for place, trial in enumerate(best)]
    added = [
        Trial(study="s", number=60, state=TrialState.FAIL, params=others[0], reason="lost"),
        Trial(study="s", number=61, state=TrialState.WAITING, params=others[1]),
        Trial(study="s", number=62, state=TrialState.COMPLETE, params=best[0].params, value=1.0),
        Trial(
            study="s", number=63, state=TrialState.COMPLETE, params=others[2], value=1.0, parent="s/0", parent_epoch=1
        ),
    ]
    storage.add_trials("s", added)
    with study.panda(best[0], more_epochs=1) as panda:
        list(panda)
    with study.panda(params=others[3], epochs=1) as panda:
        list(panda)

    assert study.refine(keep=False) == coarse
    diverged = [
        Trial(
            study="s", number=70 + place, state=TrialState.FAIL, params=dict(params, hidden_units=4), reason="diverged"
        )
        for place, params in enumerate(others)
    ]
    storage.add_trials("s", diverged)
    found = study.refine(keep=False)
    assert (found.n_trials, found.n_diverged, found.n_best) == (80, 20, 7)


def test_ties_are_broken_as_those_of_the_best_trial_are(storage: Storage) -> None:
    """By val_loss, in which NaN is the worst, then by number: of equal values the best trial comes first."""
    study = create_study("s", SPACE, data="iris", epochs=1, storage=storage)
    trials = [
        Trial(
            study="s",
            number=number,
            state=TrialState.COMPLETE,
            params={"learning_rate": 0.5 if loss == 0.3 else 1e-3, "hidden_units": 8, "layers": 1, "batch_size": 16},
            value=0.9,
            metrics={"val_accuracy": 0.9, "val_loss": loss},
        )
        for number, loss in enumerate([float("nan"), 0.9, 0.3, float("nan"), 0.8, 0.3])
    ]
    storage.add_trials("s", trials)

    ranked = sorted(study.trials(), key=study.spec.rank)

    assert [trial.number for trial in ranked] == [2, 5, 4, 1, 0, 3]
    best = study.best_trial
    assert best is not None and best.number == 2
    assert [trial.number for trial in first_trials(untended_trials(storage, study.name), study.spec)] == [2, 0]


def test_a_handle_that_is_older_than_the_space_draws_from_the_space(storage: Storage) -> None:
    """A notebook has one open, and the command line narrows."""
    study = swept(storage)
    load_study("s", storage=storage).refine()

    study.sweep(64, n_workers=0)

    assert {trial.space_version for trial in study.trials(where="number >= 60")} == {2}


def test_no_value_is_asked_for_where_there_is_none(storage: Storage) -> None:
    """l2 has none below 0, though the best trials lie there; a learning rate has some above 1."""
    study = create_study("s", SearchSpace(l2=Float(0, 1), learning_rate=Float(0.1, 1)), data="iris", storage=storage)
    trials = [
        Trial(
            study="s",
            number=number,
            state=TrialState.COMPLETE,
            params={"l2": number / 60, "learning_rate": 1 - number / 80},
            value=1 - number / 60,
        )
        for number in range(60)
    ]
    storage.add_trials("s", trials)

    found = {param.name: param.reached for param in study.refine(keep=False).params}

    assert found == {"l2": {}, "learning_rate": {"high": 1.0}}


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
