"""What is in force after which interventions."""

from __future__ import annotations

from typing import Any

import pytest

from caviar.errors import RequestRejected
from caviar.panda.adjustable import OF_NETWORK
from caviar.panda.course import Course, fold, place_after, steered
from caviar.records import Intervention, Status

START = Course({"learning_rate": 0.1, "batch_size": 32}, 20)


def done(kind: str, place: tuple[int, int], after: dict[str, Any] | None = None, **arguments: Any) -> Intervention:
    """Return an intervention that was applied."""
    epoch, batch = place
    return Intervention(
        trial="s/0",
        token="t",
        kind=kind,
        arguments=arguments,
        status=Status.APPLIED,
        epoch=epoch,
        batch=batch,
        after=after if after is not None else arguments,
    )


def back(place: tuple[int, int], to: tuple[int, int], **arguments: Any) -> Intervention:
    """Return a rollback that was applied."""
    return done("rollback", place, {"epoch": to[0], "batch": to[1], **arguments}, to="epoch", at=to[0], **arguments)


def test_without_interventions_nothing_changes() -> None:
    """Nor do those that do not steer matter."""
    assert fold(START, []) == START
    assert fold(START, [done("pause", (1, 2)), done("checkpoint", (2, 0)), done("branch", (3, 0))]) == START


def test_the_last_word_holds() -> None:
    """Settings of one name replace each other; others stay."""
    course = fold(START, [done("set", (1, 0), learning_rate=0.2), done("set", (1, 0), learning_rate=0.3, epochs=5)])

    assert course == Course({"learning_rate": 0.3, "batch_size": 32}, 5)


def test_until_stopped_is_none() -> None:
    """Epochs can be taken away."""
    assert fold(START, [done("set", (1, 3), epochs=None)]).epochs is None


def test_a_batch_size_set_within_an_epoch_waits_for_the_next() -> None:
    """It is not in force before, but it is what `value` tells."""
    course = fold(START, [done("set", (3, 4), batch_size=64, learning_rate=0.2)])

    assert course.params == {"learning_rate": 0.2, "batch_size": 32}
    assert course.value("batch_size", OF_NETWORK) == 64
    assert course.at_epoch_start().params == {"learning_rate": 0.2, "batch_size": 64}
    assert course.at_epoch_start().at_epoch_start() == course.at_epoch_start()


def test_a_batch_size_set_between_epochs_is_in_force_at_once() -> None:
    """The next mini-batch is of that size."""
    assert fold(START, [done("set", (3, 0), batch_size=64)]).params["batch_size"] == 64


@pytest.mark.parametrize("later", [(3, 9), (4, 0), (4, 2), (9, 1)])
def test_what_waited_is_in_force_once_its_epoch_is_over(later: tuple[int, int]) -> None:
    """An intervention later in the same epoch finds it still waiting, one of a later epoch finds it in force."""
    course = fold(START, [done("set", (3, 4), batch_size=64), done("set", later, l2=0.5)])

    assert course.params["batch_size"] == (32 if later == (3, 9) else 64)
    assert course.value("batch_size", OF_NETWORK) == 64


def test_of_two_that_wait_the_later_holds() -> None:
    """Both were set within one epoch."""
    course = fold(START, [done("set", (3, 4), batch_size=64), done("set", (3, 5), batch_size=16)])

    assert course.at_epoch_start().params["batch_size"] == 16


def test_a_rollback_keeps_the_settings_and_may_set_more() -> None:
    """What waited is in force at the start of the epoch gone back to."""
    course = fold(
        START, [done("set", (5, 4), batch_size=64, learning_rate=0.2), back((5, 6), (2, 0), l2=0.01, batch_size=8)]
    )

    assert course == Course({"learning_rate": 0.2, "batch_size": 8, "l2": 0.01}, 20)


def test_a_rollback_names_a_place_and_no_setting() -> None:
    """`to` and `at` are not params."""
    assert fold(START, [back((5, 6), (2, 0))]).params == START.params
    assert steered(START, "rollback", {"to": "best", "l2": 0.5}, False).params == {**START.params, "l2": 0.5}


def test_training_goes_on_at_the_target_of_a_rollback() -> None:
    """And where it was after all else."""
    assert place_after(back((5, 6), (2, 3))) == (2, 3)
    assert place_after(done("set", (5, 6))) == (5, 6)


def test_defaults_are_told_for_what_was_never_set() -> None:
    """`value` knows each adjustable name."""
    assert START.value("momentum", OF_NETWORK) == 0.9
    assert START.value("epochs", OF_NETWORK) == 20


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"batch_size": 16, "l2": 0}, {"batch_size": 16, "l2": 0.0}),
        ({"epochs": 7}, {"epochs": 7}),
        ({"epochs": None}, {"epochs": None}),
    ],
)
def test_types_are_put_right(given: dict[str, Any], checked: dict[str, Any]) -> None:
    """Whole numbers become floats where a float is meant, and only there."""
    found = OF_NETWORK.check(given, epochs_done=7)

    assert found == checked
    assert [type(value) for value in found.values()] == [type(value) for value in checked.values()]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "set needs NAME=VALUE"),
        ({"optimizer": "sgd"}, "'optimizer' cannot be changed.*learning_rate, momentum, l2"),
        ({"hidden_units": 4}, "'hidden_units' cannot be changed"),
        ({"": 1}, "'' cannot be changed"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": "0.1"}, "learning_rate"),
        ({"learning_rate": None}, "learning_rate"),
        ({"learning_rate": True}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"batch_size": 1}, "batch_size"),
        ({"batch_size": 8.0}, "batch_size"),
        ({"l2": -1e-9}, "l2"),
        ({"epochs": 6}, "7 are done already, found 6"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"epochs": 7.0}, "epochs must be a whole number"),
        ({"epochs": 10**10}, "epochs must be a whole number"),
    ],
)
def test_what_cannot_be_set_is_refused(given: dict[str, Any], words: str) -> None:
    """The message names the setting, and the adjustable ones where it is none."""
    with pytest.raises(RequestRejected, match=words):
        OF_NETWORK.check(given, epochs_done=7)
