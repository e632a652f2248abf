"""Tables and sparklines for terminals; whole lines for pipes."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"


def print_table(rows: Sequence[dict[str, Any]], empty: str) -> None:
    """Print rows on stdout, with a column for each key in order of first appearance."""
    if not rows:
        print(empty, file=sys.stderr)
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in names] for row in rows]
    numeric = [all(isinstance(row.get(name), int | float | Decimal | None) for row in rows) for name in names]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    for line in [names, *cells]:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        print("  ".join(padded).rstrip())


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
