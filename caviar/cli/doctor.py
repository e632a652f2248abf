"""`caviar doctor`: what was looked at, and what to do about each problem."""

from __future__ import annotations

import sys
from json import dumps
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caviar.cli.arguments import Storage
from caviar.doctor import diagnose

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    *,
    address: str | None = None,
    storage: Storage = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look at this machine, the nodes of a cluster and the database, and say what to do about each problem.

    Exits 1 where something is wrong.

    Parameters
    ----------
    address
        HOST:PORT of a running Ray cluster [CAVIAR_ADDRESS, else a Ray started for this].
    json
        Print one JSON object.
    """
    found = diagnose(address, storage)
    if json:
        print(dumps(found.to_dict()))
        return 0 if found.is_well else 1
    table = Table.grid(padding=(0, 2))
    for finding in found.findings:
        text = finding.text if finding.advice is None else f"{finding.text}\n-> {finding.advice}"
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), finding.subject, Text(text, overflow="fold"))
    # whoever reads it from a file or a pipe wants one line for each
    Console(highlight=False, width=None if sys.stdout.isatty() else 500).print(table)
    return 0 if found.is_well else 1
