"""What the params of a trial mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caviar.errors import ParamsError
from caviar.training.hyperparameters import PARAMS, Hyperparameters

PARAMS_STRATEGY = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": st.floats(1e-300, 1e300),
        "momentum": st.floats(0, 1, exclude_max=True),
        "hidden_units": st.integers(1, 65536),
        "layers": st.integers(0, 5),
        "batch_size": st.integers(2),
        "learning_rate_decay": st.floats(0, 1e300),
        "optimizer": st.sampled_from(PARAMS["optimizer"]),
        "l2": st.floats(0, 1e300),
    },
)


def test_absent_params_have_defaults():
    """Nothing given is two layers of 64, momentum 0.9, learning rate 0.01, mini-batches of 64."""
    assert Hyperparameters.from_params({}).to_params() == {
        "learning_rate": 0.01,
        "momentum": 0.9,
        "hidden_units": 64,
        "layers": 2,
        "batch_size": 64,
        "learning_rate_decay": 0.0,
        "optimizer": "momentum",
        "l2": 0.0,
    }


@given(PARAMS_STRATEGY)
def test_params_survive_the_round_trip(params):
    """Valid params are kept as they are, and all of them together are valid again."""
    hyper = Hyperparameters.from_params(params)

    assert params.items() <= hyper.to_params().items()
    assert Hyperparameters.from_params(hyper.to_params()) == hyper


def test_an_unknown_name_lists_the_valid_ones():
    """A misspelt param is named with all valid ones and the nearest."""
    with pytest.raises(ParamsError, match=r"unknown param 'learnig_rate' \(known: learning_rate, .*did you mean"):
        Hyperparameters.from_params({"learnig_rate": 0.1})


def test_units_by_layer_name_the_layers():
    """'128-64' is a network of two hidden layers of these sizes."""
    hyper = Hyperparameters.from_params({"hidden_units": "128-64"})

    assert hyper.layers == 2
    assert hyper.network(10, 3).layer_sizes == (10, 128, 64, 3)


def test_units_by_layer_against_layers_are_refused():
    """Two sizes and three layers contradict each other."""
    with pytest.raises(ParamsError, match="names 2 layers, but layers = 3"):
        Hyperparameters.from_params({"hidden_units": "128-64", "layers": 3})


@pytest.mark.parametrize(("layers", "sizes"), [(0, (10, 3)), (1, (10, 7, 3)), (3, (10, 7, 7, 7, 3))])
def test_one_number_is_the_units_of_each_layer(layers, sizes):
    """No layer is softmax regression."""
    assert Hyperparameters(hidden_units=7, layers=layers).network(10, 3).layer_sizes == sizes


def test_the_learning_rate_decays_from_the_first_epoch_on():
    """alpha / (1 + decay * epoch), the first epoch with alpha itself."""
    hyper = Hyperparameters(learning_rate=0.2, learning_rate_decay=1.0)

    assert [hyper.learning_rate_at(epoch) for epoch in range(4)] == [0.2, 0.1, 0.2 / 3, 0.05]
