"""The frozen records that cross boundaries: plain data, no behaviour beyond naming and formatting.

Times are timezone-aware UTC. Enum values are the words that the database stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Params = Mapping[str, float | int | str]

#: Metrics that the built-in network reports each epoch, in the order of the columns of :class:`Reports`.
EPOCH_METRICS = ("train_loss", "val_loss", "val_accuracy")


class TrialState(StrEnum):
    """What became of a trial (the five words of Optuna)."""

    WAITING = "WAITING"  # drawn, and in the queue or in its first slice: nothing has come of it yet
    RUNNING = "RUNNING"  # a worker trains it, or would if the coordinator were alive
    COMPLETE = "COMPLETE"  # trained to its last epoch
    PRUNED = "PRUNED"  # stopped early on purpose
    FAIL = "FAIL"  # diverged, raised, or lost; `reason` says which

    @property
    def is_finished(self) -> bool:
        """True for COMPLETE, PRUNED and FAIL."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Reason(StrEnum):
    """Why a trial ended as FAIL or PRUNED."""

    DIVERGED = "diverged"  # the loss became NaN or infinite
    ERROR = "error"  # training raised an exception
    LOST = "lost"  # its worker died each time it was tried
    STOPPED = "stopped"  # a person or a rule stopped it
    BEHIND = "behind"  # it was not as good, so early, as the best of those before it


class Direction(StrEnum):
    """Whether a smaller or a larger metric is better."""

    MINIMIZE = "MINIMIZE"
    MAXIMIZE = "MAXIMIZE"

    @property
    def sign(self) -> int:
        """What a value is multiplied by to be the smaller, the better it is."""
        return 1 if self is Direction.MINIMIZE else -1


#: Which way a metric is better, where its name ends so.
CLEAR_METRICS = {
    "accuracy": Direction.MAXIMIZE,
    "acc": Direction.MAXIMIZE,
    "auc": Direction.MAXIMIZE,
    "f1": Direction.MAXIMIZE,
    "loss": Direction.MINIMIZE,
    "error": Direction.MINIMIZE,
    "cost": Direction.MINIMIZE,
    "mae": Direction.MINIMIZE,
    "mse": Direction.MINIMIZE,
    "rmse": Direction.MINIMIZE,
}


