"""What a worker does: train the trials of a slice, one after the other, whatever happens in each."""

from __future__ import annotations

import math
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np

from caviar.execution.attempt import Attempt
from caviar.execution.base import Bar, Outcomes, Slice, TrialOutcome, TrialTask
from caviar.nn.kernel import Kernel, choose_kernel
from caviar.nn.threads import one_thread, one_thread_each
from caviar.records import Reports
from caviar.training.advance import advance, initial_state, test_metrics
from caviar.training.dataset import Dataset
from caviar.training.progress import Progress
from caviar.training.state import OwnState, TrainState


def run_slice(slice: Slice, data: Dataset | None) -> list[TrialOutcome]:
    """Train each task of a slice with one BLAS thread, and return the outcomes in the same order.

    An exception in a trial is its outcome; the others are trained as if it had not been there.
    """
    if slice.trainable is not None:
        return _run_trainable(slice, data)
    assert data is not None  # the built-in network has some
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


def _run_task(task: TrialTask, bar: Bar | None, data: Dataset, kernel: Kernel) -> TrialOutcome:
    def train(attempt: Attempt) -> None:
        progress, missed = _train(task, data, kernel)
        state = progress.state
        attempt.state, attempt.reports, attempt.epoch = state, progress.reports, state.epoch
        if progress.diverged_at is not None:
            attempt.diverge(progress.diverged_at)
        elif missed is not None:
            attempt.fall_behind(missed, progress.reports.last)
        elif task.judge:
            attempt.judged = test_metrics(state, task.params, data, kernel=kernel)
        elif _is_promising(task, bar, attempt.reports, data):
            with suppress(Exception):  # the trial has ended well; the sweep judges it later, if it stays the best
                attempt.judged = test_metrics(state, task.params, data, kernel=kernel)

    return Attempt(task).run(train)


def _train(task: TrialTask, data: Dataset, kernel: Kernel) -> tuple[Progress, Bar | None]:
    """Train a task to its end, or to the first bar that it does not reach, which comes back with the progress."""
    state, bars = task.state or initial_state(task.key, task.params, data), dict(task.bars)
    assert isinstance(state, TrainState)
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


def _run_trainable(slice: Slice, data: Dataset | None) -> list[TrialOutcome]:
    """Train each task by code of the user's."""
    from caviar.training.task import Assignment
    from caviar.training.trainable import train as train_own

    spec, metric = slice.trainable, slice.metric
    assert spec is not None

    def train(attempt: Attempt) -> None:
        task = attempt.task
        bars = dict(task.bars)
        given = Assignment(
            spec=spec,
            study=slice.study,
            metric=metric,
            epochs=slice.epochs,
            number=task.number,
            key=task.state.key if task.state else task.key,
            params=task.params,
            data=data,
        )

        def keep(state: OwnState) -> None:
            attempt.state = state

        assert task.state is None or isinstance(task.state, OwnState)
        found = train_own(given, task.last_epoch, task.state, keep if task.keep_state else None)
        with one_thread_each(), closing(found):
            for metrics in found:
                if not math.isfinite(metrics[metric]):
                    attempt.diverge(attempt.epoch + 1, f"{metric} is {metrics[metric]}")
                    break
                attempt.report(metrics)
                bar = bars.get(attempt.epoch)
                if bar is not None and not bar.is_reached(metrics):
                    attempt.fall_behind(bar, metrics)
                    break

    return Outcomes([Attempt(task, (metric,), spec.file).run(train) for task in slice.tasks])
