"""What Optuna and its users attach to studies and trials: keys and values, of the user or of the system."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from sqlalchemy import select
from sqlalchemy.engine import Connection, Row

from caviar.storage import bulk, codec, optuna_view, schema

#: Of the user, and of the system.
Attrs = tuple[dict[str, Any], dict[str, Any]]


def put_study_attr(connection: Connection, study_id: int, kind: str, key: str, value: Any) -> None:
    """Set one attribute of a study; `kind` is `user` or `system`."""
    _put(connection, schema.study_attrs, study_id=study_id, kind=kind, key=key, value=value)


def put_trial_attrs(connection: Connection, trial_id: int, trial: FrozenTrial) -> None:
    """Set all attributes of a new trial."""
    kinds: Mapping[str, Mapping[str, Any]] = {"user": trial.user_attrs, "system": trial.system_attrs}
    for kind, attrs in kinds.items():
        for key, value in attrs.items():
            _put(connection, schema.trial_attrs, trial_id=trial_id, kind=kind, key=key, value=value)


def _put(connection: Connection, table: Any, *, key: str, value: Any, **owner: Any) -> None:
    new = bulk.insert_into(table, connection.dialect.name)
    new = new.values(**owner, key=codec.encode_text(key), value=json.dumps(value))
    primary = [column.name for column in table.primary_key]
    connection.execute(new.on_conflict_do_update(index_elements=primary, set_={"value": new.excluded.value}))


def of_study(connection: Connection, study: Row[Any]) -> Attrs:
    """Return the attributes of a row of `studies`."""
    table = schema.study_attrs
    return split(connection.execute(select(table).where(table.c.study_id == study.id)).all(), study)


def split(found: Sequence[Row[Any]], study: Row[Any]) -> Attrs:
    """Return rows of `study_attrs`, all of one study, as attributes of it."""
    user, system = optuna_view.split_attrs((row.kind, row.key, row.value) for row in found)
    if study.kind != "optuna":
        system = {"study:metric_names": [codec.decode_text(study.metric)], **system}
    return user, system
