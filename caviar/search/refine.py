"""Coarse to fine: the part of a space in which the best trials lie (lecture, "the tuning process").

A param that does not matter has its best trials everywhere. One whose best trials lie closer together than as many
trials picked at random would is narrowed to where they lie. That compares trials with trials, which all have to be
drawn alike: from the space, or from one that contains it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from caviar.errors import SettingsError
from caviar.space import Categorical, Domain, Float, Int, SearchSpace, Value

#: A domain is narrowed where trials picked at random would look as telling once in twenty times, or less often.
MOST_CHANCE = 0.05
#: Of fewer trials the best are too few to tell anything.
LEAST_TRIALS = 20
LEAST_BEST = 3
#: Of so many trials the chances are computed with whole numbers, of thousands of digits.
_MOST_EXACT = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrowing:
    """What the best trials say of one param."""

    name: str
    before: Domain
    #: The same where the best trials lie everywhere.
    after: Domain
    #: How likely as many trials picked at random lie as close together: the smaller, the more the param matters.
    chance: float
    #: Where it is narrower: the bounds, `low` or `high`, that it has kept. Values beyond may be better.
    reached: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_narrower(self) -> bool:
        """Whether less is left of the domain."""
        return self.after != self.before


@dataclass(frozen=True, kw_only=True, slots=True)
class Refinement:
    """A space, narrowed to where the best of some trials lie."""

    space: SearchSpace
    #: One for each param that is sampled, those that matter most first.
    params: tuple[Narrowing, ...]
    #: Trials that were looked at, how many of them diverged or were pruned, and how many were the best.
    n_trials: int
    n_diverged: int
    n_pruned: int
    n_best: int
    #: Of the study's space, where it is a new one.
    version: int | None = None

    @property
    def is_narrower(self) -> bool:
        """Whether any param is narrowed."""
        return any(param.is_narrower for param in self.params)


def could_draw(space: Mapping[str, Domain | Value], params: Mapping[str, Any]) -> bool:
    """Return whether these params might have been drawn from a space, whichever they were drawn from.

    A plain dict of the space is faster, where many are to be looked at.
    """
    return params.keys() == space.keys() and all(_holds(domain, params[name]) for name, domain in space.items())


def contains(outer: SearchSpace, inner: SearchSpace) -> bool:
    """Return whether a space is an equal or narrower part of another, on the same scales.

    Then its trials and those of the other that it could have drawn have been drawn alike.
    """
    if outer.keys() != inner.keys():
        return False
    for name, domain in inner.items():
        wide = outer[name]
        if isinstance(domain, Float | Int) and isinstance(wide, Float | Int):
            if type(domain) is not type(wide) or domain.scale != wide.scale:
                return False
            if not wide.low <= domain.low <= domain.high <= wide.high:
                return False
        elif isinstance(domain, Categorical):
            if not (isinstance(wide, Categorical) and all(_holds(wide, choice) for choice in domain.choices)):
                return False
        elif isinstance(domain, Float | Int) or not _holds(wide, domain):
            return False
    return True


def refine(
    space: SearchSpace,
    complete: Sequence[Mapping[str, Any]],
    diverged: Sequence[Mapping[str, Any]] = (),
    pruned: Sequence[Mapping[str, Any]] = (),
    n_best: int | None = None,
) -> Refinement:
    """Narrow each domain of a space to where the best trials lie, if that is no chance.

    Args:
        space: that could have drawn all of them.
        complete: the params of each trial that ended well, best first.
        diverged, pruned: the params of each that did not, and so is none of the best.
        n_best: how many are the best; where absent, the square root of those that ended well: the more there are, the
            smaller a part.

    Raises:
        SettingsError: there are too few trials, or the space has nothing to narrow.
    """
    if not space.domains:
        raise SettingsError("all params of the space are fixed: there is nothing to narrow; give some of them bounds")
    if len(complete) < LEAST_TRIALS:
        raise SettingsError(
            f"expected at least {LEAST_TRIALS} COMPLETE trials drawn from the space, or from an earlier one around it, "
            f"found {len(complete)}; sweep more of them first"
        )
    n_best = math.isqrt(len(complete)) if n_best is None else n_best
    if not LEAST_BEST <= n_best <= len(complete) // 2:
        raise SettingsError(
            f"the best must be {LEAST_BEST} to {len(complete) // 2} of {len(complete)} COMPLETE trials, found {n_best}"
        )
    trials = [*complete, *diverged, *pruned]
    params = []
    for name, domain in space.domains.items():
        values = [trial[name] for trial in trials]
        after, chance = narrowed_to(domain, values[:n_best], values)
        params.append(Narrowing(name=name, before=domain, after=after, chance=chance, reached=_reached(domain, after)))
    params.sort(key=lambda param: param.chance)
    narrowed = SearchSpace(**dict(space) | {param.name: param.after for param in params})
    return Refinement(
        space=narrowed,
        params=tuple(params),
        n_trials=len(trials),
        n_diverged=len(diverged),
        n_pruned=len(pruned),
        n_best=n_best,
    )


def narrowed_to(domain: Domain, chosen: Sequence[Any], values: Sequence[Any]) -> tuple[Domain, float]:
    """Return the part of a domain in which some values lie, and how likely as many at random lie as close together.

    Where that is likelier than `MOST_CHANCE`, the part is all of it.

    Args:
        domain: that all were drawn from.
        chosen: at least two.
        values: all there are, with the chosen ones.
    """
    if isinstance(domain, Categorical):
        return _narrow_choices(domain, chosen, values)
    return _narrow_range(domain, chosen, values)


def _holds(domain: Domain | Value, value: Any) -> bool:
    if isinstance(domain, Categorical):
        return any(value == choice and type(value) is type(choice) for choice in domain.choices)
    if isinstance(domain, Float | Int):
        kinds = (int,) if isinstance(domain, Int) else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and domain.low <= value <= domain.high
    return bool(value == domain)


def _narrow_range(domain: Float | Int, best: Sequence[float], values: Sequence[float]) -> tuple[Float | Int, float]:
    """Narrow a range to that of the best values, with the usual distance between two of them added at each end."""
    least, most = min(best), max(best)
    n_inside = sum(least <= value <= most for value in values)
    chance = _chance_of_window(n_inside, len(best), len(values))
    if chance > MOST_CHANCE:
        return domain, chance
    half = 0.5 if isinstance(domain, Int) else 0.0  # a whole number stands for all that are rounded to it
    start, end = on_scale(domain, domain.low - half), on_scale(domain, domain.high + half)
    lowest, highest = on_scale(domain, least - half), on_scale(domain, most + half)
    gap = (highest - lowest) / (len(best) - 1)
    low, high = _off_scale(domain, max(lowest - gap, start)), _off_scale(domain, min(highest + gap, end))
    # rounding, of the scale's functions too, must neither leave the domain nor lose a trial
    if isinstance(domain, Int):
        low, high = max(math.ceil(low), domain.low), min(math.floor(high), domain.high)
        whole = [int(value) for value in best]
        return replace(domain, low=min(low, *whole), high=max(high, *whole)), chance
    low, high = _rounded(domain, low, high)
    return replace(domain, low=min(max(low, domain.low), *best), high=max(min(high, domain.high), *best)), chance


def _narrow_choices(domain: Categorical, best: Sequence[Value], values: Sequence[Value]) -> tuple[Categorical, float]:
    """Drop the choices that none of the best has, if chance would have given them some."""
    n_choices, counts = len(domain.choices), Counter(values)
    # one of several choices is the more easily missing: each is judged the more strictly
    chances = {
        choice: min(n_choices * _chance_of_none(counts[choice], len(best), len(values)), 1.0)
        for choice in domain.choices
        if choice not in best
    }
    kept = [choice for choice in domain.choices if chances.get(choice, 1.0) > MOST_CHANCE]
    return Categorical(*kept, tier=domain.tier), min(chances.values(), default=1.0)


def _reached(before: Domain, after: Domain) -> dict[str, float]:
    if isinstance(before, Categorical) or isinstance(after, Categorical) or before == after:
        return {}
    bounds = {"low": (before.low, after.low), "high": (before.high, after.high)}
    return {which: bound for which, (was, bound) in bounds.items() if was == bound}


def _chance_of_window(m: int, k: int, n: int) -> float:
    """Return how likely k of n trials, picked at random, lie within some m that are neighbours.

    Of their subsets, C(m-1, k-1) begin at each of the n-m+1 places where a whole window fits, and C(m-1, k) behind.
    """
    return min((n - m + 1) * _share_of_subsets(m - 1, k - 1, n, k) + _share_of_subsets(m - 1, k, n, k), 1.0)


def _chance_of_none(m: int, k: int, n: int) -> float:
    """Return how likely none of k of n trials, picked at random, is one of m: the hypergeometric distribution."""
    return _share_of_subsets(n - m, k, n, k)


def _share_of_subsets(m: int, j: int, n: int, k: int) -> float:
    """Return C(m, j) / C(n, k): exactly where that is quick, else to six digits or more."""
    if j > m:
        return 0.0
    if n <= _MOST_EXACT:
        return math.comb(m, j) / math.comb(n, k)
    return math.exp(_log_of_subsets(m, j) - _log_of_subsets(n, k))


def _log_of_subsets(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def on_scale(domain: Float | Int, value: float) -> float:
    """Return where a value lies on its scale, on which draws are uniform."""
    if domain.scale == "log":
        return math.log(value)
    return -math.log1p(-value) if domain.scale == "one-minus-log" else float(value)


def _off_scale(domain: Float | Int, place: float) -> float:
    """Return the value at a place of its scale."""
    if domain.scale == "log":
        return math.exp(place)
    return -math.expm1(-place) if domain.scale == "one-minus-log" else place


def _rounded(domain: Float, low: float, high: float) -> tuple[float, float]:
    """Return bounds that people can read, a little further apart: each to a hundredth of the range, or of itself."""
    if domain.scale == "one-minus-log":
        most, least = _outward(1 - Decimal(repr(high)), 1 - Decimal(repr(low)), is_log=True)
        return float(1 - least), float(1 - most)
    least, most = _outward(Decimal(repr(low)), Decimal(repr(high)), is_log=domain.scale == "log")
    return float(least), float(most)


def _outward(low: Decimal, high: Decimal, *, is_log: bool) -> tuple[Decimal, Decimal]:
    width = high - low
    if not width:
        return low, high
    bounds = []
    for bound, rounding in ((low, ROUND_FLOOR), (high, ROUND_CEILING)):
        size = min(width, abs(bound)) if is_log and bound else width
        step = Decimal(1).scaleb(size.adjusted() - 2)
        bounds.append((bound / step).to_integral_value(rounding) * step)
    return bounds[0], bounds[1]
