"""Finding trials: filtered, sorted and cut in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, literal_column, select
from sqlalchemy.engine import Connection

from caviar.checks import whole
from caviar.errors import QueryError, SettingsError
from caviar.records import TrialState
from caviar.storage import rows, schema
from caviar.storage.filters import Filters

#: Values as the driver gives them: times are texts on SQLite.
FoundRow = tuple[Any, ...]

_trials = schema.trials.c


def checked_limit(limit: Any) -> int | None:
    """Return how many trials to return at most, None where there is no limit.

    Raises:
        QueryError: it is negative, or no whole number.
    """
    try:
        number = whole("limit", limit)
    except SettingsError as error:
        raise QueryError(str(error)) from error
    if number is not None and number < 0:
        raise QueryError(f"limit must not be negative, found {limit!r}")
    return number


def find(
    connection: Connection,
    study_id: int,
    filters: Filters,
    *,
    where: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
    after: int | None = None,
    columns: Sequence[str] = rows.READ,
) -> Sequence[FoundRow]:
    """Return rows of trials.

    Args:
        connection: in a transaction.
        study_id: the study.
        filters: what the names mean.
        where: an expression, or None for all.
        sort: a name to sort by, descending with a leading `-`; by number where None. Trials without a value there come
            last in both directions; ties are broken by number.
        limit: return at most so many.
        after: only trials with a number above this; goes with `sort=None`.
        columns: columns of `trials` to return.

    Raises:
        QueryError: the expression or the name to sort by is not valid.
    """
    if limit is not None and limit >= schema.NUMBERS:  # as many as a study can hold: no limit, and databases know one
        limit = None
    query = select(*(_trials[name] for name in columns))
    condition = None if where is None else filters.condition(where)
    states = None if where is None else filters.states_of(where)
    n_in_states, n_all = _count(connection, study_id, states)
    if not n_in_states:
        return []
    are_rare = n_in_states * 10 < n_all
    if condition is not None:
        query = query.where(condition)
    if after is not None:
        query = query.where(_trials.id > schema.trial_id(study_id, after))
    if sort is None and not are_rare:
        # The primary key holds them in this order: the first that match are found without reading the others.
        query = query.where(_trials.id.between(*schema.trial_ids(study_id)))
        return _fetch(connection, query.order_by(_trials.id), limit)
    query = query.where(_trials.study_id == study_id)
    if sort is None:
        return _fetch(connection, query.order_by(_trials.number), limit)
    keys, descending = filters.sort_keys(sort)
    if are_rare:
        # Else the index of the key would be read to its end for the few that match.
        keys = [key + literal_column("0") if _has_index(key) else key for key in keys]
    ordered = [key.desc() if descending else key.asc() for key in keys]
    if limit is None or len(keys) > 1:
        return _fetch(connection, query.order_by(*(key.nulls_last() for key in ordered), _trials.number), limit)
    # An index holds nulls on one side, which is the wrong one for one of the directions: take them separately.
    key = keys[0]
    found = _fetch(connection, query.where(key.is_not(None)).order_by(*ordered, _trials.number), limit)
    if len(found) < limit:
        missing = query.where(key.is_(None)).order_by(_trials.number)
        found = [*found, *_fetch(connection, missing, limit - len(found))]
    return found


def _count(connection: Connection, study_id: int, states: Iterable[str] | None) -> tuple[int, int]:
    """Return how many trials are in some states (None for all), and how many there are in all."""
    counts = schema.study_counts
    row = connection.execute(select(counts).where(counts.c.study_id == study_id)).one()
    by_state = {state: int(getattr(row, f"n_{state.lower()}")) for state in TrialState}
    n_all = sum(by_state.values())
    return (n_all if states is None else sum(by_state[TrialState(state)] for state in states)), n_all


def _has_index(key: Any) -> bool:
    return any(key is column for column in (_trials.score, _trials.tie, _trials.value))


def _fetch(connection: Connection, query: Select[Any], limit: int | None) -> Sequence[FoundRow]:
    # The driver's own tuples: making rows of them takes as long as reading them.
    cursor = connection.execute(query if limit is None else query.limit(limit)).cursor
    assert cursor is not None
    return cursor.fetchall()
