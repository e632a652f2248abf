"""The architecture and its flat vector."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.errors import ShapeError
from caviar.nn.network import Network


def test_the_number_of_parameters_is_known_by_hand():
    """3-4-2: 4*3 + 4 + 4 of the hidden layer, 2*4 + 2 of the output; 4 hidden units."""
    network = Network((3, 4, 2))

    assert (network.n_parameters, network.n_units) == (30, 4)


def test_views_cover_the_flat_vector_once():
    """The views share the memory of the vector, in order, without gap or overlap."""
    network = Network((3, 4, 5, 2))
    parameters = np.arange(network.n_parameters, dtype=float)

    hidden, output = network.views(parameters)

    parts = [part for layer in (*hidden, output) for part in layer]
    assert all(np.shares_memory(part, parameters) for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), parameters)
    assert [part.shape for part in parts] == [(4, 3), (4,), (4,), (5, 4), (5,), (5,), (2, 5), (2,)]


def test_no_hidden_layer_is_softmax_regression():
    """Two sizes are W and b alone."""
    network = Network((3, 2))

    hidden, output = network.views(np.zeros(network.n_parameters))

    assert (hidden, output.W.shape, output.b.shape, network.n_units) == ([], (2, 3), (2,), 0)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0, 2), (3, -1)])
def test_impossible_sizes_are_refused(sizes):
    """Fewer than two sizes, or one below 1, make no network."""
    with pytest.raises(ShapeError, match="at least two positive sizes"):
        Network(sizes)


def test_a_vector_of_another_length_is_refused():
    """Views of a vector that is not (P,) are refused, also where it is longer."""
    with pytest.raises(ShapeError, match=r"shape \(8,\), found \(9,\)"):
        Network((3, 2)).views(np.zeros(9))


def test_equal_networks_are_equal_keys():
    """A network is hashable by value."""
    assert len({Network((3, 2)), Network((3, 2)), Network((3, 3))}) == 2
