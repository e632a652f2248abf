"""Random search, drawn by Optuna: trial n of a study has the same params wherever it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler

from caviar.errors import SettingsError
from caviar.space import Categorical, Domain, Float, SearchSpace, Value

MAX_SEED = 2**63 - 1


class TrialSampler:
    """Draws the params of any trial from (study seed, trial number) alone.

    It keeps no state between draws: the order of calls, restarts and the number of workers change nothing. One thread
    may use it at a time.

    Args:
        space: what to draw.
        seed: the study's, 0 to 2**63 - 1.

    Raises:
        SettingsError: the seed is out of range.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        if not 0 <= seed <= MAX_SEED:
            raise SettingsError(f"seed must be 0 to {MAX_SEED}, found {seed!r}")
        self._fixed = space.fixed
        distributions = {name: _distribution(domain) for name, domain in space.domains.items()}
        self._to_value = {name: to_value for name, (_, to_value) in distributions.items()}
        # RandomSampler.sample_independent() makes one for each param and draw, which takes most of its time
        self._transform = (
            _SearchSpaceTransform({name: distribution for name, (distribution, _) in distributions.items()})
            if distributions
            else None
        )
        self._base = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._rng = RandomSampler(seed=0)._rng.rng

    def params(self, number: int) -> dict[str, Value]:
        """Return the params of trial `number`, sorted by name: what RandomSampler(seed=...) draws one by one."""
        if self._transform is None:
            return dict(sorted(self._fixed.items()))
        # a new RandomSampler would ask the system for entropy first
        self._rng.seed(_mix(self._base ^ (number % 2**32)))
        low, high = self._transform.bounds.T
        drawn = self._transform.untransform(self._rng.uniform(low, high))
        params = self._fixed | {name: self._to_value[name](value) for name, value in drawn.items()}
        return dict(sorted(params.items()))


def _mix(word: int) -> int:
    """Scramble 32 bits, one-to-one: neighbouring numbers get unrelated seeds, and no two of a study share one.

    References:
        The finaliser of MurmurHash3 (Appleby), with the constants of its 32-bit form.
    """
    word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
    word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
    return word ^ (word >> 16)


def _distribution(domain: Domain) -> tuple[BaseDistribution, Callable[[Any], Value]]:
    """Return the distribution Optuna draws from, and how its draw becomes the param."""
    if isinstance(domain, Categorical):
        return CategoricalDistribution(domain.choices), lambda choice: choice
    if isinstance(domain, Float):
        low, high = domain.low, domain.high
        # rounding of 1 - x, and of exp(log(x)), may leave the bounds by the last bit
        if domain.scale == "one-minus-log":
            return FloatDistribution(1 - high, 1 - low, log=True), lambda draw: min(max(1 - draw, low), high)
        return FloatDistribution(low, high, log=domain.scale == "log"), lambda draw: min(max(draw, low), high)
    return IntDistribution(domain.low, domain.high, log=domain.scale == "log"), int
