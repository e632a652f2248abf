"""Triggers and views of the trial database, which SQLAlchemy's tables cannot express.

The triggers keep :data:`caviar.storage.schema.study_counts` true whoever writes. The views are for people and their
SQL: their names and columns are documented in `docs/database.md` and do not change.
"""

from __future__ import annotations

_JOIN = ",\n    "
_STATES = ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")


def _sqlite_triggers() -> list[str]:
    def change(row: str, sign: str) -> str:
        return _JOIN.join(f"n_{s.lower()} = n_{s.lower()} {sign} ({row}.state = '{s}')" for s in _STATES)

    both = _JOIN.join(f"n_{s.lower()} = n_{s.lower()} + (NEW.state = '{s}') - (OLD.state = '{s}')" for s in _STATES)
    return [
        f"""CREATE TRIGGER trials_counted_on_insert AFTER INSERT ON trials BEGIN
  UPDATE study_counts SET {change("NEW", "+")},
    next_number = max(next_number, NEW.number + 1)
  WHERE study_id = NEW.study_id;
END""",
        f"""CREATE TRIGGER trials_counted_on_update AFTER UPDATE OF state ON trials
WHEN OLD.state <> NEW.state BEGIN
  UPDATE study_counts SET {both}
  WHERE study_id = NEW.study_id;
END""",
        f"""CREATE TRIGGER trials_counted_on_delete AFTER DELETE ON trials BEGIN
  UPDATE study_counts SET {change("OLD", "-")}
  WHERE study_id = OLD.study_id;
END""",
    ]


def _postgres_triggers() -> list[str]:
    def counted(rows: str, sign: str = "") -> str:
        columns = _JOIN.join(f"{sign}count(*) FILTER (WHERE state = '{s}') AS n_{s.lower()}" for s in _STATES)
        return f"SELECT study_id, max(number) + 1 AS next_number,\n    {columns}\n    FROM {rows} GROUP BY study_id"

    names = [f"n_{s.lower()}" for s in _STATES]
    add = _JOIN.join(f"{n} = c.{n} + d.{n}" for n in names)
    sums = _JOIN.join(f"sum({n}) AS {n}" for n in names)
    changed = "\n      OR ".join(f"sum({n}) <> 0" for n in names)
    bodies = {
        "insert": f"""UPDATE study_counts c SET {add},
    next_number = greatest(c.next_number, d.next_number)
  FROM ({counted("new_rows")}) d WHERE c.study_id = d.study_id;""",
        # Most updates change no state; those must not touch the counts, which every writer of a study shares.
        "update": f"""UPDATE study_counts c SET {add}
  FROM (SELECT study_id, {sums}
    FROM ({counted("new_rows")}
    UNION ALL {counted("old_rows", "-")}) b
    GROUP BY study_id HAVING {changed}) d
  WHERE c.study_id = d.study_id;""",
        "delete": f"""UPDATE study_counts c SET {add}
  FROM ({counted("old_rows", "-")}) d
  WHERE c.study_id = d.study_id;""",
    }
    tables = {
        "insert": "NEW TABLE AS new_rows",
        "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
        "delete": "OLD TABLE AS old_rows",
    }
    statements = []
    for event, body in bodies.items():
        statements.append(
            f"CREATE FUNCTION caviar_count_on_{event}() RETURNS trigger LANGUAGE plpgsql AS $$\n"
            f"BEGIN\n  {body}\n  RETURN NULL;\nEND $$"
        )
        statements.append(
            f"CREATE TRIGGER trials_counted_on_{event} AFTER {event.upper()} ON trials\n"
            f"REFERENCING {tables[event]} FOR EACH STATEMENT EXECUTE FUNCTION caviar_count_on_{event}()"
        )
    return statements


def _best(direction: str) -> str:
    order = "DESC" if direction == "MAXIMIZE" else "ASC"
    complete = "study_id = s.id AND state = 'COMPLETE'"
    # First the best value, then the best of those with that value: both are look-ups in the index of values.
    return f"""(SELECT id FROM trials WHERE {complete} AND value =
    (SELECT value FROM trials WHERE {complete} AND value IS NOT NULL
      ORDER BY value {order} LIMIT 1)
    ORDER BY tie ASC NULLS LAST, number LIMIT 1)"""


_TRIAL_COLUMNS = """t.value, t.params, t.metrics, t.epoch, t.seconds,
  t.started_at, t.finished_at, t.parent, t.parent_epoch, t.error, t.worker"""


def _views() -> list[str]:
    return [
        f"""CREATE VIEW v_trials AS
SELECT s.name AS study, t.number, t.state, t.reason, {_TRIAL_COLUMNS}, t.space_version
FROM trials t JOIN studies s ON s.id = t.study_id""",
        f"""CREATE VIEW v_best AS
SELECT s.name AS study, s.metric, s.direction, t.number, {_TRIAL_COLUMNS}
FROM studies s JOIN trials t ON t.id = CASE s.direction
  WHEN 'MAXIMIZE' THEN {_best("MAXIMIZE")}
  ELSE {_best("MINIMIZE")} END""",
        """CREATE VIEW v_reports AS
SELECT s.name AS study, t.number, r.epoch, r.metrics
FROM reports r JOIN trials t ON t.id = r.trial_id JOIN studies s ON s.id = t.study_id""",
        """CREATE VIEW v_lineage AS
SELECT s.name AS study, t.number, t.state, t.value, t.params, t.parent, q.name AS parent_study,
  p.number AS parent_number, t.parent_epoch, p.value AS parent_value, p.params AS parent_params
FROM trials t JOIN studies s ON s.id = t.study_id
  LEFT JOIN trials p ON p.id = t.parent_id LEFT JOIN studies q ON q.id = p.study_id
WHERE t.parent IS NOT NULL""",
        """CREATE VIEW v_interventions AS
SELECT s.name AS study, t.number, i.kind, i.arguments, i.author, i.note, i.status, i.message, i.epoch, i.step,
  i.before, i.after, i.asked_at, i.applied_at, i.token, i.batch, i.sequence, i.metrics_before, i.metrics_after
FROM interventions i JOIN trials t ON t.id = i.trial_id JOIN studies s ON s.id = t.study_id""",
    ]


#: Names of the views, in the order in which they are documented.
VIEWS = ("v_trials", "v_best", "v_reports", "v_lineage", "v_interventions")


def statements(dialect: str) -> list[str]:
    """Return the statements that make triggers and views, for `sqlite` or `postgresql`."""
    triggers = _sqlite_triggers() if dialect == "sqlite" else _postgres_triggers()
    return triggers + _views()
