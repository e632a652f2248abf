"""Records as the rows that users see: one shape for JSON, CSV and Parquet."""

from __future__ import annotations

import math
from typing import Any

from caviar.records import StudySummary, SweepRun, Trial


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain JSON data; numbers that JSON does not know become null."""
    return {
        "study": trial.study,
        "number": trial.number,
        "state": trial.state.value,
        "value": _finite(trial.value),
        "params": dict(trial.params),
        "metrics": {name: _finite(value) for name, value in trial.metrics.items()},
        "epoch": trial.epoch,
        "seconds": trial.seconds,
        "started_at": trial.started_at.isoformat() if trial.started_at else None,
        "finished_at": trial.finished_at.isoformat() if trial.finished_at else None,
        "parent": trial.parent,
        "reason": trial.reason,
        "error": trial.error,
        "space_version": trial.space_version,
    }


#: The columns that each trial has in CSV and Parquet, before those of its params and metrics.
CSV_COLUMNS = (
    "study",
    "number",
    "state",
    "value",
    "epoch",
    "seconds",
    "started_at",
    "finished_at",
    "parent",
    "reason",
    "error",
    "space_version",
)


def flat_row(trial: Trial) -> dict[str, Any]:
    """Return a trial with one column for each param and metric, as `params.NAME` and `metrics.NAME`."""
    row = trial_row(trial)
    params, metrics = row.pop("params"), row.pop("metrics")
    flat = {f"params.{name}": value for name, value in params.items()}
    return row | flat | {f"metrics.{name}": value for name, value in metrics.items()}


def study_row(summary: StudySummary) -> dict[str, Any]:
    """Return a study at a glance as plain JSON data."""
    spec = summary.spec
    return {
        "study": spec.name,
        "data": spec.data.source,
        "target": spec.data.target,
        "fingerprint": spec.data.fingerprint,
        "metric": spec.metric,
        "direction": spec.direction.value,
        "seed": spec.seed,
        "epochs": spec.epochs,
        "dtype": spec.dtype,
        "kernel": spec.kernel,
        "prune": spec.prune,
        "trainable": None if spec.trainable is None else f"{spec.trainable.file}:{spec.trainable.function}",
        "space_version": spec.space_version,
        "created_at": spec.created_at.isoformat() if spec.created_at else None,
        "trials": summary.n_trials,
        "states": {state.value: count for state, count in summary.counts.items() if count},
        "tags": list(summary.tags),
        "note": summary.note,
        "best": trial_row(summary.best) if summary.best else None,
    }


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def run_row(run: SweepRun) -> dict[str, Any]:
    """Return a run of a coordinator as plain JSON data."""
    return {
        "owner": run.owner,
        "started_at": run.started_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "workers": run.n_workers,
        "ended": run.n_ended,
        "seconds": dict(run.ledger),
    }
