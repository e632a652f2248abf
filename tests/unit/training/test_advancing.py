"""`advance` is pure, can be stopped anywhere, and reports what it should."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.errors import ParamsError
from caviar.nn.kernel import Kernel
from caviar.nn.optimizers import N_MOMENTS
from caviar.training.advance import Progress, advance, initial_state, test_metrics
from caviar.training.dataset import Dataset, Examples
from caviar.training.hyperparameters import Hyperparameters
from caviar.training.state import TrainState

test_metrics.__test__ = False  # a product function, not a test


def make_data(n: int = 37, n_features: int = 5, n_classes: int = 3, dtype: str = "float32") -> Dataset:
    """Return three clouds of points that overlap a little; n examples to train on."""
    rng = np.random.default_rng(3)

    def part(size: int) -> Examples:
        y = np.arange(size) % n_classes
        return Examples((rng.standard_normal((size, n_features)) + 2 * y[:, None]).astype(dtype), y)

    classes, features = tuple("abcdefghij"[:n_classes]), tuple(f"x{i}" for i in range(n_features))
    return Dataset("clouds", part(n), part(30), part(30), classes, features, "f")


def bits(state: TrainState) -> tuple[object, ...]:
    """Return all of a state as plain values."""
    arrays = tuple(array.tobytes() for array in (state.parameters, state.moments, state.running))
    return (*arrays, state.epoch, state.position, state.batch, state.step, state.loss_sum, state.n_examples)


def run(kernel: Kernel, params: dict, data: Dataset, *stops) -> Progress:
    """Advance through several stops; the reports are joined."""
    progress = Progress(initial_state((7, 2), params, data), None)
    rows = []
    for stop in stops:
        progress = advance(progress.state, params, data, stop, kernel=kernel)
        rows += progress.reports.values.tolist()
    progress.reports.values.setflags(write=True)
    return Progress(progress.state, rows, progress.diverged_at)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
def test_stopping_at_any_mini_batch_changes_no_bit(kernel: Kernel, optimizer: str, layers: int, dtype: str) -> None:
    """Whole, by epochs, and by single mini-batches: the same state and the same reports."""
    data = make_data(dtype=dtype)
    params = {"optimizer": optimizer, "layers": layers, "hidden_units": 6, "batch_size": 8, "l2": 0.01}

    whole = run(kernel, params, data, 3)
    by_epoch = run(kernel, params, data, 1, 2, 3)
    by_batch = run(kernel, params, data, *[(epoch, batch) for epoch in range(3) for batch in range(1, 6)])

    assert bits(by_epoch.state) == bits(by_batch.state) == bits(whole.state)
    assert by_epoch.reports == by_batch.reports == whole.reports
    assert whole.state.parameters.dtype == dtype


def test_advance_changes_none_of_its_arguments(kernel: Kernel) -> None:
    """The state that was given is the same after training from it, and cannot be written to."""
    data, params = make_data(), {"optimizer": "adam"}
    state = initial_state((1, 2), params, data)
    before, x = bits(state), data.train.x.copy()

    advance(state, params, data, 2, kernel=kernel)

    assert bits(state) == before
    assert np.array_equal(data.train.x, x)
    with pytest.raises(ValueError, match="read-only"):
        state.parameters[0] = 1


def test_in_company_or_alone_the_bits_are_the_same(kernel: Kernel) -> None:
    """Other models trained before leave no trace."""
    data, params = make_data(), {"batch_size": 8}
    alone = run(kernel, params, data, 3)

    run(kernel, {"layers": 4, "hidden_units": 50, "optimizer": "adam"}, data, 2)
    in_company = run(kernel, params, data, 3)

    assert bits(alone.state) == bits(in_company.state)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(37, 8, 5), (33, 8, 4), (37, 1000, 1), (3, 2, 1)])
def test_the_last_mini_batch_is_trained_on_if_it_holds_two(kernel: Kernel, n: int, batch_size: int, steps: int) -> None:
    """37 = 4 * 8 + 5 are five updates; 33 = 4 * 8 + 1 are four; a batch larger than the set is the set."""
    progress = run(kernel, {"batch_size": batch_size}, make_data(n=n), 1)

    assert progress.state.step == steps
    assert progress.state.epoch == 1


def test_divergence_ends_at_once_and_says_in_which_epoch(kernel: Kernel) -> None:
    """A learning rate of 1e38 without hidden layers overflows; that epoch gives no report, and no warning leaks."""
    params = {"learning_rate": 1e38, "layers": 0, "optimizer": "sgd"}

    progress = advance(initial_state((1, 1), params, make_data()), params, make_data(), 5, kernel=kernel)

    assert progress.diverged_at is not None
    assert len(progress.reports) == progress.diverged_at - 1 == progress.state.epoch


def test_learning_improves_every_metric(kernel: Kernel) -> None:
    """On clouds that overlap a little, ten epochs of Adam get nearly all right."""
    data, params = make_data(n=300), {"optimizer": "adam", "hidden_units": 16}

    progress = advance(initial_state((1, 1), params, data), params, data, 10, kernel=kernel)

    assert progress.reports.values[-1, 0] < progress.reports.values[0, 0]
    assert progress.reports.last["val_accuracy"] > 0.9
    assert test_metrics(progress.state, params, data, kernel=kernel)["test_accuracy"] > 0.9


def test_a_new_learning_rate_changes_the_very_next_update(kernel: Kernel) -> None:
    """Params may differ between two calls; the second call uses its own."""
    data, params = make_data(), {"optimizer": "sgd", "learning_rate": 0.1}
    state = run(kernel, params, data, 1).state

    same = advance(state, params, data, (1, 1), kernel=kernel).state
    halved = advance(state, {**params, "learning_rate": 0.05}, data, (1, 1), kernel=kernel).state

    moved, moved_half = same.parameters - state.parameters, halved.parameters - state.parameters
    assert moved_half == pytest.approx(moved / 2, rel=1e-2, abs=1e-6)
    assert not np.array_equal(moved, moved_half)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"learningrate": 0.1}, "did you mean 'learning_rate'"),
        ({"learning_rate": 0}, r"learning_rate must be a number in \(0, inf\), found 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\)"),
        ({"layers": 6}, r"layers must be a whole number in \[0, 5\], found 6"),
        ({"layers": True}, "layers must be"),
        ({"hidden_units": 2.5}, "hidden_units must be a whole number"),
        ({"hidden_units": "12-x"}, "at most 5 of them"),
        ({"hidden_units": "8-4", "layers": 3}, "names 2 layers, but layers = 3"),
        ({"optimizer": "lion"}, "one of sgd, momentum, rmsprop, adam, found 'lion'"),
        ({"batch_size": 1}, "batch_size must be"),
    ],
)
def test_params_that_are_not_valid_are_refused(params: dict, message: str) -> None:
    """The message says what was expected and what was found."""
    with pytest.raises(ParamsError, match=message):
        Hyperparameters.from_params(params)


def test_layers_can_be_named_one_by_one() -> None:
    """hidden_units = "128-64" is two hidden layers."""
    hyper = Hyperparameters.from_params({"hidden_units": "128-64"})

    assert hyper.network(784, 10).layer_sizes == (784, 128, 64, 10)
    assert hyper.layers == 2


def test_the_learning_rate_decays_by_epoch() -> None:
    """alpha / (1 + decay * epoch), with epochs counted from 0."""
    hyper = Hyperparameters(learning_rate=0.3, learning_rate_decay=0.5)

    assert [hyper.learning_rate_at(epoch) for epoch in (0, 1, 4)] == pytest.approx([0.3, 0.2, 0.1])
