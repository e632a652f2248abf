"""How far a call of `advance` has come."""

from __future__ import annotations

from dataclasses import dataclass

from caviar.records import Reports
from caviar.training.state import TrainState


@dataclass(frozen=True, slots=True)
class Progress:
    """What `advance` returns: the next state, a report for each epoch completed on the way, and how it ended."""

    state: TrainState
    reports: Reports
    #: The epoch (counted from 1) in which the loss became NaN or infinite; None where it did not.
    diverged_at: int | None = None
