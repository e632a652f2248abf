"""Params as they come from a file or a user: whole numbers that no float holds, wrong types, names that are no text."""

from __future__ import annotations

import pytest

from caviar.errors import ParamsError
from caviar.training.hyperparameters import PARAMS, Hyperparameters, check_param


@pytest.mark.parametrize("name", sorted(PARAMS))
@pytest.mark.parametrize("value", [None, True, [], {}, (1,), float("nan"), float("inf"), -float("inf"), -1, "x"])
def test_what_no_param_may_be_is_refused_by_name(name: str, value: object) -> None:
    """The message names the param and shows the value."""
    with pytest.raises(ParamsError) as caught:
        check_param(name, value)

    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", ["learning_rate", "learning_rate_decay", "l2", "batch_size", "hidden_units", "layers"])
def test_a_whole_number_that_no_float_holds_is_refused(name: str) -> None:
    """10**400 is finite, but the arithmetic cannot hold it."""
    with pytest.raises(ParamsError, match=f"{name} must be"):
        check_param(name, 10**400)


def test_a_size_of_five_thousand_digits_is_refused() -> None:
    """Python itself refuses to read so long a number."""
    with pytest.raises(ParamsError, match="hidden_units must be"):
        check_param("hidden_units", "9" * 5000)


def test_whole_numbers_are_taken_for_numbers() -> None:
    """learning_rate = 1 means 1.0, and a decay of 10**308 does not overflow after ten epochs."""
    hyper = Hyperparameters.from_params({"learning_rate": 1, "learning_rate_decay": 10**308, "momentum": 0})

    assert [hyper.learning_rate_at(epoch) for epoch in (0, 10)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("learning_rate", (5e-324, 1.7e308)),
        ("momentum", (0, 0.9999999999999999)),
        ("hidden_units", (1, 65536, "1", "65536-1-2-3-4")),
        ("layers", (0, 5)),
        ("batch_size", (2, 10**12)),
        ("learning_rate_decay", (0, 1e308)),
        ("optimizer", ("sgd", "momentum", "rmsprop", "adam")),
        ("l2", (0, 1e300)),
    ],
)
def test_the_bounds_themselves_are_allowed(name: str, values: tuple[object, ...]) -> None:
    """The lowest and highest value of each param pass."""
    for value in values:
        check_param(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("momentum", 1),
        ("hidden_units", 0),
        ("hidden_units", 65537),
        ("hidden_units", "1-2-3-4-5-6"),
        ("hidden_units", "64-0"),
        ("hidden_units", "64-"),
        ("hidden_units", ""),
        ("hidden_units", "\uff16\uff14"),
        ("layers", 6),
        ("batch_size", 1),
        ("batch_size", 64.0),
        ("optimizer", "Adam"),
    ],
)
def test_just_beyond_a_bound_is_refused(name: str, value: object) -> None:
    """The first value that is out of bounds does not pass."""
    with pytest.raises(ParamsError, match=name):
        check_param(name, value)


def test_all_params_have_a_default_that_is_allowed() -> None:
    """No params at all are valid params, and completing completed params changes nothing."""
    completed = Hyperparameters.from_params({}).to_params()

    assert completed.keys() == PARAMS.keys()
    assert Hyperparameters.from_params(completed).to_params() == completed


def test_a_name_that_is_no_text_is_refused() -> None:
    """A number as a name is an unknown param."""
    with pytest.raises(ParamsError, match="unknown param 1"):
        check_param(1, 0.5)
