"""One trial in a worker: whatever happens while it is trained becomes its outcome."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache

import numpy as np

from caviar.errors import TrainableError
from caviar.execution.base import Bar, TrialOutcome, TrialTask
from caviar.records import EPOCH_METRICS, Reason, Reports, TrialState
from caviar.training.state import State

#: Characters of an error and of a traceback that are kept.
_LONGEST_ERROR, _LONGEST_TRACE = 1_000, 100_000
#: The state of a trial by why it ended; any other reason is a failure.
_STATES = {None: TrialState.COMPLETE, Reason.BEHIND: TrialState.PRUNED}


class Attempt:
    """What is known of a trial that is being trained; what trains it notes here how far it has come.

    Args:
        task: what is to be done.
        metrics: that it reports, until more is known.
        file: of the user's code, where a traceback is to begin.
    """

    def __init__(self, task: TrialTask, metrics: tuple[str, ...] = EPOCH_METRICS, file: str | None = None) -> None:
        self.task = task
        self._file = file
        #: Epochs completed, here and before.
        self.epoch = self._begun = task.state.epoch if task.state else 0
        self.state: State | None = task.state
        self.reports = Reports(self._begun + 1, metrics, np.empty((0, len(metrics))))
        #: Metrics that were reported one epoch after the other.
        self._rows: list[Mapping[str, float]] = []
        #: What it gives on the test part, where it is judged.
        self.judged: dict[str, float] | None = None
        self._reason: Reason | None = None
        self._error: str | None = None

    @property
    def has_ended_well(self) -> bool:
        """Whether nothing ended it early."""
        return self._reason is None

    def diverge(self, epoch: int, what: str | None = None) -> None:
        """Note that the loss, or what else the trial is judged by, became NaN or infinite."""
        self._reason, self._error = Reason.DIVERGED, f"diverged at epoch {epoch}" + (f": {what}" if what else "")

    def fall_behind(self, bar: Bar, metrics: Mapping[str, float]) -> None:
        """Note that the bar of its epoch is not reached."""
        self._reason = Reason.BEHIND
        self._error = f"behind at epoch {self.epoch}: {bar.metric} {metrics[bar.metric]:.6g}, needed {bar.value:.6g}"

    def report(self, metrics: Mapping[str, float]) -> None:
        """Note the metrics of one more epoch, which have the same names each time."""
        self._rows.append(metrics)
        self.epoch = self._begun + len(self._rows)

    def run(self, train: Callable[[Attempt], None]) -> TrialOutcome:
        """Train it to its end, and return what became of it: also where an exception ends it."""
        started_at, start, trace = datetime.now(UTC), time.perf_counter(), None
        try:
            train(self)
        except KeyboardInterrupt:  # somebody's, and no outcome
            raise
        except BaseException as failure:  # noqa: BLE001 - whatever else a trial raises is its outcome
            self._reason = Reason.ERROR
            if not isinstance(failure, TrainableError):  # which says all, and was raised by nobody's code but caviar's
                trace = _clipped(_trace(self._beginning(failure)), _LONGEST_TRACE)
            self._error = _clipped(_line(failure), _LONGEST_ERROR)
        if self._rows:
            values = np.array([list(metrics.values()) for metrics in self._rows])  # E,K
            self.reports = Reports(self._begun + 1, tuple(self._rows[0]), values)
        return TrialOutcome(
            number=self.task.number,
            state=_STATES.get(self._reason, TrialState.FAIL),
            reports=self.reports,
            epoch=self.epoch,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            seconds=time.perf_counter() - start,
            worker=_worker_name(),
            reason=self._reason,
            error=self._error,
            traceback=trace,
            test_metrics=self.judged,
            train_state=self.state if self.task.keep_state and self.has_ended_well else None,
        )

    def _beginning(self, failure: BaseException) -> BaseException:
        """Return an exception with a traceback that begins in the user's code, where it passes that."""
        trace = failure.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != self._file:
            trace = trace.tb_next
        return failure if trace is None else failure.with_traceback(trace)


def _line(failure: BaseException) -> str:
    """Return an exception as one line, whatever its own text does."""
    try:
        text = str(failure)
    except Exception as error:  # noqa: BLE001 - of the user's
        text = f"(its text raises {type(error).__name__})"
    return f"{type(failure).__name__}: {text}".splitlines()[0]


def _trace(failure: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(failure))
    except Exception:  # noqa: BLE001 - as where what is shown of it raises
        return "".join(traceback.format_tb(failure.__traceback__))


def _clipped(text: str, most: int) -> str:
    """Return a text with its middle left out where it is too long."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


@cache
def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
