"""Caviar mode with a real database: an exact budget, and the same bits however the sweep came about."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from caviar.bootstrap import make_sweep_executor
from caviar.errors import StudyBusy, SweepBroken
from caviar.execution.base import Executor, Slice, TrialOutcome
from caviar.execution.inline import InlineExecutor
from caviar.execution.worker import run_slice
from caviar.nn.kernel import choose_kernel
from caviar.records import DataSpec, Direction, Reason, StudySpec, SweepProgress, Trial, TrialState
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.sweep import sweep
from caviar.testing.digest import study_digest as digest
from caviar.training.advance import advance, initial_state
from caviar.training.advance import test_metrics as metrics_of_test_part
from caviar.training.dataset import Dataset, Examples

SPACE = SearchSpace(
    learning_rate=Float(1e-3, 1.0, scale="log"),
    hidden_units=Int(4, 24),
    layers=Int(0, 2),
    batch_size=Categorical(8, 16, 32),
    optimizer=Categorical("sgd", "momentum", "rmsprop", "adam"),
)
#: So many that this process has not trained them all by the time it looks up for the first time.
N_MANY = 5000


@pytest.fixture(scope="module")
def data() -> Dataset:
    """60 + 30 + 30 examples of 5 features in 3 classes that overlap a little."""
    rng = np.random.default_rng(11)

    def examples(n: int) -> Examples:
        y = np.arange(n) % 3
        x = rng.normal(size=(n, 5))
        x[:, 0] += 1.5 * y
        return Examples(x.astype(np.float32), y.astype(np.int64))

    parts = [examples(n) for n in (60, 30, 30)]
    return Dataset("made", *parts, ("a", "b", "c"), tuple(f"f{index}" for index in range(5)), "f" * 64)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


def make_spec(storage: Storage, name: str = "s", space: SearchSpace = SPACE, **given: Any) -> StudySpec:
    """Create a study of three epochs on the small data."""
    spec = StudySpec(
        name=name,
        data=DataSpec(source="made", fingerprint="f" * 64),
        space=space.to_dict(),
        **({"seed": 5, "epochs": 3} | given),
    )
    return storage.create_study(spec)


def after(n_questions: int) -> Callable[[], bool]:
    """Return an `is_interrupted` that is true from the n-th question on."""
    asked = 0

    def is_interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked > n_questions

    return is_interrupted


def counts(storage: Storage, study: str = "s") -> dict[TrialState, int]:
    return {state: count for state, count in storage.summary(study).counts.items() if count}


@pytest.mark.parametrize("n_trials", [1, 2, 37])
def test_a_sweep_ends_with_exactly_the_trials_asked_for(storage: Storage, data: Dataset, n_trials: int) -> None:
    """Trials 0 to N-1 are there, ended, with a report for each epoch."""
    spec = make_spec(storage)

    result = sweep(storage, spec, data, InlineExecutor(), n_trials)

    trials = storage.trials("s")
    assert [trial.number for trial in trials] == list(range(n_trials))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(len(storage.reports("s", trial.number)) == trial.epoch == 3 for trial in trials)
    assert all(trial.value == trial.metrics["val_accuracy"] for trial in trials)
    assert (result.interrupted, result.progress.n_complete, result.progress.n_ended_now) == (False, n_trials, n_trials)


def test_the_same_sweep_again_does_nothing(storage: Storage, data: Dataset) -> None:
    """No trial is added or trained, and no record changes."""
    spec = make_spec(storage)
    sweep(storage, spec, data, InlineExecutor(), 12)
    before = storage.trials("s")

    result = sweep(storage, spec, data, InlineExecutor(), 12)

    assert storage.trials("s") == before
    assert (result.progress.n_ended_now, result.progress.n_complete) == (0, 12)


def test_a_smaller_budget_does_nothing(storage: Storage, data: Dataset) -> None:
    """A study that holds more trials than asked for keeps them."""
    spec = make_spec(storage)
    sweep(storage, spec, data, InlineExecutor(), 12)
    before = storage.trials("s")

    sweep(storage, spec, data, InlineExecutor(), 5)

    assert storage.trials("s") == before


def test_a_larger_budget_goes_on(storage: Storage, data: Dataset) -> None:
    """12 trials raised to 30 are the 30 trials of one sweep."""
    grown, whole = make_spec(storage, "grown"), make_spec(storage, "whole")
    sweep(storage, grown, data, InlineExecutor(), 12)

    result = sweep(storage, grown, data, InlineExecutor(), 30)
    sweep(storage, whole, data, InlineExecutor(), 30)

    assert (result.progress.n_ended_now, storage.summary("grown").n_trials) == (18, 30)
    assert digest(storage, "grown") == digest(storage, "whole")


def test_an_interrupted_sweep_ends_as_if_it_had_not_been(storage: Storage, data: Dataset) -> None:
    """Interrupted again and again and run again, a study has the bits of one that was left in peace."""
    broken, whole = (make_spec(storage, name, epochs=20) for name in ("broken", "whole"))
    sweep(storage, whole, data, InlineExecutor(), 160)
    seen = set()

    for n_questions in (0, 1, 1):
        result = sweep(storage, broken, data, InlineExecutor(), 160, is_interrupted=after(n_questions))
        assert result.interrupted
        seen.add(counts(storage, "broken").get(TrialState.COMPLETE, 0))
    result = sweep(storage, broken, data, InlineExecutor(), 160)

    assert len(seen) > 1, "no interruption fell between results"
    assert not result.interrupted
    assert counts(storage, "broken") == {TrialState.COMPLETE: 160}
    assert digest(storage, "broken") == digest(storage, "whole")


def test_trials_left_running_are_trained(storage: Storage, data: Dataset) -> None:
    """A trial that a dead coordinator left RUNNING ends like the others, and counts once."""
    spec, whole = make_spec(storage), make_spec(storage, "whole")
    sweep(storage, whole, data, InlineExecutor(), 6)
    params = storage.get_trial("whole", 0).params
    storage.add_trials("s", [Trial(study="s", number=0, state=TrialState.RUNNING, params=params)])

    sweep(storage, spec, data, InlineExecutor(), 6)

    assert counts(storage) == {TrialState.COMPLETE: 6}
    assert digest(storage, "s") == digest(storage, "whole")


def test_the_best_trial_is_judged_on_the_test_part(storage: Storage, data: Dataset) -> None:
    """It alone has `test_accuracy`, and is the one that the database calls best."""
    spec = make_spec(storage)

    result = sweep(storage, spec, data, InlineExecutor(), 20)

    judged = [trial for trial in storage.trials("s") if "test_accuracy" in trial.metrics]
    assert judged == [storage.best_trial("s")] == [result.progress.best]
    ranked = sorted(storage.trials("s"), key=lambda t: (-(t.value or 0), t.metrics["val_loss"], t.number))
    assert judged == ranked[:1]


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_best_trial_is_trained_again_only_where_its_weights_are_gone(
    storage: Storage, data: Dataset, metric: str, is_interrupted: bool
) -> None:
    """A sweep judges its best trial when that ends; one that goes on trains the one that it finds, to these bits."""
    direction = Direction.MINIMIZE if metric == "val_loss" else Direction.MAXIMIZE
    spec = make_spec(storage, metric=metric, direction=direction)
    trained: list[int] = []

    def run(slice: Slice, data: Dataset) -> list[TrialOutcome]:
        trained.extend(task.number for task in slice.tasks)
        return run_slice(slice, data)

    if is_interrupted:  # all of its trials are trained, and it ends before one is judged
        ended: list[int] = []
        sweep(
            *(storage, spec, data, InlineExecutor(), 30),
            on_progress=lambda progress: ended.append(progress.n_ended_now),
            is_interrupted=lambda: 30 in ended,
        )
        assert counts(storage) == {TrialState.COMPLETE: 30}
    assert not any("test_accuracy" in trial.metrics for trial in storage.trials("s"))

    best = sweep(storage, spec, data, InlineExecutor(run), 30).progress.best

    assert best is not None
    assert sorted(trained) == ([best.number] if is_interrupted else list(range(30)))
    kernel = choose_kernel(spec.kernel)
    key = (spec.seed, best.number)
    reached = advance(initial_state(key, best.params, data), best.params, data, spec.epochs, kernel=kernel).state
    judged = metrics_of_test_part(reached, best.params, data, kernel=kernel)
    assert judged.items() <= storage.get_trial("s", best.number).metrics.items()


def test_a_best_trial_that_was_trained_otherwise_is_not_judged(storage: Storage, data: Dataset) -> None:
    """What its params give now is another model, whose test metrics are not its own."""
    spec = make_spec(storage)
    other = Trial(
        study="s",
        number=0,
        state=TrialState.COMPLETE,
        params={"learning_rate": 0.01, "hidden_units": 8},
        value=1.0,
        metrics={"val_accuracy": 1.0, "val_loss": 1e-6, "train_loss": 1e-6},
        epoch=spec.epochs,
    )
    storage.add_trials("s", [other])

    best = sweep(storage, spec, data, InlineExecutor(), 4).progress.best

    assert best == other == storage.get_trial("s", 0)


def test_a_sweep_of_data_without_a_test_part_judges_none(storage: Storage, data: Dataset) -> None:
    """All of its trials are COMPLETE."""
    nothing = Examples(data.test.x[:0], data.test.y[:0])
    spec = make_spec(storage)

    result = sweep(storage, spec, replace(data, test=nothing), InlineExecutor(), 5)

    assert counts(storage) == {TrialState.COMPLETE: 5}
    assert result.progress.best is not None and "test_accuracy" not in result.progress.best.metrics


def test_a_study_of_a_loss_is_minimised(storage: Storage, data: Dataset) -> None:
    """With a metric to minimise the best trial has the smallest."""
    spec = make_spec(storage, metric="val_loss", direction=Direction.MINIMIZE)

    best = sweep(storage, spec, data, InlineExecutor(), 20).progress.best

    assert best is not None
    assert best.value == min(trial.metrics["val_loss"] for trial in storage.trials("s"))


def test_a_trial_that_fails_leaves_the_others_alone(storage: Storage, data: Dataset) -> None:
    """A trial whose params are not valid is FAIL with its error; all others have the bits they have without it."""
    spec, whole = make_spec(storage), make_spec(storage, "whole")
    sweep(storage, whole, data, InlineExecutor(), 12)
    bad = {"learning_rate": 0.1, "hidden_units": 0}
    storage.add_trials("s", [Trial(study="s", number=0, state=TrialState.WAITING, params=bad)])

    result = sweep(storage, spec, data, InlineExecutor(), 12)

    failed = storage.get_trial("s", 0)
    assert (failed.state, failed.reason, failed.value) == (TrialState.FAIL, Reason.ERROR, None)
    assert failed.error == "ParamsError: hidden_units must be a whole number in [1, 65536], found 0"
    assert failed.traceback is not None and "ParamsError" in failed.traceback
    assert (result.progress.n_failed, result.progress.n_complete) == (1, 11)
    for number in range(1, 12):
        ours, theirs = storage.reports("s", number), storage.reports("whole", number)
        assert np.array_equal(ours.values, theirs.values)


def test_a_sweep_stops_when_its_first_trials_fail_alike(storage: Storage, data: Dataset) -> None:
    """Ten failures that differ in numbers alone end the sweep; what failed is written."""
    spec = make_spec(storage, space=SearchSpace(hidden_units=Int(-60, -1)))

    with pytest.raises(SweepBroken, match=r"^the first 10 trials all failed alike \(ParamsError: hidden_units must"):
        sweep(storage, spec, data, InlineExecutor(), 50)

    failed = [trial for trial in storage.trials("s") if trial.state is TrialState.FAIL]
    assert len(failed) >= 10
    sweep_again = make_spec(storage, "other")
    sweep(storage, sweep_again, data, InlineExecutor(), 2)


def test_failures_after_a_success_do_not_stop_a_sweep(storage: Storage, data: Dataset) -> None:
    """A study that holds a COMPLETE trial goes on through any number of failures."""
    spec = make_spec(storage)
    sweep(storage, spec, data, InlineExecutor(), 1)
    bad = [Trial(study="s", number=n, state=TrialState.WAITING, params={"hidden_units": 0}) for n in range(1, 15)]
    storage.add_trials("s", bad)

    result = sweep(storage, spec, data, InlineExecutor(), 15)

    assert (result.progress.n_complete, result.progress.n_failed) == (1, 14)


def test_one_coordinator_sweeps_a_study(storage: Storage, data: Dataset) -> None:
    """A sweep of a study that another holds is refused, and gives up its own hold at the end."""
    spec = make_spec(storage)
    storage.acquire_lease("s", "other", 60)

    with pytest.raises(StudyBusy, match="other"):
        sweep(storage, spec, data, InlineExecutor(), 3)

    storage.release_lease("s", "other")
    sweep(storage, spec, data, InlineExecutor(), 3)
    storage.acquire_lease("s", "other", 60)


def test_progress_counts_what_ended(storage: Storage, data: Dataset) -> None:
    """Numbers only grow, add up, and end at the budget."""
    spec = make_spec(storage)
    seen: list[SweepProgress] = []

    result = sweep(storage, spec, data, InlineExecutor(), 40, on_progress=seen.append)

    ended = [progress.n_ended_now for progress in seen]
    assert ended == sorted(ended) and ended[-1] == 40
    assert all(progress.n_complete + progress.n_failed == progress.n_ended_now for progress in seen)
    assert result.progress.n_running == 0
    assert result.progress.seconds_left == 0


def test_the_time_left_knows_that_the_longest_trials_come_first(storage: Storage, data: Dataset) -> None:
    """Once the large models are trained, the many small ones are not thought to take as long each."""
    space = SearchSpace(learning_rate=0.01, hidden_units=Categorical(128, 2048), layers=2, batch_size=32)
    spec = make_spec(storage, space=space, epochs=1)
    seen: list[SweepProgress] = []

    sweep(storage, spec, data, InlineExecutor(), 40, on_progress=seen.append)

    n_large = sum(trial.params["hidden_units"] == 2048 for trial in storage.trials("s"))
    late = [p for p in seen if p.seconds_left is not None and n_large <= p.n_ended_now < 40]
    assert late and all(p.seconds_left < 0.1 * p.seconds / p.n_ended_now * (40 - p.n_ended_now) for p in late)
    early = [p for p in seen if p.seconds_left is not None and p.n_ended_now < n_large]
    assert early and all(p.seconds_left > 0 for p in early)


@pytest.mark.ray
class TestRay:
    """The same sweeps on a local Ray."""

    def test_two_workers_give_the_bits_of_one_process(
        self, storage: Storage, data: Dataset, ray_executor: Executor
    ) -> None:
        """A sweep on two workers of Ray is, bit for bit, the sweep in this process."""
        here, there = make_spec(storage, "here"), make_spec(storage, "there")
        sweep(storage, here, data, InlineExecutor(), 60)

        sweep(storage, there, data, ray_executor, 60)

        assert counts(storage, "there") == {TrialState.COMPLETE: 60}
        assert digest(storage, "there") == digest(storage, "here")
        names = {trial.worker for trial in storage.trials("there")}
        assert all(name and not name.endswith(f":{os.getpid()}") for name in names)

    def test_this_process_begins_and_workers_go_on(self, storage: Storage, data: Dataset) -> None:
        """Trials end here before Ray is there, the others on its workers, and all have the bits of one process."""
        here, there = make_spec(storage, "here"), make_spec(storage, "there")
        sweep(storage, here, data, InlineExecutor(), N_MANY)
        executor = make_sweep_executor(n_workers=2)
        deadline = time.monotonic() + 120
        first: list[SweepProgress] = []

        def wait_for_ray(progress: SweepProgress) -> None:
            first[:] = first or [progress]
            while executor.n_workers < 2:
                assert time.monotonic() < deadline, "Ray did not start"
                executor.wait([], 0.1)

        try:
            result = sweep(storage, there, data, executor, N_MANY, on_progress=wait_for_ray)
        finally:
            executor.close()

        assert (first[0].n_workers, result.progress.n_workers) == (1, 2)
        assert 0 < first[0].n_complete < N_MANY
        workers = {trial.worker for trial in storage.trials("there")}
        assert len(workers) == 3 and f"{socket.gethostname()}:{os.getpid()}" in workers
        assert digest(storage, "there") == digest(storage, "here")

    def test_a_killed_worker_changes_nothing(self, storage: Storage, data: Dataset, ray_executor: Executor) -> None:
        """A worker killed in mid-sweep costs time: no trial fails, and all have the same bits."""
        here = make_spec(storage, "here", epochs=60)
        there = make_spec(storage, "there", epochs=60)
        sweep(storage, here, data, InlineExecutor(), 60)
        killed: list[int] = []

        def kill_one(progress: SweepProgress) -> None:
            best = progress.best
            if not killed and best is not None and best.worker is not None and progress.n_running:
                killed.append(int(best.worker.rpartition(":")[2]))
                os.kill(killed[0], signal.SIGKILL)

        result = sweep(storage, there, data, ray_executor, 60, on_progress=kill_one)

        assert killed
        assert (result.progress.n_failed, result.progress.n_complete) == (0, 60)
        assert digest(storage, "there") == digest(storage, "here")

    def test_a_slice_goes_to_the_worker_that_is_free_first(self, data: Dataset) -> None:
        """The executor knows how long that is, from what its slices are thought to take."""
        from workers.executor import RayExecutor

        def run(slice: Slice, data: Dataset) -> list[TrialOutcome]:
            time.sleep(slice.expected_s)
            return []

        executor, deadline = RayExecutor(n_workers=2, run=run), time.monotonic() + 120
        try:
            executor.load(data)
            while not (executor.is_ready and executor.n_workers == 2):
                assert time.monotonic() < deadline, "the workers did not start"
                executor.wait([], 0.1)
            jobs = []
            # the third waits behind the second, whose worker is full then
            for seconds, least, most in ((6.0, 0.0, 0.0), (2.0, 1.0, 2.0), (0.5, 5.0, 6.0)):
                jobs.append(executor.submit(Slice(tasks=(), kernel="numpy", expected_s=seconds)))
                assert least <= executor.backlog_s <= most
            done: list[float] = []
            while len(done) < 3:
                assert time.monotonic() < deadline, "the slices did not end"
                ended = executor.wait([job for job in jobs if job.slice.expected_s not in done], 1.0)
                done += [job.slice.expected_s for job in ended]
            assert done == [2.0, 0.5, 6.0]
            assert executor.backlog_s == 0
        finally:
            executor.close()


def test_a_budget_lowered_after_an_interruption_is_kept(storage: Storage, data: Dataset) -> None:
    """Trials that were planned beyond it are not trained; a larger budget trains them like any others."""
    spec, whole = make_spec(storage), make_spec(storage, "whole")
    sweep(storage, whole, data, InlineExecutor(), 30)
    planned = [replace(t, study="s", state=TrialState.WAITING) for t in storage.trials("whole")]
    storage.add_trials("s", [Trial(study="s", number=t.number, state=t.state, params=t.params) for t in planned])

    lowered = sweep(storage, spec, data, InlineExecutor(), 5)

    assert lowered.progress.n_complete == 5
    assert counts(storage) == {TrialState.COMPLETE: 5, TrialState.WAITING: 25}
    sweep(storage, spec, data, InlineExecutor(), 30)
    assert digest(storage, "s") == digest(storage, "whole")
