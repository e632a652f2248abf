"""The tables of the trial database, the same on SQLite and Postgres.

A trial's id holds its study and its number, `id = study_id * 2**32 + number`: neither has to be looked up to write the
other's rows, a study's trials and reports lie side by side in order of number, and an id is never used twice, because a
study's is not. Views and triggers are in :mod:`caviar.storage.ddl`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Connection

from caviar.storage.types import Id, JsonText, UtcTime

#: The revisions of the schema, oldest first; the last is what this caviar reads and writes.
REVISIONS = ("0001", "0002")

#: Name of the table that holds the revision. Not Alembic's default, which other programs' databases have too.
VERSION_TABLE = "caviar_version"

#: Trial numbers are below this.
NUMBERS = 2**32

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _study_id(*, primary_key: bool = False) -> Column[int]:
    key = ForeignKey("studies.id", ondelete="CASCADE")
    return Column("study_id", Id, key, nullable=False, primary_key=primary_key)


def _trial_id() -> Column[int]:
    return Column("trial_id", Id, ForeignKey("trials.id", ondelete="CASCADE"), nullable=False)


studies = Table(
    "studies",
    metadata,
    Column("id", Id, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    #: `caviar`, or `optuna` for a study made through Optuna, which has no data and no space.
    Column("kind", Text, nullable=False, server_default="caviar"),
    Column("metric", Text, nullable=False),
    Column("direction", Text, nullable=False),
    #: JSON list, where there are several objectives.
    Column("directions", Text),
    Column("data_source", Text, nullable=False),
    Column("data_target", Text),
    Column("data_fingerprint", Text, nullable=False),
    Column("split_seed", BigInteger, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("kernel", Text, nullable=False),
    Column("caviar_version", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("note", Text),
    #: JSON: fields of the spec that have no column of their own.
    Column("settings", Text, nullable=False, server_default="{}"),
    UniqueConstraint("name"),
)

#: How many trials a study has in each state, kept by triggers, because counting a million rows takes too long.
study_counts = Table(
    "study_counts",
    metadata,
    _study_id(primary_key=True),
    *(
        Column(name, BigInteger, nullable=False, server_default="0")
        for name in ("n_waiting", "n_running", "n_complete", "n_pruned", "n_fail")
    ),
    #: One more than the highest number.
    Column("next_number", BigInteger, nullable=False, server_default="0"),
)

study_tags = Table(
    "study_tags", metadata, _study_id(), Column("tag", Text, nullable=False), PrimaryKeyConstraint("study_id", "tag")
)

spaces = Table(
    "spaces",
    metadata,
    _study_id(),
    #: Counted from 1; the study's space is the one of the highest version.
    Column("version", Integer, nullable=False),
    Column("space", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("study_id", "version"),
)

#: The names that occur in a study's params and metrics, in order of appearance.
study_names = Table(
    "study_names",
    metadata,
    _study_id(),
    #: `param` or `metric`.
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    #: Optuna's distribution as JSON, for a param of a study made through Optuna.
    Column("distribution", Text),
    PrimaryKeyConstraint("study_id", "kind", "name"),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    _study_id(),
    Column("number", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("value", Double),
    #: The study's metric as last reported, in any state; null where it is NaN.
    Column("score", Double),
    #: `val_loss` as last reported, which breaks ties of value.
    Column("tie", Double),
    Column("params", JsonText, nullable=False),
    Column("metrics", JsonText, nullable=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Double),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("parent", Text),
    #: Id of the parent, where it is in this database.
    Column("parent_id", Id),
    Column("parent_epoch", BigInteger),
    Column("error", Text),
    Column("traceback", Text),
    Column("worker", Text),
    Column("space_version", Integer, nullable=False, server_default="1"),
    #: JSON list of [name, internal value, distribution], for a trial made through Optuna.
    Column("optuna_params", Text),
    #: JSON list, where there are several objectives.
    Column("optuna_values", Text),
    CheckConstraint("id = study_id * 4294967296 + number AND number >= 0 AND number < 4294967296", name="id"),
    CheckConstraint("state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'FAIL')", name="state"),
    Index("ix_trials_study_id_state_number", "study_id", "state", "number"),
    Index("ix_trials_study_id_value", "study_id", "value", "tie", "number"),
    Index("ix_trials_study_id_score", "study_id", "score", "number"),
    Index("ix_trials_study_id_tie", "study_id", "tie", "number"),
    Index("ix_trials_parent_id", "parent_id"),
)

#: No foreign key: the writer computes the id from a trial it has just written, and checking each row doubles the time.
reports = Table(
    "reports",
    metadata,
    Column("trial_id", Id, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("metrics", JsonText, nullable=False),
    PrimaryKeyConstraint("trial_id", "epoch"),
)

#: States on disk; the files lie in the checkpoint folder, which is not part of the database.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Id, Identity(), primary_key=True),
    _trial_id(),
    #: Epochs completed, mini-batches of the next one done, and updates done in all.
    Column("epoch", BigInteger, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    #: Rollbacks of the trial before it, and interventions applied before it.
    Column("segment", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    #: Relative to the checkpoint folder.
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    #: JSON list of reasons to keep it: `start`, `branch`, `asked`, ...; empty where only the policy keeps it.
    Column("pins", Text, nullable=False, server_default="[]"),
    #: Whether a rollback went behind it, so that it is no longer part of the trial's past.
    Column("abandoned", Boolean, nullable=False, server_default=false()),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_checkpoints_trial_id_epoch", "trial_id", "epoch"),
)

#: What people and rules asked of a running trial, and what became of it.
interventions = Table(
    "interventions",
    metadata,
    Column("id", Id, Identity(), primary_key=True),
    _trial_id(),
    #: Given by the asker, so that asking twice is asking once.
    Column("token", Text, nullable=False),
    Column("kind", Text, nullable=False),
    #: JSON object: what the intervention needs to be applied.
    Column("arguments", JsonText, nullable=False, server_default="{}"),
    Column("author", Text),
    Column("note", Text),
    #: `asked`, then `applied` or `rejected`.
    Column("status", Text, nullable=False, server_default="asked"),
    Column("message", Text),
    #: Place in the order of application, counted from 1.
    Column("sequence", BigInteger),
    #: Epochs completed, mini-batches of the next one done, and updates done in all, when it was applied.
    Column("epoch", BigInteger),
    Column("batch", BigInteger),
    Column("step", BigInteger),
    #: JSON objects: what it changed, before and after.
    Column("before", JsonText),
    Column("after", JsonText),
    #: JSON objects: the metrics of the last epoch before it, and of the first after it.
    Column("metrics_before", JsonText),
    Column("metrics_after", JsonText),
    Column("asked_at", UtcTime, nullable=False),
    Column("applied_at", UtcTime),
    UniqueConstraint("trial_id", "token"),
)

#: The trials that are babysat, or were: a trial that is here is panda mode's, and no sweep trains it.
panda_sessions = Table(
    "panda_sessions",
    metadata,
    Column("trial_id", Id, ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    #: JSON object: the params before the first intervention.
    Column("start_params", JsonText, nullable=False),
    #: JSON object: how it is babysat (epochs, rules, which checkpoints are kept).
    Column("settings", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    #: Who trains it, since when, and when that expires unless it is prolonged; null where nobody does.
    Column("owner", Text),
    Column("acquired_at", UtcTime),
    Column("expires_at", UtcTime),
)

#: Each run of a sweep's coordinator, and where its time went.
sweeps = Table(
    "sweeps",
    metadata,
    Column("id", Id, Identity(), primary_key=True),
    Column("study_id", Id, ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("n_workers", Integer),
    #: Trials that ended in it.
    Column("n_ended", BigInteger, nullable=False, server_default="0"),
    #: JSON object: seconds by what they were spent on.
    Column("ledger", Text, nullable=False, server_default="{}"),
    Index("ix_sweeps_study_id", "study_id"),
)

#: Who may write a study.
leases = Table(
    "leases",
    metadata,
    _study_id(primary_key=True),
    Column("owner", Text, nullable=False),
    Column("acquired_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

#: Attributes that Optuna and its users attach to studies, and to trials below.
study_attrs = Table(
    "study_attrs",
    metadata,
    _study_id(),
    #: `user` or `system`.
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("study_id", "kind", "key"),
)

trial_attrs = Table(
    "trial_attrs",
    metadata,
    _trial_id(),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("trial_id", "kind", "key"),
)

#: What only one dialect has, by table or index.
_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "sqlite": {
        **{name: {"autoincrement": True} for name in ("studies", "checkpoints", "interventions", "sweeps")},
        "reports": {"with_rowid": False},
        "ix_trials_parent_id": {"where": text("parent_id IS NOT NULL")},
    },
    "postgresql": {
        "study_counts": {"with": {"fillfactor": 50}},
        "ix_trials_parent_id": {"where": text("parent_id IS NOT NULL")},
    },
}


def create_all(connection: Connection) -> None:
    """Make all tables and indexes."""
    # Given to the tables above, the options would import both dialects, which takes as long as a query.
    dialect = connection.dialect.name
    for table in metadata.tables.values():
        parts: list[Table | Index] = [table, *table.indexes]
        for part in parts:
            part.dialect_options[dialect].update(_OPTIONS[dialect].get(str(part.name), {}))
    metadata.create_all(connection, checkfirst=False)


def trial_id(study_id: int, number: int) -> int:
    """Return the id of a trial."""
    return study_id * NUMBERS + number


def trial_ids(study_id: int) -> tuple[int, int]:
    """Return the first and the last id that a study's trials can have."""
    return study_id * NUMBERS, study_id * NUMBERS + NUMBERS - 1
