"""Random search: trial n has the same params wherever and whenever it is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from caviar.errors import SettingsError
from caviar.search.sampler import MAX_SEED, TrialSampler, _mix
from caviar.space import Categorical, Float, Int, SearchSpace, default_space

SEEDS = st.integers(0, MAX_SEED)
N = 2000
#: A Kolmogorov-Smirnov distance that one uniform sample in a million exceeds.
KS_BOUND = 2.7 / math.sqrt(N)


def distance_from_uniform(values: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance between values in [0, 1] and the uniform law."""
    ordered = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))


def draw(domain: Float | Int | Categorical, name: str = "x", seed: int = 3) -> np.ndarray:
    sampler = TrialSampler(SearchSpace(**{name: domain}), seed)
    return np.array([sampler.params(number)[name] for number in range(N)])


@given(seed=SEEDS, numbers=st.lists(st.integers(0, 2**40), min_size=1, max_size=20), order=st.randoms())
def test_a_trial_is_the_same_in_any_order(seed: int, numbers: list[int], order: object) -> None:
    """Neither earlier draws nor another sampler of the same seed change a trial."""
    space = default_space()
    expected = {number: TrialSampler(space, seed).params(number) for number in numbers}
    sampler = TrialSampler(space, seed)
    order.shuffle(numbers)

    for number in numbers:
        assert sampler.params(number) == expected[number]


def test_the_params_of_a_seed_stay_what_they_were() -> None:
    """Seed 7 gives these params in every version: a study goes on where it stopped after an upgrade."""
    params = TrialSampler(SearchSpace(learning_rate=Float(1e-4, 1.0, scale="log"), layers=Int(1, 3)), 7).params(0)

    assert params == {"layers": 2, "learning_rate": pytest.approx(0.000268009402339564, rel=1e-12)}


def test_optuna_draws_the_same_param_by_param() -> None:
    """RandomSampler, asked for one param after the other, gives what all of a trial at once are."""
    distributions = {
        "batch_size": CategoricalDistribution((32, 64, "all")),
        "l2": FloatDistribution(0, 0.5),
        "hidden_units": IntDistribution(1, 4096, log=True),
        "layers": IntDistribution(2, 2),
        "learning_rate": FloatDistribution(1e-9, 1e9, log=True),
    }
    space = SearchSpace(
        batch_size=Categorical(32, 64, "all"),
        l2=Float(0, 0.5),
        hidden_units=Int(1, 4096, scale="log"),
        layers=Int(2, 2),
        learning_rate=Float(1e-9, 1e9, scale="log"),
        optimizer="adam",
    )
    ours = TrialSampler(space, 0)
    base = int(np.random.SeedSequence(0).generate_state(1)[0])

    for number in range(50):
        theirs = RandomSampler(seed=_mix(base ^ number))
        expected = {name: theirs.sample_independent(None, None, name, d) for name, d in sorted(distributions.items())}
        assert ours.params(number) == expected | {"optimizer": "adam"}


def test_no_two_trials_of_a_study_are_equal() -> None:
    """Ten thousand trials over a continuous range have ten thousand values."""
    sampler = TrialSampler(SearchSpace(l2=Float(0, 1)), 0)

    values = {sampler.params(number)["l2"] for number in range(10_000)}

    assert len(values) == 10_000


def test_studies_of_neighbouring_seeds_share_no_trial() -> None:
    """Seeds 0 to 19 with 200 trials each give 4000 different values."""
    space = SearchSpace(l2=Float(0, 1))

    values = {TrialSampler(space, seed).params(number)["l2"] for seed in range(20) for number in range(200)}

    assert len(values) == 4000


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    """The error says which seeds there are."""
    with pytest.raises(SettingsError, match=rf"^seed must be 0 to {MAX_SEED}, found {seed}$"):
        TrialSampler(default_space(), seed)


def test_the_largest_seed_and_number_are_drawn() -> None:
    """The ends of both ranges give params."""
    assert TrialSampler(default_space(), MAX_SEED).params(2**63 - 1)


def test_a_log_range_is_uniform_in_the_logarithm() -> None:
    """Each decade between 1e-4 and 1 gets the same share."""
    values = draw(Float(1e-4, 1.0, scale="log"))

    assert distance_from_uniform(np.log10(values) / 4 + 1) < KS_BOUND


