"""What trials have to reach, and against whom they are held."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.execution.halving import Halving, rungs
from caviar.records import EPOCH_METRICS, Direction, Reason, Reports, Trial, TrialState


def end(halving: Halving, number: int, values: list[float], state: TrialState = TrialState.COMPLETE) -> None:
    """Let a trial report these values of `val_loss`, one an epoch, and end."""
    table = np.array([[0.0, value, 0.5] for value in values]).reshape(len(values), 3)
    halving.see(number, Reports(1, EPOCH_METRICS, table))
    reason = {TrialState.COMPLETE: None, TrialState.PRUNED: Reason.BEHIND, TrialState.FAIL: Reason.DIVERGED}[state]
    halving.tell(Trial(study="s", number=number, state=state, params={}, reason=reason))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        *((1, ()), (2, ()), (3, ()), (4, (2,)), (5, (2,)), (6, (2,)), (9, (3,)), (10, (2, 4))),
        *((20, (3, 7)), (27, (3, 9)), (40, (5, 14)), (1000, (112, 334))),
    ],
)
def test_rungs_are_a_ninth_and_a_third(epochs: int, expected: tuple[int, ...]) -> None:
    """Rounded up; none is a single epoch, nor the last."""
    assert rungs(epochs) == expected


def test_generations_grow_fourfold() -> None:
    """16 trials, then up to 64, 256, ..., counted from the first one's number."""
    halving = Halving("val_loss", Direction.MINIMIZE, 20, first=100)
    seen = set()
    for number in range(100, 1500):
        halving.begin(number)
        assert halving.start <= number < halving.end
        seen.add((halving.start, halving.end))

    assert sorted(seen) == [(100, 116), (116, 164), (164, 356), (356, 1124), (1124, 4196)]


def test_a_bar_is_what_the_best_third_and_ninth_reached() -> None:
    """Of 18 trials the sixth best at epoch 3, and the second best at epoch 7, among all that were begun."""
    halving = Halving("val_loss", Direction.MINIMIZE, 20, first=0)
    for number in range(18):
        losses = [float(number)] * 20 if number < 10 else [float(number)] * 3
        end(halving, number, losses, TrialState.COMPLETE if number < 10 else TrialState.PRUNED)

    halving.begin(16)

    assert [(epoch, bar.value) for epoch, bar in halving.bars] == [(3, 5.0), (7, 1.0)]
    assert {(bar.metric, bar.direction) for _, bar in halving.bars} == {("val_loss", Direction.MINIMIZE)}


def test_trials_that_tell_nothing_are_left_out() -> None:
    """One that was stopped, was lost or was taken away; one that diverged counts, as worse than all that got there."""
    halving = Halving("val_loss", Direction.MINIMIZE, 20, first=0)
    for number in range(4):
        end(halving, number, [float(number)] * 20)
    end(halving, 4, [0.0], TrialState.FAIL)
    for number, reason in ((5, Reason.STOPPED), (6, Reason.LOST)):
        halving.see(number, Reports(1, EPOCH_METRICS, np.zeros((20, 3))))
        halving.tell(Trial(study="s", number=number, state=TrialState.FAIL, params={}, reason=reason))
    halving.see(7, Reports(1, EPOCH_METRICS, np.zeros((20, 3))))
    halving.drop(7)

    halving.begin(16)

    assert [(epoch, bar.value) for epoch, bar in halving.bars] == [(3, 1.0), (7, 0.0)]  # of five: two, and one


def test_without_trials_before_there_is_no_bar() -> None:
    """Nor where most of them did not get so far."""
    halving = Halving("val_loss", Direction.MINIMIZE, 20, first=0)
    halving.begin(0)
    assert halving.bars == ()
    for number in range(9):
        end(halving, number, [1.0] * (5 if number < 3 else 1), TrialState.FAIL)

    halving.begin(16)

    assert [epoch for epoch, _ in halving.bars] == [3]
