"""Did the nudge help? For each intervention, the same run without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from caviar.errors import CheckpointError, ExecutorError, RequestRejected, TrainableError
from caviar.panda.course import STEERING, place_after
from caviar.panda.replay import babysat
from caviar.panda.retrace import Passed, Retrace, RunDiverged
from caviar.panda.revive import start_state
from caviar.panda.start import Nursery
from caviar.panda.trainer import Trainer
from caviar.records import Intervention, Reason, StudySpec
from caviar.training.state import Point, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One intervention, and how the run ended with it and would have without it."""

    intervention: Intervention
    #: Epochs that the control branch was trained for after the intervention, as many as the run was.
    epochs: int
    #: Metrics of the run's last epoch.
    actual: Mapping[str, float]
    #: Metrics of the control's last epoch; None where it diverged, or could not be made.
    control: Mapping[str, float] | None
    #: Examples of the validation part, by which both are judged; None where it is not known what they are judged by.
    n_validation: int | None
    #: The run itself ended by diverging.
    has_diverged: bool = False
    #: Why the control could not be made; None where it could.
    trouble: str | None = None

    def gain(self, metric: str) -> float | None:
        """Return actual minus control."""
        return None if self.control is None else self.actual[metric] - self.control[metric]

    @property
    def n_examples(self) -> int | None:
        """How many more examples of the validation part are right than in the control; None where nobody knows."""
        gain = self.gain("val_accuracy") if self.n_validation else None
        return None if gain is None or self.n_validation is None else round(gain * self.n_validation)

    @property
    def is_within_noise(self) -> bool:
        """Whether other validation examples could well have said the opposite.

        The accuracies differ by less than two standard errors of the difference of two shares of so many examples.
        """
        if self.control is None or not self.n_validation:
            return False
        actual, control = self.actual["val_accuracy"], self.control["val_accuracy"]
        share = (actual + control) / 2
        return abs(actual - control) < 2 * math.sqrt(2 * share * (1 - share) / self.n_validation)

    def has_helped(self, spec: StudySpec) -> bool | None:
        """Return whether the run is better for it by the study's metric; None where that cannot be told."""
        if self.trouble is not None:
            return None
        if self.has_diverged:
            return None if self.control is None else False
        if self.control is None:
            return True
        gain = self.actual[spec.metric] - self.control[spec.metric]
        if gain == 0:
            return None
        return spec.direction.sign * gain < 0


@dataclass(frozen=True, slots=True)
class _Moment:
    """A run as an intervention found it."""

    passed: Passed
    saved: dict[Point, State]
    history: dict[int, dict[str, float]]


def compare(nursery: Nursery, number: int) -> list[Comparison]:
    """Train, for each intervention of a babysat trial, the same run without it.

    The control branch has all that was done before, leaves one intervention out, and has all that was done after, as
    many epochs later as it was done then. Where the intervention was a rollback, the control goes on instead of going
    back, for as many epochs as the run was trained after it; a later rollback to where both have been brings it back to
    the run's epochs. A control that cannot be made is told in its comparison.

    Raises:
        TrialNotFound: it is not babysat.
        RequestRejected: no epoch was completed that could be compared.
        CheckpointError: the state that it started from cannot be had, or the run cannot be gone through again.
    """
    cub = babysat(nursery, number)
    trial, trainer = cub.trial, cub.trainer
    steps = [i for i in cub.applied() if i.kind in STEERING]
    start = Passed(start_state(cub), cub.beginning)
    moments: dict[int, _Moment] = {}

    def look(passed: Passed, step: Intervention | None) -> None:
        if step is not None and step.sequence is not None:
            moments[step.sequence] = _Moment(passed, dict(run.saved), dict(run.history))

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
        control, trouble = _control(trainer, moments[step.sequence or 0], steps[index:], end)
        comparisons.append(
            Comparison(
                intervention=step,
                epochs=_epochs_after(steps[index:], end),
                actual=actual,
                n_validation=None if nursery.spec.trainable or not nursery.data else len(nursery.data.validation),
                has_diverged=has_diverged,
                control=control,
                trouble=trouble,
            )
        )
    return comparisons


def _control(
    trainer: Trainer, moment: _Moment, steps: Sequence[Intervention], end: int
) -> tuple[Mapping[str, float] | None, str | None]:
    """Train a run without the first of some interventions; return its last metrics, or why there are none.

    Both are None where it diverged.
    """
    later, shift = _without(steps, moment.passed.state.point)
    control = Retrace(trainer, moment.passed, later, (end + shift, 0), saved=moment.saved, history=moment.history)
    try:
        control.run()
    except RunDiverged:
        return None, None
    except (CheckpointError, ExecutorError, TrainableError) as error:
        return None, str(error)
    found = control.history.get(end + shift)
    return found, None if found is not None else f"without it, epoch {end + shift} was not completed"


def _without(steps: Sequence[Intervention], left_at: Point) -> tuple[list[Intervention], int]:
    """Return the interventions after the first, where they are without it, and by how many epochs the end moves.

    Without a rollback, all that follows lies so many epochs further on, until another rollback goes to where that one
    went, or behind it: what is there was trained before both, and is the same with it and without it.

    Args:
        steps: the one that is left out, and those after it.
        left_at: where the run was when it was applied.
    """
    went_to = place_after(steps[0])
    shift = left_at[0] - went_to[0] if steps[0].kind == "rollback" else 0
    later = []
    for step in steps[1:]:
        moved = replace(step, epoch=(step.epoch or 0) + shift)
        if step.kind == "rollback" and step.after is not None:
            if place_after(step) <= went_to:
                shift = 0
            else:
                # nothing before the moment itself belongs to the control alone
                epoch, batch = max((step.after["epoch"] + shift, step.after["batch"]), left_at if shift else (0, 0))
                moved = replace(moved, after={**step.after, "epoch": epoch, "batch": batch})
        later.append(moved)
    return later, shift


def _epochs_after(steps: list[Intervention], end: int) -> int:
    """Return how many epochs were trained after the first of some interventions."""
    total, at = 0, place_after(steps[0])[0]
    for step in steps[1:]:
        total += (step.epoch or 0) - at
        at = place_after(step)[0]
    return total + end - at
