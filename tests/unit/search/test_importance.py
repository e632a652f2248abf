"""What matters is found out, on any scale, and from any number of trials."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caviar.search.importance import importances
from caviar.search.sampler import TrialSampler
from caviar.space import Categorical, Float, Int, SearchSpace

SPACE = SearchSpace(
    rate=Float(1e-4, 1.0, scale="log"),
    momentum=Float(0.9, 0.999, scale="one-minus-log"),
    units=Int(1, 64),
    kind=Categorical("a", "b", 3, "3"),
    fixed=1.5,
)


@pytest.mark.parametrize("n", [20, 300, 30_000])
@pytest.mark.parametrize("matters", ["rate", "momentum", "units", "kind"])
def test_what_matters_comes_first(n: int, matters: str) -> None:
    """One param decides, among noise; shares add up to 1, and what is fixed has none."""
    sampler, noise = TrialSampler(SPACE, 3), np.random.default_rng(3)
    places = {
        "rate": lambda params: abs(math.log10(params["rate"]) + 2) / 2,
        "momentum": lambda params: abs(math.log10(1 - params["momentum"]) + 2),
        "units": lambda params: abs(params["units"] - 20) / 40,
        "kind": lambda params: 0.0 if params["kind"] == "3" else 1.0,
    }
    trials = [sampler.params(number) for number in range(n)]
    trials.sort(key=lambda params: places[matters](params) + 0.01 * noise.standard_normal())

    found = importances(SPACE, trials)

    assert next(iter(found)) == matters
    assert set(found) == set(SPACE.domains)
    assert sum(found.values()) == pytest.approx(1)
    assert all(share >= 0 for share in found.values())
    assert found == importances(SPACE, trials)


def test_of_one_param_all_depends_on_it() -> None:
    """There is nothing to hold it against."""
    assert importances(SearchSpace(x=Float(0, 1), y=2), [{"x": i / 20, "y": 2} for i in range(20)]) == {"x": 1.0}
