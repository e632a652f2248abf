"""Studies in the database: which one a name means, what its rows say, how it stands."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select
from sqlalchemy.engine import Connection

from caviar.errors import StudyNotFound
from caviar.records import Direction, StudySpec, StudySummary, Trial, TrialState
from caviar.storage import admin, codec, rows, schema

_READ_SQL = ", ".join(rows.READ)
_STUDIES = schema.studies.c
# nearly every operation begins with it, and making a statement takes longer than running it
_KEY = select(_STUDIES.id, _STUDIES.kind, _STUDIES.metric, _STUDIES.direction).where(
    _STUDIES.name == bindparam("of_name")
)


class StudyKey(NamedTuple):
    """What most operations need to know of a study."""

    id: int
    name: str
    kind: str
    metric: str
    direction: str


def insert_study(connection: Connection, row: dict[str, Any]) -> int:
    """Insert a row of `studies` with its counts; return its id."""
    inserted = connection.execute(insert(schema.studies).values(**row)).inserted_primary_key
    assert inserted is not None
    connection.execute(insert(schema.study_counts).values(study_id=inserted[0]))
    return int(inserted[0])


def is_taken(connection: Connection, name: str) -> bool:
    """Return whether there is a study of that name."""
    return connection.execute(select(_STUDIES.id).where(_STUDIES.name == name)).first() is not None


def names(connection: Connection) -> list[str]:
    """Return the names of all studies, oldest first."""
    return list(connection.execute(select(_STUDIES.name).order_by(_STUDIES.id)).scalars())


def find_key(connection: Connection, name: str, shown: str) -> StudyKey:
    """Return id, metric and direction of a study.

    Args:
        connection: in a transaction.
        name: of the study.
        shown: the database, for the message.

    Raises:
        StudyNotFound: there is none of that name; the message lists those there are.
    """
    row = None
    if isinstance(name, str) and codec.is_storable(name):
        row = connection.execute(_KEY, {"of_name": name}).first()
    if row is None:
        raise StudyNotFound(_no_study(connection, name, shown))
    return StudyKey(row.id, name, row.kind, codec.decode_text(row.metric) or "", row.direction)


def _no_study(connection: Connection, name: str, shown: str) -> str:
    there = list(connection.execute(select(_STUDIES.name).order_by(_STUDIES.id.desc()).limit(1000)).scalars())
    if not there:
        return f"there is no study {name!r}: {shown!r} holds none yet; `caviar sweep` makes one"
    close = get_close_matches(str(name), there, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    more = f" and {len(there) - 10} more" if len(there) > 10 else ""
    return f"there is no study {name!r} (there are {', '.join(map(repr, there[:10]))}{more}){hint}"


def read_spec(connection: Connection, key: StudyKey) -> StudySpec:
    """Return the spec of a study, with the newest version of its space."""
    row = connection.execute(select(schema.studies).where(_STUDIES.id == key.id)).one()
    newest = connection.execute(
        select(schema.spaces.c.space, schema.spaces.c.version)
        .where(schema.spaces.c.study_id == key.id)
        .order_by(schema.spaces.c.version.desc())
        .limit(1)
    ).first()
    return rows.spec_from_row(row, *(newest or (None, 1)))


def read_summary(connection: Connection, key: StudyKey) -> StudySummary:
    """Return a study at a glance."""
    counted = connection.execute(select(schema.study_counts).where(schema.study_counts.c.study_id == key.id)).one()
    counts = {state: getattr(counted, f"n_{state.lower()}") for state in TrialState}
    notes = admin.notes(connection, key.id)
    return StudySummary(
        spec=read_spec(connection, key),
        note=notes.note,
        tags=notes.tags,
        counts={state: count for state, count in counts.items() if count},
        best=best_trial(connection, key),
    )


def best_trial(connection: Connection, key: StudyKey) -> Trial | None:
    """Return the COMPLETE trial with the best value; of equal ones that with the smaller `val_loss`, then number."""
    order = "DESC" if key.direction == Direction.MAXIMIZE else "ASC"
    complete = f"study_id = {key.id:d} AND state = 'COMPLETE'"
    row = connection.exec_driver_sql(
        f"SELECT {_READ_SQL} FROM trials WHERE {complete} AND value = (SELECT value FROM trials WHERE {complete} "
        f"AND value IS NOT NULL ORDER BY value {order} LIMIT 1) ORDER BY tie ASC NULLS LAST, number LIMIT 1"
    ).fetchone()
    return None if row is None else rows.trials_from_rows([row], key.name)[0]
