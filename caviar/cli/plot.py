"""Curves drawn in text: dots of Braille, two by four in each character, with labelled axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rich.style import Style
from rich.text import Text

#: A range over more than this ratio is drawn by powers of ten.
_WIDE_RATIO = 30.0
#: Bits of a Braille character by (column, row) of its dots.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LABEL_WIDTH = 7
_DIM = Style(dim=True)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Some points, drawn with lines between them."""

    name: str
    #: y by x.
    points: Mapping[int, float]
    style: str = ""
    #: Drawn with gaps, so that it can be told from another without colours.
    is_dotted: bool = False


@dataclass
class _Canvas:
    width: int
    height: int
    #: (bits, style) by (column, row) of characters, row 0 at the top.
    cells: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)

    def dot(self, x: int, y: int, style: str) -> None:
        """Set a dot, counted from the left and the bottom."""
        if not (0 <= x < 2 * self.width and 0 <= y < 4 * self.height):
            return
        row, within = divmod(4 * self.height - 1 - y, 4)
        place = (x // 2, row)
        bits, _ = self.cells.get(place, (0, ""))
        self.cells[place] = (bits | _DOTS[x % 2][within], style)

    def line(self, x0: int, y0: int, x1: int, y1: int, style: str, every: int) -> None:
        n = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(0, n + 1, every):
            self.dot(round(x0 + (x1 - x0) * i / n), round(y0 + (y1 - y0) * i / n), style)


class Scale:
    """Numbers of a range as dots, linear or by powers of ten, with round numbers to label.

    Args:
        low: the smallest value.
        high: the largest.
        n_dots: from one end to the other.
        may_be_log: whether a wide range is drawn by powers of ten.
    """

    def __init__(self, low: float, high: float, n_dots: int, *, may_be_log: bool = False) -> None:
        self.is_log = may_be_log and low > 0 and high / low > _WIDE_RATIO
        if high <= low:
            pad = abs(low) * 0.1 or 1.0
            low, high = low - pad, high + pad
        self.low, self.high, self._n_dots = low, high, n_dots

    def dot(self, value: float) -> int:
        """Return the dot of a value."""
        low, high, value = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return round((value - low) / (high - low) * (self._n_dots - 1))

    def ticks(self, n: int) -> list[float]:
        """Return about `n` round values in the range, at most two more."""
        if self.is_log:
            low, high = math.log10(self.low), math.log10(self.high)
            steps = [m * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
            found = [v for v in steps if self.low <= v <= self.high]
            tens = [v for v in found if math.log10(v) == round(math.log10(v))]
            found = found if len(found) <= n + 2 else tens
            return found[:: -(-len(found) // max(n, 1))] if found else [self.low, self.high]
        raw = (self.high - self.low) / max(n, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def plot(
    title: str,
    curves: Sequence[Curve],
    *,
    width: int,
    height: int,
    marks: Sequence[int] = (),
    may_be_log: bool = True,
    is_plain: bool = False,
) -> list[Text]:
    """Draw curves as `height` lines of `width` characters.

    Args:
        title: what the curves show; the first line.
        curves: at least one; values that are not finite leave a gap. The last is drawn over the others.
        width: of all.
        height: of all: one line for the title, two for the x axis.
        marks: values of x to mark on the axis.
        may_be_log: whether a wide range of y is drawn by powers of ten.
        is_plain: whether only ASCII can be shown.
    """
    rows, columns = max(height - 3, 1), max(width - _LABEL_WIDTH - 1, 4)
    finite = [y for curve in curves for y in curve.points.values() if math.isfinite(y)]
    xs = [x for curve in curves for x in curve.points]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    y_scale = Scale(low, high, 4 * rows, may_be_log=may_be_log)
    x_scale = Scale(min(xs, default=0), max(xs, default=1), 2 * columns)
    canvas = _Canvas(columns, rows)
    for curve in curves:
        _draw(canvas, curve, x_scale, y_scale)

    lines = [_title(title, curves, y_scale.is_log, width, is_plain)]
    labels = _y_labels(y_scale, rows)
    corner, bar, tick, rule = ("+", "|", "+", "-") if is_plain else ("└", "│", "┤", "─")
    for row in range(rows):
        label = labels.get(row, "")
        line = Text(no_wrap=True)
        line.append(f"{label:>{_LABEL_WIDTH}}{tick if label else bar}", _DIM)
        cells = [canvas.cells.get((column, row), (0, "")) for column in range(columns)]
        for style, run in groupby(cells, key=lambda cell: cell[1]):
            line.append("".join(_character(bits, is_plain) for bits, _ in run), style or None)
        lines.append(line)
    axis = [rule] * columns
    for mark in marks:
        at = x_scale.dot(mark) // 2
        if 0 <= at < columns:
            axis[at] = "^" if is_plain else "▲"
    lines.append(Text(" " * _LABEL_WIDTH + corner + "".join(axis), style=_DIM))
    lines.append(Text(" " * (_LABEL_WIDTH + 1) + _x_labels(x_scale, columns), style=_DIM))
    return lines


def thinned(history: Mapping[int, Mapping[str, float]], metric: str, n_columns: int) -> dict[int, float]:
    """Return a metric by epoch, of so many epochs as can be seen, the same ones each time but for the last.

    Args:
        history: metrics of consecutive epochs.
        metric: its name.
        n_columns: characters from left to right.
    """
    if not history:
        return {}
    first, last = min(history), max(history)
    step = 1
    while (last - first) // step > 8 * n_columns:
        step *= 2
    epochs = [*range(-(-first // step) * step, last, step), last]
    return {epoch: history[epoch][metric] for epoch in epochs if epoch in history and metric in history[epoch]}


def _draw(canvas: _Canvas, curve: Curve, x_scale: Scale, y_scale: Scale) -> None:
    before: tuple[int, int] | None = None
    every = 3 if curve.is_dotted else 1
    for x, y in curve.points.items():
        if not math.isfinite(y):
            before = None
            continue
        here = (x_scale.dot(x), y_scale.dot(y))
        if before is None:
            canvas.dot(*here, curve.style)
        elif here != before:
            canvas.line(*before, *here, curve.style, every)
        before = here


def _title(title: str, curves: Sequence[Curve], is_log: bool, width: int, is_plain: bool) -> Text:
    text = Text(" " * (_LABEL_WIDTH + 1))
    text.append(title, "bold")
    for curve in curves:
        if curve.name:
            text.append("  ")
            dots, line = ("...", "**") if is_plain else ("·····", "━━")
            text.append(f"{dots if curve.is_dotted else line} {curve.name}", curve.style)
    if is_log:
        text.append("  log scale", _DIM)
    text.truncate(width)
    return text


def _y_labels(scale: Scale, rows: int) -> dict[int, str]:
    labels: dict[str, int] = {}
    for value in scale.ticks(max(rows // 3, 1)):
        labels.setdefault(_number(value), (4 * rows - 1 - scale.dot(value)) // 4)
    return {row: label for label, row in labels.items()}


def _x_labels(scale: Scale, columns: int) -> str:
    line = [" "] * columns
    free_from = 0
    for value in scale.ticks(max(columns // 8, 1)):
        if value != round(value):
            continue
        label = str(round(value))
        at = min(max(scale.dot(value) // 2 - len(label) // 2, 0), columns - len(label))
        if at >= free_from:
            line[at : at + len(label)] = label
            free_from = at + len(label) + 1
    return "".join(line)


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return text if len(text) <= _LABEL_WIDTH else f"{value:.1e}"


def _character(bits: int, is_plain: bool) -> str:
    if not bits:
        return " "
    if is_plain:
        return "*" if bits.bit_count() > 1 else "."
    return chr(0x2800 + bits)
