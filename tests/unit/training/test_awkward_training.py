"""`advance` where training goes wrong or the arguments are unusual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from caviar.errors import DataError, ParamsError
from caviar.nn.kernel import Kernel
from caviar.nn.optimizers import N_MOMENTS
from caviar.training.advance import advance, initial_state
from caviar.training.advance import test_metrics as metrics_on_test
from caviar.training.dataset import Dataset, Examples
from caviar.training.state import TrainState

#: Without hidden layers each update multiplies the weights by about -1e3: float32 overflows after a dozen.
EXPLODING = {"optimizer": "sgd", "layers": 0, "learning_rate": 1.0, "l2": 1e3, "batch_size": 20}


def make_data(n: int = 37, dtype: str = "float32") -> Dataset:
    """Return three overlapping clouds of points in five dimensions."""
    rng = np.random.default_rng(31)

    def part(size: int) -> Examples:
        y = np.arange(size) % 3
        return Examples((rng.standard_normal((size, 5)) + y[:, None]).astype(dtype), y)

    return Dataset("clouds", part(n), part(12), part(12), ("a", "b", "c"), tuple("vwxyz"), "f")


def arrays_of(state: TrainState) -> tuple[np.ndarray, ...]:
    return state.parameters, state.moments, state.running


def test_a_model_that_diverges_later_keeps_the_reports_before(kernel: Kernel) -> None:
    """The epochs before are reported, the one of the overflow is not, and nothing reported is NaN or infinite."""
    data = make_data()

    progress = advance(initial_state((1, 1), EXPLODING, data), EXPLODING, data, 50, kernel=kernel)

    assert progress.diverged_at is not None
    assert progress.diverged_at > 2
    assert len(progress.reports.values) == progress.diverged_at - 1
    assert np.isfinite(progress.reports.values).all()
    assert progress.state.epoch == progress.diverged_at - 1


def test_divergence_is_found_in_the_same_epoch_however_training_is_cut(kernel: Kernel) -> None:
    """Mini-batch by mini-batch, the overflow comes in the same epoch as in one go."""
    data = make_data()
    whole = advance(initial_state((1, 1), EXPLODING, data), EXPLODING, data, 50, kernel=kernel)

    state, rows, diverged_at = initial_state((1, 1), EXPLODING, data), [], None
    while diverged_at is None:
        epoch, batch = state.point
        progress = advance(state, EXPLODING, data, (epoch, batch + 1), kernel=kernel)
        state, diverged_at = progress.state, progress.diverged_at
        rows += progress.reports.values.tolist()

    assert diverged_at == whole.diverged_at
    assert rows == whole.reports.values.tolist()


def test_a_model_that_diverged_diverges_again(kernel: Kernel) -> None:
    """Going on from it gives the same epoch and still no report."""
    data = make_data()
    first = advance(initial_state((1, 1), EXPLODING, data), EXPLODING, data, 50, kernel=kernel)

    again = advance(first.state, EXPLODING, data, 60, kernel=kernel)

    assert again.diverged_at == first.diverged_at
    assert len(again.reports.values) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_data_that_is_not_finite_ends_as_divergence(kernel: Kernel, part: str, value: float) -> None:
    """One bad number on either side is found in the first epoch, which is not reported."""
    data = make_data()
    bad = getattr(data, part).x.copy()
    bad[0, 0] = value
    data = replace(data, **{part: Examples(bad, getattr(data, part).y)})
    params = {"batch_size": 8}

    progress = advance(initial_state((1, 1), params, data), params, data, 3, kernel=kernel)

    assert progress.diverged_at == 1
    assert len(progress.reports.values) == 0
    assert progress.state.epoch == 0


@pytest.mark.parametrize("until", [0, 1, 2, (2, 0), (1, 99), (0, 0)])
def test_a_point_that_lies_behind_changes_nothing(kernel: Kernel, until: int | tuple[int, int]) -> None:
    """Nothing is trained or reported, and the state is the one that was given."""
    data, params = make_data(), {"batch_size": 8}
    state = advance(initial_state((1, 1), params, data), params, data, 2, kernel=kernel).state

    progress = advance(state, params, data, until, kernel=kernel)

    assert len(progress.reports.values) == 0
    assert (progress.state.point, progress.state.step, progress.diverged_at) == (state.point, state.step, None)
    assert all(np.array_equal(a, b) for a, b in zip(arrays_of(progress.state), arrays_of(state), strict=True))


def test_a_point_beyond_the_last_mini_batch_is_the_end_of_the_epoch(kernel: Kernel) -> None:
    """(1, 99) with five mini-batches an epoch is (2, 0)."""
    data, params = make_data(), {"batch_size": 8}
    state = initial_state((1, 1), params, data)

    beyond = advance(state, params, data, (1, 99), kernel=kernel)
    whole = advance(state, params, data, 2, kernel=kernel)

    assert beyond.state.point == (2, 0)
    assert np.array_equal(beyond.state.parameters, whole.state.parameters)
    assert np.array_equal(beyond.reports.values, whole.reports.values)


def test_mini_batches_of_two_are_trained_on(kernel: Kernel) -> None:
    """37 examples are 18 updates; the last example is left out."""
    data, params = make_data(), {"batch_size": 2, "optimizer": "adam"}

    progress = advance(initial_state((1, 1), params, data), params, data, 1, kernel=kernel)

    assert progress.state.step == 18
    assert progress.diverged_at is None


def test_a_new_batch_size_holds_for_the_rest_of_the_epoch(kernel: Kernel) -> None:
    """After 16 of 37 examples, 21 remain: four mini-batches of five, and a single example that is left out."""
    data = make_data()
    state = initial_state((1, 1), {"batch_size": 8}, data)
    state = advance(state, {"batch_size": 8}, data, (0, 2), kernel=kernel).state

    rest = advance(state, {"batch_size": 5}, data, 1, kernel=kernel)

    assert (state.position, state.batch, state.n_examples) == (16, 2, 16)
    assert rest.state.step == 6
    assert len(rest.reports.values) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
def test_a_constant_feature_does_no_harm(kernel: Kernel, optimizer: str, dtype: str) -> None:
    """Features that are all zero, as constants are once standardised, leave everything finite."""
    data = make_data(dtype=dtype)
    parts = {name: Examples(getattr(data, name).x * 0, getattr(data, name).y) for name in ("train", "validation")}
    data, params = replace(data, **parts), {"optimizer": optimizer, "batch_size": 8}

    progress = advance(initial_state((1, 1), params, data), params, data, 5, kernel=kernel)

    assert progress.diverged_at is None
    assert all(np.isfinite(array).all() for array in arrays_of(progress.state))


def test_the_reported_training_loss_weighs_mini_batches_by_their_examples(kernel: Kernel) -> None:
    """With weights that do not move, no hidden layer and no remainder of one, it is the loss over all examples."""
    data = make_data(dtype="float64")
    params = {"optimizer": "sgd", "layers": 0, "learning_rate": 1e-300, "batch_size": 8}
    state = initial_state((1, 1), params, data)

    progress = advance(state, params, data, 1, kernel=kernel)

    W, b = state.parameters[:15].reshape(3, 5), state.parameters[15:]
    scores = data.train.x @ W.T + b  # N,C
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(37), data.train.y]
    assert progress.reports.last["train_loss"] == pytest.approx(losses.mean(), rel=1e-12)


def test_a_branch_sees_the_mini_batches_of_its_parent_until_its_params_differ(kernel: Kernel) -> None:
    """A copy of a state with the same params goes the same way; another key goes another."""
    data, params = make_data(), {"batch_size": 8}
    parent = advance(initial_state((1, 1), params, data), params, data, 1, kernel=kernel).state

    same = advance(replace(parent), params, data, 2, kernel=kernel).state
    other = advance(replace(parent, key=(1, 2)), params, data, 2, kernel=kernel).state

    assert np.array_equal(advance(parent, params, data, 2, kernel=kernel).state.parameters, same.parameters)
    assert not np.array_equal(other.parameters, same.parameters)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_without_examples_is_refused(kernel: Kernel, part: str) -> None:
    """Each part is needed where it is used, and the message says that none were found."""
    data = make_data()
    data = replace(data, **{part: Examples(data.train.x[:0], data.train.y[:0])})
    state = initial_state((1, 1), {}, data)

    with pytest.raises(DataError, match=r"found (0|none|\d+ and 0)"):
        if part == "test":
            metrics_on_test(state, {}, data, kernel=kernel)
        else:
            advance(state, {}, data, 1, kernel=kernel)


def test_data_or_params_of_another_model_are_refused(kernel: Kernel) -> None:
    """A state does not go on in another dtype, network or optimizer; it says which, and is not changed."""
    data, params = make_data(), {"optimizer": "adam", "hidden_units": 6}
    state = initial_state((1, 1), params, data)

    with pytest.raises(DataError, match="expected data in float32 as the state is, found float64"):
        advance(state, params, make_data(dtype="float64"), 1, kernel=kernel)
    for other in ({"optimizer": "sgd"}, {"hidden_units": 7}, {"layers": 1}):
        with pytest.raises(ParamsError, match="keep hidden_units, layers and optimizer"):
            advance(state, {**params, **other}, data, 1, kernel=kernel)


def test_the_learning_rate_decays_epoch_by_epoch(kernel: Kernel) -> None:
    """With a decay of 1 the second epoch moves as far as one with half the learning rate; the first is not decayed."""
    data, plain = make_data(), {"batch_size": 8, "learning_rate": 0.1}
    state = initial_state((1, 1), plain, data)

    first = advance(state, {**plain, "learning_rate_decay": 1.0}, data, 1, kernel=kernel).state
    second = advance(first, {**plain, "learning_rate_decay": 1.0}, data, 2, kernel=kernel).state

    halved = advance(first, {**plain, "learning_rate": 0.05}, data, 2, kernel=kernel).state
    assert np.array_equal(first.parameters, advance(state, plain, data, 1, kernel=kernel).state.parameters)
    assert np.array_equal(second.parameters, halved.parameters)


def test_each_epoch_has_its_own_order(kernel: Kernel) -> None:
    """The same weights meet other mini-batches in the second epoch, so that one update moves them elsewhere."""
    data, params = make_data(), {"batch_size": 8, "optimizer": "sgd"}
    state = initial_state((1, 1), params, data)

    in_first = advance(state, params, data, (0, 1), kernel=kernel).state
    in_second = advance(replace(state, epoch=1), params, data, (1, 1), kernel=kernel).state

    assert not np.array_equal(in_first.parameters, in_second.parameters)


def test_huge_scores_in_a_kernel_do_not_overflow(kernel: Kernel) -> None:
    """Output biases of 0, 0 and 1e4 cost 1e4 for each example that is not of the last class."""
    data, params = make_data(), {"layers": 0, "batch_size": 8}
    state = initial_state((1, 1), params, data)
    parameters = np.zeros_like(state.parameters)
    parameters[-1] = 1e4

    metrics = metrics_on_test(replace(state, parameters=parameters), params, data, kernel=kernel)

    assert metrics == pytest.approx({"test_loss": 1e4 * 2 / 3, "test_accuracy": 1 / 3})
