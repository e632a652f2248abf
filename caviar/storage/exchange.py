"""Studies to files and back: `.jsonl` and `.parquet` with all reports, `.csv` for spreadsheets, without them.

Every form holds the study's spec and a version, and all of them come back exactly. JSON in them is strict: what JSON
cannot hold is written as :mod:`caviar.storage.codec` says.
"""

from __future__ import annotations

import csv
import json
import math
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from caviar.errors import CaviarError, DataError, DataNotFound, StudyBusy, StudyMismatch, StudyNotFound
from caviar.records import DataSpec, Direction, Session, Status, StudySpec, TrainableSpec, Trial, TrialResult
from caviar.replacing import replacing
from caviar.space import SearchSpace
from caviar.storage import codec
from caviar.storage.base import Storage
from caviar.storage.holder import new_holder
from caviar.storage.plain import JSON, PLAIN, Babysat, Record, babysat_from_record, from_record, to_record
from caviar.wording import command

#: Version of the files. Those of the first did not hold how trials were babysat.
FORMAT = 2
_READABLE = (1, FORMAT)
SUFFIXES = (".csv", ".parquet", ".jsonl")

_BATCH = 2_000
#: Trials read at a time with all their reports: fewer, as a long trial has thousands.
_WITH_REPORTS = 200
_MARK = "caviar_export"
_SPEC = "study_spec"
#: How the name of a study begins that is being imported, its tag, and how long it is left alone without a sign of life.
_PARTIAL, _UNDER_WAY, _LEASE_S = "import-", "import-under-way", 120.0
_PANDA = "panda"
_WHOLE = ("number", "epoch", "parent_epoch", "space_version")
_REAL = ("value", "seconds")


def export_study(storage: Storage, study: str, path: str | Path) -> int:
    """Write a study to a file, whole or not at all.

    Args:
        storage: where it is.
        study: its name.
        path: ends in `.csv`, `.parquet` or `.jsonl`; an older file is replaced.

    Returns:
        The number of trials.

    Raises:
        StudyNotFound: there is no such study.
        DataError: the ending is another, the file cannot be written, or the study was made through Optuna.
    """
    path = _checked(path)
    spec = storage.get_study(study)
    if not spec.data.source and spec.trainable is None:
        raise DataError(
            f"study {study!r} was made through Optuna, whose distributions and attributes these files do not hold; "
            "copy it with optuna.copy_study, or write its trials as a table: "
            f"{command('query', study, '--format', 'csv')}"
        )
    header = _header(spec, storage)
    try:
        with replacing(path) as beside:
            if path.suffix == ".jsonl":
                n = _write_jsonl(beside, header, storage, study)
            elif path.suffix == ".csv":
                n = _write_csv(beside, header, storage, study)
            else:
                n = _write_parquet(beside, header, storage, study)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return n


def check_export(path: str | Path) -> None:
    """Raise what :func:`import_study` would say of a file, as far as its beginning tells."""
    path = _checked(path)
    with _as_data_errors(path):
        _opened(path)


def import_study(storage: Storage, path: str | Path, *, name: str | None = None) -> StudySpec:
    """Read a study that `export_study` wrote, whole or not at all.

    Args:
        storage: where it goes.
        path: the file.
        name: the name it gets; by default that which it had.

    Raises:
        StudyMismatch: a study of that name exists; give another.
        DataNotFound: there is no such file.
        DataError: it is no export of caviar, of another version, or has unknown columns or values.
    """
    path = _checked(path)
    with _as_data_errors(path):
        spec, header, records = _opened(path)
        if name is not None:
            spec = replace(spec, name=name)
        _store(storage, spec, records, header)
    return storage.get_study(spec.name)


def _opened(path: Path) -> tuple[StudySpec, Record, Iterator[Record]]:
    """Return the spec of a file, its header, and what reads its trials."""
    if not path.is_file():
        raise DataNotFound(f"there is no file {str(path)!r}")
    records = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[path.suffix](path)
    header = _checked_header(next(records, None), path)
    return _spec(header, path), header, records


