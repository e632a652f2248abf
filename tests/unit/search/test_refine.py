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
from caviar.search.refine import MOST_CHANCE, Refinement, contains, could_draw, refine
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
    """Of 300 studies whose trials are ranked at random, each domain is narrowed in about one of twenty at most."""
    narrowed = dict.fromkeys(SPACE.domains, 0)
    for seed in range(300):
        trials = ranked(SPACE, lambda params: 0, n=64, seed=seed)
        for param in refine(SPACE, trials).params:
            narrowed[param.name] += param.is_narrower

    assert max(narrowed.values()) <= stats.binom(300, MOST_CHANCE).ppf(0.9999)
    assert narrowed["l2"] >= stats.binom(300, MOST_CHANCE).ppf(0.0001)


@pytest.mark.parametrize(
    "earlier",
    [Float(1e-4, 0.1, scale="log"), Float(0.1, 2.0, scale="log"), Float(1e-4, 10.0), Float(0.5, 0.6)],
    ids=str,
)
def test_trials_of_an_earlier_space_are_no_evidence_by_being_many(earlier: Float) -> None:
    """It was narrower, shifted or on another scale, and most trials are of it: the best lie anywhere all the same."""
    space = SearchSpace(l2=Float(1e-4, 10.0, scale="log"))
    n_narrowed = 0
    for seed in range(300):
        trials = ranked(SearchSpace(l2=earlier), lambda params: 0, n=100, seed=seed)
        trials += ranked(space, lambda params: 0, n=50, seed=1000 + seed)
        np.random.default_rng(seed).shuffle(trials)
        n_narrowed += refine(space, trials).is_narrower

    assert n_narrowed <= stats.binom(300, MOST_CHANCE).ppf(0.9999)


def test_the_chances_of_ranges_among_many_are_those_of_whole_numbers() -> None:
    """The same where they are computed by logarithms."""
    for n, k, m in ((10_001, 100, 9_700), (30_000, 50, 25_000)):
        exact = ((n - m + 1) * math.comb(m - 1, k - 1) + math.comb(m - 1, k)) / math.comb(n, k)
        places = [0, *range(1, k - 1), m - 1]
        values = [*places, *(place for place in range(n) if place not in set(places))]
        found = refine(SearchSpace(l2=Float(0.0, 30_000.0)), [{"l2": float(value)} for value in values], n_best=k)
        assert found.params[0].chance == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("n_trials", [9_000, 11_000, 400_000])
def test_the_chances_of_many_trials_are_those_of_few(n_trials: int) -> None:
    """Beyond what is computed with whole numbers, in no time: against SciPy's hypergeometric distribution."""

    def refined(n_best: int) -> Refinement:
        """Refine trials of which none of the best, and some of those behind, have choice b."""
        choices = ["b" if n_best <= n < n_best + 40 else "a" for n in range(n_trials)]
        space = SearchSpace(optimizer=Categorical("a", "b"))
        return refine(space, [{"optimizer": choice} for choice in choices], n_best=n_best)

    for n_best in (n_trials // 100, n_trials // 20):
        expected = 2 * stats.hypergeom.pmf(0, n_trials, 40, n_best)
        assert refined(n_best).params[0].chance == pytest.approx(min(expected, 1.0), rel=1e-6)


@pytest.mark.parametrize(("n_best", "n_inside"), [(3, 6), (5, 9), (5, 15), (8, 12)])
def test_the_chance_of_a_range_is_that_of_trials_picked_at_random(n_best: int, n_inside: int) -> None:
    """That so many of thirty lie among as few neighbours: as often as in 20,000 picks of NumPy, within five errors."""
    values = np.linspace(0, 1, 30)
    best = [0, *range(1, n_best - 1), n_inside - 1]
    others = [place for place in range(30) if place not in best]
    picks = np.random.default_rng(0).permuted(np.tile(np.arange(30), (20_000, 1)), axis=1)[:, :n_best]
    expected = np.mean(np.ptp(picks, axis=1) < n_inside)

    (param,) = refine(
        SearchSpace(l2=Float(0, 1)), [{"l2": values[place]} for place in (*best, *others)], n_best=n_best
    ).params

    assert param.chance == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-9)
    assert param.is_narrower == (param.chance <= MOST_CHANCE)


def test_a_range_ends_a_mean_distance_beyond_the_best() -> None:
    """Of a whole number too, each of which stands for what is rounded to it: a bound is one that lies within."""
    space = SearchSpace(l2=Float(0, 1, tier=1), hidden_units=Int(1, 100, tier=3))
    best = [(0.3, 30), (0.36, 31), (0.44, 36), (0.5, 38), (0.6, 40)]
    others = [(0.01 * place, place) for place in (*range(1, 26), *range(70, 101))]

    found = narrowings(refine(space, [{"l2": x, "hidden_units": n} for x, n in [*best, *others]], n_best=5))

    after = found["l2"].after
    assert (after.low, after.high) == pytest.approx((0.225, 0.675), abs=0.0011)
    assert after.tier == 1
    # from 29.5 to 40.5, and a quarter of that at each end
    assert found["hidden_units"].after == Int(27, 43, tier=3)


