"""What a worker does: train the trials of a slice, one after the other, whatever happens in each."""

from __future__ import annotations

import os
import socket
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np

from caviar.execution.base import Bar, Outcomes, Slice, TrialOutcome, TrialTask
from caviar.nn.kernel import Kernel, choose_kernel
from caviar.nn.threads import one_thread
from caviar.records import EPOCH_METRICS, Reason, Reports, TrialState
from caviar.training.advance import advance, initial_state, test_metrics
from caviar.training.base import Progress
from caviar.training.dataset import Dataset
from caviar.training.state import TrainState

#: The state of a trial by why it ended; any other reason is a failure.
_STATES = {None: TrialState.COMPLETE, Reason.BEHIND: TrialState.PRUNED}


def run_slice(slice: Slice, data: Dataset) -> list[TrialOutcome]:
    """Train each task of a slice with one BLAS thread, and return the outcomes in the same order.

    An exception in a trial is its outcome; the others are trained as if it had not been there.
    """
    kernel, bar, outcomes = choose_kernel(slice.kernel), slice.bar, Outcomes()
    with one_thread(kernel.name):
        for task in slice.tasks:
            outcome = _run_task(task, bar, data, kernel)
            outcomes.append(outcome)
            if bar is not None and outcome.test_metrics is not None:
                bar = bar.after(outcome.reports.last)
    return outcomes


def _is_promising(task: TrialTask, bar: Bar | None, reports: Reports, data: Dataset) -> bool:
    """Return whether a trial may be the best one; the state that is kept belongs to one that goes on."""
    return bar is not None and not task.keep_state and bar.is_reached(reports.last) and len(data.test) > 0


@cache
def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _train(task: TrialTask, data: Dataset, kernel: Kernel) -> tuple[Progress[TrainState], Bar | None]:
    """Train a task to its end, or to the first bar that it does not reach, which comes back with the progress."""
    state, bars = task.state or initial_state(task.key, task.params, data), dict(task.bars)
    parts, missed = [], None
    for until in (*(epoch for epoch in bars if state.epoch < epoch < task.last_epoch), task.until):
        progress = advance(state, task.params, data, until, kernel=kernel)
        state = progress.state
        parts.append(progress.reports)
        if progress.diverged_at is not None:
            break
        bar = bars.get(state.epoch)
        if bar is not None and len(progress.reports) and not bar.is_reached(progress.reports.last):
            missed = bar
            break
    values = np.concatenate([part.values for part in parts])
    return replace(progress, reports=replace(parts[0], values=values)), missed


def _run_task(task: TrialTask, bar: Bar | None, data: Dataset, kernel: Kernel) -> TrialOutcome:
    started_at, start = datetime.now(UTC), time.perf_counter()
    reports = Reports(1, EPOCH_METRICS, np.empty((0, len(EPOCH_METRICS))))
    epoch, state, judged = 0, task.state, None
    reason = error = trace = None
    try:
        progress, missed = _train(task, data, kernel)
        state, reports, epoch = progress.state, progress.reports, progress.state.epoch
        if progress.diverged_at is not None:
            reason, error = Reason.DIVERGED, f"diverged at epoch {progress.diverged_at}"
        elif missed is not None:
            had, bar_value = reports.last[missed.metric], missed.value
            reason, error = Reason.BEHIND, f"behind at epoch {epoch}: {missed.metric} {had:.6g}, needed {bar_value:.6g}"
        elif task.judge:
            judged = test_metrics(state, task.params, data, kernel=kernel)
        elif _is_promising(task, bar, reports, data):
            with suppress(Exception):  # the trial has ended well; the sweep judges it later, if it stays the best
                judged = test_metrics(state, task.params, data, kernel=kernel)
    except Exception as failure:  # noqa: BLE001 - whatever a trial raises is its outcome
        reason, trace = Reason.ERROR, traceback.format_exc()
        error = f"{type(failure).__name__}: {failure}".splitlines()[0]
    return TrialOutcome(
        number=task.number,
        state=_STATES.get(reason, TrialState.FAIL),
        reports=reports,
        epoch=epoch,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        seconds=time.perf_counter() - start,
        worker=_worker_name(),
        reason=reason,
        error=error,
        traceback=trace,
        test_metrics=judged,
        train_state=state if task.keep_state and reason is None else None,
    )
