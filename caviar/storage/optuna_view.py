"""Trials as Optuna sees them.

A trial made through Optuna comes back as it was. One made by caviar gets the distributions of its search space; a
param that is sampled uniformly in log(1 - x), for which Optuna has no distribution, appears as `1-NAME` on a log scale,
and fixed params as a choice of one. Its metrics are user attributes, the study's metric by epoch its intermediate
values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Column, ColumnElement, select
from sqlalchemy.engine import Connection, Row

from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import codec, optuna_attrs, schema
from caviar.storage.database import Database
from caviar.storage.types import time_from_db

_trials = schema.trials.c
_COLUMNS = (
    "id", "number", "state", "value", "params", "metrics", "started_at", "finished_at", "error", "reason",
    "space_version", "optuna_params", "optuna_values",
)  # fmt: skip

#: So many ids go into one list; more are read as a range, or in parts.
_MOST = 500

#: Texts of distributions repeat from trial to trial.
distribution_of = lru_cache(maxsize=4096)(json_to_distribution)


def new_trial() -> FrozenTrial:
    """Return what a trial is when it is asked for."""
    trial = create_trial(state=TrialState.RUNNING)
    trial.datetime_start = datetime.now()
    return trial


def storable(value: Any) -> Any:
    """Return a choice as caviar's params hold it: Optuna allows any JSON, caviar numbers and texts."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def objective_columns(values: Sequence[float]) -> dict[str, Any]:
    """Return the columns of the values of an objective, or several."""
    if len(values) == 1:
        return {"value": values[0], "score": codec.finite_or_none(values[0]), "optuna_values": None}
    return {"value": None, "score": None, "optuna_values": json.dumps(list(values))}


def trial_values(trial: FrozenTrial, trial_id: int, study_id: int, number: int) -> dict[str, Any]:
    """Return the columns of a new trial."""
    internal = [
        [name, trial.distributions[name].to_internal_repr(value), distribution_to_json(trial.distributions[name])]
        for name, value in trial.params.items()
    ]
    columns = {
        "id": trial_id,
        "study_id": study_id,
        "number": number,
        "state": trial.state.name,
        "params": codec.encode_params({name: storable(value) for name, value in trial.params.items()}),
        "metrics": "{}",
        "started_at": _to_utc(trial.datetime_start),
        "finished_at": _to_utc(trial.datetime_complete),
        "optuna_params": json.dumps(internal),
    }
    if trial.values is not None:
        columns.update(objective_columns([float(value) for value in trial.values]))
    return columns


def load(connection: Connection, study_id: int, ids: Sequence[int]) -> list[FrozenTrial]:
    """Return those trials of a study that are there, in order of number.

    Args:
        connection: in a transaction.
        study_id: the study.
        ids: ids of trials of that study, sorted.
    """
    if len(ids) > _MOST and ids[-1] - ids[0] >= 2 * len(ids):
        return [trial for i in range(0, len(ids), _MOST) for trial in load(connection, study_id, ids[i : i + _MOST])]

    def among(column: Column[int]) -> ColumnElement[bool]:
        return column.in_(ids) if len(ids) <= _MOST else column.between(ids[0], ids[-1])

    query = select(*(_trials[name] for name in _COLUMNS)).where(among(_trials.id)).order_by(_trials.id)
    wanted = set(ids)
    found = [row for row in connection.execute(query) if row.id in wanted]
    if not found:
        return []
    metric = codec.decode_text(
        connection.execute(select(schema.studies.c.metric).where(schema.studies.c.id == study_id)).scalar()
    )
    steps: dict[int, dict[int, float]] = {}
    reports = schema.reports.c
    rows = connection.execute(
        select(reports.trial_id, reports.epoch, reports.metrics)
        .where(among(reports.trial_id))
        .order_by(reports.trial_id, reports.epoch)
    ).all()
    for row, metrics in zip(rows, codec.join_json(row.metrics for row in rows), strict=True):
        if metric in metrics:
            steps.setdefault(row.trial_id, {})[row.epoch] = float(metrics[metric])
    attrs: dict[int, list[tuple[str, str, str]]] = {}
    table = schema.trial_attrs.c
    for row in connection.execute(select(schema.trial_attrs).where(among(table.trial_id))):
        attrs.setdefault(row.trial_id, []).append((row.kind, row.key, row.value))
    spaces = _spaces(connection, study_id) if any(row.optuna_params is None for row in found) else {}
    return [_frozen(row, steps.get(row.id, {}), attrs.get(row.id, []), spaces) for row in found]