@contextmanager
def _as_data_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except CaviarError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"cannot read {str(path)!r} as an export of caviar: {' '.join(str(error).split())}") from error


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"the file must end in {', '.join(SUFFIXES)}, found {str(path)!r}")
    return path


def _header(spec: StudySpec, storage: Storage) -> Record:
    study = asdict(spec)
    study["created_at"] = None if spec.created_at is None else spec.created_at.isoformat()
    notes = storage.notes(spec.name)
    spaces = storage.spaces(spec.name)
    # those that a sweep adds meanwhile are left out, so that a file which was cut can be told from a whole one
    n_trials = storage.summary(spec.name).n_trials
    more = {"spaces": spaces, "note": notes.note, "tags": list(notes.tags), "trials": n_trials}
    return {_MARK: FORMAT, _SPEC: study, **more}


def _checked_header(header: Record | None, path: Path) -> Record:
    if not isinstance(header, dict) or _MARK not in header:
        raise DataError(f"{str(path)!r} is no export of caviar: it does not say so in its beginning")
    if header[_MARK] not in _READABLE:
        raise DataError(
            f"{str(path)!r} is an export of version {header[_MARK]!r}, this caviar reads up to {FORMAT}: upgrade caviar"
        )
    return header


def _spec(header: Record, path: Path) -> StudySpec:
    study = dict(header[_SPEC])
    _refuse_unknown(study, [field.name for field in fields(StudySpec)], path)
    _refuse_unknown(study["data"], [field.name for field in fields(DataSpec)], path)
    study["data"] = DataSpec(**study["data"])
    if study.get("trainable"):
        _refuse_unknown(study["trainable"], [field.name for field in fields(TrainableSpec)], path)
        study["trainable"] = TrainableSpec(**study["trainable"])
    study["direction"] = Direction(study["direction"])
    study["created_at"] = datetime.fromisoformat(study["created_at"]) if study["created_at"] else None
    return StudySpec(**study)


def _refuse_unknown(found: Iterable[str], known: Iterable[str], path: Path) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise DataError(
            f"{str(path)!r} has unknown columns {', '.join(map(repr, unknown[:5]))} (known: {', '.join(known)})"
        )


def _trials(storage: Storage, study: str, n_trials: int) -> Iterator[Trial]:
    return islice((trial for page in storage.pages(study, size=_BATCH) for trial in page), n_trials)


def _records(storage: Storage, study: str, n_trials: int, *, with_reports: bool = True) -> Iterator[Record]:
    return islice(_all_records(storage, study, with_reports), n_trials)


def _all_records(storage: Storage, study: str, with_reports: bool) -> Iterator[Record]:
    babysat = {session.number: session for session in storage.sessions.all(study)}
    for page in storage.pages(study, size=_WITH_REPORTS if with_reports else _BATCH):
        reports = storage.reports_between(study, page[0].number, page[-1].number) if with_reports else {}
        for trial in page:
            panda = _babysat(storage, babysat[trial.number]) if trial.number in babysat else None
            yield to_record(trial, reports.get(trial.number), panda)


def _babysat(storage: Storage, session: Session) -> Babysat:
    """Return a session with what was asked, but for what waits for the coordinator of a sweep, which is none there."""
    asked = storage.sessions.interventions(session.study, session.number)
    return session, [i for i in asked if i.status is not Status.ASKED or i.kind != "take"]


