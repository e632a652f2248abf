"""Coarse to fine: what the best trials say of a space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from caviar.errors import SettingsError
from caviar.search.refine import MOST_CHANCE, Refinement, could_draw, refine
from caviar.search.sampler import TrialSampler
from caviar.space import Categorical, Float, Int, SearchSpace, default_space

SPACE = SearchSpace(
    learning_rate=Float(1e-4, 1.0, scale="log"),
    momentum=Float(0.9, 0.999, scale="one-minus-log"),
    l2=Float(0, 0.5),
    hidden_units=Int(16, 128),
    layers=Int(1, 5),
    batch_size=Categorical(32, 64, 128),
    optimizer="adam",
)


def ranked(space: SearchSpace, worth: Any, n: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Draw trials and return their params, those of the highest worth first."""
    sampler = TrialSampler(space, seed)
    return sorted((sampler.params(number) for number in range(n)), key=worth, reverse=True)


def narrowings(found: Refinement) -> dict[str, Any]:
    return {param.name: param for param in found.params}


@pytest.mark.parametrize(
    ("name", "worth", "optimum"),
    [
        ("learning_rate", lambda params: -abs(math.log10(params["learning_rate"]) + 2), 1e-2),
        ("momentum", lambda params: -abs(math.log10(1 - params["momentum"]) + 2), 0.99),
        ("l2", lambda params: -abs(params["l2"] - 0.2), 0.2),
        ("hidden_units", lambda params: -abs(params["hidden_units"] - 40), 40),
        ("layers", lambda params: params["layers"] == 2, 2),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_the_param_that_matters_is_narrowed_around_its_optimum(
    name: str, worth: Any, optimum: float, seed: int
) -> None:
    """It comes first, on each scale; what is left of it is a third of its draws at most, and holds the optimum."""
    trials = ranked(SPACE, worth, seed=seed)

    found = refine(SPACE, trials)

    first = found.params[0]
    assert (first.name, found.n_trials, found.n_best) == (name, 200, 14)
    assert first.after.low <= optimum <= first.after.high
    assert sum(first.after.low <= trial[name] <= first.after.high for trial in trials) < 200 / 3
    assert all(could_draw(found.space, trial) for trial in trials[:14])
    assert found.space["optimizer"] == "adam"


def test_a_param_that_does_not_matter_is_seldom_narrowed() -> None:
    """Of 300 spaces whose trials are ranked at random, each domain is narrowed in about one of twenty at most."""
    narrowed = dict.fromkeys(SPACE.domains, 0)
    for seed in range(300):
        trials = ranked(SPACE, lambda params: 0, n=64, seed=seed)
        for param in refine(SPACE, trials).params:
            narrowed[param.name] += param.chance <= MOST_CHANCE

    assert max(narrowed.values()) <= stats.binom(300, MOST_CHANCE).ppf(0.9999)
    assert narrowed["l2"] >= stats.binom(300, MOST_CHANCE).ppf(0.0001)


def test_the_chance_of_a_range_is_that_of_random_draws() -> None:
    """Of five out of twenty draws: as often as in ten thousand samples of NumPy, within five standard errors."""
    space = SearchSpace(l2=Float(0, 1))
    best = [0.3, 0.36, 0.44, 0.5, 0.6]
    samples = np.random.default_rng(0).random((10_000, 5))
    expected = np.mean(np.ptp(samples, axis=1) <= 0.3)

    (param,) = refine(space, [{"l2": value} for value in [*best, *np.linspace(0, 1, 20).tolist()]]).params

    assert param.chance == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 10_000))
    # a mean distance of 0.075 beyond the lowest and the highest
    assert (param.after.low, param.after.high) == pytest.approx((0.225, 0.675), abs=0.0011)


def test_choices_that_the_best_lack_are_dropped() -> None:
    """The chance is that of SciPy's binomial test, times the number of choices; the others stay in their order."""
    space = SearchSpace(batch_size=Categorical(32, 64, 128))
    trials = [{"batch_size": size} for size in [128] * 12 + [32] * 11 + [64] * 50 + [128] * 38 + [32] * 39]

    (param,) = refine(space, trials, 23).params

    expected = stats.binomtest(0, 23, 50 / 150, alternative="less").pvalue * 3
    assert param.chance == pytest.approx(expected)
    assert param.after == Categorical(32, 128)
    assert param.is_narrower and not param.reached


def test_a_bound_that_is_kept_is_told() -> None:
    """The best learning rates lie at the upper bound: values beyond may be better."""
    found = narrowings(refine(SPACE, ranked(SPACE, lambda params: params["learning_rate"])))

    assert found["learning_rate"].reached == {"upper": 1.0}
    assert found["learning_rate"].after.low > 0.1


