"""Finding trials: filtered, sorted and cut in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.engine import Connection, Row

from caviar.storage import rows, schema
from caviar.storage.filters import Filters

_trials = schema.trials.c


def find(
    connection: Connection,
    study_id: int,
    filters: Filters,
    *,
    where: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
    columns: Sequence[str] = rows.READ,
) -> Sequence[Row[Any]]:
    """Return rows of trials.

    Args:
        connection: in a transaction.
        study_id: the study.
        filters: what the names mean.
        where: an expression, or None for all.
        sort: a name to sort by, descending with a leading `-`; by number where None. Trials without a value there come
            last in both directions; ties are broken by number.
        limit: return at most so many.
        columns: columns of `trials` to return.

    Raises:
        QueryError: the expression or the name to sort by is not valid.
    """
    query = select(*(_trials[name] for name in columns))
    if where is not None:
        query = query.where(_trials.study_id == study_id, filters.condition(where))
    elif sort is None:
        # The primary key holds them in this order.
        query = query.where(_trials.id.between(*schema.trial_ids(study_id)))
    else:
        query = query.where(_trials.study_id == study_id)
    if sort is None:
        return _fetch(connection, query.order_by(_trials.number if where is not None else _trials.id), limit)
    keys, descending = filters.sort_keys(sort)
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


def _fetch(connection: Connection, query: Select[Any], limit: int | None) -> Sequence[Row[Any]]:
    return connection.execute(query if limit is None else query.limit(limit)).fetchall()
