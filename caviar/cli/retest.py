"""`caviar retest`: the best trials once more, from other random bits."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from caviar.bootstrap import check_cluster, cluster_address
from caviar.cli.arguments import MODEL_SUFFIX, Json, MaybeWhole, Storage, Whole
from caviar.cli.display import SweepDisplay
from caviar.cli.formats import print_json
from caviar.cli.interrupt import interruptible
from caviar.cli.tables import print_table, print_values
from caviar.opening import load_study
from caviar.records import StudySpec
from caviar.repeats import Retest
from caviar.study_settings import check_workers
from caviar.wording import command


def retest(
    study: str,
    /,
    *,
    best: Whole = 5,
    times: Whole = 5,
    workers: MaybeWhole = None,
    address: str | None = None,
    json: Json = False,
    storage: Storage = None,
) -> int:
    """Train the best trials of STUDY again, from other weights: were their params good, or was it luck?

    The new trials are ones of the study like any other. Run again and nothing happens; a larger --times goes on.
    Babysat trials are left out.

    Parameters
    ----------
    study
        Name of the study.
    best
        How many trials, those with the best values.
    times
        How often each is trained once more, in all.
    workers
        Models trained at a time; 0 trains in this process, without Ray [every core, where there is enough to do].
    address
        HOST:PORT of a running Ray cluster [CAVIAR_ADDRESS, else a Ray started for this].
    """
    check_workers(workers)
    if workers != 0 and (cluster := cluster_address(address)) is not None:
        check_cluster(cluster)
    opened = load_study(study, storage=storage)
    try:
        with interruptible() as is_interrupted, SweepDisplay(opened.spec) as display:
            found = opened.retest(
                best,
                times,
                n_workers=workers,
                address=address,
                on_progress=display.update,
                is_interrupted=is_interrupted,
            )
            interrupted = is_interrupted()
    finally:
        opened.storage.close()
    if json:
        print_json({"study": study, "interrupted": interrupted, "retests": [_row(one) for one in found]})
    else:
        _print_table(found, opened.spec.metric)
        if not interrupted:
            _print_best(found, opened.spec, storage)
    if interrupted:
        print("caviar: interrupted; run the same command to go on", file=sys.stderr)
        return 130
    return 0


def _print_table(found: list[Retest], metric: str) -> None:
    failures = any(one.n_failed for one in found)
    rows = [
        {
            "trial": one.trial.name,
            f"{metric} then": one.trial.value,
            "again": one.mean,
            "lowest": min(one.values, default=None),
            "highest": max(one.values, default=None),
            "times": len(one.values),
            **({"failed": one.n_failed} if failures else {}),
        }
        for one in found
    ]
    print_table(rows, "")


def _print_best(found: list[Retest], spec: StudySpec, storage: str | None) -> None:
    """Print what was luck, and the trial whose params have stood the test."""
    pairs = [(one.trial.value, one.mean) for one in found if one.trial.value is not None and one.mean is not None]
    best = found[0]
    if not pairs or best.n_failed:
        print("none of them was COMPLETE each time: no params have stood the test")
        return
    then, again = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    sign = spec.direction.sign
    was_luck = "the difference was luck" if sign * again > sign * then else "no worse, so it was not luck"
    print(f"on average {then:.4g} then, {again:.4g} again: {was_luck}")
    print(f"best again   {best.trial.name}")
    print_values(best.trial.params)
    if spec.trainable is not None:
        return
    name = best.trial.name
    print("next")
    print(f"  {command('export', name, '--to', f'{best.trial.study}{MODEL_SUFFIX}', storage=storage)}")
    print(f"  {command('panda', 'start', name, '--until-stopped', storage=storage)}")


def _row(one: Retest) -> dict[str, Any]:
    return {
        "trial": one.trial.name,
        "params": dict(one.trial.params),
        "value": one.trial.value,
        "mean": one.mean,
        "repeats": [{"trial": again.name, "state": again.state.value, "value": again.value} for again in one.repeats],
    }
