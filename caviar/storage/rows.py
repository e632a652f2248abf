"""Records to rows and back: trials and studies as the tables hold them."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import Row

from caviar.errors import SettingsError, StorageError
from caviar.records import DataSpec, Direction, StudySpec, TrainableSpec, Trial, TrialState
from caviar.storage import codec, schema
from caviar.storage.types import time_from_db, time_to_text

#: Columns of `trials` that a record fills, in the order of `trial_row`. The id is first.
WRITTEN = (
    "id", "study_id", "number", "space_version", "state", "reason", "value", "score", "tie", "params", "metrics",
    "epoch", "seconds", "started_at", "finished_at", "parent", "parent_id", "parent_epoch", "error", "traceback",
    "worker",
)  # fmt: skip

#: Their types in Postgres, for arrays of them.
WRITTEN_TYPES = (
    "bigint", "bigint", "bigint", "bigint", "text", "text", "float8", "float8", "float8", "jsonb", "jsonb",
    "bigint", "float8", "timestamptz", "timestamptz", "text", "bigint", "bigint", "text", "text", "text",
)  # fmt: skip

#: Columns of `trials` that make a record, in the order of `trials_from_rows`.
READ = (
    "number", "state", "params", "value", "metrics", "epoch", "seconds", "started_at", "finished_at", "parent",
    "parent_epoch", "reason", "error", "traceback", "worker", "space_version",
)  # fmt: skip

_LONGEST_NAME = 200
_INT64 = range(-(2**63), 2**63)
_STATES = {str(state): state for state in TrialState}


def trial_row(trial: Trial, study_id: int, metric: str, parent_id: int | None) -> tuple[Any, ...]:
    """Return a trial as the values of `WRITTEN`.

    Args:
        trial: the record.
        study_id: id of its study.
        metric: the study's metric.
        parent_id: id of its parent, where that is in this database.

    Raises:
        StorageError: something in it cannot be stored.
    """
    try:
        value = trial.value
        if value is not None:
            value = float(value)
            if value != value:
                raise StorageError("its value is NaN, expected a number, or None where there is none")
        number = check_number(trial.number)
        return (
            schema.trial_id(study_id, number),
            study_id,
            number,
            check_version(trial.space_version),
            str(_STATES[trial.state]),
            codec.encode_text(trial.reason),
            value,
            codec.finite_or_none(trial.metrics.get(metric)),
            codec.finite_or_none(trial.metrics.get("val_loss")),
            codec.encode_params(trial.params),
            codec.encode_metrics(trial.metrics),
            operator.index(trial.epoch),
            codec.finite_or_none(trial.seconds),
            time_to_text(trial.started_at),
            time_to_text(trial.finished_at),
            codec.encode_text(trial.parent),
            parent_id,
            None if trial.parent_epoch is None else operator.index(trial.parent_epoch),
            codec.encode_text(trial.error),
            codec.encode_text(trial.traceback),
            codec.encode_text(trial.worker),
        )
    except (StorageError, KeyError, TypeError, ValueError) as error:
        reason = f"unknown state {trial.state!r}" if isinstance(error, KeyError) else str(error)
        raise StorageError(f"trial {trial.name!r} cannot be stored: {reason}") from error


def trials_from_rows(found: Sequence[Sequence[Any]], study: str) -> list[Trial]:
    """Return the records of rows of the columns `READ`."""
    params = codec.decode_all_params([row[2] for row in found])
    metrics = codec.decode_all_metrics([row[4] for row in found])
    return [
        Trial(
            study=study,
            number=row[0],
            state=_STATES[row[1]],
            params=params[index],
            value=row[3],
            metrics=metrics[index],
            epoch=row[5],
            seconds=row[6],
            started_at=time_from_db(row[7]),
            finished_at=time_from_db(row[8]),
            parent=codec.decode_text(row[9]),
            parent_epoch=row[10],
            reason=codec.decode_text(row[11]),
            error=codec.decode_text(row[12]),
            traceback=codec.decode_text(row[13]),
            worker=codec.decode_text(row[14]),
            space_version=row[15],
        )
        for index, row in enumerate(found)
    ]


def check_number(number: Any) -> int:
    """Return a number that a trial can have.

    Raises:
        StorageError: it is no whole number from 0 to 2**32 - 1.
    """
    try:
        whole = operator.index(number)
    except TypeError:
        whole = -1
    if not 0 <= whole < schema.NUMBERS:
        raise StorageError(f"a trial's number must be whole, from 0 to {schema.NUMBERS - 1}, found {number!r}")
    return whole


def check_version(version: Any) -> int:
    """Return a version that a space can have.

    Raises:
        StorageError: it is no whole number from 1 to 2**31 - 1.
    """
    if not isinstance(version, int) or not 1 <= version < 2**31:
        raise StorageError(f"the version of a space must be whole, from 1 to {2**31 - 1}, found {version!r}")
    return version


def check_study_name(name: Any) -> str:
    """Return a name that a new study may have.

    Raises:
        SettingsError: it is empty, too long, or holds a slash or a character that cannot be shown.
    """
    if not isinstance(name, str) or not name.strip():
        raise SettingsError(f"the name of a study must not be empty, found {name!r}")
    if "/" in name:
        raise SettingsError(
            f"the name of a study must not hold '/', which parts it from a trial's number, found {name!r}"
        )
    if len(name) > _LONGEST_NAME:
        raise SettingsError(f"the name of a study must have at most {_LONGEST_NAME} characters, found {len(name)}")
    if name != name.strip():
        raise SettingsError(f"the name of a study must not begin or end with a space, found {name!r}")
    if name.startswith("-"):
        raise SettingsError(f"the name of a study must not begin with '-', which begins an option, found {name!r}")
    if not codec.is_storable(name) or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise SettingsError(f"the name of a study must not hold control characters, found {name!r}")
    return name


_DATA_COLUMNS = {
    "source": "data_source",
    "target": "data_target",
    "split_seed": "split_seed",
    "fingerprint": "data_fingerprint",
}
_SPEC_COLUMNS = ("name", "seed", "metric", "direction", "epochs", "dtype", "kernel", "created_at", "caviar_version")


def study_row(spec: StudySpec) -> dict[str, Any]:
    """Return a spec as a row of `studies`, without id; its space goes elsewhere.

    Raises:
        SettingsError: the name or a number in it cannot be stored.
    """
    check_study_name(spec.name)
    row: dict[str, Any] = {name: getattr(spec, name) for name in _SPEC_COLUMNS}
    row["created_at"] = spec.created_at or datetime.now(UTC)
    row["direction"] = str(Direction(spec.direction))
    for field, column in _DATA_COLUMNS.items():
        row[column] = getattr(spec.data, field)
    for name in ("seed", "epochs", "split_seed"):
        row[name] = _whole(name, row[name])
    for name in ("metric", "dtype", "kernel", "caviar_version", "data_source", "data_target", "data_fingerprint"):
        row[name] = codec.encode_text(row[name])
    known = {*_SPEC_COLUMNS, "data", "space", "space_version"}
    more = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in known}
    more["trainable"] = None if spec.trainable is None else asdict(spec.trainable)
    more_data = {f.name: getattr(spec.data, f.name) for f in fields(spec.data) if f.name not in _DATA_COLUMNS}
    if more_data:
        more["data"] = more_data
    row["settings"] = codec.encode_json(more)
    return row


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)  # else a range would be searched, which takes for ever
    except TypeError:
        number = None
    if number is None or number not in _INT64:
        raise SettingsError(f"{name} must be a whole number of 64 bits, found {value!r}")
    return number


def space_text(study: str, space: Mapping[str, Any]) -> str:
    """Return a search space as JSON.

    Raises:
        SettingsError: it is not plain, finite data.
    """
    try:
        return json.dumps(dict(space), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"the space of {study!r} must be plain, finite data: {error}") from error


def spec_from_row(row: Row[Any], space: str | None, space_version: int) -> StudySpec:
    """Return the spec of a row of `studies`, the JSON of its space and the version of that."""
    settings = json.loads(row.settings)
    known_data = {f.name for f in fields(DataSpec)}
    more_data = {k: v for k, v in settings.pop("data", {}).items() if k in known_data}
    known = {f.name for f in fields(StudySpec)}
    if settings.get("trainable"):
        settings["trainable"] = TrainableSpec(**settings["trainable"])
    return StudySpec(
        name=row.name,
        data=DataSpec(
            source=codec.decode_text(row.data_source) or "",
            target=codec.decode_text(row.data_target),
            split_seed=row.split_seed,
            fingerprint=codec.decode_text(row.data_fingerprint) or "",
            **more_data,
        ),
        space=json.loads(space) if space else {},
        space_version=space_version,
        seed=row.seed,
        metric=codec.decode_text(row.metric) or "",
        direction=_direction(row.direction),
        epochs=row.epochs,
        dtype=codec.decode_text(row.dtype) or "",
        kernel=codec.decode_text(row.kernel) or "",
        created_at=time_from_db(row.created_at),
        caviar_version=codec.decode_text(row.caviar_version) or "",
        **{k: v for k, v in settings.items() if k in known},
    )


def _direction(word: str) -> Direction:
    # A study made through Optuna may have none yet, which Optuna takes for MINIMIZE.
    return Direction.MAXIMIZE if word == "MAXIMIZE" else Direction.MINIMIZE
