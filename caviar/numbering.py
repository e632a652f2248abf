"""Which numbers the trials of a sweep get: those that follow, but for what panda mode has taken meanwhile."""

from __future__ import annotations

import itertools

from caviar.storage.base import Storage


class Numbers:
    """The numbers that a sweep gives to its trials, each once.

    Args:
        storage: the trial database.
        study: name of the study.
        n_trials: that it holds by now.
    """

    def __init__(self, storage: Storage, study: str, n_trials: int) -> None:
        self._storage, self._study = storage, study
        #: Trials that panda mode has, by number, with the params that they began with.
        self.babysat = {session.number: session.start_params for session in storage.sessions.all(study)}
        # they go on from others, so no sweep made them; an imported study may hold them without their sessions
        children = storage.pages(study, where="parent is not null")
        self._children = {trial.number for trial in itertools.chain.from_iterable(children)}
        self._next = self._first_free() if n_trials else 0

    @property
    def _taken(self) -> set[int]:
        return {*self.babysat, *self._children}

    def _first_free(self) -> int:
        """Return one more than the last number that a sweep gave to a trial."""
        limit = 1 + len(self.babysat)
        last = self._storage.trials(self._study, where="parent is null", sort="-number", limit=limit)
        return next((trial.number + 1 for trial in last if trial.number not in self.babysat), 0)

    def reserve(self, n: int) -> None:
        """Keep numbers for n trials, so that whoever adds some meanwhile takes later ones."""
        n_skipped = sum(number >= self._next for number in self._taken)
        self._storage.reserve_numbers(self._study, self._next + n + n_skipped)

    def following(self, n: int) -> list[int]:
        """Return the next n numbers that no trial has."""
        taken = self._taken
        free = (number for number in itertools.count(self._next) if number not in taken)
        return list(itertools.islice(free, n))

    def use(self, last: int) -> None:
        """Note that trials have these numbers now, up to the last one."""
        self._next = last + 1
