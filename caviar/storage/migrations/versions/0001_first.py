"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from caviar.storage.types import Id, JsonText, UtcTime

revision = "0001"
down_revision = None

_SQLITE_TRIGGERS = [
    """\
CREATE TRIGGER trials_counted_on_insert AFTER INSERT ON trials BEGIN
  UPDATE study_counts SET n_waiting = n_waiting + (NEW.state = 'WAITING'),
    n_running = n_running + (NEW.state = 'RUNNING'),
    n_complete = n_complete + (NEW.state = 'COMPLETE'),
    n_pruned = n_pruned + (NEW.state = 'PRUNED'),
    n_fail = n_fail + (NEW.state = 'FAIL'),
    next_number = max(next_number, NEW.number + 1)
  WHERE study_id = NEW.study_id;
END""",
    """\
CREATE TRIGGER trials_counted_on_update AFTER UPDATE OF state ON trials
WHEN OLD.state <> NEW.state BEGIN
  UPDATE study_counts SET n_waiting = n_waiting + (NEW.state = 'WAITING') - (OLD.state = 'WAITING'),
    n_running = n_running + (NEW.state = 'RUNNING') - (OLD.state = 'RUNNING'),
    n_complete = n_complete + (NEW.state = 'COMPLETE') - (OLD.state = 'COMPLETE'),
    n_pruned = n_pruned + (NEW.state = 'PRUNED') - (OLD.state = 'PRUNED'),
    n_fail = n_fail + (NEW.state = 'FAIL') - (OLD.state = 'FAIL')
  WHERE study_id = NEW.study_id;
END""",
    """\
CREATE TRIGGER trials_counted_on_delete AFTER DELETE ON trials BEGIN
  UPDATE study_counts SET n_waiting = n_waiting - (OLD.state = 'WAITING'),
    n_running = n_running - (OLD.state = 'RUNNING'),
    n_complete = n_complete - (OLD.state = 'COMPLETE'),
    n_pruned = n_pruned - (OLD.state = 'PRUNED'),
    n_fail = n_fail - (OLD.state = 'FAIL')
  WHERE study_id = OLD.study_id;
END""",
]

_POSTGRES_TRIGGERS = [
    """\
CREATE FUNCTION caviar_count_on_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE study_counts c SET n_waiting = c.n_waiting + d.n_waiting,
    n_running = c.n_running + d.n_running,
    n_complete = c.n_complete + d.n_complete,
    n_pruned = c.n_pruned + d.n_pruned,
    n_fail = c.n_fail + d.n_fail,
    next_number = greatest(c.next_number, d.next_number)
  FROM (SELECT study_id, max(number) + 1 AS next_number,
    count(*) FILTER (WHERE state = 'WAITING') AS n_waiting,
    count(*) FILTER (WHERE state = 'RUNNING') AS n_running,
    count(*) FILTER (WHERE state = 'COMPLETE') AS n_complete,
    count(*) FILTER (WHERE state = 'PRUNED') AS n_pruned,
    count(*) FILTER (WHERE state = 'FAIL') AS n_fail
    FROM new_rows GROUP BY study_id) d WHERE c.study_id = d.study_id;
  RETURN NULL;
END $$""",
    """\
CREATE TRIGGER trials_counted_on_insert AFTER INSERT ON trials
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION caviar_count_on_insert()""",
    """\
CREATE FUNCTION caviar_count_on_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE study_counts c SET n_waiting = c.n_waiting + d.n_waiting,
    n_running = c.n_running + d.n_running,
    n_complete = c.n_complete + d.n_complete,
    n_pruned = c.n_pruned + d.n_pruned,
    n_fail = c.n_fail + d.n_fail
  FROM (SELECT study_id, sum(n_waiting) AS n_waiting,
    sum(n_running) AS n_running,
    sum(n_complete) AS n_complete,
    sum(n_pruned) AS n_pruned,
    sum(n_fail) AS n_fail
    FROM (SELECT study_id, max(number) + 1 AS next_number,
    count(*) FILTER (WHERE state = 'WAITING') AS n_waiting,
    count(*) FILTER (WHERE state = 'RUNNING') AS n_running,
    count(*) FILTER (WHERE state = 'COMPLETE') AS n_complete,
    count(*) FILTER (WHERE state = 'PRUNED') AS n_pruned,
    count(*) FILTER (WHERE state = 'FAIL') AS n_fail
    FROM new_rows GROUP BY study_id
    UNION ALL SELECT study_id, max(number) + 1 AS next_number,
    -count(*) FILTER (WHERE state = 'WAITING') AS n_waiting,
    -count(*) FILTER (WHERE state = 'RUNNING') AS n_running,
    -count(*) FILTER (WHERE state = 'COMPLETE') AS n_complete,
    -count(*) FILTER (WHERE state = 'PRUNED') AS n_pruned,
    -count(*) FILTER (WHERE state = 'FAIL') AS n_fail
    FROM old_rows GROUP BY study_id) b
    GROUP BY study_id HAVING sum(n_waiting) <> 0
      OR sum(n_running) <> 0
      OR sum(n_complete) <> 0
      OR sum(n_pruned) <> 0
      OR sum(n_fail) <> 0) d
  WHERE c.study_id = d.study_id;
  RETURN NULL;
END $$""",
    """\
CREATE TRIGGER trials_counted_on_update AFTER UPDATE ON trials
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION caviar_count_on_update()""",
    """\
CREATE FUNCTION caviar_count_on_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE study_counts c SET n_waiting = c.n_waiting + d.n_waiting,
    n_running = c.n_running + d.n_running,
    n_complete = c.n_complete + d.n_complete,
    n_pruned = c.n_pruned + d.n_pruned,
    n_fail = c.n_fail + d.n_fail
  FROM (SELECT study_id, max(number) + 1 AS next_number,
    -count(*) FILTER (WHERE state = 'WAITING') AS n_waiting,
    -count(*) FILTER (WHERE state = 'RUNNING') AS n_running,
    -count(*) FILTER (WHERE state = 'COMPLETE') AS n_complete,
    -count(*) FILTER (WHERE state = 'PRUNED') AS n_pruned,
    -count(*) FILTER (WHERE state = 'FAIL') AS n_fail
    FROM old_rows GROUP BY study_id) d
  WHERE c.study_id = d.study_id;
  RETURN NULL;
END $$""",
    """\
CREATE TRIGGER trials_counted_on_delete AFTER DELETE ON trials
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION caviar_count_on_delete()""",
]

