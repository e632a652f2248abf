"""The executor that begins in this process while the workers of another one start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from caviar.errors import ExecutorError
from caviar.execution.base import Executor, Job, Slice, TrialOutcome, TrialTask
from caviar.execution.head_start import HeadStart
from caviar.execution.inline import InlineExecutor
from caviar.execution.worker import run_slice
from caviar.training.dataset import Dataset
from caviar.training.source import trainable_spec

DEADLINE_S = 60.0
#: More than a Ray takes to start, and more than a slice that this process trains.
MUCH_S = 100.0

MakeTask = Callable[..., TrialTask]


class Start:
    """The start of workers that takes until the test says so; they note which trials they train."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.error: Exception | None = None
        self.trained: list[int] = []
        self.n_calls = 0
        self.is_closed = False
        self.has_workers = True

    def __call__(self) -> Executor:
        self.n_calls += 1
        assert self.may_end.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        start = self

        class Noting(InlineExecutor):
            @property
            def is_ready(self) -> bool:
                return start.has_workers

            def close(self) -> None:
                start.is_closed = True
                super().close()

        return Noting(self._run)

    def _run(self, slice: Slice, data: Dataset | None) -> list[TrialOutcome]:
        self.trained += [task.number for task in slice.tasks]
        return run_slice(slice, data)


@pytest.fixture
def start() -> Iterator[Start]:
    """A start that ends with the test at the latest."""
    begun = Start()
    yield begun
    begun.may_end.set()


def slice_of(task: TrialTask, expected_s: float = 0.0) -> Slice:
    """Return a slice of one trial."""
    return Slice(tasks=(task,), kernel="numpy", expected_s=expected_s)


def outcome_of(executor: Executor, job: Job) -> TrialOutcome:
    """Wait for a job; return its only outcome."""
    while job not in executor.wait([job], 0.1):
        pass
    (outcome,) = job.result()
    return outcome


def test_trials_end_here_before_the_workers_are_there(data: Dataset, make_task: MakeTask, start: Start) -> None:
    """A slice is trained while the other executor is still being made."""
    executor = HeadStart(start, at_once=True)
    executor.load(data)

    outcome = outcome_of(executor, executor.submit(slice_of(make_task(3))))

    assert (outcome.number, outcome.epoch, executor.n_workers) == (3, 2, 1)
    assert start.trained == []
    start.may_end.set()
    executor.close()


def test_later_slices_go_to_the_workers(data: Dataset, make_task: MakeTask, start: Start) -> None:
    """Once they are there, and with the same outcome as here."""
    executor = HeadStart(start, at_once=True)
    executor.load(data)
    here = outcome_of(executor, executor.submit(slice_of(make_task(3))))

    start.may_end.set()
    number = 3
    while not start.trained:
        there = outcome_of(executor, executor.submit(slice_of(make_task(number))))

    assert there.reports.values.tobytes() == here.reports.values.tobytes()
    executor.close()
    assert start.is_closed


def test_a_long_slice_waits_for_the_workers(data: Dataset, make_task: MakeTask, start: Start) -> None:
    """It has them started, is not done before, and is trained by them."""
    executor = HeadStart(start, at_once=False)
    executor.load(data)

    job = executor.submit(slice_of(make_task(5), MUCH_S))

    assert executor.wait([job], 0.01) == []
    start.may_end.set()
    assert outcome_of(executor, job).number == 5
    assert start.trained == [5]
    executor.close()


def test_workers_are_started_where_there_is_enough_to_do(data: Dataset, make_task: MakeTask, start: Start) -> None:
    """For a little work they are not; asked again with more, they are, once."""
    executor = HeadStart(start, at_once=False)
    executor.load(data)

    executor.expect(0.1)
    before = start.n_calls, executor.can_grow
    executor.expect(MUCH_S)
    executor.expect(MUCH_S)
    start.may_end.set()
    executor.close()

    assert before == (0, True)
    assert (start.n_calls, executor.can_grow) == (1, False)


def test_workers_that_cannot_start_are_an_error(data: Dataset, make_task: MakeTask, start: Start) -> None:
    """The error of the start is raised by a later call, and closing still works."""
    executor = HeadStart(start, at_once=True)
    executor.load(data)
    start.error = ExecutorError("Ray could not start: no")

    start.may_end.set()
    with pytest.raises(ExecutorError, match="Ray could not start: no"):
        while True:
            executor.wait([], 0.01)
    executor.close()


def test_an_executor_that_was_never_needed_closes(data: Dataset, start: Start) -> None:
    """Nothing was started, so there is nothing to wait for."""
    executor = HeadStart(start, at_once=False)
    executor.load(data)

    executor.close()

    assert start.n_calls == 0


def test_where_the_workers_have_died_nothing_is_trained_here_again(
    data: Dataset, make_task: MakeTask, start: Start
) -> None:
    """What has killed them would kill this process, too."""
    start.may_end.set()
    executor = HeadStart(start, at_once=True)
    executor.load(data)
    while 1 not in start.trained:
        outcome_of(executor, executor.submit(slice_of(make_task(1))))

    start.has_workers = False
    outcome_of(executor, executor.submit(slice_of(make_task(2))))

    assert 2 in start.trained
    executor.close()


def test_a_function_of_the_users_waits_for_the_workers(
    data: Dataset, make_task: MakeTask, start: Start, tmp_path: Path
) -> None:
    """However short it is: it may do what it wants to its process."""
    (tmp_path / "mine.py").write_text("def train(task):\n    return 0.5\n")
    slice = Slice(
        tasks=(replace(make_task(1), until=1),),
        kernel="",
        trainable=trainable_spec(str(tmp_path / "mine.py")),
        metric="loss",
    )
    executor = HeadStart(start, at_once=False)
    executor.load(data)

    job = executor.submit(slice)
    assert executor.wait([job], 0.0) == []
    start.may_end.set()

    assert outcome_of(executor, job).reports.last == {"loss": 0.5}
    assert start.trained == [1]
    executor.close()
