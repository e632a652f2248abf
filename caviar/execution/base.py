"""The Executor seam: accepts slices of trials, gives back what became of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from caviar.nn.initial import Key
from caviar.records import Params, Reports, TrialState
from caviar.training.dataset import Dataset
from caviar.training.state import TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialTask:
    """One trial to be trained to the end of an epoch."""

    number: int
    params: Params
    key: Key
    #: Epochs to have completed in all.
    until: int
    #: Where to start; None is the beginning.
    state: TrainState | None = None
    #: Return the state reached, and judge it on the test part.
    final: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Some trials for one worker, trained one after the other, so that no overhead is paid per model."""

    tasks: tuple[TrialTask, ...]
    kernel: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOutcome:
    """What became of a task. A trial that fails is data, not an exception."""

    number: int
    #: COMPLETE (reached `until`) or FAIL.
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
    #: For a `final` task.
    test_metrics: dict[str, float] | None = None
    train_state: TrainState | None = None


class Job(ABC):
    """The handle of one submitted slice."""

    slice: Slice

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

    #: Slices that are trained at the same time. May grow and shrink while nodes come and go.
    n_workers: int

    @abstractmethod
    def load(self, data: Dataset) -> None:
        """Bring the data to the workers, once per node; slices submitted later train on it."""

    @abstractmethod
    def submit(self, slice: Slice) -> Job:
        """Hand over a slice; returns at once, unless this process is the worker."""

    @abstractmethod
    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """Return the jobs that are done, waiting for the first one for at most `timeout_s`."""

    @abstractmethod
    def close(self) -> None:
        """Stop what is still running and release the workers."""
