"""Trials of the same params: a value that was good once may have been luck (lecture, "re-test occasionally").

A trial's random bits come from its number, so the same params under another number start from other weights and see the
examples in another order. No mark is needed: trials are repeats where their params are the same.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from caviar.errors import TrialNotFound
from caviar.records import Params, StudySpec, Trial, TrialState
from caviar.storage.base import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class Retest:
    """What became of a trial's params when they were trained again."""

    #: Whose value made it one of the best: among many trials the luckiest, too, so its value is not counted again.
    trial: Trial
    #: Those that came after it, in order of number.
    repeats: tuple[Trial, ...]

    @property
    def values(self) -> list[float]:
        """The values of the repeats that are COMPLETE."""
        return [t.value for t in self.repeats if t.state is TrialState.COMPLETE and t.value is not None]

    @property
    def mean(self) -> float | None:
        """The mean of these values, if there is any: what may be expected of the params."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def n_failed(self) -> int:
        """How many repeats failed, as those that diverge."""
        return sum(t.state is TrialState.FAIL for t in self.repeats)


def untended_trials(storage: Storage, study: str) -> list[Trial]:
    """Return the trials that began with their params and were left to themselves, in order of number."""
    babysat = {session.number for session in storage.sessions.all(study)}
    pages = storage.pages(study, where="parent is null")
    return [trial for trial in itertools.chain.from_iterable(pages) if trial.number not in babysat]


def first_trials(trials: Iterable[Trial], spec: StudySpec, *, worse: bool = False) -> list[Trial]:
    """Return the COMPLETE ones of some trials, best first; of several with the same params the first.

    Args:
        trials: of one study, in order of number.
        spec: of the study.
        worse: return those that diverged or were pruned for being behind, too, after the others.
    """
    found: dict[object, Trial] = {}
    for trial in trials:
        is_complete = trial.state is TrialState.COMPLETE
        if trial.value is not None if is_complete else worse and trial.is_telling:
            found.setdefault(params_key(trial.params), trial)
    return sorted(found.values(), key=spec.rank)


def repeats_of(chosen: Sequence[Trial], trials: Iterable[Trial]) -> dict[int, list[Trial]]:
    """Return those of some trials that came after each chosen one with its params, by the number of that.

    They are in any state, and of its version of the space.
    """
    numbers = {(trial.space_version, params_key(trial.params)): trial.number for trial in chosen}
    found: dict[int, list[Trial]] = {trial.number: [] for trial in chosen}
    for trial in trials:
        number = numbers.get((trial.space_version, params_key(trial.params)))
        if number is not None and trial.number > number:
            found[number].append(trial)
    return found


def unfinished_repeats(
    trials: Sequence[Trial], repeats: Mapping[int, Sequence[Trial]], n_times: int
) -> tuple[set[int], list[Trial]]:
    """Return what is to be trained so that the params of each trial are trained `n_times` once more.

    Returns:
        The numbers of repeats that are there and not finished, and each trial as often as one of it is missing.
    """
    going_on: set[int] = set()
    missing: list[Trial] = []
    for trial in trials:
        found = repeats[trial.number]
        wanted = max(n_times - sum(t.state.is_finished for t in found), 0)
        waiting = [t.number for t in found if not t.state.is_finished][:wanted]
        going_on.update(waiting)
        missing += [trial] * (wanted - len(waiting))
    return going_on, missing


def retests(spec: StudySpec, trials: Sequence[Trial], repeats: Mapping[int, Sequence[Trial]]) -> list[Retest]:
    """Return what became of each trial: those that never failed first, by the mean of the new values, best first."""
    found = [Retest(trial=trial, repeats=tuple(repeats[trial.number])) for trial in trials]
    sign = spec.direction.sign

    def rank(retest: Retest) -> tuple[int, float]:
        return retest.n_failed, float("inf") if retest.mean is None else sign * retest.mean

    return sorted(found, key=rank)


def retest_study(
    storage: Storage,
    spec: StudySpec,
    n_best: int,
    n_times: int,
    train: Callable[[Callable[[], tuple[set[int], list[Trial]]]], None],
) -> list[Retest]:
    """Have the best trials trained again until each has been so `n_times`. See :meth:`caviar.Study.retest`.

    Args:
        storage: the trial database.
        spec: of the study.
        n_best, n_times: as there.
        train: trains what it is told when it asks, once nobody else writes the study.
    """

    def look() -> tuple[list[Trial], dict[int, list[Trial]]]:
        trials = untended_trials(storage, spec.name)
        chosen = first_trials(trials, spec)[:n_best]
        return chosen, repeats_of(chosen, trials)

    chosen, repeats = look()
    if not chosen:
        raise TrialNotFound(
            f"study {spec.name!r} has no COMPLETE trial that a sweep trained, to test it again; sweep it first"
        )
    if any(unfinished_repeats(chosen, repeats, n_times)):
        train(lambda: unfinished_repeats(*look(), n_times))
        chosen, repeats = look()
    return retests(spec, chosen, repeats)


def params_key(params: Params) -> object:
    """Return what is equal for equal params."""
    return tuple(sorted(params.items()))
