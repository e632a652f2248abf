"""Leases: who may write a study, and until when.

Time is the database server's, or this machine's, where the SQLite file is, so that all who ask read the same clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.engine import Connection, Row

from caviar.errors import SettingsError, StudyBusy
from caviar.storage import bulk, codec, holder, schema

_leases = schema.leases


def check(owner: str, ttl_s: float) -> None:
    """Refuse an owner without name, and a duration that is none.

    Raises:
        SettingsError: it is.
    """
    if not owner or not codec.is_storable(owner):
        raise SettingsError(f"the owner of a lease must be a text, not empty and without NUL, found {owner!r}")
    if not 0.0 < ttl_s < 1e9:
        raise SettingsError(f"a lease must last more than 0 seconds, found ttl_s = {ttl_s!r}")


def acquire(connection: Connection, study_id: int, study: str, owner: str, ttl: timedelta) -> None:
    """Take or prolong the lease of a study.

    Raises:
        StudyBusy: another owner holds it, and it is not known to be dead.
    """
    at = now(connection)
    until = at + ttl
    free = _leases.c.expires_at <= at
    held = connection.execute(select(_leases.c.owner).where(_leases.c.study_id == study_id)).scalar()
    if held is not None and held != owner and holder.is_dead(held):
        free = or_(free, _leases.c.owner == held)
    insert = bulk.insert_into(_leases, connection.dialect.name)
    # One statement decides and acts: two processes that ask at once cannot both be told yes.
    taken = connection.execute(
        insert.values(study_id=study_id, owner=owner, acquired_at=at, expires_at=until).on_conflict_do_update(
            index_elements=[_leases.c.study_id],
            set_={name: insert.excluded[name] for name in ("owner", "acquired_at", "expires_at")},
            where=free,
        ),
        execution_options={"preserve_rowcount": True},
    ).rowcount
    if taken:
        return
    prolonged = connection.execute(
        _leases.update().where(_leases.c.study_id == study_id, _leases.c.owner == owner).values(expires_at=until)
    ).rowcount
    if not prolonged:
        raise _busy(connection.execute(select(_leases).where(_leases.c.study_id == study_id)).one(), study)


def prolong(connection: Connection, study_id: int, study: str, owner: str, ttl: timedelta) -> None:
    """Prolong a lease that `owner` holds; unlike `acquire`, take none that another has held and given up meanwhile.

    Raises:
        StudyBusy: it has been taken, or given up.
    """
    refuse_lost(connection, study_id, study, owner)
    lease = _leases.update().where(_leases.c.study_id == study_id, _leases.c.owner == owner)
    connection.execute(lease.values(expires_at=now(connection) + ttl))


def refuse_lost(connection: Connection, study_id: int, study: str, owner: str) -> None:
    """Refuse to go on where `owner` does not hold the lease; keep others from taking it to the transaction's end.

    A lease that has expired is still held, until another takes it.

    Raises:
        StudyBusy: it has been taken, or given up.
    """
    lease = connection.execute(select(_leases).where(_leases.c.study_id == study_id).with_for_update()).first()
    if lease is None or lease.owner != owner:
        by = "nobody" if lease is None else repr(holder.shown(lease.owner))
        raise StudyBusy(
            f"the lease of study {study!r} was lost, {by} holds it now: this process was stopped or cut off for longer "
            "than a lease lasts; run the same command once the study is free"
        )


def refuse_held(connection: Connection, study_id: int, study: str) -> None:
    """Refuse to go on where somebody holds the lease of a study.

    Raises:
        StudyBusy: somebody does; the message says who, since when, and until when.
    """
    lease = connection.execute(select(_leases).where(_leases.c.study_id == study_id)).first()
    if lease is not None and lease.expires_at > now(connection) and not holder.is_dead(lease.owner):
        raise _busy(lease, study)


def refuse_babysat(connection: Connection, study_id: int, study: str) -> None:
    """Refuse to go on where somebody babysits a trial of a study; keep others from beginning to the transaction's end.

    Raises:
        StudyBusy: somebody does; the message says who, and which trial.
    """
    sessions = schema.panda_sessions
    query = select(sessions).where(sessions.c.trial_id.between(*schema.trial_ids(study_id))).with_for_update()
    at = now(connection)
    for row in connection.execute(query.order_by(sessions.c.trial_id)):
        if row.owner is not None and row.expires_at > at and not holder.is_dead(row.owner):
            name = f"{study}/{row.trial_id % schema.NUMBERS}"
            raise StudyBusy(
                f"trial {name!r} is babysat by {holder.shown(row.owner)!r} since {_shown(row.acquired_at)}; end it "
                f"with `caviar panda stop {name}` or leave it with Ctrl-C, or, if it has died, wait until its lease "
                f"expires at {_shown(row.expires_at)}"
            )


def _busy(lease: Row[Any], study: str) -> StudyBusy:
    return StudyBusy(
        f"study {study!r} is being swept by {holder.shown(lease.owner)!r} since {_shown(lease.acquired_at)}; "
        f"wait until it is done, or, if it has died, until its lease expires at {_shown(lease.expires_at)}"
    )


def release(connection: Connection, study: str, owner: str) -> None:
    """Give up a lease; nothing happens where `owner` does not hold it."""
    if codec.is_storable(study) and codec.is_storable(owner):
        ids = select(schema.studies.c.id).where(schema.studies.c.name == study)
        connection.execute(
            _leases.delete().where(_leases.c.owner == owner, _leases.c.study_id == ids.scalar_subquery())
        )


def now(connection: Connection) -> datetime:
    """Return the time by the clock of the database."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return now


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
