"""Trials and their reports as plain data for files; what JSON cannot hold is written as `codec` has it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from caviar.records import Intervention, Reports, Session, Trial, TrialResult, TrialState
from caviar.storage import codec, session_rows

#: Fields of a trial that stand in a record as they are.
PLAIN = (
    "number", "state", "value", "epoch", "seconds", "started_at", "finished_at", "parent", "parent_epoch", "reason",
    "error", "traceback", "worker", "space_version",
)  # fmt: skip
#: Fields that stand there as texts of JSON; `reports`, and `panda` of a trial that was never babysat, are None.
JSON = ("params", "metrics", "reports", "panda")

_REAL = ("value", "seconds")
_MOMENTS = ("started_at", "finished_at")
#: Of an intervention: what is JSON, and the moments.
_NESTED = ("arguments", "before", "after", "metrics_before", "metrics_after")
_ASKED = ("asked_at", "applied_at")

Record = dict[str, Any]


#: How a trial was babysat, and what was done to it.
Babysat = tuple[Session, list[Intervention]]


def to_record(trial: Trial, reports: Reports | None, babysat: Babysat | None = None) -> Record:
    """Return a trial as numbers, texts and None, under the names `PLAIN` and `JSON`."""
    record: Record = {name: getattr(trial, name) for name in PLAIN}
    record["state"] = str(trial.state)
    for name in _MOMENTS:
        record[name] = None if record[name] is None else record[name].isoformat()
    record["params"] = codec.encode_params(trial.params)
    record["metrics"] = codec.encode_metrics(trial.metrics)
    record["panda"] = None if babysat is None else _panda_text(*babysat)
    record["reports"] = None
    if reports is not None and len(reports):
        rows = ",".join(codec.encode_report_rows(reports.metrics, reports.values))
        record["reports"] = f'{{"first_epoch":{reports.first_epoch},"rows":[{rows}]}}'
    return record


def from_record(study: str, record: Mapping[str, Any]) -> TrialResult:
    """Return the trial of a record, as one of a study.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such record.
    """
    plain: Record = {name: record.get(name) for name in PLAIN}
    for name in _MOMENTS:
        plain[name] = datetime.fromisoformat(plain[name]) if plain[name] else None
    for name in _REAL:
        plain[name] = None if plain[name] is None else float(plain[name])
    state = TrialState(str(plain.pop("state")))
    trial = Trial(
        study=study,
        state=state,
        params=codec.decode_params(record["params"]),
        metrics=codec.decode_metrics(record["metrics"]),
        **plain,
    )
    reports = None
    if record.get("reports"):
        import numpy as np  # takes longer than most queries, which need none

        told = json.loads(record["reports"])
        names = tuple(dict.fromkeys(name for row in told["rows"] for name in row))
        values = np.array([[float(row.get(name, "NaN")) for name in names] for row in told["rows"]])
        reports = Reports(int(told["first_epoch"]), names, values)
    return TrialResult(trial=trial, reports=reports)


def babysat_from_record(study: str, record: Mapping[str, Any]) -> Babysat | None:
    """Return how the trial of a record was babysat, if it was, as one of a study.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such record.
    """
    if not record.get("panda"):
        return None
    told, name = json.loads(record["panda"]), f"{study}/{record['number']}"
    start_params = codec.decode_params(json.dumps(told["start_params"]))
    interventions = []
    for plain in told["interventions"]:
        values = dict(plain)
        for field in _NESTED:
            values[field] = None if plain[field] is None else json.dumps(plain[field])
        for field in _ASKED:
            values[field] = datetime.fromisoformat(plain[field]) if plain[field] else None
        interventions.append(session_rows.intervention_from_row(SimpleNamespace(**values), name))
    return Session(trial=name, start_params=start_params, settings=told["settings"]), interventions


def _panda_text(session: Session, interventions: Iterable[Intervention]) -> str:
    told = []
    for intervention in interventions:
        plain = session_rows.intervention_values(intervention)
        for field in _NESTED:
            plain[field] = None if plain[field] is None else json.loads(plain[field])
        for field in _ASKED:
            plain[field] = None if plain[field] is None else plain[field].isoformat()
        told.append(plain)
    start_params = json.loads(codec.encode_params(session.start_params))
    return json.dumps({"start_params": start_params, "settings": dict(session.settings), "interventions": told})
