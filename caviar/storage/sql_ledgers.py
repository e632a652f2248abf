"""The runs of a study's coordinators, and where their time went."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from caviar.records import SweepRun
from caviar.storage import schema
from caviar.storage.base import Ledgers

if TYPE_CHECKING:
    from caviar.storage.sql_storage import SqlStorage

_sweeps = schema.sweeps


class SqlLedgers(Ledgers):
    """:class:`Ledgers` over the tables of an :class:`SqlStorage`."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self._db = storage.database

    def begin(self, study: str, owner: str, started_at: datetime) -> int:
        def work(connection: Connection) -> int:
            key = self._storage.study_key(connection, study)
            statement = insert(_sweeps).values(study_id=key.id, owner=owner, started_at=started_at)
            found: int = connection.execute(statement.returning(_sweeps.c.id)).scalar_one()
            return found

        return self._db.write(f"note that {study!r} is being swept", work)

    def put(self, id: int, run: SweepRun) -> None:
        values = {
            "finished_at": run.finished_at,
            "n_workers": run.n_workers,
            "n_ended": run.n_ended,
            "ledger": json.dumps(dict(run.ledger)),
        }
        self._db.write(
            "keep the ledger of a sweep",
            lambda connection: connection.execute(update(_sweeps).where(_sweeps.c.id == id).values(values)),
        )

    def all(self, study: str) -> list[SweepRun]:
        found = self._db.read(
            f"read the ledgers of {study!r}",
            lambda connection: connection.execute(
                select(_sweeps)
                .where(_sweeps.c.study_id == self._storage.study_key(connection, study).id)
                .order_by(_sweeps.c.id)
            ).all(),
        )
        return [
            SweepRun(
                owner=row.owner,
                started_at=row.started_at,
                finished_at=row.finished_at,
                n_workers=row.n_workers,
                n_ended=row.n_ended,
                ledger=json.loads(row.ledger),
            )
            for row in found
        ]
