"""The Executor seam: accepts slices of trials, gives back what became of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

from caviar.errors import ExecutorError
from caviar.execution.facts import ClusterFacts
from caviar.nn.initial import Key
from caviar.records import Direction, Params, Reports, StudySpec, TrainableSpec, TrialState
from caviar.training.dataset import Dataset
from caviar.training.state import Point, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """What a trial has to reach."""

    metric: str
    direction: Direction
    #: None: whatever comes reaches it.
    value: float | None = None

    def is_reached(self, metrics: dict[str, float]) -> bool:
        """Return whether the metrics of an epoch are as good."""
        value = metrics.get(self.metric)
        if value is None or self.value is None:
            return value is not None
        return self.direction.sign * value <= self.direction.sign * self.value

    def after(self, metrics: dict[str, float]) -> Bar:
        """Return the bar for the trials that come after one with these metrics."""
        return replace(self, value=metrics[self.metric]) if self.is_reached(metrics) else self


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialTask:
    """One trial to be trained to the end of an epoch, or to a mini-batch."""

    number: int
    params: Params
    key: Key
    #: Epochs to have completed in all, or (epochs completed, mini-batches of the next one done).
    until: int | Point
    #: Epochs after which it ends, PRUNED, where it has not reached a bar, the earliest first.
    bars: tuple[tuple[int, Bar], ...] = ()
    #: Where to start; None is the beginning.
    state: State | None = None
    #: Return the state reached.
    keep_state: bool = False
    #: Judge the state reached on the test part.
    judge: bool = False

    @property
    def last_epoch(self) -> int:
        """Whole epochs to have completed in all."""
        return self.until if isinstance(self.until, int) else self.until[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Some trials for one worker, trained one after the other, so that no overhead is paid per model."""

    tasks: tuple[TrialTask, ...]
    kernel: str
    #: Seconds that it is thought to take.
    expected_s: float = 0.0
    #: What trains them, and the metric that it has to report; None is the built-in network.
    trainable: TrainableSpec | None = None
    metric: str = ""
    #: Name of the study, and the epochs of its trials.
    study: str = ""
    epochs: int = 0
    #: Of the best trial so far. Those that end here and reach it may be the best now, and are judged on the test part,
    #: also where no task asks for that.
    bar: Bar | None = None

    @classmethod
    def of(
        cls, spec: StudySpec, tasks: Sequence[TrialTask], *, expected_s: float = 0.0, bar: Bar | None = None
    ) -> Slice:
        """Return some trials of a study as a slice."""
        return cls(
            tasks=tuple(tasks),
            kernel=spec.kernel,
            trainable=spec.trainable,
            metric=spec.metric,
            study=spec.name,
            epochs=spec.epochs,
            expected_s=expected_s,
            bar=bar,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOutcome:
    """What became of a task. A trial that fails is data, not an exception."""

    number: int
    #: COMPLETE (reached `until`), PRUNED (did not reach a bar) or FAIL.
    state: TrialState
    reports: Reports
    #: Epochs completed in all.
    epoch: int
    started_at: datetime
    finished_at: datetime
    seconds: float
    worker: str
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None
    #: Where the task asks for it, or the trial has reached the bar of its slice.
    test_metrics: dict[str, float] | None = None
    #: Where the task asks for it.
    train_state: State | None = None


class Outcomes(list[TrialOutcome]):
    """The outcomes of a slice. They travel with the reports of all as one array, which costs less than one of each."""

    def __reduce__(self) -> tuple[Any, ...]:
        reports = [outcome.reports for outcome in self]
        values = np.concatenate([np.empty(0), *(each.values.ravel() for each in reports)])
        kinds = [(each.first_epoch, each.metrics, each.values.size) for each in reports]
        others = [tuple(getattr(outcome, name) for name in _NOT_REPORTS) for outcome in self]
        return _unpack, (values, kinds, others)


_NOT_REPORTS = tuple(field.name for field in fields(TrialOutcome) if field.name != "reports")


def _unpack(
    values: np.ndarray, kinds: list[tuple[int, tuple[str, ...], int]], others: list[tuple[Any, ...]]
) -> Outcomes:
    outcomes, start = Outcomes(), 0
    for (first_epoch, metrics, size), other in zip(kinds, others, strict=True):
        rows = values[start : start + size].reshape(-1, len(metrics))
        start += size
        outcomes.append(
            TrialOutcome(reports=Reports(first_epoch, metrics, rows), **dict(zip(_NOT_REPORTS, other, strict=True)))
        )
    return outcomes


#: What a worker does with a slice: outcomes in the order of the tasks. It is sent to each worker once, not per slice.
Runner = Callable[[Slice, Dataset | None], list[TrialOutcome]]


class Job(ABC):
    """The handle of one submitted slice."""

    slice: Slice
    #: Seconds that it waited for a worker, and from there until its outcomes were back; known when it is done.
    queued_s: float = 0.0
    worked_s: float = 0.0

    @abstractmethod
    def result(self) -> list[TrialOutcome]:
        """Return the outcomes, in the order of the tasks, once the job is done.

        Raises:
            SliceLost: the worker died, each time it was tried.
            ExecutorError: the executor itself failed.
        """


class Executor(ABC):
    """Runs slices on workers.

    Promises: outcomes do not depend on which worker trains a slice, nor on what else it trains; each worker uses one
    BLAS thread; a slice whose worker dies is tried again elsewhere before it counts as lost.
    """

    @property
    @abstractmethod
    def n_workers(self) -> int:
        """Slices that are trained at the same time. May grow and shrink while nodes come and go."""

    @property
    def is_ready(self) -> bool:
        """Whether a worker is there; before, slices wait for the first."""
        return True

    @property
    def can_grow(self) -> bool:
        """Whether more workers may be started, if there is enough for them to do: then tell by `expect`."""
        return False

    @property
    def backlog_s(self) -> float:
        """Seconds that a slice is thought to wait for its worker, if it is submitted now."""
        return 0.0

    @classmethod  # noqa: B027 - those without addresses have nothing to refuse
    def check(cls, address: str) -> None:
        """Return where an executor can be made for this address, in a moment and without making one.

        Raises:
            ExecutorError: nobody answers there, or refuses this process; after 15 s at the latest.
        """

    @classmethod
    def inspect(cls, address: str | None = None) -> ClusterFacts:
        """Look at each node that slices would be trained on.

        Raises:
            ExecutorError: there is no cluster at the address, or this executor knows none.
        """
        raise ExecutorError(f"{cls.__name__} trains in this process alone")

    def expect(self, seconds: float) -> None:  # noqa: B027 - most have all their workers from the beginning
        """Learn for how long one worker would have to train all that is still to come, as far as is known."""

    @abstractmethod
    def load(self, data: Dataset | None) -> None:
        """Bring the data to the workers, once per node; slices submitted later train on it. None is no data."""

    @abstractmethod
    def submit(self, slice: Slice) -> Job:
        """Hand over a slice; returns at once, unless this process is the worker."""

    @abstractmethod
    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """Return the jobs that are done, waiting for the first one for at most `timeout_s`."""

    @abstractmethod
    def close(self) -> None:
        """Stop what is still running and release the workers."""
