"""Panda mode and the ledger of sweeps.

The tables `checkpoints` and `interventions` are made anew: nothing wrote to them before this revision.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from caviar.storage.types import Id, JsonText, UtcTime

revision = "0002"
down_revision = "0001"

_INTERVENTIONS = """\
CREATE VIEW v_interventions AS
SELECT s.name AS study, t.number, i.kind, i.arguments, i.author, i.note, i.status, i.message, i.epoch, i.step,
  i.before, i.after, i.asked_at, i.applied_at, i.token, i.batch, i.sequence, i.metrics_before, i.metrics_after
FROM interventions i JOIN trials t ON t.id = i.trial_id JOIN studies s ON s.id = t.study_id"""


def upgrade() -> None:
    """Make the tables."""
    op.execute("DROP VIEW v_interventions")
    op.drop_table("checkpoints")
    op.drop_table("interventions")
    op.create_table(
        "checkpoints",
        sa.Column("id", Id, sa.Identity(always=False), nullable=False),
        sa.Column("trial_id", Id, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("pins", sa.Text(), server_default="[]", nullable=False),
        sa.Column("abandoned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_checkpoints_trial_id"), ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_checkpoints_trial_id_epoch", "checkpoints", ["trial_id", "epoch"], unique=False)
    op.create_table(
        "interventions",
        sa.Column("id", Id, sa.Identity(always=False), nullable=False),
        sa.Column("trial_id", Id, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arguments", JsonText(), server_default="{}", nullable=False),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="asked", nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("batch", sa.BigInteger(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("before", JsonText(), nullable=True),
        sa.Column("after", JsonText(), nullable=True),
        sa.Column("metrics_before", JsonText(), nullable=True),
        sa.Column("metrics_after", JsonText(), nullable=True),
        sa.Column("asked_at", UtcTime(), nullable=False),
        sa.Column("applied_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interventions")),
        sa.UniqueConstraint("trial_id", "token", name=op.f("uq_interventions_trial_id_token")),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name=op.f("fk_interventions_trial_id"), ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "panda_sessions",
        sa.Column("trial_id", Id, autoincrement=False, nullable=False),
        sa.Column("start_params", JsonText(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("acquired_at", UtcTime(), nullable=True),
        sa.Column("expires_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("trial_id", name=op.f("pk_panda_sessions")),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name=op.f("fk_panda_sessions_trial_id"), ondelete="CASCADE"
        ),
    )
    op.create_table(
        "sweeps",
        sa.Column("id", Id, sa.Identity(always=False), nullable=False),
        sa.Column("study_id", Id, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.Column("n_workers", sa.Integer(), nullable=True),
        sa.Column("n_ended", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ledger", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_sweeps_study_id"), ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sweeps_study_id", "sweeps", ["study_id"], unique=False)
    op.execute(_INTERVENTIONS)
