"""`caviar refine`: coarse to fine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from caviar.cli.arguments import Json, Storage
from caviar.cli.formats import print_json
from caviar.cli.tables import print_table
from caviar.errors import SettingsError
from caviar.search.refine import Narrowing, Refinement
from caviar.study import load_study
from caviar.wording import counted


def refine(
    study: str, /, *, best: int | None = None, to: Path | None = None, json: Json = False, storage: Storage = None
) -> int:
    """Narrow the space of STUDY to where its best trials lie, for the trials to come: coarse to fine.

    A param whose best trials lie everywhere stays as it is. The earlier space is kept, as an earlier version.

    Parameters
    ----------
    best
        How many trials count as the best [the square root of all].
    to
        Write the narrower space to this TOML file, and leave the study as it is.
    """
    opened = load_study(study, storage=storage)
    try:
        found = opened.refine(best, keep=to is None)
        n_held = opened.summary().n_trials
    finally:
        opened.storage.close()
    if to is not None:
        _write(found, to)
    if json:
        print_json(
            {
                "study": study,
                "trials": found.n_trials,
                "best": found.n_best,
                "space_version": found.version,
                "space": found.space.to_dict(),
                "params": [_row(param) for param in found.params],
            }
        )
        return 0
    print(f"the best {found.n_best} of {counted(found.n_trials, 'trial')}")
    print_table(
        [
            {
                "param": param.name,
                "from": str(param.before),
                "to": str(param.after) if param.is_narrower else "the same",
                "chance": param.chance,
            }
            for param in found.params
        ],
        "",
    )
    for param in found.params:
        for which, bound in param.reached.items():
            print(f"the best trials reach the {which} bound of {param.name}, {bound:g}: values beyond may be better")
    if not found.is_narrower:
        print("the best trials lie everywhere: nothing is narrowed")
        return 0
    words = ["caviar", "sweep", study, "--trials", str(2 * n_held)]
    if to is None:
        print(f"version {found.version} of the space of {study}; the trials to come are drawn from it")
    else:
        words += ["--space", str(to), "--new-space"]
    if storage:
        words += ["--storage", storage]
    print(f"next\n  {shlex.join(words)}")
    return 0


def _row(param: Narrowing) -> dict[str, Any]:
    return {
        "param": param.name,
        "narrower": param.is_narrower,
        "from": str(param.before),
        "to": str(param.after),
        "chance": param.chance,
        "reached": dict(param.reached),
    }


def _write(found: Refinement, to: Path) -> None:
    try:
        to.write_text(found.space.to_toml(), "utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write the space file {str(to)!r}: {error.strerror or error}") from error
