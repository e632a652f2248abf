"""Babysat trials in the database: sessions, interventions and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection

from caviar.errors import PandaBusy, RequestRejected, TrialNotFound
from caviar.records import Intervention, Params, Session, Status, StoredCheckpoint, Trial, TrialResult, TrialState
from caviar.storage import bulk, codec, holder, leases, schema, session_rows
from caviar.storage.sessions import Sessions
from caviar.wording import command

if TYPE_CHECKING:
    from caviar.storage.sql_storage import SqlStorage

_sessions, _interventions, _checkpoints = schema.panda_sessions, schema.interventions, schema.checkpoints

# what is done each epoch, made once: making a statement takes longer than running it
_OWNER = select(_sessions.c.owner).where(_sessions.c.trial_id == bindparam("of_trial")).with_for_update()
_ADD_CHECKPOINT = insert(_checkpoints)
_FORGET = delete(_checkpoints).where(_checkpoints.c.id == bindparam("of_id"))
_FORGET_FILE = delete(_checkpoints).where(
    _checkpoints.c.trial_id == bindparam("of_trial"), _checkpoints.c.path == bindparam("of_path")
)
_IS_ASKED = (
    "SELECT 1 FROM interventions WHERE status = 'asked' AND trial_id = "
    f"(SELECT id FROM studies WHERE name = ?) * {schema.NUMBERS} + ? LIMIT 1"
)


class SqlSessions(Sessions):
    """:class:`Sessions` over the tables of an :class:`SqlStorage`."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self._db = storage.database

    def create(self, trial: Trial, settings: Mapping[str, Any]) -> Trial:
        def work(connection: Connection) -> Trial:
            key = self._storage.study_key(connection, trial.study)
            counts = schema.study_counts.c
            # whoever else wants a number waits
            query = select(counts.next_number).where(counts.study_id == key.id).with_for_update()
            numbered = replace(trial, number=connection.execute(query).scalar_one())
            self._storage.insert_trials(connection, key, [numbered])
            self._insert_session(connection, schema.trial_id(key.id, numbered.number), trial.params, settings)
            return numbered

        return self._db.write(f"add a trial to {trial.study!r}", work)

    def adopt(
        self,
        trial: Trial,
        settings: Mapping[str, Any],
        *,
        answer: Intervention | None = None,
        start: StoredCheckpoint | None = None,
    ) -> None:
        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, trial.study, trial.number)
            state = connection.execute(select(schema.trials.c.state).where(schema.trials.c.id == trial_id)).scalar()
            if state is None:
                raise TrialNotFound(f"study {trial.study!r} has no trial {trial.number}")
            if TrialState(state).is_finished:
                raise PandaBusy(f"trial {trial.name!r} is {state}: a finished trial is not changed")
            if connection.execute(select(_sessions.c.trial_id).where(_sessions.c.trial_id == trial_id)).first():
                raise PandaBusy(
                    f"trial {trial.name!r} is babysat already; see `{command('panda', 'status', trial.name)}`"
                )
            if answer is not None:
                asked = _find(connection, trial_id, answer.token, trial.name)
                if asked is not None and asked.status is not Status.ASKED:
                    raise PandaBusy(f"the request for {trial.name!r} has been answered: {asked.message}")
                _put_intervention(connection, trial_id, answer)
            self._storage.put_results(connection, trial.study, [TrialResult(trial=trial)])
            self._insert_session(connection, trial_id, trial.params, settings)
            if start is not None:
                connection.execute(insert(_checkpoints).values(**session_rows.checkpoint_values(start, trial_id)))

        self._db.write(f"adopt trial {trial.name!r}", work)

    def restore(self, session: Session, interventions: Sequence[Intervention]) -> None:
        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, session.study, session.number)
            self._insert_session(connection, trial_id, session.start_params, session.settings)
            for intervention in interventions:
                _put_intervention(connection, trial_id, intervention)

        self._db.write(f"restore the babysat trial {session.trial!r}", work)

    def configure(self, study: str, number: int, settings: Mapping[str, Any]) -> None:
        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, study, number)
            found = connection.execute(select(_sessions.c.settings).where(_sessions.c.trial_id == trial_id)).scalar()
            if found is None:
                raise TrialNotFound(f"trial '{study}/{number}' is not babysat")
            before = json.loads(found)
            kept = {name: before[name] for name in ("epochs", "start_epoch", "asked_by") if name in before}
            text = json.dumps({**before, **settings, **kept}, allow_nan=False)
            connection.execute(update(_sessions).where(_sessions.c.trial_id == trial_id).values(settings=text))

        self._db.write(f"configure trial {number} of {study!r}", work)

    def get(self, study: str, number: int) -> Session | None:
        def work(connection: Connection) -> Session | None:
            trial_id = self._trial_id(connection, study, number)
            row = connection.execute(select(_sessions).where(_sessions.c.trial_id == trial_id)).first()
            return None if row is None else session_rows.session_from_row(row, f"{study}/{number}")

        return self._db.read(f"read the session of trial {number} of {study!r}", work)

    def all(self, study: str | None = None) -> list[Session]:
        def work(connection: Connection) -> list[Session]:
            trials, studies = schema.trials.c, schema.studies.c
            query = (
                select(_sessions, studies.name, trials.number)
                .join_from(_sessions, schema.trials, trials.id == _sessions.c.trial_id)
                .join(schema.studies, studies.id == trials.study_id)
                .order_by(_sessions.c.created_at, _sessions.c.trial_id)
            )
            if study is not None:
                key = self._storage.study_key(connection, study)
                query = query.where(_sessions.c.trial_id.between(*schema.trial_ids(key.id)))
            return [session_rows.session_from_row(row, f"{row.name}/{row.number}") for row in connection.execute(query)]

        return self._db.read("list the babysat trials", work)

    def acquire(self, study: str, number: int, owner: str, ttl_s: float) -> None:
        leases.check(owner, ttl_s)

        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, study, number)
            # of two who ask at once, one waits and is told
            query = select(_sessions).where(_sessions.c.trial_id == trial_id).with_for_update()
            row = connection.execute(query).first()
            if row is None:
                raise TrialNotFound(
                    f"trial '{study}/{number}' is not babysat; `{command('panda', 'start', f'{study}/{number}')}`"
                )
            now = leases.now(connection)
            is_taken = row.owner not in (None, owner) and row.expires_at > now
            if is_taken and not holder.is_dead(row.owner):
                raise PandaBusy(
                    f"trial '{study}/{number}' is babysat by {holder.shown(row.owner)!r} since "
                    f"{row.acquired_at:%Y-%m-%d %H:%M:%S} UTC; steer it with `caviar panda set`, `rollback`, ..."
                )
            since = row.acquired_at if row.owner == owner else now
            connection.execute(
                update(_sessions)
                .where(_sessions.c.trial_id == trial_id)
                .values(owner=owner, acquired_at=since, expires_at=now + timedelta(seconds=ttl_s))
            )

        self._db.write(f"begin to babysit trial {number} of {study!r}", work)

    def renew(self, study: str, number: int, owner: str, ttl_s: float) -> None:
        leases.check(owner, ttl_s)

        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, study, number)
            _check_owner(connection, trial_id, f"{study}/{number}", owner)
            until = leases.now(connection) + timedelta(seconds=ttl_s)
            connection.execute(update(_sessions).where(_sessions.c.trial_id == trial_id).values(expires_at=until))

        self._db.write(f"go on babysitting trial {number} of {study!r}", work)

    def release(self, study: str, number: int, owner: str) -> None:
        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, study, number)
            connection.execute(
                update(_sessions)
                .where(_sessions.c.trial_id == trial_id, _sessions.c.owner == owner)
                .values(owner=None, acquired_at=None, expires_at=None)
            )

        self._db.write(f"cease to babysit trial {number} of {study!r}", work)

    def write(
        self,
        result: TrialResult,
        owner: str,
        *,
        checkpoint: StoredCheckpoint | None = None,
        forgotten: Sequence[StoredCheckpoint] = (),
        answered: Sequence[Intervention] = (),
    ) -> StoredCheckpoint | None:
        trial = result.trial

        def work(connection: Connection) -> StoredCheckpoint | None:
            trial_id = self._trial_id(connection, trial.study, trial.number)
            _check_owner(connection, trial_id, trial.name, owner)
            self._storage.put_results(connection, trial.study, [result])
            for intervention in answered:
                _put_intervention(connection, trial_id, intervention)
            if forgotten:  # one by one: a statement takes only so many values
                connection.execute(_FORGET, [{"of_id": c.id} for c in forgotten])
            if checkpoint is None:
                return None
            # the same place of the same timeline again, after a crash, is the same state
            connection.execute(_FORGET_FILE, {"of_trial": trial_id, "of_path": checkpoint.path})
            values = session_rows.checkpoint_values(checkpoint, trial_id)
            added = connection.execute(_ADD_CHECKPOINT, values).inserted_primary_key
            assert added is not None  # the table has one
            return replace(checkpoint, id=added[0], created_at=values["created_at"])

        return self._db.write(f"write trial {trial.name!r}", work)

    def ask(self, intervention: Intervention) -> Intervention:
        study, number = intervention.study, intervention.number
        for name, text in (("id", intervention.token), ("kind", intervention.kind)):
            if not text or not codec.is_storable(text):
                raise RequestRejected(
                    f"the {name} of a request must be a text without NUL and lone surrogates, found {text!r}"
                )

        def work(connection: Connection) -> Intervention:
            trial_id = self._trial_id(connection, study, number)
            if connection.execute(select(schema.trials.c.id).where(schema.trials.c.id == trial_id)).first() is None:
                raise TrialNotFound(f"study {study!r} has no trial {number}")
            values = session_rows.intervention_values(replace(intervention, asked_at=datetime.now(UTC)))
            connection.execute(
                bulk.insert_into(_interventions, self._db.dialect)
                .values(trial_id=trial_id, **values)
                .on_conflict_do_nothing(index_elements=["trial_id", "token"])
            )
            found = _find(connection, trial_id, intervention.token, intervention.trial)
            assert found is not None
            if found.kind != intervention.kind or not _is_same(found.arguments, intervention.arguments):
                raise RequestRejected(
                    f"the id {intervention.token!r} was used for another request ({found.kind} "
                    f"{dict(found.arguments)}); give each request an id of its own"
                )
            return found

        return self._db.write(f"ask for {intervention.kind} of trial {intervention.trial!r}", work)

    def asked(self, study: str, number: int) -> list[Intervention]:
        operation = f"read the requests to trial {number} of {study!r}"
        # a panda asks many times a second, and nearly always there is nothing
        if codec.is_storable(study) and self._db.read_one(operation, _IS_ASKED, (study, number)) is None:
            return []

        def work(connection: Connection) -> list[Intervention]:
            trial_id = self._trial_id(connection, study, number)
            query = select(_interventions).where(
                _interventions.c.trial_id == trial_id, _interventions.c.status == Status.ASKED
            )
            rows = connection.execute(query.order_by(_interventions.c.id)).all()
            return [session_rows.intervention_from_row(row, f"{study}/{number}") for row in rows]

        return self._db.read(operation, work)

    def asked_of(self, study: str, kind: str) -> list[Intervention]:
        def work(connection: Connection) -> list[Intervention]:
            key = self._storage.study_key(connection, study)
            query = select(_interventions).where(
                _interventions.c.trial_id.between(*schema.trial_ids(key.id)),
                _interventions.c.kind == kind,
                _interventions.c.status == Status.ASKED,
            )
            rows = connection.execute(query.order_by(_interventions.c.id)).all()
            return [session_rows.intervention_from_row(row, f"{study}/{row.trial_id % schema.NUMBERS}") for row in rows]

        return self._db.read(f"read the requests to trials of {study!r}", work)

    def answer(
        self,
        intervention: Intervention,
        owner: str | None,
        *,
        rollback_to: StoredCheckpoint | None = None,
        pinned: Sequence[StoredCheckpoint] = (),
    ) -> None:
        study, number = intervention.study, intervention.number

        def work(connection: Connection) -> None:
            trial_id = self._trial_id(connection, study, number)
            if owner is not None:
                _check_owner(connection, trial_id, intervention.trial, owner)
            _put_intervention(connection, trial_id, intervention)
            for checkpoint in pinned:
                connection.execute(
                    update(_checkpoints)
                    .where(_checkpoints.c.id == checkpoint.id)
                    .values(pins=json.dumps(list(checkpoint.pins)))
                )
            if rollback_to is not None:
                _go_back(connection, trial_id, rollback_to)

        self._db.write(f"answer {intervention.kind} of trial {intervention.trial!r}", work)

    def withdraw(self, intervention: Intervention) -> bool:
        study, number = intervention.study, intervention.number

        def work(connection: Connection) -> bool:
            of = _interventions.c
            withdrawn = connection.execute(
                update(_interventions)
                .where(of.trial_id == self._trial_id(connection, study, number), of.token == intervention.token)
                .where(of.status == Status.ASKED)
                .values(status=Status.REJECTED, message="withdrawn", applied_at=datetime.now(UTC))
            )
            return withdrawn.rowcount > 0

        return self._db.write(f"withdraw a request to trial {intervention.trial!r}", work)

    def intervention(self, study: str, number: int, token: str) -> Intervention | None:
        def work(connection: Connection) -> Intervention | None:
            return _find(connection, self._trial_id(connection, study, number), token, f"{study}/{number}")

        return self._db.read(f"read a request to trial {number} of {study!r}", work)

    def interventions(self, study: str, number: int) -> list[Intervention]:
        def work(connection: Connection) -> list[Intervention]:
            trial_id = self._trial_id(connection, study, number)
            columns = _interventions.c
            query = select(_interventions).where(columns.trial_id == trial_id)
            rows = connection.execute(query.order_by(columns.sequence.asc().nulls_last(), columns.id)).all()
            return [session_rows.intervention_from_row(row, f"{study}/{number}") for row in rows]

        return self._db.read(f"read the interventions of trial {number} of {study!r}", work)

    def checkpoints(self, study: str, number: int) -> list[StoredCheckpoint]:
        def work(connection: Connection) -> list[StoredCheckpoint]:
            trial_id = self._trial_id(connection, study, number)
            sql = f"SELECT {', '.join(session_rows.LISTED)} FROM checkpoints WHERE trial_id = {trial_id:d} ORDER BY id"
            return [session_rows.checkpoint_from_row(row) for row in connection.exec_driver_sql(sql)]

        return self._db.read(f"list the checkpoints of trial {number} of {study!r}", work)

    def _trial_id(self, connection: Connection, study: str, number: int) -> int:
        return schema.trial_id(self._storage.study_key(connection, study).id, number)

    def _insert_session(
        self, connection: Connection, trial_id: int, start_params: Params, settings: Mapping[str, Any]
    ) -> None:
        connection.execute(
            insert(_sessions).values(
                trial_id=trial_id,
                start_params=codec.encode_params(start_params),
                settings=json.dumps(dict(settings), allow_nan=False),
                created_at=datetime.now(UTC),
            )
        )


