"""Studies that a user's function trains: the same promises as those of the built-in network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from caviar.errors import (
    CaviarError,
    DataError,
    QueryError,
    SettingsError,
    SpaceError,
    StudyMismatch,
    SweepBroken,
    TrainableError,
)
from caviar.opening import create_study, load_study
from caviar.records import Direction, Reason, TrialState
from caviar.space import Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.storage.exchange import export_study, import_study
from caviar.study import Study
from caviar.testing.digest import study_digest as digest

SPACE = SearchSpace(rate=Float(1e-3, 2.0, scale="log"), units=Int(1, 9), kind="mine")
CODE = """
import random

def train(task):
    # gradient descent on w^2 - 10 w + 25, with noise
    w = 0.0
    for epoch in range(task.epochs):
        w -= task.params["rate"] * (2 * w - 10) + 0.01 * random.gauss(0, 1)
        yield {"cost": w * w - 10 * w + 25, "w": w}

def score(task):
    return task.params["units"]

def stops(task):
    for epoch in range(task.epochs):
        yield {"cost": task.params["rate"] / (epoch + 1)}
        if task.number % 2 and epoch == 3:
            return

def diverges(task):
    yield {"cost": 1.0, "other": float("inf")}
    yield {"cost": float("nan"), "other": 0.0}

def raises(task):
    yield {"cost": 1.0}
    raise KeyError("units" + str(task.params["units"]))

def leaves(task):
    raise SystemExit(3)

class Unspeakable(BaseException):
    def __str__(self):
        raise RuntimeError("no text")

def shouts(task):
    raise Unspeakable

def talks(task):
    raise ValueError("x" * 1_000_000)

def dies(task):
    import os
    if task.number == 3:
        os._exit(0)
    return task.params["rate"]

def learns(task):
    from sklearn.linear_model import LogisticRegression
    model = LogisticRegression(C=task.params["rate"], max_iter=200).fit(task.data.train.x, task.data.train.y)
    return {"val_accuracy": model.score(task.data.validation.x, task.data.validation.y)}
