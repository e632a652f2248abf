"""Ending trials early in a sweep: what those before them have reached, read from the database and kept up to date."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from caviar.errors import SettingsError
from caviar.execution.base import Bar
from caviar.execution.halving import Halving
from caviar.numbering import Numbers
from caviar.records import Reports, StudySpec, Trial, TrialState
from caviar.repeats import params_key
from caviar.storage.base import Storage

#: Numbers of trials whose reports are read at a time.
_PAGE = 2_000


class Pruning:
    """Says which trials of a sweep may be trained by now, and what they have to reach to go on.

    Trials are held against those of the same version of the space. Those that panda mode has, and repeats, which have
    the params of an earlier one of their version, are held against nobody, and nobody against them.

    Args:
        spec: of the study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._halvings: dict[int, Halving] = {}  # by version of the space; none where nothing is pruned
        self._seen: set[int] = set()  # hashes of params, with their version
        self._repeats: set[int] = set()  # that have not ended

    def recall(self, storage: Storage, unfinished: Iterable[Trial], numbers: Numbers) -> None:
        """Learn what the database holds of the versions of the space that trials are to be trained of.

        Args:
            storage: the trial database.
            unfinished: trials that an earlier sweep left.
            numbers: which are next, and which are panda mode's.

        Raises:
            SettingsError: a trial has no reports, so that it cannot be said what it reached.
        """
        for version in {self._spec.space_version, *(trial.space_version for trial in unfinished)}:
            self._halvings[version] = self._recall(storage, version, numbers)

    def _recall(self, storage: Storage, version: int, numbers: Numbers) -> Halving:
        spec, halving, all_ended = self._spec, None, True
        where, reports, read_to = f"parent is null and space_version = {version}", dict[int, Reports](), -1
        for trial in itertools.chain.from_iterable(storage.pages(spec.name, where=where)):
            halving = halving or Halving(spec.metric, spec.direction, spec.epochs, trial.number)
            taken = numbers.babysat.get(trial.number)
            if self._is_repeat(trial if taken is None else replace(trial, params=taken)) or taken is not None:
                continue
            if all_ended and trial.number >= halving.end:
                halving.begin(trial.number)
            if not trial.state.is_finished:
                all_ended = False
                continue
            if trial.number > read_to:
                read_to = trial.number + _PAGE
                reports = storage.reports_between(spec.name, trial.number, read_to)
            self._remember(halving, trial, reports.get(trial.number))
        return halving or Halving(spec.metric, spec.direction, spec.epochs, numbers.following(1)[0])

    def _remember(self, halving: Halving, trial: Trial, reports: Reports | None) -> None:
        if self._ended_early(trial):
            return
        if reports is not None:
            halving.see(trial.number, reports)
        if trial.is_telling and halving.lacks(trial):
            raise SettingsError(
                f"study {trial.study!r} ends trials early by what earlier ones reported, and {trial.name} has no "
                "reports, as after an import from CSV; export it as JSONL or Parquet, and import that"
            )
        halving.tell(trial)

    def _ended_early(self, trial: Trial) -> bool:
        """Return whether a trial never came to its last epochs, and was not ended: it is held against nobody."""
        # made through Optuna, or by a function that ended by itself
        return trial.state is TrialState.COMPLETE and trial.epoch < self._spec.epochs

    def is_ready(self, number: int, version: int, is_idle: bool) -> bool:
        """Return whether a trial may be trained by now: once those have ended that it is held against.

        Args:
            number: of the trial; trials are asked for in this order.
            version: of the space.
            is_idle: whether all trials that were ready have ended.
        """
        halving = self._of(number, version)
        if halving is None:
            return True
        if number >= halving.end and is_idle:
            halving.begin(number)
        return number < halving.end

    def add(self, trials: Sequence[Trial]) -> None:
        """Take new trials, in order of number."""
        if self._halvings:
            for trial in trials:
                self._is_repeat(trial)

    def _is_repeat(self, trial: Trial) -> bool:
        """Return whether an earlier trial has the same params, and note those of this one."""
        key = hash((trial.space_version, params_key(trial.params)))
        is_repeat = key in self._seen
        self._seen.add(key)
        if is_repeat and not trial.state.is_finished:
            self._repeats.add(trial.number)
        return is_repeat

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
            self._repeats.discard(trial.number)
            if halving is None:
                return
            if self._ended_early(trial):
                halving.drop(trial.number)
            else:
                halving.tell(trial)

    def drop(self, number: int, version: int) -> None:
        """Forget a trial, of a version of the space, that panda mode goes on with, or that was lost."""
        halving = self._of(number, version)
        if halving is not None:
            halving.drop(number)

    def _of(self, number: int, version: int) -> Halving | None:
        return None if number in self._repeats else self._halvings.get(version)
