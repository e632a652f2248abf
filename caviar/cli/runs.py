"""The ledgers of a study's sweeps, as `caviar show` prints them."""

from __future__ import annotations

from collections.abc import Sequence

from caviar.records import SweepRun
from caviar.wording import counted

#: Of many runs the last ones are shown.
_N_SHOWN = 5
_PARTS = ("train", "dispatch", "idle")


def print_runs(runs: Sequence[SweepRun]) -> None:
    """Print when each run was, how many trials it ended, and where the time went."""
    if not runs:
        return
    print("sweeps")
    if len(runs) > _N_SHOWN:
        print(f"  ({len(runs) - _N_SHOWN} earlier ones)")
    for run in runs[-_N_SHOWN:]:
        print(f"  {run.started_at:%Y-%m-%d %H:%M:%S}  {_described(run)}")


def _described(run: SweepRun) -> str:
    if run.finished_at is None:
        return "running, or killed"
    seconds = (run.finished_at - run.started_at).total_seconds()
    text = f"{counted(run.n_ended, 'trial')} on {counted(run.n_workers or 0, 'worker')} in {seconds:.1f} s"
    whole = run.ledger.get("workers", 0.0)
    if whole <= 0:
        return text
    parts = ", ".join(f"{name} {run.ledger.get(name, 0.0) / whole:.1%}" for name in _PARTS)
    beside = ", ".join(f"{name} {run.ledger.get(name, 0.0):.2f} s" for name in ("queue", "write"))
    return f"{text}: {parts}; {beside}"
