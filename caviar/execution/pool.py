"""The trials of a sweep that wait for a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from caviar.execution.base import TrialTask


class Pool:
    """Trials that wait, cheapest first; those that are begun come last, so that few states are kept.

    Args:
        cost: of a trial, in any unit.
    """

    def __init__(self, cost: Callable[[TrialTask], float]) -> None:
        self._cost = cost
        self._tasks: list[TrialTask] = []
        self._total: float | None = 0.0  # None where it has to be added up again

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[TrialTask]:
        return iter(self._tasks)

    def __getitem__(self, index: int) -> TrialTask:
        return self._tasks[index]

    @property
    def cost(self) -> float:
        """What all of them cost: asked for each slice, of a thousand workers, too, so that it is kept."""
        if self._total is None:
            self._total = sum(map(self._cost, self._tasks))
        return self._total

    def add(self, tasks: Sequence[TrialTask]) -> None:
        """Put trials where they belong."""
        self._tasks += tasks
        self._tasks.sort(key=lambda task: (task.state is not None, self._cost(task), -task.number))
        self._total = None

    def put_last(self, task: TrialTask) -> None:
        """Put a trial where the next slice is taken from."""
        self._tasks.append(task)
        self._total = None

    def take(self, index: int) -> TrialTask:
        """Remove the trial at a place, and return it."""
        task = self._tasks.pop(index)
        if self._total is not None:
            self._total -= self._cost(task)
        return task

    def take_number(self, number: int) -> TrialTask | None:
        """Remove the trial of a number, and return it, if it is here."""
        found = next((index for index, task in enumerate(self._tasks) if task.number == number), None)
        return None if found is None else self.take(found)
