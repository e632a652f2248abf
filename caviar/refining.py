"""Coarse to fine on a study: which of its trials say where its space may be narrowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caviar.errors import SettingsError
from caviar.records import StudySpec, Trial, TrialState
from caviar.repeats import first_trials, untended_trials
from caviar.search.refine import LEAST_TRIALS, Narrowing, Refinement, contains, could_draw, refine
from caviar.space import SearchSpace
from caviar.storage.base import Storage
from caviar.training.hyperparameters import is_limit

#: With so many trials it is not asked how many of them are repeats or babysat.
_MANY = 1000


def refine_study(storage: Storage, spec: StudySpec, n_best: int | None) -> Refinement:
    """Narrow the space of a study; the study stays as it is. See :meth:`caviar.Study.refine`."""
    if not spec.space:
        raise SettingsError(f"study {spec.name!r} was made through Optuna and has no space of its own to narrow")
    return refinement_of(spec, drawn_trials(storage, spec, untended_trials(storage, spec.name)), n_best)


def refinement_of(spec: StudySpec, drawn: Sequence[Trial], n_best: int | None = None) -> Refinement:
    """Narrow the space of a study by some trials that tell of it.

    Raises:
        SettingsError: they are too few, or the space has nothing to narrow.
    """
    complete, pruned, diverged = (
        [trial.params for trial in drawn if trial.state is state]
        for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    )
    found = refine(SearchSpace.from_dict(spec.space), complete, diverged, pruned, n_best)
    if spec.trainable is not None:  # whose params have no limits that are known
        return found
    return replace(found, params=tuple(map(_without_limits, found.params)))


def can_refine(storage: Storage, spec: StudySpec, n_complete: int) -> bool:
    """Return whether a study has something to narrow, and enough trials for that; with many, they are not counted."""
    space = SearchSpace.from_dict(spec.space)
    if n_complete < LEAST_TRIALS or not space.domains:
        return False
    if n_complete >= _MANY:
        return True
    drawn = drawn_trials(storage, spec, untended_trials(storage, spec.name))
    return sum(trial.state is TrialState.COMPLETE for trial in drawn) >= LEAST_TRIALS


def drawn_trials(storage: Storage, spec: StudySpec, untended: Sequence[Trial]) -> list[Trial]:
    """Return the trials that tell of a study's space: the first of each params that it, or one around it, gave.

    COMPLETE ones come first, the best before the others; then those that were pruned, or diverged.
    """
    space = SearchSpace.from_dict(spec.space)
    versions = enumerate(map(SearchSpace.from_dict, storage.spaces(spec.name)), start=1)
    wide = {version for version, earlier in versions if contains(earlier, space)}
    trials = first_trials(untended, spec, worse=True)
    domains = dict(space)
    return [t for t in trials if t.space_version in wide and could_draw(domains, t.params)]


def _without_limits(param: Narrowing) -> Narrowing:
    """Leave out the bounds beyond which the network knows no values."""
    reached = {which: bound for which, bound in param.reached.items() if not is_limit(param.name, bound)}
    return replace(param, reached=reached)
