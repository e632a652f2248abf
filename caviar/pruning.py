"""Ending trials early in a sweep: what those before them have reached, read from the database and kept up to date."""

from __future__ import annotations

from collections.abc import Iterable

from caviar.execution.base import Bar
from caviar.execution.halving import Halving
from caviar.records import Reports, StudySpec, Trial
from caviar.repeats import params_key
from caviar.search.sampler import TrialSampler
from caviar.space import SearchSpace
from caviar.storage.base import Storage

#: Trials whose reports are read at a time.
_PAGE = 2_000


class Pruning:
    """Says which trials of a sweep may be trained by now, and what they have to reach to go on.

    Trials are held against those of the same version of the space. Trials that panda mode has, and repeats, whose
    params were not drawn for their number, are held against nobody, and nobody against them.

    Args:
        spec: of the study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._halvings: dict[int, Halving] = {}  # by version of the space; none where nothing is pruned
        self._repeats: set[int] = set()  # that an earlier sweep left unfinished

    def recall(self, storage: Storage, unfinished: Iterable[Trial], babysat: set[int], following: int) -> None:
        """Learn what the database holds of the versions of the space that trials are to be trained of.

        Args:
            storage: the trial database.
            unfinished: trials that an earlier sweep left.
            babysat: numbers of trials that panda mode has.
            following: the number of the next trial to be drawn.
        """
        for version in {self._spec.space_version, *(trial.space_version for trial in unfinished)}:
            self._halvings[version] = self._recall(storage, version, babysat, following)

    def _recall(self, storage: Storage, version: int, babysat: set[int], following: int) -> Halving:
        spec, halving = self._spec, None
        space = SearchSpace.from_dict(storage.spaces(spec.name)[version - 1])
        sampler, seen = TrialSampler(space, spec.seed), set()
        for page in storage.pages(spec.name, where=f"parent is null and space_version = {version}", size=_PAGE):
            reports = storage.reports_between(spec.name, page[0].number, page[-1].number)
            for trial in page:
                key = params_key(trial.params)
                is_repeat = key in seen and sampler.params(trial.number) != trial.params
                seen.add(key)
                if is_repeat and not trial.state.is_finished:
                    self._repeats.add(trial.number)
                if is_repeat or trial.number in babysat:
                    continue
                if halving is None:
                    halving = Halving(spec.metric, spec.direction, spec.epochs, trial.number)
                if trial.number >= halving.end:
                    halving.begin(trial.number)
                if trial.state.is_finished:
                    if trial.number in reports:
                        halving.see(trial.number, reports[trial.number])
                    halving.tell(trial)
        return halving or Halving(spec.metric, spec.direction, spec.epochs, following)

    def ready(self, numbers: list[int], is_idle: bool) -> list[int]:
        """Return which of the next numbers may be drawn by now: those of a generation, once those before it have ended.

        Args:
            numbers: of the next trials, in order.
            is_idle: whether all trials have ended so far.
        """
        halving = self._halvings.get(self._spec.space_version)
        if halving is None or not numbers:
            return numbers
        if numbers[0] >= halving.end and is_idle:
            halving.begin(numbers[0])
        return [number for number in numbers if number < halving.end]

    def bars(self, trial: Trial) -> tuple[tuple[int, Bar], ...]:
        """Return what a trial has to reach, by epoch."""
        halving = self._of(trial.number, trial.space_version)
        return halving.bars if halving is not None and halving.start <= trial.number < halving.end else ()

    def see(self, trial: Trial, reports: Reports) -> None:
        """Note how a trial does, or did: what it reported since it was last seen."""
        halving = self._of(trial.number, trial.space_version)
        if halving is not None:
            halving.see(trial.number, reports)
            if trial.state.is_finished:
                halving.tell(trial)

    def drop(self, trial: Trial) -> None:
        """Forget a trial that panda mode goes on with."""
        halving = self._of(trial.number, trial.space_version)
        if halving is not None:
            halving.drop(trial.number)

    def _of(self, number: int, version: int) -> Halving | None:
        return None if number in self._repeats else self._halvings.get(version)
