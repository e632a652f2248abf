"""Randomness from counters: initial weights and the order of examples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from caviar.errors import SettingsError
from caviar.nn.initial import MAX_SEED, epoch_order, initial_parameters
from caviar.nn.network import Network

NETWORK = Network((200, 100, 50, 10))
#: First row of weights of a network 3-2-2 with key (7, 3).
WEIGHTS = [-2.13217162066475, 0.21179505760922596, 0.588124135395813]


def test_weights_are_he_normal_and_the_rest_is_fixed():
    """W ~ N(0, 2/D) within 4 standard errors; gamma = 1, beta = 0, b = 0."""
    hidden, output = NETWORK.views(initial_parameters(NETWORK, (7, 3), "float64"))

    for layer in (*hidden, output):
        variance = 2 / layer.W.shape[1]
        assert abs(layer.W.mean()) < 4 * np.sqrt(variance / layer.W.size)
        assert layer.W.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / layer.W.size))
    assert all((layer.gamma == 1).all() and not layer.beta.any() for layer in hidden)
    assert not output.b.any()


def test_float32_weights_are_the_float64_ones_rounded():
    """Both precisions start from the same weights."""
    single, double = (initial_parameters(NETWORK, (7, 3), dtype) for dtype in ("float32", "float64"))

    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_the_seed_chosen_today_means_the_same_tomorrow():
    """First weights and an order are written down here: a change of them breaks every study in a database."""
    hidden, _ = Network((3, 2, 2)).views(initial_parameters(Network((3, 2, 2)), (7, 3), "float64"))

    assert epoch_order((7, 1), 3, 7).tolist() == [0, 4, 2, 5, 3, 6, 1]
    np.testing.assert_allclose(hidden[0].W[0], WEIGHTS, rtol=1e-15)


def test_a_draw_is_that_of_a_new_generator():
    """Whatever was drawn before in this thread or another: it is Philox at its key and counter."""
    fresh = np.random.Generator(
        np.random.Philox(key=np.array([7, 2**63 - 1], np.uint64), counter=np.array([0, 0, 5, 2], np.uint64))
    ).permutation(101)
    initial_parameters(Network((3, 1, 2)), (1, 1), "float32")  # an odd number of draws
    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(lambda n: epoch_order((7, 2**63 - 1), 5, 101 - n), [1, 0, 2, 0]))

    assert [len(order) for order in drawn] == [100, 101, 99, 101]
    assert np.array_equal(drawn[1], fresh) and np.array_equal(drawn[3], fresh)


@pytest.mark.parametrize("n", [1, 2, 1797])
def test_an_order_is_a_permutation(n):
    """Each example comes once an epoch."""
    order = epoch_order((0, 0), 0, n)

    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_key_and_epoch_make_different_draws():
    """Seed, trial number (of all 63 bits) and epoch each change the order."""
    orders = {
        tuple(epoch_order(key, epoch, 50).tolist())
        for key in [(0, 0), (1, 0), (0, 1), (MAX_SEED, 0), (MAX_SEED - 1, 0), (0, MAX_SEED), (MAX_SEED, MAX_SEED)]
        for epoch in (0, 1, 2**40)
    }

    assert len(orders) == 21


@pytest.mark.parametrize("key", [(-1, 0), (0, -1), (MAX_SEED + 1, 0), (0, 2**64)])
def test_a_key_out_of_bounds_is_refused(key):
    """Seeds and numbers are 0 to 2**63 - 1."""
    with pytest.raises(SettingsError, match=r"from 0 to 2\*\*63 - 1"):
        epoch_order(key, 0, 5)
