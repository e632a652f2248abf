"""How long a sweep still takes: by work and not by trials, for the longest come first."""

from __future__ import annotations

from collections.abc import Sequence

from caviar.execution.base import TrialTask
from caviar.execution.planner import Planner


class Forecast:
    """Adds up what the planner thinks that tasks cost. The machine's speed and the workers cancel out.

    Args:
        planner: estimates costs; `learn` forgets those of tasks, so that they are told here before.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._n_planned, self._planned, self._done = 0, 0.0, 0.0

    def plan(self, tasks: Sequence[TrialTask]) -> None:
        """Take tasks that are to be done."""
        self._n_planned += len(tasks)
        self._planned += self._cost(tasks)

    def drop(self, task: TrialTask) -> None:
        """Take back what is left of a task: somebody else does it."""
        self._planned -= self._cost((task,))

    def do(self, tasks: Sequence[TrialTask]) -> None:
        """Note that tasks are done, or parts of them."""
        self._done += self._cost(tasks)

    def seconds_left(self, seconds: float, n_to_draw: int) -> float:
        """Return how long the rest takes, at the pace so far.

        Args:
            seconds: that what is done took.
            n_to_draw: tasks that will be planned later, and are thought to cost as those before.
        """
        if self._done <= 0:
            return 0.0
        to_come = self._planned * (1 + n_to_draw / self._n_planned) - self._done
        return seconds * max(to_come, 0.0) / self._done

    def _cost(self, tasks: Sequence[TrialTask]) -> float:
        return sum(map(self._planner.cost, tasks))
