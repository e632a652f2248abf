"""Sessions, interventions and checkpoints to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import Row

from caviar.records import Intervention, Session, Status, StoredCheckpoint
from caviar.storage import codec
from caviar.storage.types import time_from_db

#: Columns of a checkpoint, in the order in which `checkpoint_from_row` takes them.
LISTED = (
    "path", "epoch", "batch", "step", "segment", "sequence", "size_bytes", "pins", "abandoned", "created_at", "id"
)  # fmt: skip


def intervention_values(intervention: Intervention) -> dict[str, Any]:
    """Return an intervention as a row, without the id of its trial."""

    def params(value: Mapping[str, Any] | None) -> str | None:
        return None if value is None else codec.encode_params(value)

    def metrics(value: Mapping[str, float] | None) -> str | None:
        return None if value is None else codec.encode_metrics(value)

    return {
        "token": intervention.token,
        "kind": intervention.kind,
        "arguments": params(intervention.arguments),
        "author": codec.encode_text(intervention.author),
        "note": codec.encode_text(intervention.note),
        "status": str(intervention.status),
        "message": codec.encode_text(intervention.message),
        "sequence": intervention.sequence,
        "epoch": intervention.epoch,
        "batch": intervention.batch,
        "step": intervention.step,
        "before": params(intervention.before),
        "after": params(intervention.after),
        "metrics_before": metrics(intervention.metrics_before),
        "metrics_after": metrics(intervention.metrics_after),
        "asked_at": intervention.asked_at or datetime.now(UTC),
        "applied_at": intervention.applied_at,
    }


def intervention_from_row(row: Any, name: str) -> Intervention:
    """Return the intervention of a row, or of what has the same fields; `name` is the trial's."""

    def params(text: str | None) -> dict[str, Any] | None:
        return None if text is None else codec.decode_params(text)

    def metrics(text: str | None) -> dict[str, float] | None:
        return None if text is None else codec.decode_metrics(text)

    return Intervention(
        trial=name,
        token=row.token,
        kind=row.kind,
        arguments=codec.decode_params(row.arguments),
        author=codec.decode_text(row.author),
        note=codec.decode_text(row.note),
        status=Status(row.status),
        message=codec.decode_text(row.message),
        sequence=row.sequence,
        epoch=row.epoch,
        batch=row.batch,
        step=row.step,
        before=params(row.before),
        after=params(row.after),
        metrics_before=metrics(row.metrics_before),
        metrics_after=metrics(row.metrics_after),
        asked_at=row.asked_at,
        applied_at=row.applied_at,
    )


def checkpoint_values(checkpoint: StoredCheckpoint, trial_id: int) -> dict[str, Any]:
    """Return a checkpoint as a row, without its own id."""
    names = ("path", "epoch", "batch", "step", "segment", "sequence", "size_bytes", "abandoned")
    return {
        **{name: getattr(checkpoint, name) for name in names},
        "trial_id": trial_id,
        "pins": json.dumps(list(checkpoint.pins)),
        "created_at": checkpoint.created_at or datetime.now(UTC),
    }


def checkpoint_from_row(row: Sequence[Any]) -> StoredCheckpoint:
    """Return the checkpoint of a row of the columns `LISTED`."""
    # a trial may have many of them: taken apart at once, which is faster than field by field
    path, epoch, batch, step, segment, sequence, size_bytes, pins, abandoned, created_at, row_id = row
    return StoredCheckpoint(
        path=path,
        epoch=epoch,
        batch=batch,
        step=step,
        segment=segment,
        sequence=sequence,
        size_bytes=size_bytes,
        pins=() if pins == "[]" else tuple(json.loads(pins)),
        abandoned=bool(abandoned),
        created_at=time_from_db(created_at),
        id=row_id,
    )


def session_from_row(row: Row[Any], name: str) -> Session:
    """Return the session of a row; `name` is the trial's."""
    return Session(
        trial=name,
        start_params=codec.decode_params(row.start_params),
        settings=json.loads(row.settings),
        owner=row.owner,
        acquired_at=row.acquired_at,
        expires_at=row.expires_at,
    )
