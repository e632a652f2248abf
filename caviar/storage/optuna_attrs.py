"""What Optuna and its users attach to studies and trials: keys and values, of the user or of the system."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from sqlalchemy import select
from sqlalchemy.engine import Connection, Row

from caviar.storage import bulk, codec, schema

#: Of the user, and of the system.
Attrs = tuple[dict[str, Any], dict[str, Any]]


def put_study_attr(connection: Connection, study_id: int, kind: str, key: str, value: Any) -> None:
    """Set one attribute of a study; `kind` is `user` or `system`."""
    _put(connection, schema.study_attrs, study_id=study_id, kind=kind, key=key, value=value)


def put_study_attrs(connection: Connection, study_id: int, study: FrozenStudy) -> None:
    """Set all attributes of a new study."""
    for kind, key, value in _all(study):
        put_study_attr(connection, study_id, kind, key, value)


def put_trial_attrs(connection: Connection, trial_id: int, trial: FrozenTrial) -> None:
    """Set all attributes of a new trial."""
    for kind, key, value in _all(trial):
        _put(connection, schema.trial_attrs, trial_id=trial_id, kind=kind, key=key, value=value)


def _all(holder: FrozenStudy | FrozenTrial) -> Iterable[tuple[str, str, Any]]:
    kinds: Mapping[str, Mapping[str, Any]] = {"user": holder.user_attrs, "system": holder.system_attrs}
    return ((kind, key, value) for kind, attrs in kinds.items() for key, value in attrs.items())


def _put(connection: Connection, table: Any, *, key: str, value: Any, **owner: Any) -> None:
    new = bulk.insert_into(table, connection.dialect.name)
    new = new.values(**owner, key=codec.encode_text(key), value=json.dumps(value))
    primary = [column.name for column in table.primary_key]
    connection.execute(new.on_conflict_do_update(index_elements=primary, set_={"value": new.excluded.value}))


def of_study(connection: Connection, study: Row[Any]) -> Attrs:
    """Return the attributes of a row of `studies`."""
    table = schema.study_attrs
    return split_of_study(connection.execute(select(table).where(table.c.study_id == study.id)).all(), study)


def split_of_study(found: Sequence[Row[Any]], study: Row[Any]) -> Attrs:
    """Return rows of `study_attrs`, all of one study, as attributes of it."""
    user, system = split((row.kind, row.key, row.value) for row in found)
    if study.kind != "optuna":
        system = {"study:metric_names": [codec.decode_text(study.metric)], **system}
    return user, system


def split(attrs: Iterable[tuple[str, str, str]]) -> Attrs:
    """Return attributes from kind, key and JSON of each."""
    kinds: dict[str, dict[str, Any]] = {"user": {}, "system": {}}
    for kind, key, value in attrs:
        kinds[kind][codec.decode_text(key) or ""] = json.loads(value)
    return kinds["user"], kinds["system"]