def test_a_one_minus_log_range_is_uniform_in_the_logarithm_of_the_distance_to_one() -> None:
    """0.9 to 0.99 gets as many as 0.99 to 0.999."""
    values = draw(Float(0.9, 0.999, scale="one-minus-log"))

    assert distance_from_uniform(-(np.log10(1 - values) + 1) / 2) < KS_BOUND


def test_a_linear_range_is_uniform() -> None:
    """Equal parts of the range get the same share."""
    assert distance_from_uniform((draw(Float(-2, 3)) + 2) / 5) < KS_BOUND


def test_whole_numbers_are_uniform_with_both_bounds() -> None:
    """Each number, the bounds included, comes up equally often; it is an int of Python."""
    values, counts = np.unique(draw(Int(1, 4)), return_counts=True)

    assert values.tolist() == [1, 2, 3, 4]
    assert np.all(np.abs(counts - N / 4) < 5 * math.sqrt(N * 3 / 16))
    assert type(TrialSampler(SearchSpace(x=Int(1, 4)), 0).params(0)["x"]) is int


def test_choices_are_equally_likely_and_keep_their_type() -> None:
    """Each choice comes up equally often; numbers and words stay what they are."""
    sampler = TrialSampler(SearchSpace(x=Categorical(1, 2.5, "a")), 3)
    drawn = [sampler.params(number)["x"] for number in range(N)]

    assert {type(value) for value in drawn} == {int, float, str}
    for choice in (1, 2.5, "a"):
        assert abs(drawn.count(choice) - N / 3) < 5 * math.sqrt(N * 2 / 9)


def test_params_are_drawn_independently() -> None:
    """Two params of the same range do not correlate."""
    sampler = TrialSampler(SearchSpace(a=Float(0, 1), b=Float(0, 1)), 1)
    pairs = np.array([list(sampler.params(number).values()) for number in range(N)])

    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / math.sqrt(N)


def test_fixed_values_come_with_each_trial_in_order_of_name() -> None:
    """What is not sampled is in the params as it was given."""
    params = TrialSampler(SearchSpace(optimizer="adam", l2=Float(0, 1), layers=2), 0).params(5)

    assert list(params) == ["l2", "layers", "optimizer"]
    assert (params["layers"], params["optimizer"]) == (2, "adam")


@given(
    bounds=st.tuples(st.floats(1e-12, 1e12), st.floats(1e-12, 1e12)).map(sorted),
    scale=st.sampled_from(["linear", "log"]),
    seed=SEEDS,
)
def test_a_real_number_stays_within_its_bounds(bounds: list[float], scale: str, seed: int) -> None:
    """The bounds hold to the last bit, for equal and neighbouring bounds too."""
    sampler = TrialSampler(SearchSpace(x=Float(*bounds, scale=scale)), seed)

    for number in range(5):
        value = sampler.params(number)["x"]
        assert isinstance(value, float) and bounds[0] <= value <= bounds[1]


@given(
    bounds=st.tuples(*[st.floats(0, 1, exclude_min=True, exclude_max=True)] * 2).map(sorted),
    seed=SEEDS,
)
def test_a_number_near_one_stays_within_its_bounds(bounds: list[float], seed: int) -> None:
    """On the scale one-minus-log the bounds hold to the last bit."""
    sampler = TrialSampler(SearchSpace(x=Float(*bounds, scale="one-minus-log")), seed)

    for number in range(5):
        value = sampler.params(number)["x"]
        assert isinstance(value, float) and bounds[0] <= value <= bounds[1]


@given(
    bounds=st.tuples(st.integers(1, 2**31), st.integers(1, 2**31)).map(sorted),
    scale=st.sampled_from(["linear", "log"]),
    seed=SEEDS,
)
def test_a_whole_number_stays_within_its_bounds(bounds: list[int], scale: str, seed: int) -> None:
    """The bounds hold, whatever the scale."""
    sampler = TrialSampler(SearchSpace(x=Int(*bounds, scale=scale)), seed)

    for number in range(5):
        value = sampler.params(number)["x"]
        assert type(value) is int and bounds[0] <= value <= bounds[1]
