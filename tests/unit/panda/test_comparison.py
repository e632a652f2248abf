"""What is said of the difference that an intervention made."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.cli.panda_proof import _verdict
from caviar.panda.compare import Comparison
from caviar.records import Direction, Intervention
from caviar.testing.storage import make_spec


def make(actual: float, control: float | None, n: int = 359) -> Comparison:
    """Return a comparison of two accuracies."""
    return Comparison(
        intervention=Intervention(trial="digits/1", token="t", kind="set", arguments={}),
        epochs=5,
        actual={"val_accuracy": actual, "val_loss": 1 - actual},
        control=None if control is None else {"val_accuracy": control, "val_loss": 1 - control},
        n_validation=n,
    )


def test_few_examples_may_be_chance_and_many_are_not() -> None:
    """The count of examples is told, and whether others could have said the opposite."""
    one, many, fewer = make(341 / 359, 340 / 359), make(341 / 359, 300 / 359), make(300 / 359, 341 / 359)

    assert [(c.n_examples, c.is_within_noise) for c in (one, many, fewer)] == [(1, True), (41, False), (-41, False)]
    assert _verdict(one, make_spec()).endswith("1 example of 359 more right, which may be chance")
    assert _verdict(fewer, make_spec()).endswith("by val_accuracy: 41 examples of 359 fewer right")
    assert _verdict(make(0.9, 0.9), make_spec()) == "made no difference, after 5 epochs, by val_accuracy"
    assert make(0.9, None).n_examples is None
    of_loss = make_spec(metric="val_loss", direction=Direction.MINIMIZE)
    assert _verdict(fewer, of_loss) == "did not help, after 5 epochs, by val_loss"


@pytest.mark.parametrize("share", [0.6, 0.95])
def test_two_equal_models_nearly_always_differ_by_what_may_be_chance(share: float) -> None:
    """As the two standard errors promise: in about 19 of 20 draws."""
    right = np.random.default_rng(0).binomial(359, share, (2000, 2)) / 359

    within = np.mean([make(a, b).is_within_noise or a == b for a, b in right.tolist()])

    assert 0.93 < within < 0.98
