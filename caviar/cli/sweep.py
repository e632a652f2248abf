"""`caviar sweep`: settings to a study, progress to stderr, the result to stdout."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from caviar.bootstrap import check_cluster, cluster_address
from caviar.cli.display import SweepDisplay
from caviar.cli.interrupt import interruptible
from caviar.cli.rows import trial_row
from caviar.cli.tables import print_values
from caviar.errors import SettingsError
from caviar.records import SweepResult, Trial
from caviar.search.refine import LEAST_TRIALS
from caviar.space import SearchSpace
from caviar.study import create_study
from caviar.study_settings import check_workers


def run_sweep(
    name: str,
    *,
    data: str | None,
    target: str | None,
    space: Path | None,
    n_trials: int,
    epochs: int | None,
    seed: int | None,
    metric: str | None,
    dtype: str | None,
    prune: bool | None,
    new_space: bool,
    n_workers: int | None,
    address: str | None,
    storage: str | None,
    as_json: bool,
) -> int:
    """Run a sweep to its end, or until Ctrl-C; return the exit code."""
    if n_trials < 1:
        raise SettingsError(f"trials must be at least 1, found {n_trials}")
    check_workers(n_workers)
    search_space = SearchSpace.from_toml(space) if space else None
    if n_workers != 0 and (cluster := cluster_address(address)) is not None:
        check_cluster(cluster)  # before a study is made that nobody can train
    study = create_study(
        name,
        search_space,
        data=data,
        target=target,
        seed=seed,
        epochs=epochs,
        metric=metric,
        dtype=dtype,
        prune=prune,
        new_space=new_space,
        storage=storage,
    )
    for sentence in search_space.advice() if search_space else ():
        print(f"caviar: note: {sentence}", file=sys.stderr)
    with interruptible() as is_interrupted, SweepDisplay(study.spec) as display:
        result = study.sweep(
            n_trials,
            n_workers=n_workers,
            address=address,
            on_progress=display.update,
            is_interrupted=is_interrupted,
        )
    study.storage.close()
    if as_json:
        print(json.dumps(_summary(result)))
    else:
        _print_best(study.name, result, storage)
    if result.interrupted:
        print("caviar: interrupted; run the same command to go on", file=sys.stderr)
        return 130
    return 0


def _summary(result: SweepResult) -> dict[str, Any]:
    progress = result.progress
    return {
        "study": progress.study,
        "trials": progress.n_trials,
        "complete": progress.n_complete,
        "pruned": progress.n_pruned,
        "failed": progress.n_failed,
        "ended_now": progress.n_ended_now,
        "interrupted": result.interrupted,
        "seconds": progress.seconds,
        "trials_per_second": progress.trials_per_second,
        "workers": progress.n_workers,
        "best": trial_row(progress.best) if progress.best else None,
    }


def _print_best(name: str, result: SweepResult, storage: str | None) -> None:
    best: Trial | None = result.progress.best
    at = f" --storage {shlex.quote(storage)}" if storage else ""
    quoted = shlex.quote(name)
    if best is None:
        print(f"no trial of {name!r} is COMPLETE; see: caviar query {quoted}{at}")
        return
    print(f"best trial   {best.name}")
    for metric, label in (("val_accuracy", "validation"), ("test_accuracy", "test")):
        if metric in best.metrics:
            print(f"{label:12} {best.metrics[metric]:.4f} accuracy")
    print_values(best.params)
    print("next")
    print(f"  caviar show {quoted}/{best.number}{at}")
    print(f"  caviar query {quoted} --sort -val_accuracy --limit 10{at}")
    if result.progress.n_complete >= LEAST_TRIALS:
        print(f"  caviar retest {quoted}{at}")
        print(f"  caviar refine {quoted}{at}")
    n_held = max(result.progress.n_trials, result.progress.n_ended)
    print(f"  caviar sweep {quoted} --trials {2 * n_held}{at}")
