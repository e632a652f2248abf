"""`caviar sql`: the rows that a statement found, in the formats of `caviar query`."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal
from typing import Any

from caviar.bootstrap import storage_url
from caviar.cli.formats import check_terminal, print_rows
from caviar.storage import run_sql


def print_sql(statement: str, limit: int, timeout_s: float, format: str, url: str | None) -> int:
    """Run a statement and print what it found."""
    check_terminal(format)
    found = run_sql(storage_url(url), statement, limit=limit, timeout_s=timeout_s)
    names = _distinct(found.columns)
    rows = [dict(zip(names, map(_plain, row), strict=True)) for row in found.rows]
    print_rows(rows, format, names, "no rows")
    if found.is_cut:
        print(f"caviar: note: there are more rows than --limit {limit}", file=sys.stderr)
    return 0


def _distinct(names: tuple[str, ...]) -> list[str]:
    """Return names of columns, those that were given before with a number behind."""
    distinct: list[str] = []
    for name in names:
        number, new = 2, name
        while new in distinct:
            new, number = f"{name}_{number}", number + 1
        distinct.append(new)
    return distinct


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return value if value.is_finite() else float(value)
        case date():  # datetime is one
            return value.isoformat()
        case bytes() | memoryview():
            return bytes(value).hex()
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)
