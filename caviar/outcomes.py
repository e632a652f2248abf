"""What becomes of a trial in a sweep: its record, from what workers give back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from caviar.execution.base import TrialOutcome, TrialTask
from caviar.records import Reason, StudySpec, Trial, TrialState


def is_partial(spec: StudySpec, outcome: TrialOutcome) -> bool:
    """Return whether a trial has done well so far, and there is more of it to train: a function ends when it wants."""
    goes_on = spec.trainable is None or outcome.train_state is not None
    return outcome.state is TrialState.COMPLETE and outcome.epoch < spec.epochs and goes_on


def trial_after(
    spec: StudySpec, task: TrialTask, outcome: TrialOutcome, earlier: Trial | None, space_version: int
) -> Trial:
    """Return a trial as it stands after a slice.

    Args:
        spec: of the study.
        task: what was to be done in the slice.
        outcome: what became of it.
        earlier: the trial as it stood before, where it is trained in several slices.
        space_version: that its params were drawn from.
    """
    metrics = outcome.reports.last or (dict(earlier.metrics) if earlier else {})
    goes_on = is_partial(spec, outcome)
    state = TrialState.RUNNING if goes_on else outcome.state
    return Trial(
        study=spec.name,
        number=task.number,
        state=state,
        params=task.params,
        value=metrics.get(spec.metric) if state is TrialState.COMPLETE else None,
        metrics=metrics,
        epoch=max(outcome.epoch, earlier.epoch if earlier else 0),
        seconds=outcome.seconds + ((earlier.seconds or 0.0) if earlier else 0.0),
        started_at=(earlier.started_at if earlier else None) or outcome.started_at,
        finished_at=None if goes_on else outcome.finished_at,
        reason=outcome.reason,
        error=outcome.error,
        traceback=outcome.traceback,
        worker=outcome.worker,
        space_version=space_version,
    )


def lost_trial(spec: StudySpec, task: TrialTask, why: str, earlier: Trial | None, space_version: int) -> Trial:
    """Return a trial whose worker died, each time it was tried.

    Args:
        spec: of the study.
        task: what was to be done.
        why: one line.
        earlier: the trial as it stood before, where earlier slices have trained it.
        space_version: that its params were drawn from.
    """
    before = earlier or Trial(
        study=spec.name, number=task.number, state=TrialState.WAITING, params=task.params, space_version=space_version
    )
    return replace(before, state=TrialState.FAIL, finished_at=datetime.now(UTC), reason=Reason.LOST, error=why)
