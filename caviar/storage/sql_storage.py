"""The trial database on SQLite or Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc, func, select, update
from sqlalchemy.engine import Connection

from caviar.errors import (
    QueryError,
    StorageError,
    StudyMismatch,
    TrialNotFound,
)
from caviar.records import Reports, StudySpec, StudySummary, TrainableSpec, Trial, TrialResult
from caviar.storage import admin, bulk, codec, frames, leases, queries, report_rows, rows, schema, studies
from caviar.storage.base import Storage, StudyNotes
from caviar.storage.database import Database
from caviar.storage.filters import Filters, Known, known_metrics
from caviar.storage.names import NameBook
from caviar.storage.sql_ledgers import SqlLedgers
from caviar.storage.studies import StudyKey
from caviar.storage.version import prepare

if TYPE_CHECKING:
    import pandas as pd

    from caviar.storage.sql_sessions import SqlSessions

_READ_SQL = ", ".join(rows.READ)


class SqlStorage(Storage):
    """A :class:`Storage` over SQLAlchemy.

    Args:
        database: an open database; closed by `close`.
        create: whether missing tables are made.

    Raises:
        StorageVersionError: the schema is older or newer than this caviar's.
        StorageError: the database cannot be used.
    """

    def __init__(self, database: Database, *, create: bool = True) -> None:
        self._db = database
        self._names = NameBook()
        prepare(database, create=create)
        self.ledgers = SqlLedgers(self)
        self.path = database.path

    def __repr__(self) -> str:
        return f"SqlStorage({self.url!r})"

    @property
    def url(self) -> str:
        """The URL, its password hidden."""
        return self._db.shown

    @cached_property
    def sessions(self) -> SqlSessions:
        """The babysat trials; loaded by whoever asks for them, as queries do not."""
        from caviar.storage.sql_sessions import SqlSessions

        return SqlSessions(self)

    @property
    def database(self) -> Database:
        """The connections, for what else works on the same tables."""
        return self._db

    def create_study(self, spec: StudySpec) -> StudySpec:
        row = rows.study_row(spec)
        space = rows.space_text(spec.name, spec.space)

        def work(connection: Connection) -> None:
            if studies.is_taken(connection, spec.name):
                raise StudyMismatch(f"study {spec.name!r} exists already; choose another name, or continue it")
            study_id = studies.insert_study(connection, row)
            admin.add_space(connection, study_id, space)

        try:
            self._db.write(f"create study {spec.name!r}", work)
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, exc.IntegrityError) and "unique" in str(cause.orig).lower():  # another was faster
                raise StudyMismatch(
                    f"study {spec.name!r} exists already; choose another name, or continue it"
                ) from error
            raise
        return self.get_study(spec.name)

    def get_study(self, name: str) -> StudySpec:
        return self._db.read(
            f"read study {name!r}",
            lambda connection: studies.read_spec(connection, self.study_key(connection, name)),
        )

    def studies(self) -> list[StudySummary]:
        def work(connection: Connection) -> list[StudySummary]:
            keys = [self.study_key(connection, name) for name in studies.names(connection)]
            return [studies.read_summary(connection, key) for key in keys]

        return self._db.read("list the studies", work)

    def summary(self, study: str) -> StudySummary:
        return self._db.read(
            f"read study {study!r}",
            lambda connection: studies.read_summary(connection, self.study_key(connection, study)),
        )

    def reserve_numbers(self, study: str, below: int) -> None:
        counts = schema.study_counts.c
        below = rows.check_number(below - 1) + 1 if below > 0 else 0

        def work(connection: Connection) -> None:
            key = self.study_key(connection, study)
            connection.execute(
                update(schema.study_counts)
                .where(counts.study_id == key.id, counts.next_number < below)
                .values(next_number=below)
            )

        self._db.write(f"reserve numbers of {study!r}", work)

    def add_trials(self, study: str, trials: Sequence[Trial], *, owner: str | None = None) -> None:
        _check_distinct(study, [trial.number for trial in trials])

        def work(connection: Connection) -> None:
            key = self.study_key(connection, study)
            if owner is not None:
                leases.refuse_lost(connection, key.id, study, owner)
            self.insert_trials(connection, key, trials)

        if trials:
            self._db.write(f"add {len(trials)} trials to {study!r}", work)

    def write(self, study: str, results: Sequence[TrialResult], *, owner: str | None = None) -> None:
        _check_distinct(study, [result.trial.number for result in results])

        def work(connection: Connection) -> None:
            if owner is not None:
                leases.refuse_lost(connection, self.study_key(connection, study).id, study, owner)
            self.put_results(connection, study, results)

        if results:
            self._db.write(f"write {len(results)} trials of {study!r}", work)

    def get_trial(self, study: str, number: int) -> Trial:
        def work(connection: Connection) -> Trial:
            key = self.study_key(connection, study)
            row = None
            if 0 <= number < schema.NUMBERS:
                row = connection.exec_driver_sql(
                    f"SELECT {_READ_SQL} FROM trials WHERE id = {schema.trial_id(key.id, number):d}"
                ).fetchone()
            if row is None:
                raise TrialNotFound(self._no_trial(connection, key, number))
            return rows.trials_from_rows([row], study)[0]

        return self._db.read(f"read trial {number} of {study!r}", work)

    def trials(
        self, study: str, *, where: str | None = None, sort: str | None = None, limit: int | None = None
    ) -> list[Trial]:
        limit = queries.checked_limit(limit)

        def work(connection: Connection) -> list[Trial]:
            key = self.study_key(connection, study)
            found = queries.find(
                connection, key.id, self._filters(connection, key), where=where, sort=sort, limit=limit
            )
            return rows.trials_from_rows(found, study)

        return self._db.read(f"read trials of {study!r}", work)

    def pages(self, study: str, *, where: str | None = None, size: int = 10_000) -> Iterator[list[Trial]]:
        for found, _ in self._pages(study, where, size, rows.READ):
            yield rows.trials_from_rows(found, study)

    def frame_pages(self, study: str, *, where: str | None = None, size: int = 10_000) -> Iterator[pd.DataFrame]:
        names: tuple[list[str], list[str]] | None = None
        for found, known in self._pages(study, where, size, frames.COLUMNS):
            names = names or known
            yield frames.make_frame(found, *names)

    def _pages(
        self, study: str, where: str | None, size: int, columns: Sequence[str]
    ) -> Iterator[tuple[Sequence[queries.FoundRow], tuple[list[str], list[str]]]]:
        """Return rows in order of number, their first column, with the params and metrics that the study has."""
        most = queries.checked_limit(size)
        if most is None or most < 1:
            raise QueryError(f"a page must hold at least 1 trial, found size = {size!r}")
        after: int | None = None

        def work(connection: Connection) -> tuple[Sequence[queries.FoundRow], tuple[list[str], list[str]]]:
            key = self.study_key(connection, study)
            filters = self._filters(connection, key)
            found = queries.find(connection, key.id, filters, where=where, limit=most, after=after, columns=columns)
            kinds = [self._names.known(connection, key.id, kind) for kind in ("param", "metric")]
            return found, (kinds[0], kinds[1])

        while (page := self._db.read(f"read trials of {study!r}", work))[0]:
            yield page
            after = page[0][-1][0]

    def frame(
        self, study: str, *, where: str | None = None, sort: str | None = None, limit: int | None = None
    ) -> pd.DataFrame:
        limit = queries.checked_limit(limit)

        def work(connection: Connection) -> pd.DataFrame:
            key = self.study_key(connection, study)
            filters = self._filters(connection, key)
            found = queries.find(
                connection, key.id, filters, where=where, sort=sort, limit=limit, columns=frames.COLUMNS
            )
            params = self._names.known(connection, key.id, "param")
            return frames.make_frame(found, params, self._metrics(connection, key))

        return self._db.read(f"read trials of {study!r}", work)

    def best_trial(self, study: str) -> Trial | None:
        return self._db.read(
            f"read the best trial of {study!r}",
            lambda connection: studies.best_trial(connection, self.study_key(connection, study)),
        )

    def reports(self, study: str, number: int) -> Reports:
        def work(connection: Connection) -> Reports:
            key = self.study_key(connection, study)
            if 0 <= number < schema.NUMBERS:
                found = report_rows.read(connection, key, self._metrics(connection, key), number, number).get(number)
                if found is not None:
                    return found
                is_there = f"SELECT 1 FROM trials WHERE id = {schema.trial_id(key.id, number):d}"
                if connection.exec_driver_sql(is_there).first() is not None:
                    return report_rows.from_rows([], (), f"{study}/{number}")
            raise TrialNotFound(self._no_trial(connection, key, number))

        return self._db.read(f"read reports of trial {number} of {study!r}", work)

    def reports_between(self, study: str, first: int, last: int) -> dict[int, Reports]:
        def work(connection: Connection) -> dict[int, Reports]:
            key = self.study_key(connection, study)
            return report_rows.read(connection, key, self._metrics(connection, key), first, last)

        return self._db.read(f"read reports of trials {first} to {last} of {study!r}", work)

    def _metrics(self, connection: Connection, key: StudyKey) -> list[str]:
        return self._names.known(connection, key.id, "metric")

    def add_space(self, study: str, space: Mapping[str, Any]) -> int:
        text = rows.space_text(study, space)

        def work(connection: Connection) -> int:
            key = self.study_key(connection, study)
            leases.refuse_held(connection, key.id, study)
            return admin.add_space(connection, key.id, text)

        return self._db.write(f"add a space to {study!r}", work)

    def spaces(self, study: str) -> list[dict[str, Any]]:
        return self._db.read(
            f"read the spaces of {study!r}",
            lambda connection: admin.spaces(connection, self.study_key(connection, study).id),
        )

    def move_data(self, study: str, source: str, target: str | None) -> None:
        def work(connection: Connection) -> None:
            admin.move_data(connection, self.study_key(connection, study).id, source, target)

        self._db.write(f"note where the data of {study!r} is", work)

    def move_trainable(self, study: str, trainable: TrainableSpec) -> None:
        def work(connection: Connection) -> None:
            admin.move_trainable(connection, self.study_key(connection, study).id, trainable)

        self._db.write(f"note where the code of {study!r} is", work)

    def rename_study(self, study: str, name: str, *, owner: str | None = None, remove_tags: Sequence[str] = ()) -> None:
        rows.check_study_name(name)

        def work(connection: Connection) -> None:
            key = self.study_key(connection, study)
            if owner is None:
                leases.refuse_held(connection, key.id, study)
            else:
                leases.refuse_lost(connection, key.id, study, owner)
            leases.refuse_babysat(connection, key.id, study)
            if name == study:
                return
            if studies.is_taken(connection, name):
                raise StudyMismatch(f"study {name!r} exists already; choose another name")
            admin.rename(connection, key.id, name)
            admin.annotate(connection, key.id, None, (), remove_tags)

        self._db.write(f"rename study {study!r}", work)

    def delete_study(self, study: str) -> None:
        def work(connection: Connection) -> None:
            key = self.study_key(connection, study)
            leases.refuse_held(connection, key.id, study)
            leases.refuse_babysat(connection, key.id, study)
            admin.delete(connection, key.id)

        self._db.write(f"delete study {study!r}", work)

    def notes(self, study: str) -> StudyNotes:
        return self._db.read(
            f"read the notes of {study!r}",
            lambda connection: admin.notes(connection, self.study_key(connection, study).id),
        )

    def annotate(
        self, study: str, *, note: str | None = None, add_tags: Iterable[str] = (), remove_tags: Iterable[str] = ()
    ) -> StudyNotes:
        added = [admin.check_tag(tag) for tag in add_tags]
        removed = [tag for tag in remove_tags if codec.is_storable(tag)]

        def work(connection: Connection) -> StudyNotes:
            study_id = self.study_key(connection, study).id
            admin.annotate(connection, study_id, note, added, removed)
            return admin.notes(connection, study_id)

        return self._db.write(f"annotate {study!r}", work)

    def acquire_lease(self, study: str, owner: str, ttl_s: float) -> None:
        self._hold_lease("acquire", leases.acquire, study, owner, ttl_s)

    def prolong_lease(self, study: str, owner: str, ttl_s: float) -> None:
        self._hold_lease("prolong", leases.prolong, study, owner, ttl_s)

    def _hold_lease(self, verb: str, hold: Callable[..., None], study: str, owner: str, ttl_s: float) -> None:
        leases.check(owner, ttl_s)
        self._db.write(
            f"{verb} the lease of {study!r}",
            lambda connection: hold(
                connection, self.study_key(connection, study).id, study, owner, timedelta(seconds=ttl_s)
            ),
        )

    def release_lease(self, study: str, owner: str) -> None:
        self._db.write(f"release the lease of {study!r}", lambda connection: leases.release(connection, study, owner))

    def close(self) -> None:
        self._db.close()

    def insert_trials(self, connection: Connection, key: StudyKey, trials: Sequence[Trial]) -> None:
        """Add new trials inside a transaction; see :meth:`add_trials`."""
        new = self._trial_rows(connection, key, trials)
        learnt = self._learn(connection, key, trials)
        try:
            bulk.insert_trials(connection, new)
        except exc.IntegrityError as error:
            text = str(error.orig)
            if "trials.id" in text or "pk_trials" in text:
                raise StorageError(
                    f"could not add {len(trials)} trials to {key.name!r}: a number from {_span(trials)} is "
                    "taken; another coordinator may have added it"
                ) from error
            raise
        self._names.commit(key.id, learnt)

    def put_results(self, connection: Connection, study: str, results: Sequence[TrialResult]) -> None:
        """Write results inside a transaction; see :meth:`write`."""
        key = self.study_key(connection, study)
        trials = [result.trial for result in results]
        changed = self._trial_rows(connection, key, trials)
        learnt = self._learn(connection, key, trials, [r.reports for r in results if r.reports is not None])
        found = bulk.update_trials(connection, changed)
        if found != len(changed):
            raise TrialNotFound(
                f"could not write {len(changed)} trials of {study!r}: {len(changed) - found} of the numbers "
                f"{_span(trials)} are not in the database; add them first"
            )
        reported = [
            report_rows.to_block(row[0], result.reports)
            for row, result in zip(changed, results, strict=True)
            if result.reports is not None
        ]
        bulk.put_reports(connection, reported)
        self._names.commit(key.id, learnt)

    def study_key(self, connection: Connection, name: str) -> StudyKey:
        """Return id, metric and direction of a study.

        Raises:
            StudyNotFound: there is none of that name; the message lists those there are.
        """
        return studies.find_key(connection, name, self.url)

    def _no_trial(self, connection: Connection, key: StudyKey, number: int) -> str:
        last = connection.execute(
            select(func.max(schema.trials.c.id)).where(schema.trials.c.id.between(*schema.trial_ids(key.id)))
        ).scalar()
        has = "it has none yet" if last is None else f"it has 0 to {last % schema.NUMBERS}"
        return f"study {key.name!r} has no trial {number!r} ({has})"

    def _filters(self, connection: Connection, key: StudyKey) -> Filters:
        seen = self._metrics(connection, key)
        params = dict.fromkeys(self._names.known(connection, key.id, "param"))
        spec = studies.read_spec(connection, key)
        params.update(dict.fromkeys(spec.space))
        is_network = key.kind == "caviar" and spec.trainable is None
        known = Known(key.metric, list(params), known_metrics(key.metric, seen, is_network=is_network))
        return Filters(known, self._db.dialect)

    def _trial_rows(self, connection: Connection, key: StudyKey, trials: Sequence[Trial]) -> list[tuple[Any, ...]]:
        parents = _parent_ids(connection, trials)
        for trial in trials:
            if trial.study != key.name:
                raise StorageError(f"trial {trial.name!r} was given as one of {key.name!r}; write it to its own study")
        return [
            rows.trial_row(trial, key.id, key.metric, None if trial.parent is None else parents.get(trial.parent))
            for trial in trials
        ]

    def _learn(
        self, connection: Connection, key: StudyKey, trials: Sequence[Trial], reports: Sequence[Reports] = ()
    ) -> dict[tuple[str, str], None]:
        """Note the names of params and metrics that the study has not had before."""
        names: dict[tuple[str, str], None] = {}
        for report in reports:
            names.update(dict.fromkeys(("metric", name) for name in report.metrics))
        for trial in trials:
            names.update(dict.fromkeys(("param", name) for name in trial.params))
            names.update(dict.fromkeys(("metric", name) for name in trial.metrics))
        return self._names.learn(connection, key.id, names)


def _parent_ids(connection: Connection, trials: Sequence[Trial]) -> dict[str, int]:
    """Return the ids of the parents that are in this database, by name."""
    wanted = {trial.parent for trial in trials if trial.parent}
    ids = {}
    for parent in wanted:
        study, _, number = parent.rpartition("/")
        if not (number.isascii() and number.isdigit() and codec.is_storable(study)):
            continue
        study_id = connection.execute(select(schema.studies.c.id).where(schema.studies.c.name == study)).scalar()
        if study_id is not None and int(number) < schema.NUMBERS:
            ids[parent] = schema.trial_id(study_id, int(number))
    return ids


def _check_distinct(study: str, numbers: Sequence[int]) -> None:
    if len(set(numbers)) != len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise StorageError(f"trial {twice!r} of {study!r} was given twice at once; give each trial once")


def _span(trials: Sequence[Trial]) -> str:
    numbers = [trial.number for trial in trials]
    return f"{min(numbers)} to {max(numbers)}"
