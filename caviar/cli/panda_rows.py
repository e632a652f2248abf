"""Records of panda mode as people read them, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from caviar.cli.tables import shown
from caviar.records import Intervention, Status, StoredCheckpoint


def intervention_row(intervention: Intervention) -> dict[str, Any]:
    """Return a request, and what became of it, as plain JSON data."""
    return {
        "trial": intervention.trial,
        "id": intervention.token,
        "kind": intervention.kind,
        "arguments": dict(intervention.arguments),
        "by": intervention.author,
        "note": intervention.note,
        "status": intervention.status.value,
        "message": intervention.message,
        "sequence": intervention.sequence,
        "epoch": intervention.epoch,
        "batch": intervention.batch,
        "step": intervention.step,
        "before": finite(intervention.before),
        "after": finite(intervention.after),
        "metrics_before": finite(intervention.metrics_before),
        "metrics_after": finite(intervention.metrics_after),
        "asked_at": _time(intervention.asked_at),
        "applied_at": _time(intervention.applied_at),
    }


def checkpoint_row(checkpoint: StoredCheckpoint) -> dict[str, Any]:
    """Return a checkpoint as plain JSON data."""
    return {
        "path": checkpoint.path,
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "step": checkpoint.step,
        "size_bytes": checkpoint.size_bytes,
        "pins": list(checkpoint.pins),
        "created_at": _time(checkpoint.created_at),
    }


def outcome_line(intervention: Intervention) -> str:
    """Return `applied at epoch 12, step 276: learning_rate 0.01 -> 0.003`, or `rejected: ...`."""
    if intervention.status is Status.APPLIED:
        return f"applied at {place_of(intervention)}: {shown(intervention.message or '')}"
    return f"{intervention.status}: {shown(intervention.message or 'nobody has looked at it yet')}"


def place_of(intervention: Intervention) -> str:
    """Return where an intervention was applied."""
    step = "" if intervention.step is None else f", step {intervention.step}"
    return f"epoch {intervention.epoch}{step}"


def kept_epochs(checkpoints: list[StoredCheckpoint], limit: int = 4) -> str:
    """Return the epochs of some checkpoints, oldest first, runs of them as one: `0, 12, 15-31`."""
    epochs = sorted({c.epoch for c in checkpoints})
    runs: list[list[int]] = []
    for epoch in epochs:
        if runs and epoch == runs[-1][1] + 1:
            runs[-1][1] = epoch
        else:
            runs.append([epoch, epoch])
    words = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    if len(words) > limit:
        words = [words[0], "...", *words[2 - limit :]]
    return ", ".join(words) or "none"


def metric_changes(intervention: Intervention) -> str:
    """Return `val_loss 0.52 -> 0.48, ...` from before an intervention to the first epoch after it."""
    before, after = intervention.metrics_before or {}, intervention.metrics_after or {}
    names = dict.fromkeys((*before, *after))
    return ", ".join(
        f"{name} {_metric(before.get(name))}" + (f" -> {_metric(after.get(name))}" if after else "") for name in names
    )


def local(moment: datetime | None) -> str:
    """Return a time as clocks here show it."""
    return "-" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _metric(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def finite(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return values with null for numbers that JSON does not know."""
    if values is None:
        return None
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