def _store(storage: Storage, spec: StudySpec, records: Iterator[Record], header: Record) -> None:
    """Store a study under a name of its own, and give it the right one when it is whole."""
    _clear_away(storage)
    if spec.name in {summary.spec.name for summary in storage.studies()}:
        raise StudyMismatch(f"study {spec.name!r} exists already; give another with --name, or rename or delete it")
    first, *later = header["spaces"] or [{}]
    for space in (first, *later):
        SearchSpace.from_dict(space)
    partial, owner = f"{_PARTIAL}{uuid.uuid4().hex[:12]}", new_holder()
    storage.create_study(replace(spec, name=partial, space=first))
    try:
        for space in later:
            storage.add_space(partial, space)
        storage.acquire_lease(partial, owner, _LEASE_S)
        storage.annotate(partial, add_tags=(_UNDER_WAY,))
        old = f"{header[_SPEC]['name']}/"
        batch: list[TrialResult] = []
        babysat: list[Babysat] = []
        for record in records:
            if (record.get("parent") or "").startswith(old):
                record["parent"] = f"{partial}/{record['parent'].removeprefix(old)}"
            batch.append(from_record(partial, record))
            panda = babysat_from_record(partial, record)
            if panda is not None:
                babysat.append(panda)
            if len(batch) == _BATCH:
                _store_batch(storage, partial, batch)
                storage.prolong_lease(partial, owner, _LEASE_S)
                batch = []
        _store_batch(storage, partial, batch)
        for session, interventions in babysat:
            storage.sessions.restore(session, interventions)
        n = storage.summary(partial).n_trials
        if n != header.get("trials", n):
            raise DataError(f"the file was cut: it holds {n} of {header['trials']} trials; export the study again")
        storage.annotate(partial, note=header.get("note"), add_tags=header.get("tags", ()))
        storage.rename_study(partial, spec.name, owner=owner, remove_tags=(_UNDER_WAY,))
    except BaseException:
        storage.release_lease(partial, owner)
        with suppress(StudyNotFound):  # it has its name already
            storage.delete_study(partial)
        raise
    storage.release_lease(spec.name, owner)


def _clear_away(storage: Storage) -> None:
    """Delete what imports left that were killed."""
    owner = new_holder()
    for summary in storage.studies():
        name = summary.spec.name
        if _UNDER_WAY not in summary.tags or re.fullmatch(rf"{_PARTIAL}[0-9a-f]{{12}}", name) is None:
            continue
        with suppress(StudyBusy, StudyNotFound):  # of an import that is under way, or just cleared away by another
            storage.acquire_lease(name, owner, _LEASE_S)
            storage.release_lease(name, owner)
            storage.delete_study(name)


def _store_batch(storage: Storage, study: str, batch: list[TrialResult]) -> None:
    storage.add_trials(study, [result.trial for result in batch])
    storage.write(study, [result for result in batch if result.reports is not None])


def _write_jsonl(path: Path, header: Record, storage: Storage, study: str) -> int:
    n = 0
    with path.open("w", encoding="ascii") as file:
        file.write(json.dumps(header) + "\n")
        for record in _records(storage, study, header["trials"]):
            plain = json.dumps({name: _strict(record[name]) for name in PLAIN}, allow_nan=False)
            # The JSON of params, metrics and reports goes in as it is; texts beyond ASCII are escaped.
            nested = ", ".join(f'"{name}": {_ascii(record[name])}' for name in JSON)
            file.write(f"{plain[:-1]}, {nested}}}\n")
            n += 1
    return n


def _strict(value: Any) -> Any:
    """Return a value that JSON holds: an infinity as a text."""
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def _ascii(text: str | None) -> str:
    if text is None:
        return "null"
    return text if text.isascii() else json.dumps(json.loads(text))


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            record = json.loads(line)
            if number:
                _refuse_unknown(record, (*PLAIN, *JSON), path)
                for name in JSON:
                    if record.get(name) is not None:
                        record[name] = json.dumps(record[name])
            yield record


