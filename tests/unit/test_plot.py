"""Curves in text: their size, their places, and what does not fit."""

from __future__ import annotations

import math

import pytest

from caviar.cli.panda_rows import kept_epochs
from caviar.cli.plot import Curve, Scale, plot, thinned
from caviar.records import StoredCheckpoint


def drawn(points: dict[int, float], width: int = 40, height: int = 11, **options: bool) -> list[str]:
    """Return one curve as plain lines."""
    return [
        line.plain for line in plot("loss", [Curve(name="val", points=points)], width=width, height=height, **options)
    ]


@pytest.mark.parametrize(
    "points",
    [
        {},
        {3: 1.0},
        {1: 1.0, 2: 1.0},
        {1: math.nan, 2: math.inf},
        {1: 1e-300, 2: 1e300},
        {epoch: math.exp(epoch) for epoch in range(200)},
        {1: -1e12, 10**9: 1.0},
    ],
)
@pytest.mark.parametrize(("width", "height"), [(12, 4), (40, 11), (119, 22)])
def test_a_plot_has_the_size_that_was_asked_for(points: dict[int, float], width: int, height: int) -> None:
    """Whatever the values, it has so many lines, and none is wider."""
    lines = drawn(points, width, height)

    assert len(lines) == height
    assert max(len(line) for line in lines) <= width


def test_a_falling_line_goes_from_top_left_to_bottom_right() -> None:
    """The first value is drawn at the top, the last at the bottom, with their numbers beside."""
    _, *rows, axis, labels = drawn({epoch: 10.0 - epoch for epoch in range(11)})

    assert rows[0].startswith("     10┤⠉") or rows[0][8] != " "
    assert rows[-1][-1] != " "
    assert rows[-1].startswith("      0┤")
    assert axis.startswith("       └───")
    assert labels.split()[0] == "0"


def test_only_ascii_is_drawn_where_nothing_else_can_be_shown() -> None:
    """A terminal that knows no Braille gets dots and stars."""
    lines = plot("loss", [Curve(name="val", points={1: 1.0, 9: 5.0})], width=40, height=11, marks=[4], is_plain=True)

    assert "".join(line.plain for line in lines).isascii()
    assert "^" in lines[-2].plain


def test_a_wide_range_is_drawn_by_powers_of_ten() -> None:
    """Each power of ten takes as much room as the next."""
    scale = Scale(1.0, 10000.0, 41, may_be_log=True)

    assert [scale.dot(10.0**power) for power in range(5)] == [0, 10, 20, 30, 40]
    assert set(scale.ticks(4)) <= {1.0, 10.0, 100.0, 1000.0, 10000.0}


def test_a_long_history_is_thinned_to_the_same_epochs_each_time() -> None:
    """Of many epochs some are drawn, the last among them; one more changes no other."""
    history = {epoch: {"val_loss": float(epoch)} for epoch in range(1, 100_001)}

    before = thinned(history, "val_loss", 50)
    after = thinned(history | {100_001: {"val_loss": 0.0}}, "val_loss", 50)

    assert 200 <= len(before) <= 402
    assert max(before) == 100_000
    assert set(before) - set(after) <= {100_000}
    assert thinned({}, "val_loss", 50) == {}


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [([], "none"), ([4], "4"), ([0, 3, 4, 5, 9], "0, 3-5, 9"), ([0, 2, 4, 6, 8, 9], "0, ..., 6, 8-9")],
)
def test_kept_epochs_are_written_as_runs(epochs: list[int], shown: str) -> None:
    """Consecutive epochs are one word, and of many runs the first and the last are written."""
    assert kept_epochs([StoredCheckpoint(path="", epoch=epoch, batch=0, step=0) for epoch in epochs]) == shown