def clear_direction(metric: str) -> Direction | None:
    """Return which way a metric is better, as its name tells: more of an accuracy, less of a loss; None if unclear."""
    return next((way for ending, way in CLEAR_METRICS.items() if metric.endswith(ending)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Which data a study trains on: enough to load it again and to know that it is the same."""

    #: A built-in name (`digits`) or the absolute path of a file or folder; empty where a study has no data.
    source: str
    #: Column to predict, for tables.
    target: str | None = None
    #: Seed of the train/validation/test split. It is not the study's, so that studies can be compared.
    split_seed: int = 0
    #: Hash of features, labels and class names as loaded, before the split.
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableSpec:
    """A function or class of the user's that trains a model, where that is not the built-in network."""

    #: Absolute path of the Python file.
    file: str
    #: Its name in the file.
    function: str
    #: The text of the file when the study was made: what is trained has to be the same code.
    source: str

    @property
    def name(self) -> str:
        """`FILE.py:NAME`, without the folder."""
        return f"{Path(self.file).name}:{self.function}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySpec:
    """One question: all that the result of a trial depends on, but the number of the trial."""

    name: str
    data: DataSpec
    #: The search space as `SearchSpace.to_dict()` gives it.
    space: Mapping[str, Any]
    seed: int = 0
    metric: str = "val_accuracy"
    direction: Direction = Direction.MAXIMIZE
    epochs: int = 20
    #: `float32` or `float64`.
    dtype: str = "float32"
    #: `numpy` or `compiled`: the two differ in the last bits, so a study stays with one.
    kernel: str = "numpy"
    #: Whether trials end early that are behind those before them.
    prune: bool = False
    #: What trains the trials; None is the built-in network.
    trainable: TrainableSpec | None = None
    created_at: datetime | None = None
    #: Version of caviar that created it.
    caviar_version: str = ""
    #: Which version of the space this is, counted from 1: a study's space may be changed, explicitly.
    space_version: int = 1

    def direction_of(self, metric: str) -> Direction | None:
        """Return which way a metric is better; None where nobody has said."""
        return self.direction if metric == self.metric else clear_direction(metric)

    def telling(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return those metrics by which a trial that is trained again is known.

        Of code of the user's that is the study's alone: others may be of the moment, as a time.
        """
        return {name: metrics[name] for name in metrics if self.trainable is None or name == self.metric}

    def rank(self, trial: Trial) -> tuple[float, float, int]:
        """Return what orders trials, best first: value, `val_loss`, number. Without a value they come last."""
        value = math.inf if trial.value is None else self.direction.sign * trial.value
        loss = trial.metrics.get("val_loss", math.inf)
        return value, math.inf if math.isnan(loss) else loss, trial.number


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One choice of params within a study and what became of it."""

    study: str
    number: int
    state: TrialState
    params: Params
    #: The study's metric after the last epoch; None until the trial is COMPLETE, and where it FAILed.
    value: float | None = None
    #: The last value of each metric, and `test_accuracy` for a trial that was reported as best.
    metrics: Mapping[str, float] = field(default_factory=dict)
    #: Epochs trained.
    epoch: int = 0
    #: Time that workers spent on it.
    seconds: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    #: `STUDY/NUMBER` of the trial that this one goes on from, and the epoch at which it does.
    parent: str | None = None
    parent_epoch: int | None = None
    #: A :class:`Reason`, where the state is FAIL or PRUNED.
    reason: str | None = None
    #: One line: `diverged at epoch 3`, `ValueError: ...`.
    error: str | None = None
    traceback: str | None = None
    worker: str | None = None
    #: The version of the study's space that its params were drawn from; decided when it is added.
    space_version: int = 1

    @property
    def name(self) -> str:
        """`STUDY/NUMBER`, the trial's name everywhere."""
        return f"{self.study}/{self.number}"

    @property
    def is_telling(self) -> bool:
        """Whether it has ended and says how good its params are: not if it was stopped or lost, or raised."""
        return self.state is TrialState.COMPLETE or self.reason in (Reason.DIVERGED, Reason.BEHIND)


@dataclass(frozen=True, slots=True)
class Reports:
    """What a trial reported over consecutive epochs.

    Attributes:
        first_epoch: the epoch of row 0, counted from 1: row i was reported when epoch `first_epoch + i` was done.
        metrics: K names, one a column.
        values: float64, shape (E, K), for E epochs.
    """

    first_epoch: int
    metrics: tuple[str, ...]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def last(self) -> dict[str, float]:
        """The metrics of the last epoch, empty where there is none."""
        if not len(self.values):
            return {}
        return dict(zip(self.metrics, self.values[-1].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a model reported when an epoch was done."""

    #: Epochs completed, this one included.
    epoch: int
    #: Updates done in all.
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """A trial as it now stands, with what it reported since it was last written."""

    trial: Trial
    reports: Reports | None = None


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class StudySummary:
    """A study at a glance."""

    spec: StudySpec
    #: Number of trials in each state that occurs.
    counts: Mapping[TrialState, int]
    #: Best COMPLETE trial, if any.
    best: Trial | None = None
    #: What people wrote about it.
    note: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def n_trials(self) -> int:
        """Trials in any state."""
        return sum(self.counts.values())

    def __repr__(self) -> str:  # of a notebook's cell
        counts = ", ".join(f"{n} {state}" for state, n in self.counts.items() if n) or "no trials"
        reached = f", best {self.best.name} with {self.best.value}" if self.best else ""
        return f"StudySummary({self.spec.name!r}: {counts}{reached})"


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRun:
    """One run of a study's coordinator, and where its time went."""

    owner: str
    started_at: datetime
    #: None while it runs, and where it was killed.
    finished_at: datetime | None = None
    #: The most that there were at a time.
    n_workers: int | None = None
    #: Trials that ended in it.
    n_ended: int = 0
    #: Seconds by what they were spent on; see `caviar.ledger`.
    ledger: Mapping[str, float] = field(default_factory=dict)


class Status(StrEnum):
    """What became of a request."""

    ASKED = "asked"  # nobody has looked at it yet
    APPLIED = "applied"
    REJECTED = "rejected"  # it was not valid, or not possible then; `message` says why


class _OfTrial:
    """What is kept of a trial, which it names."""

    __slots__ = ()
    trial: str

    @property
    def study(self) -> str:
        """The study's name."""
        return self.trial.rpartition("/")[0]

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.trial.rpartition("/")[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervention(_OfTrial):
    """Something that a person or a rule asked of a babysat trial, and what became of it."""

    #: `STUDY/NUMBER`.
    trial: str
    #: Given by the asker: asking twice with one token is asking once.
    token: str
    #: The verb: `set`, `rollback`, `pause`, ...
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: A person (`user@host`) or a rule (`rule:plateau`).
    author: str | None = None
    note: str | None = None
    status: Status = Status.ASKED
    #: One line, for people: `learning_rate 0.01 -> 0.003`, or why it was rejected.
    message: str | None = None
    #: Place in the order of application, counted from 1; None until it is applied.
    sequence: int | None = None
    #: Where it was applied: epochs completed, mini-batches of the next one done, updates done in all.
    epoch: int | None = None
    batch: int | None = None
    step: int | None = None
    #: What it changed.
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    #: Metrics of the last epoch before it, and of the first that ended after it.
    metrics_before: Mapping[str, float] | None = None
    metrics_after: Mapping[str, float] | None = None
    asked_at: datetime | None = None
    applied_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCheckpoint:
    """What the database knows of a checkpoint on disk."""

    #: Relative to the checkpoint folder.
    path: str
    #: Where training was: epochs completed, mini-batches of the next one done, updates done in all.
    epoch: int
    batch: int
    step: int
    #: Rollbacks of the trial before it, and interventions applied before it.
    segment: int = 0
    sequence: int = 0
    size_bytes: int = 0
    #: Why it is kept whatever the policy says: `start`, `branch`, `asked`, ...
    pins: tuple[str, ...] = ()
    #: A rollback went behind it: it is no longer part of the trial's past.
    abandoned: bool = False
    created_at: datetime | None = None
    #: Given by the database.
    id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Session(_OfTrial):
    """A babysat trial: how it is babysat, and who trains it now."""

    #: `STUDY/NUMBER`.
    trial: str
    #: The params before the first intervention.
    start_params: Params
    #: Plain data: epochs to train in all (None: until stopped), rules, which checkpoints are kept.
    settings: Mapping[str, Any]
    #: The process that trains it; None where none does. One that died is there until `expires_at`.
    owner: str | None = None
    acquired_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepProgress:
    """Where a sweep stands."""

    study: str
    #: Trials that the study is to hold.
    n_trials: int
    n_complete: int
    n_pruned: int
    n_failed: int
    #: Trials that are trained at this moment: one by each worker that has a slice.
    n_running: int
    #: Unfinished trials that panda mode has.
    n_babysat: int
    #: Trials that ended in this sweep, and the seconds it has run.
    n_ended_now: int
    seconds: float
    n_workers: int
    best: Trial | None
    #: Where `n_ended_now` is more than a few: seconds until the end.
    seconds_left: float | None
    #: What is wrong and will be mended, as that the database does not answer.
    notice: str | None = None

    @property
    def n_ended(self) -> int:
        """Trials of the study that have ended, one way or another."""
        return self.n_complete + self.n_pruned + self.n_failed

    @property
    def trials_per_second(self) -> float:
        """Trials that ended, per second of this sweep."""
        return self.n_ended_now / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class SweepResult:
    """How a sweep ended."""

    progress: SweepProgress
    interrupted: bool

    def __repr__(self) -> str:  # of a notebook's cell
        progress, best = self.progress, self.progress.best
        reached = f"best {best.name} with {best.value}" if best else "none COMPLETE"
        how = "interrupted" if self.interrupted else "done"
        return (
            f"SweepResult({progress.study!r}: {how}, {progress.n_ended} of {progress.n_trials} trials, "
            f"{progress.n_failed} failed, {reached})"
        )
