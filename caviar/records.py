"""The frozen records that cross boundaries: plain data, no behaviour beyond naming and formatting.

Times are timezone-aware UTC. Enum values are the words that the database stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np

Params = Mapping[str, float | int | str]

#: Metrics that the built-in network reports each epoch, in the order of the columns of :class:`Reports`.
EPOCH_METRICS = ("train_loss", "val_loss", "val_accuracy")


class TrialState(StrEnum):
    """What became of a trial (the five words of Optuna)."""

    WAITING = "WAITING"  # sampled, not yet handed to a worker
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


class Direction(StrEnum):
    """Whether a smaller or a larger metric is better."""

    MINIMIZE = "MINIMIZE"
    MAXIMIZE = "MAXIMIZE"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Which data a study trains on: enough to load it again and to know that it is the same."""

    #: A built-in name (`digits`) or the absolute path of a file or folder.
    source: str
    #: Column to predict, for tables.
    target: str | None = None
    #: Seed of the train/validation/test split. It is not the study's, so that studies can be compared.
    split_seed: int = 0
    #: Hash of features, labels and class names as loaded, before the split.
    fingerprint: str = ""


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
    created_at: datetime | None = None
    #: Version of caviar that created it.
    caviar_version: str = ""


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

    @property
    def name(self) -> str:
        """`STUDY/NUMBER`, the trial's name everywhere."""
        return f"{self.study}/{self.number}"


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
class TrialResult:
    """A trial as it now stands, with what it reported since it was last written."""

    trial: Trial
    reports: Reports | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySummary:
    """A study at a glance."""

    spec: StudySpec
    #: Number of trials in each state that occurs.
    counts: Mapping[TrialState, int]
    #: Best COMPLETE trial, if any.
    best: Trial | None = None

    @property
    def n_trials(self) -> int:
        """Trials in any state."""
        return sum(self.counts.values())