_VIEWS = [
    """\
CREATE VIEW v_trials AS
SELECT s.name AS study, t.number, t.state, t.reason, t.value, t.params, t.metrics, t.epoch, t.seconds,
  t.started_at, t.finished_at, t.parent, t.parent_epoch, t.error, t.worker, t.space_version
FROM trials t JOIN studies s ON s.id = t.study_id""",
    """\
CREATE VIEW v_best AS
SELECT s.name AS study, s.metric, s.direction, t.number, t.value, t.params, t.metrics, t.epoch, t.seconds,
  t.started_at, t.finished_at, t.parent, t.parent_epoch, t.error, t.worker
FROM studies s JOIN trials t ON t.id = CASE s.direction
  WHEN 'MAXIMIZE' THEN (SELECT id FROM trials WHERE study_id = s.id AND state = 'COMPLETE' AND value =
    (SELECT value FROM trials WHERE study_id = s.id AND state = 'COMPLETE' AND value IS NOT NULL
      ORDER BY value DESC LIMIT 1)
    ORDER BY tie ASC NULLS LAST, number LIMIT 1)
  ELSE (SELECT id FROM trials WHERE study_id = s.id AND state = 'COMPLETE' AND value =
    (SELECT value FROM trials WHERE study_id = s.id AND state = 'COMPLETE' AND value IS NOT NULL
      ORDER BY value ASC LIMIT 1)
    ORDER BY tie ASC NULLS LAST, number LIMIT 1) END""",
    """\
CREATE VIEW v_reports AS
SELECT s.name AS study, t.number, r.epoch, r.metrics
FROM reports r JOIN trials t ON t.id = r.trial_id JOIN studies s ON s.id = t.study_id""",
    """\
CREATE VIEW v_lineage AS
SELECT s.name AS study, t.number, t.state, t.value, t.params, t.parent, q.name AS parent_study,
  p.number AS parent_number, t.parent_epoch, p.value AS parent_value, p.params AS parent_params
FROM trials t JOIN studies s ON s.id = t.study_id
  LEFT JOIN trials p ON p.id = t.parent_id LEFT JOIN studies q ON q.id = p.study_id
WHERE t.parent IS NOT NULL""",
    """\
CREATE VIEW v_interventions AS
SELECT s.name AS study, t.number, i.kind, i.arguments, i.author, i.note, i.status, i.message, i.epoch, i.step,
  i.before, i.after, i.asked_at, i.applied_at, i.token
FROM interventions i JOIN trials t ON t.id = i.trial_id JOIN studies s ON s.id = t.study_id""",
]


