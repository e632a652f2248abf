"""The names of params and metrics that a study has had, so that a query knows them without reading every trial."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from caviar.storage import bulk, codec, schema

#: kind (`param` or `metric`) and name, in order.
Names = dict[tuple[str, str], None]


class NameBook:
    """Remembers which names of which study are in the database already, so that they are written once.

    It promises nothing about names that other processes add; those are read from the database.
    """

    def __init__(self) -> None:
        self._written: dict[int, Names] = {}

    def learn(self, connection: Connection, study_id: int, names: Iterable[tuple[str, str]]) -> Names:
        """Write the names that are new; return them, to be given to `commit` once the transaction will hold.

        Raises:
            StorageError: a name cannot be stored.
        """
        written = self._written.get(study_id, {})
        new = {key: None for key in names if key not in written}
        if not new:
            return new
        table = schema.study_names
        first = connection.execute(
            select(func.coalesce(func.max(table.c.position) + 1, 0)).where(table.c.study_id == study_id)
        ).scalar_one()
        rows = []
        for offset, (kind, name) in enumerate(new):
            codec.check_name(kind, name)
            rows.append({"study_id": study_id, "kind": kind, "name": name, "position": first + offset})
        connection.execute(bulk.insert_into(table, connection.dialect.name).on_conflict_do_nothing(), rows)
        return new

    def commit(self, study_id: int, names: Names) -> None:
        """Remember names as written."""
        if names:
            self._written.setdefault(study_id, {}).update(names)

    def known(self, connection: Connection, study_id: int, kind: str) -> list[str]:
        """Return the names of one kind, in order of appearance."""
        table = schema.study_names
        return list(
            connection.execute(
                select(table.c.name)
                .where(table.c.study_id == study_id, table.c.kind == kind)
                .order_by(table.c.position)
            ).scalars()
        )
