"""`caviar studies`, `caviar query` and `caviar show`: ask the database, print records."""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

from caviar.bootstrap import make_storage
from caviar.cli.rows import CSV_COLUMNS, flat_row, study_row, trial_row
from caviar.cli.tables import print_table, sparkline
from caviar.errors import QueryError, SettingsError
from caviar.records import Trial
from caviar.storage import Storage


def print_studies(format: str, url: str | None) -> int:
    """Print all studies."""
    storage = make_storage(url, create=False)
    summaries = storage.studies()
    storage.close()
    if format == "json":
        print(json.dumps([study_row(summary) for summary in summaries]))
        return 0
    rows = [
        {
            "study": summary.spec.name,
            "data": summary.spec.data.source,
            "trials": summary.n_trials,
            "states": ", ".join(f"{n} {state}" for state, n in summary.counts.items() if n),
            "metric": summary.spec.metric,
            "best": summary.best.value if summary.best else None,
            "by": summary.best.name if summary.best else None,
        }
        for summary in summaries
    ]
    print_table(rows, "no studies yet; make one with `caviar sweep digits`")
    return 0


def print_trials(
    study: str, where: str | None, sort: str | None, limit: int | None, format: str, url: str | None
) -> int:
    """Print trials of a study."""
    if limit is not None and limit < 0:
        raise QueryError(f"limit must be at least 0, found {limit}")
    storage = make_storage(url, create=False)
    trials = storage.trials(study, where=where, sort=sort, limit=limit)
    storage.close()
    if format == "json":
        print(json.dumps([trial_row(trial) for trial in trials]))
    elif format == "csv":
        rows = [flat_row(trial) for trial in trials]
        writer = csv.DictWriter(sys.stdout, _columns(rows) or CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif format == "parquet":
        _print_parquet([flat_row(trial) for trial in trials])
    else:
        print_table([_table_row(trial) for trial in trials], "no trials match")
    return 0


def print_study_or_trial(name: str, as_json: bool, url: str | None) -> int:
    """Print a study's state and best trial, or one trial with its curve."""
    study, slash, number = name.rpartition("/")
    if slash and not (number.isascii() and number.isdigit() and len(number) < 19):
        raise SettingsError(f"a trial is named STUDY/NUMBER, found {name!r}")
    storage = make_storage(url, create=False)
    try:
        if slash:
            _print_trial(storage, study, int(number), as_json)
        else:
            _print_study(storage, name, as_json)
    finally:
        storage.close()
    return 0


def _print_study(storage: Storage, name: str, as_json: bool) -> None:
    row = study_row(storage.summary(name))
    if as_json:
        print(json.dumps(row))
        return
    best = row.pop("best")
    for key, value in row.items():
        text = ", ".join(f"{n} {state}" for state, n in value.items()) if isinstance(value, dict) else value
        if text is not None:
            print(f"{key:12} {text}")
    if best:
        print(f"{'best':12} {name}/{best['number']}")
        _print_params_and_metrics(best)


def _print_trial(storage: Storage, study: str, number: int, as_json: bool) -> None:
    trial, reports = storage.get_trial(study, number), storage.reports(study, number)
    row = trial_row(trial)
    if as_json:
        curve = [
            {"epoch": reports.first_epoch + index} | dict(zip(reports.metrics, values, strict=True))
            for index, values in enumerate(reports.values.tolist())
        ]
        print(json.dumps(row | {"worker": trial.worker, "traceback": trial.traceback, "reports": curve}))
        return
    for key in ("state", "value", "epoch", "seconds", "started_at", "finished_at", "parent", "error"):
        if row[key] is not None:
            print(f"{key:12} {_short(row[key])}")
    _print_params_and_metrics(row)
    for index, metric in enumerate(reports.metrics):
        if len(reports):
            column = reports.values[:, index].tolist()
            print(f"  {metric:20} {sparkline(column)}  {_short(column[0])} -> {_short(column[-1])}")
    if trial.traceback:
        print(trial.traceback.rstrip())


def _print_params_and_metrics(row: dict[str, Any]) -> None:
    for kind in ("params", "metrics"):
        print(kind)
        for key, value in row[kind].items():
            print(f"  {key:20} {_short(value)}")


def _table_row(trial: Trial) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.name, "state": trial.state.value, "value": trial.value, "epoch": trial.epoch}
    row |= trial.params
    row |= {name: value for name, value in trial.metrics.items() if name not in row}
    return row | ({"error": trial.error} if trial.error else {})


def _print_parquet(rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if sys.stdout.isatty():
        raise SettingsError("parquet is binary and stdout is a terminal; send it to a file: caviar query ... > FILE")
    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    try:
        table = pa.table(columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a param that is a number in one trial and a word in another
        table = pa.table({name: _uniform(values) for name, values in columns.items()})
    pq.write_table(table, sys.stdout.buffer)


def _uniform(values: list[Any]) -> list[Any]:
    if any(isinstance(value, str) for value in values):
        return [None if value is None else str(value) for value in values]
    return [None if value is None else float(value) for value in values]


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