@given(
    low=st.floats(1e-6, 0.5), width=st.floats(1e-6, 0.4), scale=st.sampled_from(["linear", "log", "one-minus-log"]),
    places=st.lists(st.floats(0, 1), min_size=5, max_size=5), first=st.floats(0, 0.9),
)  # fmt: skip
def test_no_good_trial_is_lost_and_no_bound_is_left(
    low: float, width: float, scale: str, places: list[float], first: float
) -> None:
    """Whatever is rounded: the narrower range lies in the old one, and holds the best."""
    domain = Float(low, low + width, scale=scale)
    best = [min(low + width * (first + 0.1 * place), domain.high) for place in places]
    trials = [{"x": value} for value in [*best, *[low] * 20]]

    (param,) = refine(SearchSpace(x=domain), trials).params

    assert domain.low <= param.after.low <= min(best) and max(best) <= param.after.high <= domain.high
    assert (param.after.scale, param.after.tier) == (scale, 2)


def test_bounds_are_numbers_that_people_can_read() -> None:
    """Of three or four digits, however odd those of the trials are."""
    found = narrowings(refine(SPACE, ranked(SPACE, lambda params: -abs(math.log10(params["learning_rate"]) + 2))))

    after = found["learning_rate"].after
    assert max(len(f"{bound:g}".replace(".", "").lstrip("0")) for bound in (after.low, after.high)) <= 4
    assert repr(after.low) == f"{after.low:g}"


def test_the_same_trials_give_the_same_space_once_more() -> None:
    """A narrowed space is refined again by the trials that it could have drawn, and gets no wider."""
    trials = ranked(
        default_space(), lambda params: params["layers"] - abs(math.log10(params["learning_rate"]) + 1), 999
    )
    once = refine(default_space(), trials)
    inside = [trial for trial in trials if could_draw(once.space, trial)]

    twice = refine(once.space, inside)

    assert 20 <= len(inside) < 999
    for name, domain in once.space.domains.items():
        after = twice.space[name]
        if isinstance(domain, Categorical):
            assert set(after.choices) <= set(domain.choices)
        else:
            assert domain.low <= after.low <= after.high <= domain.high


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"layers": 2, "l2": 0.5, "batch_size": 32, "optimizer": "adam"}, True),
        ({"layers": 2, "l2": 0, "batch_size": 32, "optimizer": "adam"}, True),
        ({"layers": 4, "l2": 0.5, "batch_size": 32, "optimizer": "adam"}, False),
        ({"layers": 2.0, "l2": 0.5, "batch_size": 32, "optimizer": "adam"}, False),
        ({"layers": 2, "l2": 0.6, "batch_size": 32, "optimizer": "adam"}, False),
        ({"layers": 2, "l2": 0.5, "batch_size": 32.0, "optimizer": "adam"}, False),
        ({"layers": 2, "l2": 0.5, "batch_size": 32, "optimizer": "sgd"}, False),
        ({"layers": 2, "l2": 0.5, "batch_size": 32}, False),
        ({"layers": 2, "l2": 0.5, "batch_size": 32, "optimizer": "adam", "momentum": 0.9}, False),
        ({"layers": "2", "l2": "0.5", "batch_size": 32, "optimizer": "adam"}, False),
    ],
)
def test_trials_of_other_spaces_are_known(params: dict[str, Any], expected: bool) -> None:
    """A trial counts where the space could have drawn its params: the same names, values within bounds."""
    space = SearchSpace(layers=Int(1, 3), l2=Float(0, 0.5), batch_size=Categorical(32, 64), optimizer="adam")

    assert could_draw(space, params) is expected


@pytest.mark.parametrize(
    ("space", "n", "n_best", "message"),
    [
        (SearchSpace(layers=2), 50, None, "all params of the space are fixed"),
        (SearchSpace(l2=Float(0, 1)), 19, None, "expected at least 20 COMPLETE trials .* found 19; sweep more"),
        (SearchSpace(l2=Float(0, 1)), 50, 2, "the best must be 3 to 25 trials, .* found 2$"),
        (SearchSpace(l2=Float(0, 1)), 50, 26, "the best must be 3 to 25 trials, .* found 26$"),
    ],
)
def test_too_little_to_go_by_is_refused(space: SearchSpace, n: int, n_best: int | None, message: str) -> None:
    """The error says what was expected, and found."""
    trials = ranked(space, lambda params: 0, n=n)

    with pytest.raises(SettingsError, match=message):
        refine(space, trials, n_best)
