"""Cutting trials into slices: about a second of work each, longest trials first."""

from __future__ import annotations

from caviar.execution.base import TrialTask
from caviar.training.dataset import Dataset
from caviar.training.hyperparameters import Hyperparameters

#: Work in a slice: long enough to hide the cost of a call, short enough to report, stop and share evenly.
SLICE_S = 1.0
#: Until costs have been measured, slices are short, so that the first results come soon.
_FIRST_SLICE_S = 0.2
#: Weight of the old in the ratio of measured to estimated cost.
_RATIO_WEIGHT = 0.7

# a rough model of one core; what it gets wrong is measured and corrected
_SECONDS_PER_STEP = 40e-6
_SECONDS_PER_LAYER = 40e-6
_SECONDS_PER_PRODUCT = 6 / 40e9
_SECONDS_PER_PARAMETER = 3e-9


class Planner:
    """Estimates what trials cost, learns from what they took, and takes the next slice from a pool."""

    def __init__(self, data: Dataset) -> None:
        self._shape = (len(data.train), data.n_features, data.n_classes)
        self._ratio = 1.0
        self._measured = False

    def cost(self, task: TrialTask) -> float:
        """Return the estimated seconds of a task, before correction by what was measured."""
        N, D, C = self._shape
        try:
            hyper = Hyperparameters.from_params(task.params)
        except ValueError:
            return 0.0  # it will fail at once
        network = hyper.network(D, C)
        M = min(hyper.batch_size, N)
        step = (
            _SECONDS_PER_STEP
            + _SECONDS_PER_LAYER * (len(network.layer_sizes) - 2)
            + network.n_parameters * (M * _SECONDS_PER_PRODUCT + _SECONDS_PER_PARAMETER)
        )
        epochs = task.until - (task.state.epoch if task.state else 0)
        return epochs * step * max(N // M, 1)

    def learn(self, tasks: tuple[TrialTask, ...], seconds: float) -> None:
        """Take note that these tasks took so long."""
        estimated = sum(map(self.cost, tasks))
        if estimated <= 0 or seconds <= 0:
            return
        ratio = seconds / estimated
        self._ratio = _RATIO_WEIGHT * self._ratio + (1 - _RATIO_WEIGHT) * ratio if self._measured else ratio
        self._measured = True

    def take(self, pool: list[TrialTask], n_workers: int) -> tuple[TrialTask, ...]:
        """Remove the next slice from a pool sorted by cost, cheapest first, and return it.

        Near the end of the pool slices shrink, so that all workers finish together.
        """
        target = SLICE_S if self._measured else _FIRST_SLICE_S
        if len(pool) < 64 * n_workers:
            left = sum(map(self.cost, pool)) * self._ratio
            target = min(target, left / (2 * n_workers))
        tasks = [pool.pop()]
        total = self.cost(tasks[0]) * self._ratio
        while pool and total + self.cost(pool[-1]) * self._ratio <= target:
            tasks.append(pool.pop())
            total += self.cost(tasks[-1]) * self._ratio
        return tuple(tasks)
