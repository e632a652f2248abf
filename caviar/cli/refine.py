"""`caviar refine`: coarse to fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caviar.cli.arguments import Json, MaybeWhole, Storage
from caviar.cli.formats import print_json
from caviar.cli.tables import print_table
from caviar.errors import SettingsError
from caviar.opening import load_study
from caviar.records import TrialState
from caviar.replacing import replacing
from caviar.search.refine import Narrowing, Refinement
from caviar.space import Categorical, Domain, SearchSpace
from caviar.wording import command, counted, plain


def refine(
    study: str, /, *, best: MaybeWhole = None, to: Path | None = None, json: Json = False, storage: Storage = None
) -> int:
    """Narrow the space of STUDY to where its best trials lie, for the trials to come: coarse to fine.

    A param whose best trials lie everywhere stays as it is. The earlier space is kept, as an earlier version. Babysat
    trials are left out.

    Parameters
    ----------
    study
        Name of the study.
    best
        How many trials count as the best [the square root of all].
    to
        Write the narrower space to this TOML file, and leave the study as it is.
    """
    if to is not None and to.suffix != ".toml":
        raise SettingsError(f"expected a space file that ends in .toml, found {str(to)!r}; name it so")
    opened = load_study(study, storage=storage)
    try:
        found = opened.refine(best, keep=to is None)
        counts = opened.summary().counts
    finally:
        opened.storage.close()
    if to is not None and found.is_narrower:
        _write(found.space, to)
    if json:
        print_json(
            {
                "study": study,
                "trials": found.n_trials,
                "diverged": found.n_diverged,
                "pruned": found.n_pruned,
                "best": found.n_best,
                "space_version": found.version,
                "space": found.space.to_dict(),
                "params": [_row(param) for param in found.params],
            }
        )
        return 0
    _print(found)
    if not found.is_narrower:
        print("nothing is narrowed: of no param the best trials lie closer together than by chance")
        return 0
    words = ["sweep", study, "--trials", str(2 * sum(counts.values()))]
    if to is not None:
        print(f"the narrower space is in {str(to)!r}")
        words += ["--space", str(to), "--new-space"]
    else:
        n_waiting = counts.get(TrialState.WAITING, 0)
        but = f", but for {counted(n_waiting, 'trial')} that wait already" if n_waiting else ""
        print(f"version {found.version} of the space of {study}; the trials to come are drawn from it{but}")
    print(f"next\n  {command(*words, storage=storage)}")
    return 0


def _print(found: Refinement) -> None:
    others = [f"{n} {what}" for n, what in ((found.n_diverged, "diverged"), (found.n_pruned, "were pruned")) if n]
    of_which = f", of which {' and '.join(others)}" if others else ""
    print(f"the best {found.n_best} of {counted(found.n_trials, 'trial')}{of_which}")
    rows = [
        {
            "param": param.name,
            "from": str(param.before),
            "to": _bounds(param.after) if param.is_narrower else "the same",
            "chance": param.chance,
        }
        for param in found.params
    ]
    print_table(rows, "")
    for param in found.params:
        for which, bound in param.reached.items():
            where = "below" if which == "low" else "above"
            print(f"the best trials reach {param.name} = {plain(bound)}, where the space ends: try some {where}")


def _bounds(domain: Domain) -> str:
    """Return a domain without its scale, which the line has already."""
    return str(domain) if isinstance(domain, Categorical) else f"{plain(domain.low)} to {plain(domain.high)}"


def _row(param: Narrowing) -> dict[str, Any]:
    return {
        "param": param.name,
        "narrower": param.is_narrower,
        "from": SearchSpace(x=param.before).to_dict()["x"],
        "to": SearchSpace(x=param.after).to_dict()["x"],
        "chance": param.chance,
        "reached": dict(param.reached),
    }


def _write(space: SearchSpace, to: Path) -> None:
    """Write a space file, whole or not at all."""
    try:
        with replacing(to) as beside:
            beside.write_text(space.to_toml(), "utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write the space file {str(to)!r}: {error.strerror or error}") from error
