"""`caviar studies`, `caviar query` and `caviar show`: ask the database, print records."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from caviar.bootstrap import make_storage
from caviar.cli.arguments import split_trial_name
from caviar.cli.formats import check_terminal, print_csv, print_json, print_json_list, print_rows
from caviar.cli.rows import CSV_COLUMNS, flat_row, run_row, study_row, trial_row
from caviar.cli.runs import print_runs
from caviar.cli.tables import print_table, print_values, shown, sparkline
from caviar.errors import QueryError
from caviar.records import Direction, Trial, clear_direction
from caviar.storage import Storage

#: Trials read at a time, of however many there are.
_PAGE = 10_000


def print_studies(tag: str | None, format: str, url: str | None) -> int:
    """Print all studies, or those with a tag."""
    storage = make_storage(url, create=False)
    summaries = [summary for summary in storage.studies() if tag is None or tag in summary.tags]
    storage.close()
    if format == "json":
        print_json([study_row(summary) for summary in summaries])
        return 0
    rows = [
        {
            "study": summary.spec.name,
            "data": summary.spec.data.source or None,
            "trials": summary.n_trials,
            "states": ", ".join(f"{n} {state}" for state, n in summary.counts.items() if n),
            "metric": summary.spec.metric,
            "best": summary.best.value if summary.best else None,
            "by": summary.best.name if summary.best else None,
            "tags": " ".join(summary.tags) or None,
        }
        for summary in summaries
    ]
    print_table(rows, f"no study has the tag {tag!r}" if tag else "no studies; make one with `caviar sweep digits`")
    return 0


def print_trials(
    study: str, where: str | None, sort: str | None, limit: int | None, format: str, url: str | None
) -> int:
    """Print trials of a study."""
    if limit is not None and limit < 0:
        raise QueryError(f"limit must be at least 0, found {limit}")
    limit = None if limit is None else min(limit, sys.maxsize)
    check_terminal(format)
    storage = make_storage(url, create=False)

    def found() -> Iterator[Trial]:
        if sort is not None or limit == 0:
            yield from storage.trials(study, where=where, sort=sort, limit=limit)
        else:
            pages = storage.pages(study, where=where, size=_PAGE if limit is None else min(limit, _PAGE))
            yield from itertools.islice(itertools.chain.from_iterable(pages), limit)

    try:
        if format == "json":
            print_json_list(map(trial_row, found()))
        elif format == "csv":
            _print_csv(found())
        elif format == "table":
            trials = list(found())
            has_versions = any(trial.space_version > 1 for trial in trials)
            print_table([_table_row(trial, has_versions) for trial in trials], "no trials match")
        else:
            print_rows([flat_row(trial) for trial in found()], format, CSV_COLUMNS, "")
    finally:
        storage.close()
    return 0


def _print_csv(trials: Iterable[Trial]) -> None:
    """Print trials as CSV; they wait on the disk, as the names of the columns are known when all have been seen."""
    names: dict[str, None] = {}
    with tempfile.TemporaryFile("w+", encoding="ascii") as waiting:
        for trial in trials:
            row = flat_row(trial)
            names.update(dict.fromkeys(row))
            waiting.write(json.dumps(row) + "\n")
        waiting.seek(0)
        print_csv(map(json.loads, waiting), list(names) or CSV_COLUMNS)


def print_study_or_trial(name: str, as_json: bool, url: str | None) -> int:
    """Print a study's state and best trial, or one trial with its curve."""
    trial = split_trial_name(name) if "/" in name else None
    storage = make_storage(url, create=False)
    try:
        if trial is not None:
            _print_trial(storage, *trial, as_json)
        else:
            _print_study(storage, name, as_json)
    finally:
        storage.close()
    return 0


def _print_study(storage: Storage, name: str, as_json: bool) -> None:
    summary, runs = storage.summary(name), storage.ledgers.all(name)
    row, space = study_row(summary), summary.spec.space
    if as_json:
        print_json(row | {"space": space, "sweeps": [run_row(run) for run in runs]})
        return
    best = row.pop("best")
    row["states"] = ", ".join(f"{n} {state}" for state, n in row["states"].items()) or None
    row["tags"] = " ".join(row["tags"]) or None
    for key, value in row.items():
        if value not in (None, ""):
            print(f"{key:14} {shown(str(value))}")
    if space:
        from caviar.space import SearchSpace  # most answers do without

        print("space")
        print_values(SearchSpace.from_dict(space))
    if best:
        print(f"{'best':14} {name}/{best['number']}")
        _print_params_and_metrics(best)
    print_runs(runs)


def _print_trial(storage: Storage, study: str, number: int, as_json: bool) -> None:
    trial, reports = storage.get_trial(study, number), storage.reports(study, number)
    row = trial_row(trial)
    if as_json:
        curve = [
            {"epoch": reports.first_epoch + index} | dict(zip(reports.metrics, values, strict=True))
            for index, values in enumerate(reports.values.tolist())
        ]
        print_json(row | {"worker": trial.worker, "traceback": trial.traceback, "reports": curve})
        return
    for key in (
        "state",
        "reason",
        "value",
        "epoch",
        "seconds",
        "started_at",
        "finished_at",
        "parent",
        "space_version",
        "error",
    ):
        if row[key] is not None:
            print(f"{key:14} {_short(row[key])}")
    _print_params_and_metrics(row | {"metrics": trial.metrics})
    spec = storage.get_study(study)
    for index, metric in enumerate(reports.metrics if len(reports) else ()):
        column = reports.values[:, index].tolist()
        ends = f"{_short(column[0])} -> {_short(column[-1])}"
        way = spec.direction if metric == spec.metric else clear_direction(metric)
        best = "" if way is None else _best(way, column, reports.first_epoch)
        print(f"  {shown(metric):20} {sparkline(column)}  {ends}{best}")
    if trial.traceback:
        print("\n".join(map(shown, trial.traceback.rstrip().split("\n"))))


def _best(direction: Direction, column: list[float], first_epoch: int) -> str:
    """Return where a curve was best, if that was not at its end."""
    sign = direction.sign
    ranked = [(sign * value, epoch) for epoch, value in enumerate(column, first_epoch) if value == value]
    best, epoch = min(ranked, default=(sign * column[-1], 0))
    return f", best {_short(sign * best)} at epoch {epoch}" if sign * best != column[-1] and epoch else ""


def _print_params_and_metrics(row: dict[str, Any]) -> None:
    for kind in ("params", "metrics"):
        print(kind)
        print_values(row[kind])


def _table_row(trial: Trial, has_versions: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.name, "state": trial.state.value, "value": trial.value, "epoch": trial.epoch}
    if has_versions:
        row["space_version"] = trial.space_version
    row |= trial.params
    row |= {name: value for name, value in trial.metrics.items() if name not in row}
    return row | ({"error": trial.error} if trial.error else {})


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shown(str(value))