def _write_csv(path: Path, header: Record, storage: Storage, study: str) -> int:
    # The columns are known only when all trials were seen.
    params: dict[str, None] = {}
    metrics: dict[str, None] = {}
    for trial in _trials(storage, study, header["trials"]):
        params.update(dict.fromkeys(trial.params))
        metrics.update(dict.fromkeys(trial.metrics))
    flat = [f"params.{name}" for name in sorted(params)] + [f"metrics.{name}" for name in sorted(metrics)]
    n = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*PLAIN, _PANDA, *flat, _MARK, _SPEC])
        for record in _records(storage, study, header["trials"], with_reports=False):
            row = ["" if record[name] is None else _cell(record[name]) for name in (*PLAIN, _PANDA)]
            for scope, names, decode in (
                ("params", params, codec.decode_params),
                ("metrics", metrics, codec.decode_metrics),
            ):
                values = decode(record[scope])
                row += [_cell(values[name]) if name in values else "" for name in sorted(names)]
            writer.writerow([*row, FORMAT, json.dumps(header) if n == 0 else ""])
            n += 1
        if n == 0:
            writer.writerow([*[""] * (len(PLAIN) + 1 + len(flat)), FORMAT, json.dumps(header)])
    return n


def _cell(value: Any) -> str:
    """Return a value as it stands in a cell: a text that would be read as something else is written as JSON."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        is_plain = bool(value) and codec.is_storable(value) and value == value.strip() and "\r" not in value
        if is_plain and value[0] != '"' and isinstance(_value(value), str):
            return str(value)
        return json.dumps(str(value))
    return repr(value)


def _value(cell: str) -> Any:
    if cell == "":
        return None
    if cell[0] == '"' or cell in ("null", "true", "false"):
        return json.loads(cell)
    for kind in (int, float):
        try:
            return kind(cell) if "_" not in cell else cell
        except ValueError:
            continue
    return cell


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if _MARK not in columns or _SPEC not in columns:
            yield {}
            return
        flat = [name for name in columns if name.startswith(("params.", "metrics."))]
        _refuse_unknown(columns, (*PLAIN, _PANDA, *flat, _MARK, _SPEC), path)
        for position, row in enumerate(reader):
            if position == 0:
                header = json.loads(row[_SPEC])
                yield {**header, _MARK: int(row[_MARK])}
            if any(row[name] is None for name in columns[:-1]):  # the last is empty but in one line
                raise DataError(f"{str(path)!r} has too few cells in line {reader.line_num}: it ends in the middle")
            if not row["number"]:
                continue
            record = {name: _value(row[name]) for name in PLAIN}
            record[_PANDA] = _value(row.get(_PANDA, ""))
            for name in _REAL:
                record[name] = None if record[name] is None else float(record[name])
            for scope in ("params", "metrics"):
                here = [name for name in flat if name.startswith(f"{scope}.") and row[name]]
                told = {name.partition(".")[2]: _value(row[name]) for name in here}
                record[scope] = codec.encode_params(told) if scope == "params" else codec.encode_metrics(told)
            yield record


def _write_parquet(path: Path, header: Record, storage: Storage, study: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.int64() for name in _WHOLE} | {name: pa.float64() for name in _REAL}
    schema = pa.schema(
        [(name, types.get(name, pa.string())) for name in (*PLAIN, *JSON)], metadata={_MARK: json.dumps(header)}
    )
    n = 0
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[Record] = []
        for record in _records(storage, study, header["trials"]):
            # Parquet holds texts in UTF-8, as the databases do.
            for name in PLAIN:
                if isinstance(record[name], str):
                    record[name] = codec.encode_text(record[name])
            batch.append(record)
            n += 1
            if len(batch) == _BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return n


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            yield json.loads(metadata.get(_MARK.encode(), b"{}"))
            _refuse_unknown(file.schema_arrow.names, (*PLAIN, *JSON), path)
            for batch in file.iter_batches(_BATCH):
                for record in batch.to_pylist():
                    for name in PLAIN:
                        if isinstance(record[name], str):
                            record[name] = codec.decode_text(record[name])
                    yield record
    except pa.ArrowException as error:
        raise DataError(f"cannot read {str(path)!r} as Parquet: {' '.join(str(error).split())}") from error
