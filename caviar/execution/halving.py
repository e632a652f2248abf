"""Successive halving that depends on nothing but the trials: which of them go on, and which end early.

At a ninth of its epochs a trial goes on where it is as good as the best third of those before it were then, and at a
third of them where it is as good as the best ninth: these are the rungs. With fewer than ten epochs there is one, at a
third of them and for the best third. Those before it are the trials of earlier generations, which have all ended when
its own begins. So the order in which workers finish changes nothing: a study ends the same trials at the same epochs
wherever and however often it is begun.

References:
    Jamieson and Talwalkar (2016), "Non-stochastic best arm identification and hyperparameter optimization", has the
    rungs. Li et al. (2020), "A system for massively parallel hyperparameter tuning", decides in the order in which
    trials happen to get there, which needs no generations and is seldom the same twice.
"""

from __future__ import annotations

import math
from array import array

from caviar.execution.base import Bar
from caviar.records import Direction, Reports, Trial

#: One trial in so many goes on at each rung.
SHARE = 3
#: Trials of the first generation: they are trained to the end, and held against nobody.
FIRST_GENERATION = 16
#: A generation ends where there are so many times as many trials as before it.
GROWTH = 4
#: More of them would judge trials by their first few hundredths, and lose good ones.
_RUNGS = 2
#: No trial is judged by a single epoch.
_LEAST_EPOCHS = 2


def rungs(epochs: int) -> tuple[int, ...]:
    """Return the epochs at which trials are held against others: a ninth of all and a third, where there are enough."""
    return tuple(epoch for power in range(_RUNGS, 0, -1) if (epoch := _part(epochs, power)) >= _LEAST_EPOCHS)


def _part(n: int, power: int) -> int:
    """Return a third of n, a ninth, ..., rounded up."""
    for _ in range(power):
        n = math.ceil(n / SHARE)
    return n


class Halving:
    """What trials drawn from one version of a space have reached at each rung, and what those to come have to.

    Args:
        metric, direction, epochs: of the study.
        first: the number of the first trial.
    """

    def __init__(self, metric: str, direction: Direction, epochs: int, first: int) -> None:
        self._metric, self._direction = metric, direction
        self._first = first
        self._rungs = rungs(epochs)
        self._reached = [array("d") for _ in self._rungs]  # times the sign of the direction: less is better
        self._n_ended = 0
        self._under_way: dict[int, dict[int, float]] = {}  # by trial, by rung
        #: Where the generation that has begun starts and ends: the numbers of its first trial and of the next one's.
        self.start, self.end = first, first
        #: What its trials have to reach, by epoch.
        self.bars: tuple[tuple[int, Bar], ...] = ()

    def begin(self, number: int) -> None:
        """Begin the generation of a trial: all trials before it have ended."""
        start, size = 0, FIRST_GENERATION
        while number - self._first >= size:
            start, size = size, size * GROWTH
        self.start, self.end = self._first + start, self._first + size
        self.bars = tuple((epoch, self._bar(index)) for index, epoch in enumerate(self._rungs) if self._is_full(index))

    def _n_to_go_on(self, rung: int) -> int:
        return _part(self._n_ended, rung + 1)

    def _is_full(self, rung: int) -> bool:
        """Return whether enough trials have come so far for one more to be too many."""
        return 0 < self._n_to_go_on(rung) <= len(self._reached[rung])

    def _bar(self, rung: int) -> Bar:
        value = sorted(self._reached[rung])[self._n_to_go_on(rung) - 1]
        return Bar(metric=self._metric, direction=self._direction, value=self._direction.sign * value)

    def see(self, number: int, reports: Reports) -> None:
        """Note how a trial does, from what it reported."""
        if self._metric not in reports.metrics:
            return
        column = reports.metrics.index(self._metric)
        for rung, epoch in enumerate(self._rungs):
            if reports.first_epoch <= epoch < reports.first_epoch + len(reports):
                value = float(reports.values[epoch - reports.first_epoch, column])
                if math.isfinite(value):
                    self._under_way.setdefault(number, {})[rung] = self._direction.sign * value

    def lacks(self, trial: Trial) -> bool:
        """Return whether a trial has come to a rung, and nothing was seen of what it reported there."""
        reached = self._under_way.get(trial.number, {})
        return any(epoch <= trial.epoch and rung not in reached for rung, epoch in enumerate(self._rungs))

    def tell(self, trial: Trial) -> None:
        """Note that a trial has ended; one that diverged, or ended early, came no further and counts as worse."""
        reached = self._under_way.pop(trial.number, {})
        if not trial.is_telling:
            return
        self._n_ended += 1
        for rung, value in reached.items():
            self._reached[rung].append(value)

    def drop(self, number: int) -> None:
        """Forget a trial that somebody else goes on with."""
        self._under_way.pop(number, None)
