"""Going through a run again: from a state, with the interventions that were applied to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from caviar.errors import CheckpointError
from caviar.panda.course import STEERING, Course, place_after, steered
from caviar.panda.trainer import Trainer
from caviar.records import Intervention
from caviar.training.state import Point, State


class RunDiverged(CheckpointError):
    """the run cannot be retraced: its loss became NaN or infinite"""


@dataclass(frozen=True, slots=True)
class Passed:
    """Where a run was retraced to."""

    state: State
    course: Course


class Retrace:
    """Trains a run once more.

    It meets the same bits as the run that is retraced, whatever made that one stop and go on: a point in training is an
    epoch and a mini-batch, and a rollback goes to a state that was passed on the way.

    Args:
        trainer: trains.
        start: the state that the run began with, and what was in force.
        interventions: those that were applied, in their order; only the steering ones matter.
        until: where to end.
        on_point: called with each epoch's end that is reached, and with each state that an intervention is applied to.
        saved: states that lie behind the start, to which a rollback may go.
        history: metrics by epoch that lie behind the start.
        looked_at: places within an epoch at which `on_point` is called, too.
    """

    def __init__(
        self,
        trainer: Trainer,
        start: Passed,
        interventions: Sequence[Intervention],
        until: Point,
        on_point: Callable[[Passed, Intervention | None], None] = lambda passed, intervention: None,
        saved: Mapping[Point, State] | None = None,
        history: Mapping[int, dict[str, float]] | None = None,
        looked_at: Collection[Point] = (),
    ) -> None:
        self._trainer, self._now = trainer, start
        self._steps = [i for i in interventions if i.kind in STEERING]
        self._until, self._on_point = until, on_point
        self._targets = {place_after(i) for i in self._steps if i.kind == "rollback"}
        self._looked_at = frozenset(looked_at)
        #: States that a rollback goes to, by their place.
        self.saved = dict(saved or {})
        #: Metrics by epoch, on the timeline that is in force.
        self.history = dict(history or {})

    def run(self) -> Passed:
        """Go to the end.

        Raises:
            RunDiverged: its loss becomes NaN or infinite.
            CheckpointError: the run does not go as the interventions tell.
        """
        for step in self._steps:
            assert step.epoch is not None and step.batch is not None
            self._go((step.epoch, step.batch))
            self._on_point(self._now, step)
            if step.kind == "rollback":
                self._go_back(place_after(step))
                self._on_point(self._now, None)
            now = self._now
            self._now = Passed(now.state, steered(now.course, step.kind, step.arguments, bool(now.state.batch)))
        self._go(self._until)
        return self._now

    def _go_back(self, target: Point) -> None:
        now = self._now
        state = now.state if now.state.point == target else self.saved.get(target)
        if state is None:
            raise CheckpointError(
                f"the run cannot be retraced: it never passed epoch {target[0]}, which it went back to"
            )
        self._now = Passed(state, now.course if target[1] else now.course.at_epoch_start())
        self.history = {epoch: metrics for epoch, metrics in self.history.items() if epoch <= target[0]}
        # what lies further on is of a timeline that was left
        self.saved = {point: saved for point, saved in self.saved.items() if point <= target}

    def _go(self, until: Point) -> None:
        while True:
            now = self._now
            if now.state.point in self._targets:
                self.saved[now.state.point] = now.state
            if now.state.point >= until:
                return
            ahead = [point for point in self._targets | self._looked_at if now.state.point < point]
            stop = min([until, (now.state.epoch + 1, 0), *ahead])
            advance = self._trainer.advance(now.state, now.course.params, stop)
            if advance.state is None:
                raise RunDiverged(f"the run cannot be retraced: it diverged in epoch {now.state.epoch + 1}")
            course = now.course.at_epoch_start() if not advance.state.batch else now.course
            self._now = Passed(advance.state, course)
            self.history.update(advance.metrics)
            if not advance.state.batch or advance.state.point in self._looked_at:
                self._on_point(self._now, None)
