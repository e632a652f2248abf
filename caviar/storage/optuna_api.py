"""The same tables as an Optuna storage: `optuna.load_study(study_name="digits", storage=optuna_storage(url))`.

Optuna's trial id is ours. A study made through Optuna has the metric `value`; its intermediate values are reports of
it. A study made by caviar looks to Optuna as :mod:`caviar.storage.optuna_view` says.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc, insert, select, update
from sqlalchemy.engine import Connection, Row

from caviar.errors import StorageError
from caviar.storage import admin, bulk, codec, leases, optuna_attrs, optuna_view, schema
from caviar.storage.database import Database
from caviar.storage.optuna_cache import TrialCache
from caviar.storage.optuna_params import ParamBook
from caviar.storage.studies import insert_study
from caviar.storage.types import time_to_text
from caviar.storage.version import prepare

_studies, _trials = schema.studies.c, schema.trials.c
_METRIC = "value"


class OptunaStorage(BaseStorage):  # type: ignore[misc]  # Optuna's types are not followed
    """An `optuna.storages.BaseStorage` over caviar's tables; passes Optuna's own suite. Can be pickled, as its URL.

    Args:
        url: URL of the storage.
        create: whether a missing database is made.

    Raises:
        StorageVersionError: the schema is older or newer than this caviar's.
        StorageError: the database cannot be used.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._url = url
        self._db = Database(url, create=create)
        try:
            prepare(self._db, create=create)
        except BaseException:
            self._db.close()
            raise
        self._cache = TrialCache()
        self._params = ParamBook()
        self._metrics: dict[int, str] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"OptunaStorage({self._db.shown!r})"

    def __reduce__(self) -> tuple[type[OptunaStorage], tuple[str]]:
        return OptunaStorage, (self._url,)

    def close(self) -> None:
        """Close all connections."""
        self._db.close()

    def remove_session(self) -> None:
        """Do nothing: no thread has a session of its own. Optuna calls this while other threads still work."""

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        name = study_name if study_name is not None else DEFAULT_STUDY_NAME_PREFIX + str(uuid.uuid4())
        return self._write_study(name, lambda connection: self._add_study(connection, name, directions))

    def add_whole_study(self, study: FrozenStudy, trials: Sequence[FrozenTrial]) -> int:
        """Add a study with its attributes and trials, in one transaction; return its id.

        Raises:
            DuplicatedStudyError: there is one of that name.
        """

        def work(connection: Connection) -> int:
            study_id = self._add_study(connection, study.study_name, study.directions)
            optuna_attrs.put_study_attrs(connection, study_id, study)
            for trial in trials:
                self._add_trial(connection, study_id, trial)
            return study_id

        return self._write_study(study.study_name, work)

    def _write_study(self, name: str, work: Callable[[Connection], int]) -> int:
        if not codec.is_storable(name):
            raise StorageError(f"the name of a study must not hold NUL or lone surrogates, found {name!r}")
        try:
            return self._db.write(f"create study {name!r}", work)
        except StorageError as error:
            if isinstance(error.__cause__, exc.IntegrityError):
                raise DuplicatedStudyError(
                    f"Another study with name '{name}' already exists. Please specify a different name, or reuse the "
                    "existing one by setting `load_if_exists` (for Python API) or `--skip-if-exists` flag (for CLI)."
                ) from error
            raise

    def _add_study(self, connection: Connection, name: str, directions: Sequence[StudyDirection]) -> int:
        words = [direction.name for direction in directions]
        row = {
            "name": name,
            "kind": "optuna",
            "metric": _METRIC,
            "direction": words[0],
            "directions": json.dumps(words) if len(words) > 1 else None,
            "data_source": "",
            "data_fingerprint": "",
            "split_seed": 0,
            "seed": 0,
            "epochs": 0,
            "dtype": "",
            "kernel": "",
            "caviar_version": "",
            "created_at": datetime.now(UTC),
        }
        study_id = insert_study(connection, row)
        # An attempt that was rolled back may have had the same id.
        self._params.forget(study_id)
        return study_id

    def delete_study(self, study_id: int) -> None:
        def work(connection: Connection) -> None:
            name = str(self._study(connection, study_id).name)
            leases.refuse_held(connection, study_id, name)
            leases.refuse_babysat(connection, study_id, name)
            admin.delete(connection, study_id)

        self._db.write(f"delete study {study_id}", work)
        self._cache.forget(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attr(study_id, "user", key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attr(study_id, "system", key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        def work(connection: Connection) -> int:
            found = None
            if codec.is_storable(study_name):
                found = connection.execute(select(_studies.id).where(_studies.name == study_name)).scalar()
            if found is None:
                raise KeyError(f"there is no study {study_name!r}")
            return int(found)

        return self._db.read(f"read study {study_name!r}", work)

    def get_study_name_from_id(self, study_id: int) -> str:
        return str(self._read_study(study_id).name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return _directions(self._read_study(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(study_id)[0]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(study_id)[1]

    def get_all_studies(self) -> list[FrozenStudy]:
        def work(connection: Connection) -> list[FrozenStudy]:
            attrs: dict[int, list[Row[Any]]] = {}
            for row in connection.execute(select(schema.study_attrs)):
                attrs.setdefault(row.study_id, []).append(row)
            studies = []
            for study in connection.execute(select(schema.studies).order_by(_studies.id)):
                user, system = optuna_attrs.split_of_study(attrs.get(study.id, []), study)
                studies.append(
                    FrozenStudy(
                        study_name=study.name,
                        direction=None,
                        directions=_directions(study),
                        user_attrs=user,
                        system_attrs=system,
                        study_id=study.id,
                    )
                )
            return studies

        return self._db.read("list the studies", work)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial = template_trial or optuna_view.new_trial()
        return self._db.write(
            f"add a trial to study {study_id}", lambda connection: self._add_trial(connection, study_id, trial)
        )

    def _add_trial(self, connection: Connection, study_id: int, trial: FrozenTrial) -> int:
        study = self._study(connection, study_id)
        counts = schema.study_counts.c
        number = connection.execute(
            select(counts.next_number).where(counts.study_id == study_id).with_for_update()
        ).scalar_one()
        trial_id = schema.trial_id(study_id, number)
        values = optuna_view.trial_values(trial, trial_id, study_id, number)
        connection.execute(insert(schema.trials).values(**values))
        for name, distribution in trial.distributions.items():
            self._params.learn(connection, study_id, name, distribution, check=False)
        bulk.put_reports(
            connection,
            [
                (trial_id, step, [codec.encode_metrics({study.metric: value})])
                for step, value in trial.intermediate_values.items()
            ],
        )
        optuna_attrs.put_trial_attrs(connection, trial_id, trial)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        if not self._db.is_sqlite and self._params.is_known(trial_id // schema.NUMBERS, param_name, distribution):
            value = optuna_view.storable(distribution.to_external_repr(param_value_internal))
            entry = json.dumps([param_name, param_value_internal, distribution_to_json(distribution)])
            written = self._db.write_one(
                f"set param {param_name!r} of trial {trial_id}",
                "UPDATE trials SET params = params || ?::jsonb, optuna_params = "
                "CASE WHEN coalesce(optuna_params, '[]') = '[]' THEN '[' ELSE left(optuna_params, -1) || ', ' END "
                "|| ?::text || ']' FROM set_config('synchronous_commit', 'off', true) AS s "
                "WHERE id = ? AND state IN ('WAITING', 'RUNNING') RETURNING 1",
                (codec.encode_params({param_name: value}), entry, trial_id),
            )
            if written:
                return

        def work(connection: Connection) -> None:
            trial = self._open_trial(connection, trial_id)
            self._params.learn(connection, trial.study_id, param_name, distribution)
            params = codec.decode_params(trial.params)
            params[param_name] = optuna_view.storable(distribution.to_external_repr(param_value_internal))
            listed = [entry for entry in json.loads(trial.optuna_params or "[]") if entry[0] != param_name]
            listed.append([param_name, param_value_internal, distribution_to_json(distribution)])
            connection.execute(
                update(schema.trials)
                .where(_trials.id == trial_id)
                .values(params=codec.encode_params(params), optuna_params=json.dumps(listed))
            )

        self._db.write(f"set param {param_name!r} of trial {trial_id}", work, durable=False)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        trial_id = schema.trial_id(study_id, trial_number)
        if not 0 <= trial_number < schema.NUMBERS or not self._exists(trial_id):
            raise KeyError(f"study {study_id} has no trial {trial_number}")
        return trial_id

    def get_trial_number_from_id(self, trial_id: int) -> int:
        if not self._exists(trial_id):
            raise KeyError(f"there is no trial of id {trial_id}")
        return trial_id % schema.NUMBERS

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        new: dict[str, Any] = {"state": state.name}
        if values is not None:
            new.update(optuna_view.objective_columns([float(value) for value in values]))
        now = datetime.now(UTC)
        if state == TrialState.RUNNING:
            new["started_at"] = time_to_text(now) if self._db.is_sqlite else now
        if state.is_finished():
            new["finished_at"] = time_to_text(now) if self._db.is_sqlite else now
        before = "('WAITING')" if state == TrialState.RUNNING else "('WAITING', 'RUNNING')"
        operation = f"set the state of trial {trial_id}"
        columns = ", ".join(f"{name} = ?" for name in new)
        # One statement: of two processes that want to run a waiting trial, one is told that it may.
        if self._db.write_one(
            operation,
            f"UPDATE trials SET {columns} WHERE id = ? AND state IN {before} RETURNING 1",
            (*new.values(), trial_id),
        ):
            return True
        self._db.write(operation, lambda connection: self._open_trial(connection, trial_id))
        return False

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        metric = self._metric_of(trial_id // schema.NUMBERS)
        # A trial that caviar made may have reported other metrics for the same step: those stay.
        merged = (
            "json_patch(reports.metrics, excluded.metrics)"
            if self._db.is_sqlite
            else ("reports.metrics || excluded.metrics")
        )
        self._write_open(
            trial_id,
            f"report step {step} of trial {trial_id}",
            "INSERT INTO reports (trial_id, epoch, metrics) SELECT id, {0}, {1} FROM {trials} "
            f"ON CONFLICT (trial_id, epoch) DO UPDATE SET metrics = {merged} RETURNING 1",
            (step, "bigint"),
            (codec.encode_metrics({metric: float(intermediate_value)}), "jsonb"),
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_trial_attr(trial_id, "user", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_trial_attr(trial_id, "system", key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        metric = self._metric_of(trial_id // schema.NUMBERS)
        trial = optuna_view.load_one(self._db, trial_id, metric)
        if trial is None:
            raise KeyError(f"there is no trial of id {trial_id}")
        return trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states is not None and not any(state in states for state in TrialState if state.is_finished()):
            # Asked before each trial: is there one that waits?
            sql = "SELECT n_waiting, n_running FROM study_counts WHERE study_id = ?"
            counted = self._db.read_one(f"count the trials of study {study_id}", sql, (study_id,))
            wanted = [state for state in (TrialState.WAITING, TrialState.RUNNING) if state in states]
            if counted is not None and not any(getattr(counted, f"n_{state.name.lower()}") for state in wanted):
                return []

        def work(connection: Connection) -> list[FrozenTrial]:
            self._study(connection, study_id)
            return self._cache.refresh(connection, study_id)

        with self._lock:
            trials = self._db.read(f"read the trials of study {study_id}", work)
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        def work(connection: Connection) -> int:
            counts = schema.study_counts
            row = connection.execute(select(counts).where(counts.c.study_id == study_id)).first()
            if row is None:
                raise KeyError(f"there is no study of id {study_id}")
            return sum(int(getattr(row, f"n_{one.name.lower()}")) for one in set(wanted))

        wanted = tuple(TrialState) if state is None else (state,) if isinstance(state, TrialState) else state
        return self._db.read(f"count the trials of study {study_id}", work)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        def work(connection: Connection) -> FrozenTrial:
            directions = _directions(self._study(connection, study_id))
            complete = select(_trials.id).where(_trials.study_id == study_id, _trials.state == "COMPLETE")
            if connection.execute(complete.limit(1)).first() is None:
                raise ValueError("No trials are completed yet.")
            if len(directions) > 1:
                raise RuntimeError("Best trial can be obtained only for single-objective optimization.")
            value = _trials.value.desc() if directions[0] == StudyDirection.MAXIMIZE else _trials.value.asc()
            top = select(_trials.value).where(_trials.study_id == study_id, _trials.state == "COMPLETE")
            top = top.where(_trials.value.is_not(None)).order_by(value).limit(1)
            # Equal ones are told apart as caviar does.
            equal = complete.where(_trials.value == top.scalar_subquery())
            best = connection.execute(equal.order_by(_trials.tie.asc().nulls_last(), _trials.number).limit(1)).scalar()
            if best is None:
                raise ValueError("No trials are completed yet.")
            return optuna_view.load(connection, study_id, [best])[0]

        return self._db.read(f"read the best trial of study {study_id}", work)

    def _exists(self, trial_id: int) -> bool:
        query = select(_trials.id).where(_trials.id == trial_id)
        return self._db.read(f"read trial {trial_id}", lambda connection: connection.execute(query).first()) is not None

    def _read_study(self, study_id: int) -> Row[Any]:
        return self._db.read(f"read study {study_id}", lambda connection: self._study(connection, study_id))

    def _study(self, connection: Connection, study_id: int) -> Row[Any]:
        row = connection.execute(select(schema.studies).where(_studies.id == study_id)).first()
        if row is None:
            raise KeyError(f"there is no study of id {study_id}")
        return row

    def _metric_of(self, study_id: int) -> str:
        """Return a study's metric, which never changes."""
        metric = self._metrics.get(study_id)
        if metric is None:
            query = select(_studies.metric).where(_studies.id == study_id)
            found = self._db.read(f"read study {study_id}", lambda connection: connection.execute(query).scalar())
            if found is None:
                raise KeyError(f"there is no study of id {study_id}")
            metric = self._metrics[study_id] = codec.decode_text(found) or _METRIC
        return metric

    def _open_trial(self, connection: Connection, trial_id: int) -> Any:
        """Return a trial that is not finished, kept from other writers to the end of the transaction."""
        row = connection.execute(
            select(_trials.study_id, _trials.state, _trials.number, _trials.params, _trials.optuna_params)
            .where(_trials.id == trial_id)
            .with_for_update()
        ).first()
        if row is None:
            raise KeyError(f"there is no trial of id {trial_id}")
        if TrialState[row.state].is_finished():
            raise UpdateFinishedTrialError(f"Trial#{row.number} has already finished and can not be updated.")
        return row

    def _set_study_attr(self, study_id: int, kind: str, key: str, value: Any) -> None:
        def work(connection: Connection) -> None:
            self._study(connection, study_id)
            optuna_attrs.put_study_attr(connection, study_id, kind, key, value)

        self._db.write(f"set attribute {key!r} of study {study_id}", work)

    def _set_trial_attr(self, trial_id: int, kind: str, key: str, value: Any) -> None:
        self._write_open(
            trial_id,
            f"set attribute {key!r} of trial {trial_id}",
            "INSERT INTO trial_attrs (trial_id, kind, key, value) SELECT id, {0}, {1}, {2} FROM {trials} "
            "ON CONFLICT (trial_id, kind, key) DO UPDATE SET value = excluded.value RETURNING 1",
            (kind, "text"),
            (codec.encode_text(key), "text"),
            (json.dumps(value), "text"),
        )

    def _write_open(self, trial_id: int, operation: str, sql: str, *values: tuple[Any, str]) -> None:
        """Run one statement that writes something of a trial, if that is not finished.

        Args:
            trial_id: the trial.
            operation: for the message.
            sql: with `{0}`, `{1}`, ... for the values, and `{trials}` for the trial, where it is not finished.
            values: each with its type in Postgres.
        """
        trials = "trials WHERE id = ? AND state IN ('WAITING', 'RUNNING')"
        if self._db.is_sqlite:
            slots = ["?"] * len(values)
        else:
            slots = [f"?::{kind}" for _, kind in values]
            # Nobody waits for the disk on account of a report; telling the result does, and takes these along.
            trials = f"set_config('synchronous_commit', 'off', true) AS s, {trials}"
        bound = (*(value for value, _ in values), trial_id)
        if not self._db.write_one(operation, sql.format(*slots, trials=trials), bound):
            self._db.write(operation, lambda connection: self._open_trial(connection, trial_id))

    def _study_attrs(self, study_id: int) -> optuna_attrs.Attrs:
        return self._db.read(
            f"read the attributes of study {study_id}",
            lambda connection: optuna_attrs.of_study(connection, self._study(connection, study_id)),
        )


def _directions(study: Row[Any]) -> list[StudyDirection]:
    words = json.loads(study.directions) if study.directions else [study.direction]
    return [StudyDirection[word] for word in words]