"""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def make_study(storage: Storage, file: Path, function: str = "train", name: str = "s", **given: Any) -> Study:
    settings: dict[str, Any] = {"space": SPACE, "metric": "cost", "seed": 5, "epochs": 12} | given
    return create_study(name, trainable=f"{file}:{function}", storage=storage, **settings)


def test_a_sweep_is_the_same_on_ray_in_one_go_and_in_two(storage: Storage, file: Path) -> None:
    """And on one worker or two: a trial depends on seed, params and code alone."""
    made = [make_study(storage, file, name=name) for name in ("alone", "again", "ray")]
    made[0].sweep(24, n_workers=0)
    made[1].sweep(9, n_workers=0)
    load_study("again", storage=storage).sweep(24, n_workers=0)
    result = made[2].sweep(24, n_workers=2)

    assert result.progress.n_complete == 24
    digests = {digest(storage, study.name) for study in made}
    assert len(digests) == 1
    best = made[0].best_trial
    assert best is not None and best.value is not None
    assert best.value == min(trial.value or 0.0 for trial in made[0].trials())
    assert best.metrics["w"] == pytest.approx(5, abs=0.2)
    assert len(made[0].reports(best)) == 12
    assert storage.trials("ray", where="w > 4 and rate < 1", sort="cost", limit=3)[0].value == best.value


def test_a_function_of_a_script_trains_a_study(storage: Storage) -> None:
    """Given itself; more of its metric is better where that is said."""
    study = create_study("s", SPACE, trainable=number_of_units, metric="score", direction="maximize", storage=storage)
    study.sweep(10, n_workers=0)

    assert study.spec.direction is Direction.MAXIMIZE
    assert study.best_trial is not None
    assert study.best_trial.value == max(trial.params["units"] for trial in study.trials())
    assert study.best_trial.epoch == 1


def number_of_units(task: Any) -> float:
    return float(task.params["units"])


def test_a_function_may_train_on_the_data_of_the_study(storage: Storage, file: Path) -> None:
    """It is given split and standardised, and kept by its fingerprint as always."""
    study = make_study(storage, file, "learns", data="iris", metric="val_accuracy")
    study.sweep(4, n_workers=0)

    assert study.best_trial is not None and (study.best_trial.value or 0.0) > 0.8
    with pytest.raises(StudyMismatch, match="data 'iris'"):
        make_study(storage, file, "learns", data="wine", metric="val_accuracy")


def test_pruning_ends_trials_and_is_the_same_when_interrupted(storage: Storage, file: Path) -> None:
    """A trial that ends early by itself is held against nobody, whether it is seen or read."""
    for function in ("train", "stops"):
        whole, parts = (make_study(storage, file, function, f"{function}-{n}", prune=True) for n in (1, 2))
        whole.sweep(60, n_workers=0)
        for n_trials in (7, 30, 60):
            load_study(parts.name, storage=storage).sweep(n_trials, n_workers=0)

        assert digest(storage, whole.name) == digest(storage, parts.name)
        pruned = whole.trials(where="state = 'PRUNED'")
        assert pruned
        assert all(trial.reason == Reason.BEHIND and trial.epoch < 12 for trial in pruned)
    early = whole.trials(where="state = 'COMPLETE' and epoch < 12")
    assert early
    assert all(trial.epoch == 4 and trial.number % 2 for trial in early)


@pytest.mark.parametrize(
    ("function", "reason", "error", "epoch"),
    [
        ("diverges", Reason.DIVERGED, "diverged at epoch 2: cost is nan", 1),
        ("raises", Reason.ERROR, "KeyError: 'units", 1),
        ("leaves", Reason.ERROR, "SystemExit: 3", 0),
        ("shouts", Reason.ERROR, "Unspeakable: (its text raises RuntimeError)", 0),
        ("talks", Reason.ERROR, "ValueError: xxx", 0),
    ],
)
def test_what_goes_wrong_is_an_outcome(
    storage: Storage, file: Path, function: str, reason: Reason, error: str, epoch: int
) -> None:
    """What was reported before stays; where all go wrong alike, the sweep ends and says so."""
    study = make_study(storage, file, function)
    with pytest.raises(SweepBroken, match=r"the first 10 trials all failed alike.*or after `caviar delete s`"):
        study.sweep(50, n_workers=0)

    trials = study.trials(where="state = 'FAIL'")
    assert len(trials) == 10
    for trial in trials:
        assert (trial.reason, trial.epoch, len(study.reports(trial))) == (reason, epoch, epoch)
        assert (trial.error or "").startswith(error)
        assert len(trial.error or "") + len(trial.traceback or "") < 110_000
        if reason is Reason.ERROR:
            assert trial.traceback is not None
            assert trial.traceback.splitlines()[1].strip().startswith(f'File "{file}", line')


@pytest.mark.slow
@pytest.mark.ray
def test_a_function_that_kills_its_worker_is_lost_and_the_rest_is_trained(storage: Storage, file: Path) -> None:
    """Its process, each time it is tried, and never the one that sweeps."""
    result = make_study(storage, file, "dies").sweep(8, n_workers=1)

    trials = storage.trials("s", sort="number")
    assert [trial.number for trial in trials if trial.state is TrialState.FAIL] == [3]
    assert (trials[3].reason, result.progress.n_complete) == (Reason.LOST, 7)


def test_a_study_goes_on_with_the_same_code_alone(storage: Storage, file: Path) -> None:
    """Comments may change and the file may move; other code is another study."""
    study = make_study(storage, file)
    study.sweep(2, n_workers=0)

    file.write_text(CODE.replace("with noise", "with a little noise"))
    assert make_study(storage, file).sweep(3, n_workers=0).progress.n_complete == 3

    moved = file.with_name("moved.py")
    file.rename(moved)
    with pytest.raises(TrainableError, match="where nothing is now; say where it went"):
        load_study("s", storage=storage).sweep(4, n_workers=0)
    make_study(storage, moved)
    assert load_study("s", storage=storage).sweep(4, n_workers=0).progress.n_complete == 4

    moved.write_text(CODE.replace("0.01", "0.02"))
    with pytest.raises(TrainableError, match="has changed since study 's' was made"):
        load_study("s", storage=storage).sweep(5, n_workers=0)
    advice = "take another study name, .* or begin anew: caviar delete s$"
    with pytest.raises(StudyMismatch, match=rf"exists with moved.py:train as it was before it was changed; {advice}"):
        make_study(storage, moved)
    with pytest.raises(StudyMismatch, match=r"exists with trainable moved.py:train, not moved.py:score"):
        make_study(storage, moved, "score")
    create_study("network", data="iris", storage=storage)
    with pytest.raises(StudyMismatch, match=r"exists with the built-in network, not moved.py:train"):
        create_study("network", trainable=str(moved), storage=storage)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"space": None}, SettingsError, "mine.py:train needs a space of its own params: give --space FILE.toml"),
        ({"metric": None}, SettingsError, "needs the name of a metric that it reports: give --metric"),
        (
            {"metric": "gain"},
            SettingsError,
            "give --direction maximize or minimize: more or less of 'gain' may be better",
        ),
        ({"direction": "up"}, SettingsError, "direction must be 'maximize' or 'minimize', found 'up'"),
        ({"space": SearchSpace()}, SpaceError, "the space is empty"),
        ({"prune": True, "epochs": 2}, SettingsError, "prune needs at least 4 epochs"),
    ],
)
def test_what_no_default_can_stand_for_is_asked_for(
    storage: Storage, file: Path, given: dict[str, Any], error: type[CaviarError], message: str
) -> None:
    """Nothing is made before it is there."""
    with pytest.raises(error, match=message):
        make_study(storage, file, **given)
    assert storage.studies() == []


def test_a_direction_of_the_built_in_metrics_is_refused(storage: Storage) -> None:
    """More accuracy is better, whatever is asked."""
    with pytest.raises(SettingsError, match="a direction is for metrics of a trainable"):
        create_study("s", direction="minimize", storage=storage)
    assert create_study("s", data="iris", direction="maximize", storage=storage).spec.direction is Direction.MAXIMIZE


def test_what_needs_states_of_models_is_refused(storage: Storage, file: Path) -> None:
    """A function keeps its model to itself."""
    study = make_study(storage, file)
    study.sweep(2, n_workers=0)

    for ask in (
        lambda: study.panda(0),
        study.panda,
        lambda: study.replay(0),
        lambda: study.compare(0),
        study.own_model,
    ):
        with pytest.raises(SettingsError, match=r"'s' is trained by mine\.py:train, a function that trains in one go"):
            ask()
    with pytest.raises(SettingsError, match=r"study 's' is trained by mine\.py:train, whose models are its own"):
        study.model()
    with pytest.raises(DataError, match=r"study 's' has no data"):
        _ = study.data


def test_studies_of_functions_are_refined_tested_again_and_copied(storage: Storage, file: Path, tmp_path: Path) -> None:
    """As all others."""
    study = make_study(storage, file)
    study.sweep(80, n_workers=0)

    refined = study.refine()
    assert refined.is_narrower
    assert study.retest(2, 2, n_workers=0)[0].mean is not None
    study.sweep(100, n_workers=0)
    for suffix in (".jsonl", ".parquet", ".csv"):
        copy = tmp_path / f"copy{suffix}"
        export_study(storage, "s", copy)
        imported = import_study(storage, copy, name=f"copy{suffix}")
        assert imported.trainable == study.spec.trainable
        create_study(imported.name, storage=storage).sweep(104, n_workers=0)
    study.sweep(104, n_workers=0)
    assert digest(storage, "s") == digest(storage, "copy.jsonl") == digest(storage, "copy.parquet")


def test_a_file_that_sweeps_when_it_is_loaded_is_told_so(storage: Storage, file: Path) -> None:
    """A script without a main guard would start a sweep in each worker."""
    sweeps = f"""
