"""Coarse to fine: the part of a space in which the best trials lie (lecture, "the tuning process").

A param that does not matter has its best trials everywhere. One whose best trials lie closer together than as many
random draws would is narrowed to where they lie, on its own scale.
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

#: A domain is narrowed where random draws would look as telling once in twenty times, or less often.
MOST_CHANCE = 0.05
#: Of fewer trials the best are too few to tell anything.
LEAST_TRIALS = 20
LEAST_BEST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrowing:
    """What the best trials say of one param."""

    name: str
    before: Domain
    #: The same where the best trials lie everywhere.
    after: Domain
    #: How likely as many random draws lie as close together: the smaller, the more the param matters.
    chance: float
    #: Where it is narrower: the bounds, `lower` or `upper`, that it has kept. Values beyond may be better.
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
    #: Trials that were looked at, and how many of them were the best.
    n_trials: int
    n_best: int
    #: Of the study's space, where it is a new one.
    version: int | None = None

    @property
    def is_narrower(self) -> bool:
        """Whether any param is narrowed."""
        return any(param.is_narrower for param in self.params)


def could_draw(space: SearchSpace, params: Mapping[str, Any]) -> bool:
    """Return whether these params might have been drawn from a space, whichever they were drawn from."""
    return params.keys() == space.keys() and all(_holds(domain, params[name]) for name, domain in space.items())


def refine(space: SearchSpace, trials: Sequence[Mapping[str, Any]], n_best: int | None = None) -> Refinement:
    """Narrow each domain of a space to where the best trials lie, if that is no chance.

    Args:
        space: that could have drawn all of them.
        trials: the params of each, best first.
        n_best: how many are the best; where absent, the square root of all: the more there are, the smaller a part.

    Raises:
        SettingsError: there are too few trials, or the space has nothing to narrow.
    """
    if not space.domains:
        raise SettingsError(
            "all params of the space are fixed, so there is nothing to narrow; give some of them bounds"
        )
    if len(trials) < LEAST_TRIALS:
        raise SettingsError(
            f"expected at least {LEAST_TRIALS} COMPLETE trials that the space could have drawn, found {len(trials)}; "
            "sweep more of them first"
        )
    n_best = math.isqrt(len(trials)) if n_best is None else n_best
    if not LEAST_BEST <= n_best <= len(trials) // 2:
        raise SettingsError(
            f"the best must be {LEAST_BEST} to {len(trials) // 2} trials, half of those there are, found {n_best}"
        )
    params = []
    for name, domain in space.domains.items():
        values = [trial[name] for trial in trials]
        if isinstance(domain, Categorical):
            params.append(_narrow_choices(name, domain, values[:n_best], Counter(values)))
        else:
            params.append(_narrow_range(name, domain, values[:n_best]))
    params.sort(key=lambda param: param.chance)
    narrowed = SearchSpace(**dict(space) | {param.name: param.after for param in params})
    return Refinement(space=narrowed, params=tuple(params), n_trials=len(trials), n_best=n_best)


def _holds(domain: Domain | Value, value: Any) -> bool:
    if isinstance(domain, Categorical):
        return any(value == choice and type(value) is type(choice) for choice in domain.choices)
    if isinstance(domain, Float | Int):
        kinds = (int,) if isinstance(domain, Int) else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and domain.low <= value <= domain.high
    return bool(value == domain)


def _narrow_range(name: str, domain: Float | Int, best: Sequence[float]) -> Narrowing:
    """Narrow a range to that of the best values, with the usual distance between two of them added at each end."""
    half = 0.5 if isinstance(domain, Int) else 0.0  # a whole number stands for all that are rounded to it
    start, end = _on_scale(domain, domain.low - half), _on_scale(domain, domain.high + half)
    lowest, highest = _on_scale(domain, min(best) - half), _on_scale(domain, max(best) + half)
    if not end > start:
        return Narrowing(name=name, before=domain, after=domain, chance=1.0)
    chance = _chance_of_range((highest - lowest) / (end - start), len(best))
    if chance > MOST_CHANCE:
        return Narrowing(name=name, before=domain, after=domain, chance=chance)
    gap = (highest - lowest) / (len(best) - 1)
    low, high = _off_scale(domain, max(lowest - gap, start)), _off_scale(domain, min(highest + gap, end))
    after: Float | Int
    if isinstance(domain, Int):
        values = [int(value) for value in best]
        after = replace(
            domain,
            low=min(max(math.ceil(low), domain.low), *values),
            high=max(min(math.floor(high), domain.high), *values),
        )
    else:
        low, high = _rounded(domain, low, high)
        # rounding, of the scale's functions too, must neither leave the domain nor lose a trial
        after = replace(domain, low=min(max(low, domain.low), *best), high=max(min(high, domain.high), *best))
    bounds = (("lower", after.low, domain.low), ("upper", after.high, domain.high))
    reached = {which: bound for which, bound, was in bounds if bound == was} if after != domain else {}
    return Narrowing(name=name, before=domain, after=after, chance=chance, reached=reached)


def _narrow_choices(name: str, domain: Categorical, best: Sequence[Value], drawn: Counter[Value]) -> Narrowing:
    """Drop the choices that fewer of the best have than chance would give them."""
    counts, n_drawn = Counter(best), drawn.total()
    # of so many choices one may have few of the best by chance: each is judged the more strictly
    chances = {
        choice: min(len(domain.choices) * _chance_of_few(counts[choice], len(best), drawn[choice] / n_drawn), 1.0)
        for choice in domain.choices
    }
    kept = [choice for choice in domain.choices if chances[choice] > MOST_CHANCE or choice == best[0]]
    after = Categorical(*kept, tier=domain.tier)
    return Narrowing(name=name, before=domain, after=after, chance=min(chances.values()))


def _chance_of_range(share: float, n: int) -> float:
    """Return how likely n random draws lie within some part, of this share, of their range.

    References:
        The distribution of the range of a uniform sample: P(R <= r) = n r^(n-1) - (n-1) r^n.
    """
    share = min(share, 1.0)
    return n * share ** (n - 1) - (n - 1) * share**n


def _chance_of_few(k: int, n: int, share: float) -> float:
    """Return how likely at most k of n random draws are of this share: the binomial distribution."""
    return math.fsum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1))


def _on_scale(domain: Float | Int, value: float) -> float:
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
