"""`caviar sweep`: settings to a study, progress to stderr, the result to stdout."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Any

from caviar.bootstrap import check_cluster, cluster_address
from caviar.checks import counted_to
from caviar.cli.display import SweepDisplay
from caviar.cli.interrupt import interruptible
from caviar.cli.rows import CSV_COLUMNS, trial_row
from caviar.cli.tables import print_values, shown
from caviar.opening import create_study
from caviar.records import Direction, SweepResult
from caviar.refining import can_refine
from caviar.search.refine import LEAST_TRIALS
from caviar.space import SearchSpace
from caviar.study import Study
from caviar.study_settings import MOST_TRIALS, check_workers
from caviar.wording import command


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
    direction: str | None,
    trainable: str | None,
    dtype: str | None,
    prune: bool | None,
    new_space: bool,
    n_workers: int | None,
    address: str | None,
    storage: str | None,
    as_json: bool,
) -> int:
    """Run a sweep to its end, or until Ctrl-C; return the exit code."""
    counted_to("trials", n_trials, MOST_TRIALS)
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
        direction=direction,
        trainable=trainable,
        dtype=dtype,
        prune=prune,
        new_space=new_space,
        storage=storage,
    )
    for sentence in _notes(study, search_space):
        print(f"caviar: note: {sentence}", file=sys.stderr)
    with interruptible() as is_interrupted, SweepDisplay(study.spec) as display:
        result = study.sweep(
            n_trials,
            n_workers=n_workers,
            address=address,
            on_progress=display.update,
            is_interrupted=is_interrupted,
        )
    if as_json:
        print(json.dumps(_summary(result)))
    else:
        _print_best(study, result, storage)
    study.storage.close()
    if result.interrupted:
        print("caviar: interrupted; run the same command to go on", file=sys.stderr)
        return 130
    return 0


def _notes(study: Study, space: SearchSpace | None) -> list[str]:
    """Return what whoever asked for this may not have meant."""
    is_new = not study.summary().n_trials
    others = [found.spec.name for found in study.storage.studies() if found.spec.name != study.name] if is_new else []
    near = difflib.get_close_matches(study.name, others, n=1, cutoff=0.8)
    notes = [f"{study.name!r} is a new study; there is a {near[0]!r}, too"] if near else []
    return [*notes, *_notes_on_space(study, space)]


def _notes_on_space(study: Study, space: SearchSpace | None) -> list[str]:
    if space is None:
        return []
    if space.to_dict() == study.spec.space:
        return space.advice()
    version = study.spec.space_version
    return [
        f"that is an earlier version of the study's space; trials are drawn from version {version}, which is in force, "
        f"unless --new-space makes it version {version + 1}"
    ]


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


def _print_best(study: Study, result: SweepResult, storage: str | None) -> None:
    name, best = study.name, result.progress.best
    if best is None:
        print(f"no trial of {name!r} is COMPLETE; see: {command('query', name, storage=storage)}")
        for failed in study.trials(where="state = 'FAIL'", limit=1):
            whole = command("show", failed.name, storage=storage)
            print(f"{failed.name} failed: {shown(failed.error or '')}; see: {whole}")
        return
    metric = study.spec.metric
    print(f"best trial   {best.name}")
    if metric != "val_accuracy" and best.value is not None:
        print(f"{metric:12} {best.value:.4g}")
    for accuracy, label in (("val_accuracy", "validation"), ("test_accuracy", "test")):
        if accuracy in best.metrics:
            print(f"{label:12} {best.metrics[accuracy]:.4f} accuracy")
    if study.spec.trainable is None:
        share, most_frequent = study.data.most_frequent
        print(f"{'guessing':12} {share:.4f} accuracy, {most_frequent!r} for all")
    print_values(best.params)
    n_held = max(result.progress.n_trials, result.progress.n_ended)
    is_clear = metric.isidentifier() and metric not in (*CSV_COLUMNS, *best.params)
    sort = f"{'-' if study.spec.direction is Direction.MAXIMIZE else ''}{metric if is_clear else 'value'}"
    nexts = [("show", best.name), ("query", name, "--sort", sort, "--limit", "10")]
    if result.progress.n_complete >= LEAST_TRIALS:
        nexts.append(("retest", name))
    if can_refine(study.storage, study.spec, result.progress.n_complete):
        nexts.append(("refine", name))
    nexts.append(("sweep", name, "--trials", str(n_held if result.interrupted else 2 * n_held)))
    print("next")
    for words in nexts:
        print(f"  {command(*words, storage=storage)}")
