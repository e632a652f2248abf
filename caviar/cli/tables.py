"""Tables and sparklines for terminals; whole lines for pipes."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
_GAP = "  "
#: Columns from the left that may be needed to name a row, as study and number of a trial.
_MOST_KEYS = 3


def print_table(rows: Sequence[dict[str, Any]], empty: str) -> None:
    """Print rows on stdout, with a column for each key in order of first appearance.

    On a terminal that is too narrow for a line, the columns that do not fit follow below, beside those that name a row.
    """
    if not rows:
        print(empty, file=sys.stderr)
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        cells = [name, *(_text(row.get(name)) for row in rows)]
        width = max(map(len, cells))
        is_numeric = all(isinstance(row.get(name), int | float | Decimal | None) for row in rows)
        columns.append([cell.rjust(width) if is_numeric else cell.ljust(width) for cell in cells])
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for index, block in enumerate(_blocks(columns, terminal)):
        if index:
            print()
        for line in zip(*block, strict=True):
            print(_GAP.join(line).rstrip())


def _blocks(columns: list[list[str]], width: int | None) -> list[list[list[str]]]:
    """Part padded columns into blocks no wider than `width`, each of which begins with the columns that name a row."""
    if width is None or _width(columns) <= width:
        return [columns]
    n_keys = next((n for n in range(1, _MOST_KEYS + 1) if _are_distinct(columns[:n])), 1)
    keys = columns[:n_keys] if _width(columns[:n_keys]) <= width // 2 else []
    blocks: list[list[list[str]]] = [[]]
    for column in columns[len(keys) :]:
        if blocks[-1] and _width([*keys, *blocks[-1], column]) > width:
            blocks.append([])
        blocks[-1].append(column)
    return [[*keys, *block] for block in blocks]


def _are_distinct(columns: list[list[str]]) -> bool:
    lines = list(zip(*columns, strict=True))
    return len(set(lines)) == len(lines)


def _width(columns: list[list[str]]) -> int:
    return sum(len(column[0]) + len(_GAP) for column in columns) - len(_GAP)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return a curve as one line of bars, at most `width` of them; a value that is not finite is a blank."""
    step = max(len(values) / width, 1)
    picked = [values[int(index * step)] for index in range(min(len(values), width))]
    finite = [value for value in picked if math.isfinite(value)]
    if not finite:
        return " " * len(picked)
    low, span = min(finite), max(finite) - min(finite) or 1.0
    top = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / span * top)] if math.isfinite(value) else " " for value in picked)


def short(value: Any) -> str:
    """Return a value as people read it, `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_values(values: Mapping[str, Any]) -> None:
    """Print names with their values on stdout, a line each."""
    for name, value in values.items():
        print(f"  {shown(name):20} {f'{value:.6g}' if isinstance(value, float) else shown(str(value))}")


def duration(seconds: float) -> str:
    """Return a time as `M:SS` or `H:MM:SS`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value))


def shown(text: str) -> str:
    """Return a text as it may be shown in one line of a terminal: what would act there is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