def test_a_domain_of_one_value_stays() -> None:
    """There is nothing to tell; the others are narrowed."""
    space = SearchSpace(l2=Float(0.5, 0.5), layers=Int(2, 2), batch_size=Categorical(32), learning_rate=Float(0, 1))

    found = refine(space, ranked(space, lambda params: params["learning_rate"]))

    assert [param.name for param in found.params if param.is_narrower] == ["learning_rate"]
    assert [param.chance for param in found.params[1:]] == [1, 1, 1]


def test_choices_that_the_best_lack_are_dropped() -> None:
    """The chance is SciPy's hypergeometric one, times the number of choices; the others stay in their order."""
    space = SearchSpace(batch_size=Categorical(32, 64, 128, tier=1))
    trials = [{"batch_size": size} for size in [128] * 22 + [32] + [64] * 50 + [128] * 38 + [32] * 39]

    (param,) = refine(space, trials, n_best=23).params

    assert param.chance == pytest.approx(stats.hypergeom(150, 50, 23).pmf(0) * 3)
    assert param.after == Categorical(32, 128, tier=1)
    assert param.is_narrower and not param.reached


def test_where_trials_diverge_is_no_good_place() -> None:
    """They are none of the best: a choice, and a part of a range, that no other trials have are left."""
    space = SearchSpace(optimizer=Categorical("sgd", "adam"), learning_rate=Float(1e-3, 1e3, scale="log"))
    trials = ranked(space, lambda params: 0, n=300)
    diverged = [trial for trial in trials if trial["optimizer"] == "sgd" or trial["learning_rate"] > 1]
    complete = [trial for trial in trials if trial not in diverged]

    found = refine(space, complete, diverged)

    after = narrowings(found)
    assert after["optimizer"].after == Categorical("adam")
    assert after["learning_rate"].after.high < 10
    assert (found.n_trials, found.n_diverged) == (300, len(diverged))
    assert refine(space, complete).space["optimizer"] == space["optimizer"]


def test_a_bound_that_is_kept_is_told() -> None:
    """The best learning rates lie at the upper bound: values beyond may be better."""
    found = narrowings(refine(SPACE, ranked(SPACE, lambda params: params["learning_rate"])))

    assert found["learning_rate"].reached == {"high": 1.0}
    assert found["learning_rate"].after.low > 0.1
    assert not any(param.reached for name, param in found.items() if name != "learning_rate" and not param.is_narrower)


@given(st.data())
def test_no_good_trial_is_ever_lost(data: st.DataObject) -> None:
    """Of whatever domains and trials: each of the best could be drawn from the narrower space, and no bound is left."""
    n_trials = data.draw(st.integers(20, 60))
    sampler = TrialSampler(SPACE, data.draw(st.integers(0, 2**32)))
    drawn = data.draw(st.permutations(range(n_trials)))
    trials = [sampler.params(number // 3 if number % 2 else number) for number in drawn]
    n_best = data.draw(st.integers(3, n_trials // 2))

    found = refine(SPACE, trials, n_best=n_best)

    assert all(could_draw(found.space, trial) for trial in trials[:n_best])
    for name, param in narrowings(found).items():
        assert param.before == SPACE[name]
        if isinstance(param.before, Categorical):
            assert set(param.after.choices) <= set(param.before.choices)
        else:
            assert param.before.low <= param.after.low <= param.after.high <= param.before.high


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
    trials = [{"x": value} for value in [*best, *[low] * 10, *[domain.high] * 20]]

    (param,) = refine(SearchSpace(x=domain), trials, n_best=5).params

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
        (SearchSpace(l2=Float(0, 1)), 19, None, "expected at least 20 COMPLETE trials drawn .* found 19; sweep more"),
        (SearchSpace(l2=Float(0, 1)), 50, 2, "the best must be 3 to 25 of 50 COMPLETE trials, found 2$"),
        (SearchSpace(l2=Float(0, 1)), 50, 26, "the best must be 3 to 25 of 50 COMPLETE trials, found 26$"),
    ],
)
def test_too_little_to_go_by_is_refused(space: SearchSpace, n: int, n_best: int | None, message: str) -> None:
    """The error says what was expected, and found."""
    trials = ranked(space, lambda params: 0, n=n)

    with pytest.raises(SettingsError, match=message):
        refine(space, trials, n_best=n_best)


@pytest.mark.parametrize(
    ("name", "domain", "expected"),
    [
        ("l2", Float(0, 0.5), True),
        ("l2", Float(0.1, 0.2, tier=1), True),
        ("l2", Float(0.1, 0.6), False),
        ("l2", Float(0.1, 0.2, scale="log"), False),
        ("l2", 0.1, True),
        ("layers", Int(2, 2), True),
        ("layers", Int(0, 2), False),
        ("layers", Categorical(1, 2), False),
        ("layers", Float(1, 2), False),
        ("batch_size", Categorical(64), True),
        ("batch_size", Categorical(64, 32), True),
        ("batch_size", Categorical(64, 16), False),
        ("batch_size", Int(32, 64), False),
        ("optimizer", "adam", True),
        ("optimizer", "sgd", False),
        ("optimizer", Categorical("adam"), False),
        ("momentum", 0.9, False),
    ],
)
def test_a_space_contains_its_narrower_parts(name: str, domain: Any, expected: bool) -> None:
    """On the same scales, so that what both could draw they draw alike."""
    space = SearchSpace(layers=Int(1, 3), l2=Float(0, 0.5), batch_size=Categorical(32, 64), optimizer="adam")

    assert contains(space, SearchSpace(**dict(space) | {name: domain})) is expected