import caviar
study = caviar.create_study("s", storage={storage.url!r})
study.sweep(3, n_workers=0)
"""
    file.write_text(CODE + sweeps)
    study = make_study(storage, file)
    with pytest.raises(
        SweepBroken, match=r"trains 's' whenever it is loaded, as workers do; put that below if __name__"
    ):
        study.sweep(1, n_workers=0)


def test_trials_of_one_function_do_not_meet_those_of_another(storage: Storage, file: Path) -> None:
    """Two studies of one file."""
    one, other = make_study(storage, file), make_study(storage, file, "score", "other", metric="cost")
    one.sweep(2, n_workers=0)
    other.sweep(2, n_workers=0)

    assert [trial.value for trial in other.trials()] == [trial.params["units"] for trial in other.trials()]
    assert all(trial.state is TrialState.COMPLETE for trial in one.trials())


@pytest.mark.parametrize("n_workers", [0, 1])
def test_what_libraries_a_function_loads_has_one_thread(storage: Storage, file: Path, n_workers: int) -> None:
    """In its first trial, too, which is the one that loads them."""
    file.write_text(
        "def train(task):\n"
        "    import scipy.linalg, sklearn.ensemble\n"
        "    from threadpoolctl import threadpool_info\n"
        "    return {'loss': task.params['rate'], 'threads': max(each['num_threads'] for each in threadpool_info())}\n"
    )
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    make_study(storage, file, metric="loss").sweep(3, n_workers=n_workers)

    assert [trial.metrics["threads"] for trial in storage.trials("s")] == [1, 1, 1]
    assert {name: os.environ.get(name) for name in before} == before


def test_numbers_drawn_while_a_file_is_loaded_are_the_same_in_each_process(storage: Storage, file: Path) -> None:
    file.write_text(
        "import random, numpy\nDRAWN = random.random() + numpy.random.random()\ndef train(task): return DRAWN\n"
    )
    values = set()
    for name, n_workers in (("here", 0), ("elsewhere", 1)):
        study = make_study(storage, file, name=name)
        study.sweep(2, n_workers=n_workers)
        values |= {trial.value for trial in study.trials()}
    assert len(values) == 1


def test_a_function_that_raises_has_no_metrics_of_another(storage: Storage, file: Path) -> None:
    """A study has the names that were reported, and its metric."""
    study = make_study(storage, file, "leaves")
    with pytest.raises(SweepBroken):
        study.sweep(10, n_workers=0)
    assert not [name for name in study.to_frame().columns if "val_" in name]
    with pytest.raises(QueryError, match="val_accuracy"):
        study.trials(where="val_accuracy > 0.5")


def test_a_space_without_params_and_a_target_without_data_are_refused(storage: Storage, file: Path) -> None:
    """Also of a study that is there."""
    make_study(storage, file)
    with pytest.raises(SpaceError, match="the space is empty"):
        create_study("s", SearchSpace(), new_space=True, storage=storage)
    with pytest.raises(SettingsError, match="study 's' has no data, and so no target"):
        create_study("s", target="x", storage=storage)
