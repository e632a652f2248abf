"""Did the nudge help? For each intervention, the same run without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from caviar.errors import RequestRejected
from caviar.panda.course import STEERING, Course, place_after
from caviar.panda.replay import babysat
from caviar.panda.retrace import Passed, Retrace, RunDiverged
from caviar.panda.revive import applied_of, start_state
from caviar.panda.shelf import Shelf
from caviar.panda.start import Nursery
from caviar.records import Direction, Intervention, Reason, StudySpec
from caviar.training.state import Point, TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One intervention, and how the run ended with it and would have without it."""

    intervention: Intervention
    #: Epochs that the control branch was trained for after the intervention, as many as the run was.
    epochs: int
    #: Metrics of the run's last epoch.
    actual: Mapping[str, float]
    #: Metrics of the control's last epoch; None where it diverged.
    control: Mapping[str, float] | None
    #: The run itself ended by diverging.
    has_diverged: bool = False

    def gain(self, metric: str) -> float | None:
        """Return actual minus control."""
        return None if self.control is None else self.actual[metric] - self.control[metric]

    def has_helped(self, spec: StudySpec) -> bool | None:
        """Return whether the run is better for it by the study's metric; None where that cannot be told."""
        if self.has_diverged:
            return None if self.control is None else False
        if self.control is None:
            return True
        gain = self.actual[spec.metric] - self.control[spec.metric]
        if gain == 0:
            return None
        return (gain > 0) == (spec.direction is Direction.MAXIMIZE)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A run as an intervention found it."""

    passed: Passed
    saved: dict[Point, TrainState]


def compare(nursery: Nursery, number: int) -> list[Comparison]:
    """Train, for each intervention of a babysat trial, the same run without it.

    The control branch has all that was done before, leaves one intervention out, and has all that was done after, as
    many epochs later as it was done then. Where the intervention was a rollback, the control goes on instead of going
    back, for as many epochs as the run was trained after it.

    Raises:
        TrialNotFound: it is not babysat.
        RequestRejected: no epoch was completed that could be compared.
        CheckpointError: the state that it started from cannot be had, or the run cannot be gone through again.
    """
    trial, session = babysat(nursery, number)
    shelf, trainer = Shelf(nursery.root, nursery.spec, number), nursery.trainer(number)
    steps = [i for i in applied_of(nursery.storage, nursery.spec, trial) if i.kind in STEERING]
    start = Passed(
        start_state(nursery.storage, nursery.spec, session, trial, shelf, trainer),
        Course(session.start_params, session.settings.get("epochs")),
    )
    moments: dict[int, _Moment] = {}

    def look(passed: Passed, step: Intervention | None) -> None:
        if step is not None and step.sequence is not None:
            moments[step.sequence] = _Moment(passed, dict(run.saved))

    run = Retrace(trainer, start, steps, (trial.epoch, 0), look)
    run.run()
    actual = run.history.get(trial.epoch)
    if actual is None:
        if not steps:
            return []
        raise RequestRejected(f"{trial.name} has completed no epoch that could be compared")

    has_diverged = trial.reason == Reason.DIVERGED
    # a run that diverged is compared by the end of the epoch in which it did
    end = trial.epoch + has_diverged
    comparisons = []
    for index, step in enumerate(steps):
        if set(step.arguments) == {"epochs"}:
            continue  # it decides when to end, not what is learnt
        moment = moments[step.sequence or 0]
        goes_on_at = place_after(step)[0]
        # without a rollback, all that follows lies so many epochs further on
        shift = moment.passed.state.epoch - goes_on_at if step.kind == "rollback" else 0
        later = [_shifted(other, shift, goes_on_at) for other in steps[index + 1 :]]
        control = Retrace(trainer, moment.passed, later, (end + shift, 0), saved=moment.saved)
        try:
            control.run()
        except RunDiverged:
            found = None
        else:
            found = control.history.get(end + shift)
        comparisons.append(
            Comparison(
                intervention=step,
                epochs=_epochs_after(steps[index:], end),
                actual=actual,
                has_diverged=has_diverged,
                control=found,
            )
        )
    return comparisons


def _shifted(step: Intervention, shift: int, since: int) -> Intervention:
    """Return an intervention so many epochs later; a rollback goes to where it went, unless that has moved too."""
    if not shift:
        return step
    after = step.after
    if step.kind == "rollback" and after is not None and after["epoch"] >= since:
        after = {**after, "epoch": after["epoch"] + shift}
    return replace(step, epoch=(step.epoch or 0) + shift, after=after)


def _epochs_after(steps: list[Intervention], end: int) -> int:
    """Return how many epochs were trained after the first of some interventions."""
    total, at = 0, place_after(steps[0])[0]
    for step in steps[1:]:
        total += (step.epoch or 0) - at
        at = place_after(step)[0]
    return total + end - at
