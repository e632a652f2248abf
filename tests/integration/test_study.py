"""A study is what it was made as: its settings, its data and the versions of its space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import (
    DataError,
    DataNotFound,
    ExecutorError,
    QueryError,
    SettingsError,
    SpaceError,
    StorageError,
    StudyBusy,
    StudyMismatch,
)
from caviar.opening import create_study, load_study, studies
from caviar.panda.shelf import Policy
from caviar.records import DataSpec, Trial, TrialState
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import Storage, open_storage
from caviar.study import Study


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 8}, "seed = 7, not 8"),
        ({"epochs": 3}, "epochs = 2, not 3"),
        ({"metric": "val_loss"}, "metric = 'val_accuracy', not 'val_loss'"),
        ({"dtype": "float64"}, "dtype = 'float32', not 'float64'"),
        ({"space": SearchSpace(layers=2, l2=Float(0, 1))}, r"another space \(l2, layers\)"),
        ({"data": "wine"}, r"data 'iris' \(fingerprint \w{8}\), not 'wine' \(fingerprint \w{8}\)"),
        ({"seed": 8, "epochs": 3}, "seed = 7, not 8 and epochs = 2, not 3"),
    ],
)
def test_a_study_with_other_settings_is_refused(storage: Storage, given: dict[str, Any], message: str) -> None:
    """The error names each setting that differs, what the study has and what was asked for."""
    space = SearchSpace(layers=1)
    create_study("s", space, data="iris", seed=7, epochs=2, storage=storage)

    with pytest.raises(StudyMismatch, match=f"^study 's' exists with .*{message}.*; leave these out to go on with it"):
        create_study("s", storage=storage, **given)


def test_a_study_is_opened_by_its_name_or_by_the_same_settings(storage: Storage) -> None:
    """What is not given is whatever the study has."""
    made = create_study("s", SearchSpace(layers=1), data="iris", seed=7, epochs=2, storage=storage)

    assert create_study("s", storage=storage).spec == made.spec
    assert create_study("s", SearchSpace(layers=1), data="iris", seed=7, storage=storage).spec == made.spec
    assert load_study("s", storage=storage).spec == made.spec


def test_a_space_is_changed_explicitly_into_a_new_version(storage: Storage) -> None:
    """Trials to come are drawn from it, those there stay; each says from which version it was drawn."""
    narrow, wide = SearchSpace(layers=1), SearchSpace(layers=2, l2=Float(0, 1))
    study = create_study("s", narrow, data="iris", epochs=1, storage=storage)
    study.sweep(3, n_workers=0)
    waiting = study.trials(limit=1)[0].params
    storage.add_trials("s", [Trial(study="s", number=3, state=TrialState.WAITING, params=waiting)])

    with pytest.raises(StudyMismatch, match="give --new-space to draw further trials from this one as version 2"):
        create_study("s", wide, storage=storage)
    create_study("s", wide, new_space=True, storage=storage)
    study = create_study("s", wide, new_space=True, storage=storage)
    study.sweep(6, n_workers=0)

    assert (study.spec.space_version, storage.spaces("s")) == (2, [narrow.to_dict(), wide.to_dict()])
    assert [trial.space_version for trial in study.trials()] == [1, 1, 1, 1, 2, 2]
    assert ["l2" in trial.params for trial in study.trials()] == [False] * 4 + [True] * 2
    assert [trial.number for trial in study.trials(where="space_version = 2 and l2 >= 0")] == [4, 5]
    assert len(study.trials(where="layers >= 1")) == 6


def test_a_space_is_not_changed_under_a_running_sweep(storage: Storage) -> None:
    """Nor with other settings than the study has; then the space stays as it was."""
    create_study("s", SearchSpace(layers=1), data="iris", storage=storage)
    with pytest.raises(StudyMismatch, match="seed = 0, not 1"):
        create_study("s", SearchSpace(layers=2), seed=1, new_space=True, storage=storage)
    storage.acquire_lease("s", "other", 60)

    with pytest.raises(StudyBusy):
        create_study("s", SearchSpace(layers=2), new_space=True, storage=storage)

    assert storage.spaces("s") == [SearchSpace(layers=1).to_dict()]


def test_a_moved_file_is_the_same_data(storage: Storage, tmp_path: Path) -> None:
    """A study goes on with a file of the same content elsewhere, and refuses one of other content."""
    rows = [f"{index % 7},{index % 3}" for index in range(60)]
    for name, lines in (("a.csv", rows), ("b.csv", rows), ("c.csv", rows[::-1])):
        (tmp_path / name).write_text("\n".join(["x,label", *lines]))
    made = create_study("s", data=tmp_path / "a.csv", target="label", storage=storage)

    assert create_study("s", data=tmp_path / "b.csv", target="label", storage=storage).spec == made.spec
    with pytest.raises(StudyMismatch, match=r"data '.*a.csv' target 'label' .*, not '.*c.csv' target 'label'"):
        create_study("s", data=tmp_path / "c.csv", target="label", storage=storage)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"seed": -1}, SettingsError, "seed must be 0 to"),
        ({"epochs": 0}, SettingsError, "epochs must be at least 1, found 0"),
        ({"metric": "f1"}, SettingsError, "unknown metric 'f1' .known: train_loss, val_loss, val_accuracy."),
        ({"epochs": True}, SettingsError, "epochs must be a whole number, found True"),
        ({"prune": "no"}, SettingsError, "prune must be True or False, found 'no'"),
        ({"space": SearchSpace()}, SpaceError, "the space is empty; give at least one param"),
        ({"space": 3}, SpaceError, r"expected a SearchSpace, as SearchSpace\(learning_rate=0.1\), found 3"),
        ({"dtype": "float16"}, SettingsError, "dtype must be 'float32' or 'float64', found 'float16'"),
        ({"space": SearchSpace(lr=0.1)}, SpaceError, "the space: unknown param 'lr'"),
        ({"space": SearchSpace(layers=Int(0, 9))}, SpaceError, "the space: layers must be a whole number in"),
        ({"space": SearchSpace(layers=Float(0, 2))}, SpaceError, 'write type = "int"'),
        ({"space": SearchSpace(momentum=Float(0, 1))}, SpaceError, "the space: momentum must be a number in"),
        (
            {"space": SearchSpace(hidden_units=Categorical("8-8", 4), layers=Int(1, 2))},
            SpaceError,
            "hidden_units = '8-8' names its layers; leave layers out of the space",
        ),
    ],
)
def test_settings_that_are_not_valid_make_no_study(
    storage: Storage, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    """They are refused before anything is written."""
    with pytest.raises(error, match=message):
        create_study("iris", storage=storage, **given)

    assert storage.studies() == []


@pytest.mark.parametrize(
    ("n_trials", "n_workers", "message"),
    [
        (0, 0, "trials must be at least 1, found 0"),
        (-1, 0, "trials must be at least 1, found -1"),
        (10**20, 0, "trials must be at most 1000000000, found 1"),
        (None, 0, "trials must be at least 1, found None"),
        (7.5, 0, "trials must be a whole number, found 7.5"),
        ("7", 0, "trials must be a whole number, found '7'"),
        (True, 0, "trials must be a whole number, found True"),
        (1, -1, "workers must be at least 0"),
        (1, 10_001, "workers must be at most 10000, found 10001"),
        (1, 1.5, "workers must be a whole number, found 1.5"),
    ],
)
def test_a_budget_that_is_not_valid_is_refused(storage: Storage, n_trials: Any, n_workers: Any, message: str) -> None:
    """There is at least one trial to train, and no negative number of workers; nothing is written."""
    study: Study = create_study("iris", storage=storage)

    with pytest.raises(SettingsError, match=message):
        study.sweep(n_trials, n_workers=n_workers)
    with study.panda(params={"layers": 1}, epochs=1) as panda:
        assert panda.trial.number == 0


def test_numbers_of_other_libraries_are_numbers(storage: Storage) -> None:
    """As they come out of a frame, for all that is counted or named by number."""
    study = create_study("iris", {"layers": 1}, epochs=np.int64(2), seed=np.uint8(3), storage=storage)

    study.sweep(np.int64(2), n_workers=np.int32(0))
    study.retest(np.int64(1), np.int16(1), n_workers=0)
    with study.panda(np.int64(1), more_epochs=np.int64(1)) as panda:
        list(panda)

    assert (panda.trial.number, panda.trial.epoch) == (2, 3)  # of equal params trial 1 was the retest
    assert len(study.reports(study.to_frame().number.iloc[0])) == len(study.reports(study.trials()[0])) == 2
    assert study.model(np.int64(1)).name == "iris/1"
    assert Policy(every=np.int64(2), keep=np.uint8(3)) == Policy(every=2, keep=3)
    for wrong in ({"every": True}, {"every": 1.5}, {"keep": -1}, {"every": 0}):
        with pytest.raises(SettingsError):
            Policy(**wrong)
    pruned = create_study("pruned", data="iris", prune=np.True_, storage=storage)
    assert pruned.spec.prune is True and create_study("pruned", prune=True, storage=storage).spec == pruned.spec


def test_data_that_has_moved_is_found_where_it_is_said_to_be(storage: Storage, tmp_path: Path) -> None:
    """Once said, all that the study is asked for trains on it there; other data in its place is refused."""
    before, after = tmp_path / "before.csv", tmp_path / "after.csv"
    rows = [f"{n},{n % 7},{'ab'[n % 2]}" for n in range(60)]
    before.write_text("\n".join(["x,y,kind", *rows]))
    create_study("s", SearchSpace(layers=1), data=before, target="kind", epochs=1, storage=storage).sweep(
        3, n_workers=0
    )
    before.rename(after)

    with pytest.raises(
        DataNotFound, match=r"trained on '.*before.csv', where nothing is now; .* s --trials 3 --data FILE"
    ):
        load_study("s", storage=storage).sweep(4, n_workers=0)
    study = create_study("s", data=after, storage=storage)
    study.sweep(4, n_workers=0)

    moved = load_study("s", storage=storage)
    assert moved.spec.data.source == str(after)
    assert moved.model(0).score(after) >= 0
    after.rename(before)
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["x,y,kind", *rows[::-1]]))
    with pytest.raises(StudyMismatch, match=r"not '.*other\.csv'"):
        create_study("s", data=other, target="kind", storage=storage)
    with pytest.raises(StudyMismatch, match="target 'y'"):
        create_study("s", data=before, target="y", storage=storage)
    other.rename(after)  # where it says that its data is
    assert create_study("s", data=before, storage=storage).model(0).score(before) >= 0
    assert load_study("s", storage=storage).spec.data.source == str(before)


def test_the_same_call_goes_on_with_a_study_that_was_refined(storage: Storage) -> None:
    """As a script does that is run again: the space in force stays, unless the old one is to be the new one."""
    wide, narrow = SearchSpace(layers=1, l2=Float(0, 1)), SearchSpace(layers=1, l2=Float(0, 0.5))
    create_study("s", wide, data="iris", epochs=1, storage=storage)
    create_study("s", narrow, new_space=True, storage=storage)

    again = create_study("s", wide, data="iris", epochs=1, storage=storage)
    assert (again.spec.space, again.spec.space_version) == (narrow.to_dict(), 2)
    back = create_study("s", wide, new_space=True, storage=storage)
    assert (back.spec.space, back.spec.space_version) == (wide.to_dict(), 3)


def test_of_many_who_create_a_study_at_once_all_get_it(database_url: str) -> None:
    """One makes it, the others open it; one that asks for something else is told so."""
    code = (
        "import sys; from caviar import create_study; "
        "create_study('s', data='iris', seed=int(sys.argv[2]), storage=sys.argv[1])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, database_url, str(seed)], stderr=subprocess.PIPE, text=True)
        for seed in (1, 1, 1, 1, 2)
    ]
    said = [process.communicate()[1] for process in started]

    opened = open_storage(database_url)
    seed = opened.get_study("s").seed
    opened.close()
    for process, wanted, message in zip(started, (1, 1, 1, 1, 2), said, strict=True):
        assert (process.returncode == 0) == (wanted == seed), message
        assert wanted == seed or f"seed = {seed}, not {wanted}" in message


@pytest.mark.parametrize("data", [[[1, 2], [3, 4]], DataSpec(source="iris"), 3])
def test_data_is_a_name_or_a_path(storage: Storage, data: Any) -> None:
    """What is neither is refused by its type, without its values."""
    with pytest.raises(DataError, match=f"path of a file or folder, found a {type(data).__name__};"):
        create_study("s", data=data, storage=storage)


def test_all_studies_are_listed(storage: Storage) -> None:
    """With how many trials they have."""
    create_study("a", data="iris", epochs=1, storage=storage).sweep(2, n_workers=0)
    create_study("b", data="iris", storage=storage)

    assert [(found.spec.name, found.n_trials) for found in studies(storage=storage)] == [("a", 2), ("b", 0)]


def test_more_workers_than_a_machine_could_hold_are_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a process: a mistyped number would fill the memory, and could hardly be interrupted."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    study = create_study("s", data="iris", epochs=1, storage=storage)

    with pytest.raises(ExecutorError, match=r"at most \d+ workers on this machine of \d+ cores, found 9999"):
        study.sweep(1, n_workers=9999)
    assert study.trials() == []


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda study: study.trials(limit="3"), "limit must be a whole number, found '3'"),
        (lambda study: study.trials(limit=1.5), "limit must be a whole number, found 1.5"),
        (lambda study: study.to_frame(limit=True), "limit must be a whole number, found True"),
        (lambda study: study.trials(where=1), "an expression is a text, as 'val_accuracy > 0.9', found 1"),
        (lambda study: study.trials(sort=["a"]), r"a name to sort by is a text, as '-val_accuracy', found \['a'\]"),
        (lambda study: list(study.pages(size=None)), "a page must hold at least 1 trial, found size = None"),
        (lambda study: list(study.frame_pages(size="x")), "limit must be a whole number, found 'x'"),
    ],
)
def test_what_is_no_question_is_refused(storage: Storage, ask: Callable[[Study], object], message: str) -> None:
    """Numbers of other libraries are numbers; what would count as another number by chance is not."""
    study = create_study("s", data="iris", epochs=1, storage=storage)
    study.sweep(3, n_workers=0)

    with pytest.raises(QueryError, match=message):
        ask(study)
    assert len(study.trials(limit=np.int64(2))) == len(study.to_frame(limit=np.int64(2))) == 2
    with pytest.raises(StorageError, match=r"the storage must be a URL such as .*, found int"):
        create_study("t", data="iris", storage=1)  # type: ignore[arg-type]
