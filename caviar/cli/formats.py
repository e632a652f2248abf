"""Rows on stdout: as a table for people, as JSON, CSV or Parquet for programs."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from caviar.cli.tables import print_table
from caviar.errors import SettingsError

Row = dict[str, Any]


def print_rows(rows: Sequence[Row], format: str, columns: Sequence[str], empty: str) -> None:
    """Print flat rows.

    Args:
        rows: their keys are the columns.
        format: `table`, `json`, `csv` or `parquet`.
        columns: those of CSV and Parquet where there is no row.
        empty: what a table says on stderr where there is no row.
    """
    if format == "table":
        print_table(rows, empty)
    elif format == "json":
        print_json(rows)
    elif format == "csv":
        print_csv(rows, _columns(rows) or columns)
    else:
        _print_parquet(rows, _columns(rows) or columns)


def check_terminal(format: str) -> None:
    """Refuse what a terminal cannot show, before any work is done for it.

    Raises:
        SettingsError: parquet would go to a terminal.
    """
    if format == "parquet" and sys.stdout.isatty():
        raise SettingsError("parquet is binary and stdout is a terminal; send it to a file: caviar ... > FILE")


def print_csv(rows: Iterable[Row], names: Sequence[str]) -> None:
    """Print rows as CSV, one after the other, below the names of their columns."""
    plain = csv.writer(sys.stdout, lineterminator="\n")
    # Readers end a line at a carriage return too, which Python does not quote where lines end in another.
    quoted = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in itertools.chain([names], ([row.get(name) for name in names] for row in rows)):
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in line)
        (quoted if has_return else plain).writerow(line)


def print_json(value: Any) -> None:
    """Print plain data as strict JSON: numbers that it does not know become null."""
    print(_json_text(value))


def print_json_list(values: Iterable[Any]) -> None:
    """Print a list of plain data as `print_json` does, one after the other: it need not fit in memory."""
    gap = "["
    for value in values:
        sys.stdout.write(gap + _json_text(value))
        gap = ", "
    print("[]" if gap == "[" else "]")


def _json_text(value: Any) -> str:
    # JSON has numbers of any length, Python's writer has not: a mark that no text holds keeps their places.
    mark = os.urandom(16).hex()

    def digits(number: Decimal) -> str:
        return f"{mark}{number:f}"

    try:
        text = json.dumps(value, allow_nan=False, default=digits)
    except ValueError:
        text = json.dumps(_strict(value), allow_nan=False, default=digits)
    return re.sub(f'"{mark}([^"]*)"', r"\1", text) if mark in text else text


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    return [_strict(inner) for inner in value] if isinstance(value, list | tuple) else value


def _print_parquet(rows: Sequence[Row], names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_terminal("parquet")
    columns = {name: [row.get(name) for row in rows] for name in names}
    try:
        table = pa.table(columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        # a param that is a number in one trial and a word in another, or a text that is no valid Unicode
        table = pa.table({name: _uniform(values) for name, values in columns.items()})
    pq.write_table(table, sys.stdout.buffer)


def _uniform(values: list[Any]) -> list[Any]:
    if any(isinstance(value, str | Decimal) for value in values):
        texts = (None if value is None else str(value) for value in values)
        return [text and text.encode(errors="backslashreplace").decode() for text in texts]
    return [None if value is None else float(value) for value in values]


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