#: A trial with its reports and attributes as JSON lists, in one statement: each would be a journey to the server.
_ONE = """SELECT {columns},
  (SELECT {list}({array}(epoch, {json})) FROM reports WHERE trial_id = t.id) AS steps,
  (SELECT {list}({array}(kind, key, value)) FROM trial_attrs WHERE trial_id = t.id) AS attrs
FROM trials t WHERE t.id = ?"""
_COLUMN_LIST = ", ".join(_COLUMNS)
_ONE_ON_SQLITE = _ONE.format(columns=_COLUMN_LIST, list="json_group_array", array="json_array", json="json(metrics)")
_ONE_ON_POSTGRES = _ONE.format(columns=_COLUMN_LIST, list="json_agg", array="json_build_array", json="metrics")


def load_one(database: Database, trial_id: int, metric: str) -> FrozenTrial | None:
    """Return one trial, or None where there is none.

    Args:
        database: where it is.
        trial_id: its id.
        metric: its study's metric.
    """
    sql = _ONE_ON_SQLITE if database.is_sqlite else _ONE_ON_POSTGRES
    row = database.read_one(f"read trial {trial_id}", sql, (trial_id,))
    if row is None:
        return None
    spaces = {}
    if row.optuna_params is None:
        study_id = trial_id // schema.NUMBERS
        spaces = database.read(f"read the space of study {study_id}", lambda connection: _spaces(connection, study_id))
    reported = sorted(json.loads(row.steps or "[]"), key=lambda entry: entry[0])
    steps = {step: float(metrics[metric]) for step, metrics in reported if metric in metrics}
    return _frozen(row, steps, [tuple(entry) for entry in json.loads(row.attrs or "[]")], spaces)


def _frozen(
    row: Row[Any], steps: dict[int, float], attrs: list[tuple[str, str, str]], spaces: dict[int, SearchSpace]
) -> FrozenTrial:
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    user, system = optuna_attrs.split(attrs)
    if row.optuna_params is None:
        space = spaces.get(row.space_version, SearchSpace())
        for name, value in codec.decode_params(row.params).items():
            shown, distribution, value = _param(name, value, space)
            params[shown], distributions[shown] = value, distribution
        about = {"reason": codec.decode_text(row.reason), "error": codec.decode_text(row.error)}
        told = {key: text for key, text in about.items() if text is not None}
        user = {**codec.decode_metrics(row.metrics), **told, **user}
    else:
        for name, internal, text in json.loads(row.optuna_params):
            distributions[name] = distribution_of(text)
            params[name] = distributions[name].to_external_repr(internal)
    values = json.loads(row.optuna_values) if row.optuna_values else None if row.value is None else [row.value]
    return FrozenTrial(
        number=row.number,
        trial_id=row.id,
        state=TrialState[row.state],
        value=None,
        values=values,
        datetime_start=_to_local(time_from_db(row.started_at)),
        datetime_complete=_to_local(time_from_db(row.finished_at)),
        params=params,
        distributions=distributions,
        user_attrs=user,
        system_attrs=system,
        intermediate_values=steps,
    )


def _param(name: str, value: Any, space: SearchSpace) -> tuple[str, BaseDistribution, Any]:
    """Return name, distribution and value of a param of a caviar trial as Optuna sees them."""
    domain = space.get(name)
    if isinstance(domain, Float) and isinstance(value, int | float):
        if domain.scale == "one-minus-log":
            return f"1-{name}", FloatDistribution(1.0 - domain.high, 1.0 - domain.low, log=True), 1.0 - value
        return name, FloatDistribution(domain.low, domain.high, log=domain.scale == "log"), float(value)
    if isinstance(domain, Int) and isinstance(value, int):
        return name, IntDistribution(domain.low, domain.high, log=domain.scale == "log"), value
    if isinstance(domain, Categorical) and value in domain.choices:
        return name, CategoricalDistribution(domain.choices), value
    return name, CategoricalDistribution((value,)), value


def _spaces(connection: Connection, study_id: int) -> dict[int, SearchSpace]:
    spaces = schema.spaces.c
    found = connection.execute(select(spaces.version, spaces.space).where(spaces.study_id == study_id))
    return {row.version: SearchSpace.from_dict(json.loads(row.space)) for row in found}


def _to_utc(moment: datetime | None) -> datetime | None:
    """Return a moment of Optuna, whose times are local and naive, in UTC."""
    return None if moment is None else moment.astimezone(UTC)


def _to_local(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone().replace(tzinfo=None)