def upgrade() -> None:
    """Make all tables, triggers and views."""
    op.create_table(
        "reports",
        sa.Column("trial_id", Id, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("metrics", JsonText(), nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "epoch", name=op.f("pk_reports")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "studies",
        sa.Column("id", Id, sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="caviar", nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("directions", sa.Text(), nullable=True),
        sa.Column("data_source", sa.Text(), nullable=False),
        sa.Column("data_target", sa.Text(), nullable=True),
        sa.Column("data_fingerprint", sa.Text(), nullable=False),
        sa.Column("split_seed", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("caviar_version", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("settings", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("name", name=op.f("uq_studies_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "leases",
        sa.Column("study_id", Id, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("acquired_at", UtcTime(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_leases")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_leases_study_id"), ondelete="CASCADE"),
    )
    op.create_table(
        "spaces",
        sa.Column("study_id", Id, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "version", name=op.f("pk_spaces")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_spaces_study_id"), ondelete="CASCADE"),
    )
    op.create_table(
        "study_attrs",
        sa.Column("study_id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "kind", "key", name=op.f("pk_study_attrs")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_attrs_study_id"), ondelete="CASCADE"),
    )
    op.create_table(
        "study_counts",
        sa.Column("study_id", Id, nullable=False),
        sa.Column("n_waiting", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_running", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_complete", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_pruned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_fail", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("next_number", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_study_counts")),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_counts_study_id"), ondelete="CASCADE"
        ),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "study_names",
        sa.Column("study_id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("distribution", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("study_id", "kind", "name", name=op.f("pk_study_names")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_names_study_id"), ondelete="CASCADE"),
    )
    op.create_table(
        "study_tags",
        sa.Column("study_id", Id, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "tag", name=op.f("pk_study_tags")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_tags_study_id"), ondelete="CASCADE"),
    )
    op.create_table(
        "trials",
        sa.Column("id", Id, autoincrement=False, nullable=False),
        sa.Column("study_id", Id, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("tie", sa.Double(), nullable=True),
        sa.Column("params", JsonText(), nullable=False),
        sa.Column("metrics", JsonText(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("started_at", UtcTime(), nullable=True),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("parent_id", Id, nullable=True),
        sa.Column("parent_epoch", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("space_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("optuna_params", sa.Text(), nullable=True),
        sa.Column("optuna_values", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "id = study_id * 4294967296 + number AND number >= 0 AND number < 4294967296", name=op.f("ck_trials_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.CheckConstraint(
            "state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'FAIL')", name=op.f("ck_trials_state")
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_trials_study_id"), ondelete="CASCADE"),
    )
    op.create_index(
        "ix_trials_parent_id",
        "trials",
        ["parent_id"],
        unique=False,
        sqlite_where=sa.text("parent_id IS NOT NULL"),
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index("ix_trials_study_id_score", "trials", ["study_id", "score", "number"], unique=False)
    op.create_index("ix_trials_study_id_state_number", "trials", ["study_id", "state", "number"], unique=False)
    op.create_index("ix_trials_study_id_tie", "trials", ["study_id", "tie", "number"], unique=False)
    op.create_index("ix_trials_study_id_value", "trials", ["study_id", "value", "tie", "number"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("id", Id, sa.Identity(always=False), nullable=False),
        sa.Column("trial_id", Id, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.Text(), nullable=True),
        sa.Column("kept_for", sa.Text(), nullable=True),
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
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("before", JsonText(), nullable=True),
        sa.Column("after", JsonText(), nullable=True),
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
        "trial_attrs",
        sa.Column("trial_id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "kind", "key", name=op.f("pk_trial_attrs")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_trial_attrs_trial_id"), ondelete="CASCADE"),
    )
    triggers = _SQLITE_TRIGGERS if op.get_bind().dialect.name == "sqlite" else _POSTGRES_TRIGGERS
    for statement in triggers + _VIEWS:
        op.get_bind().exec_driver_sql(statement)