def _check_owner(connection: Connection, trial_id: int, name: str, owner: str) -> None:
    """Refuse to write for somebody who has lost the lease, as a process that slept too long has."""
    found = connection.execute(_OWNER, {"of_trial": trial_id}).scalar()
    if found != owner:
        by = "nobody" if found is None else repr(holder.shown(found))
        raise PandaBusy(
            f"the lease of trial {name!r} was lost, {by} babysits it now: this process was stopped or cut off for "
            "longer than a lease lasts"
        )


def _go_back(connection: Connection, trial_id: int, target: StoredCheckpoint) -> None:
    reports, columns = schema.reports.c, _checkpoints.c
    connection.execute(delete(schema.reports).where(reports.trial_id == trial_id, reports.epoch > target.epoch))
    connection.execute(
        update(_checkpoints)
        .where(
            columns.trial_id == trial_id,
            (columns.epoch > target.epoch) | ((columns.epoch == target.epoch) & (columns.batch > target.batch)),
        )
        .values(abandoned=True)
    )


def _put_intervention(connection: Connection, trial_id: int, intervention: Intervention) -> None:
    values = session_rows.intervention_values(intervention)
    found = connection.execute(
        update(_interventions)
        .where(_interventions.c.trial_id == trial_id, _interventions.c.token == intervention.token)
        .values(**values)
    ).rowcount
    if not found:
        connection.execute(insert(_interventions).values(trial_id=trial_id, **values))


def _find(connection: Connection, trial_id: int, token: str, name: str) -> Intervention | None:
    row = connection.execute(
        select(_interventions).where(_interventions.c.trial_id == trial_id, _interventions.c.token == token)
    ).first()
    return None if row is None else session_rows.intervention_from_row(row, name)


def _is_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether arguments ask for the same; NaN, which will be rejected, is NaN."""
    return a.keys() == b.keys() and all(a[name] == b[name] or (a[name] != a[name] and b[name] != b[name]) for name in a)
