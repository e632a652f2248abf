"""Cutting trials into slices: about a second of work each, longest trials first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from caviar.execution.base import TrialTask
from caviar.execution.halving import SHARE
from caviar.execution.pool import Pool
from caviar.records import Params
from caviar.training.dataset import Dataset
from caviar.training.hyperparameters import Hyperparameters

#: Work in a slice: long enough to hide the cost of a call, short enough to report, stop and share evenly.
SLICE_S = 1.0
#: Until costs have been measured, slices are short, so that the first results come soon, however wrong the estimate.
_FIRST_SLICE_S = 0.2
_FIRST_TASKS = 4
#: Once they have been, the last slices are no shorter: a call leaves its worker idle for 2 to 5 ms on two busy cores,
#: which is as much as shorter slices would even out at the end.
_LAST_SLICE_S = 0.02
#: A slice that has to wait longer than this for its worker is no longer than this, where there are trials so short: it
#: bridges the time until the worker is handed another. It cannot be taken back, and at the end would wait while others
#: have nothing left to do.
SPARE_SLICE_S = 0.05
#: Weight of the old in the ratio of measured to estimated cost.
_RATIO_WEIGHT = 0.7

#: What an epoch of code of the user's is thought to take until one is measured: too long for a slice of several
#: trials, and to be trained in the process that has to answer meanwhile.
_SECONDS_OF_OWN_CODE = 60.0
# a model of one core that trains with the compiled kernel; by how much a machine is slower or faster is measured
_SECONDS_PER_EPOCH = 60e-6
_SECONDS_PER_PRODUCT = 4.5e-11  # of a parameter and an example, forward and backward
_SECONDS_PER_ACTIVATION = 0.8e-9  # of a hidden unit and an example
_SECONDS_PER_PARAMETER = 0.3e-9  # of each update
_SECONDS_PER_EVALUATION = 2e-11  # of a parameter and an example


class Planner:
    """Estimates what trials cost, learns from what they took, and takes the next slice from a pool.

    Args:
        data: that the built-in network trains on; None where code of the user's trains, whose trials are thought to
            cost alike.
        has_states: whether a trial can go on from where a slice ended.
    """

    def __init__(self, data: Dataset | None, *, has_states: bool = True) -> None:
        self._has_states = has_states
        self._shape: tuple[int, int, int, int] | None = None
        if data is not None:
            self._shape = len(data.train), len(data.validation), data.n_features, data.n_classes
        self._ratio = 1.0
        self._measured = False
        self._per_epoch: dict[int, tuple[Params, float]] = {}  # of tasks in the pool and on their way

    def cost(self, task: TrialTask) -> float:
        """Return the estimated seconds of a task, before correction by what was measured."""
        params, per_epoch = self._per_epoch.get(task.number, (None, 0.0))
        if params is not task.params:
            per_epoch = self._cost_per_epoch(task)
            self._per_epoch[task.number] = task.params, per_epoch
        return per_epoch * _epochs_to_come(task)

    def seconds(self, tasks: Iterable[TrialTask]) -> float:
        """Return how long one worker is thought to take for some tasks."""
        return sum(map(self.cost, tasks)) * self._ratio

    def _cost_per_epoch(self, task: TrialTask) -> float:
        if self._shape is None:
            return _SECONDS_OF_OWN_CODE
        N, N_validation, D, C = self._shape
        try:
            hyper = Hyperparameters.from_params(task.params)
        except ValueError:
            return 0.0  # it will fail at once
        network = hyper.network(D, C)
        M = min(hyper.batch_size, N)
        example = network.n_parameters * _SECONDS_PER_PRODUCT + network.n_units * _SECONDS_PER_ACTIVATION
        step = M * example + network.n_parameters * _SECONDS_PER_PARAMETER
        evaluation = N_validation * network.n_parameters * _SECONDS_PER_EVALUATION
        return max(N // M, 1) * step + evaluation + _SECONDS_PER_EPOCH

    def learn(self, tasks: tuple[TrialTask, ...], seconds: float) -> None:
        """Take note that these tasks took so long."""
        estimated = sum(map(self.cost, tasks))
        for task in tasks:
            self._per_epoch.pop(task.number, None)
        if estimated <= 0 or seconds <= 0:
            return
        ratio = seconds / estimated
        self._ratio = _RATIO_WEIGHT * self._ratio + (1 - _RATIO_WEIGHT) * ratio if self._measured else ratio
        self._measured = True

    def take(self, pool: Pool, n_workers: int, *, n_to_come: int = 0, spare: bool = False) -> tuple[TrialTask, ...]:
        """Remove the next slice from a pool, and return it.

        The longest trials come first, so that they do not come last; a spare slice takes the cheapest, where these are
        short. Near the end slices shrink, so that all workers finish together; not to less than a call is worth.

        Args:
            pool: what is to be done.
            n_workers: among how many it is shared.
            n_to_come: how many trials like those of the pool are yet to be put into it.
            spare: whether the slice will have to wait long for its worker.
        """
        spare = spare and pool[0].state is None and self.seconds([pool[0]]) <= SPARE_SLICE_S
        target = SPARE_SLICE_S if spare else SLICE_S if self._measured else _FIRST_SLICE_S
        end = 0 if spare else -1
        least = _LAST_SLICE_S if self._measured else 0.0
        all_left = pool.cost * (1 + n_to_come / len(pool)) * self._ratio
        target = min(target, max(all_left / (2 * n_workers), least))
        tasks = [pool.take(end)]
        total = self.cost(tasks[0])
        most = len(pool) + 1 if self._measured else _FIRST_TASKS
        while len(pool) and len(tasks) < most and (total + self.cost(pool[end])) * self._ratio <= target:
            tasks.append(pool.take(end))
            total += self.cost(tasks[-1])
        return tuple(tasks)

    def cut(self, task: TrialTask) -> TrialTask:
        """Return a task that is not much longer than a slice: a longer one ends at an earlier epoch, with its state.

        A function is trained to its end: nobody knows its state.
        """
        if not self._has_states:
            return task
        assert isinstance(task.until, int)
        done = task.state.epoch if task.state else 0
        seconds = self.seconds([replace(task, bars=()) if task.bars else task])
        if seconds <= 2 * SLICE_S or task.until - done < 2:
            return task
        n_epochs = max(int(SLICE_S * (task.until - done) / seconds), 1)
        return replace(task, until=done + n_epochs, keep_state=True)


def _epochs_to_come(task: TrialTask) -> float:
    """Return how many epochs a task is thought to train: of those that meet a bar, one in `SHARE` goes on."""
    epoch, share, epochs = task.state.epoch if task.state else 0, 1.0, 0.0
    for end in (*(end for end, _ in task.bars if epoch < end < task.last_epoch), task.last_epoch):
        epochs += share * (end - epoch)
        epoch, share = end, share / SHARE
    return epochs
