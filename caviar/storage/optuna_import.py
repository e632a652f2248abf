"""Studies from a database that Optuna made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from caviar.errors import StorageError, StudyMismatch, StudyNotFound
from caviar.storage.database import opened
from caviar.storage.optuna_api import OptunaStorage
from caviar.storage.url import parse_url

#: Optuna notes its version in both when it makes a database.
_TABLES = ("version_info", "alembic_version")


def import_from_optuna(url: str, source: str, *, study: str | None = None) -> list[str]:
    """Copy studies from a database of Optuna's RDBStorage, with trials, attributes and intermediate values.

    Each study is copied whole or not at all; the source is only read.

    Args:
        url: URL of caviar's storage.
        source: URL of Optuna's.
        study: name of the one to copy; all by default.

    Returns:
        Names of the studies, which stay as they were in the source.

    Raises:
        StudyNotFound: the source has no study of that name.
        StudyMismatch: a study of that name exists here; nothing was copied.
        StorageError: one of the databases cannot be used.
    """
    shown = _check_source(source)
    target = OptunaStorage(url)
    try:
        with _opened(source, shown) as origin:
            found = origin.get_all_studies()
            names = [one.study_name for one in found]
            if study is not None and study not in names:
                raise StudyNotFound(
                    f"there is no study {study!r} in {shown!r} (there are {', '.join(map(repr, names[:10]))})"
                )
            wanted = [one for one in found if study is None or one.study_name == study]
            taken = {one.study_name for one in target.get_all_studies()}
            for one in wanted:
                if one.study_name in taken:
                    raise _exists(one.study_name)
            for one in wanted:
                try:
                    target.add_whole_study(one, origin.get_all_trials(one._study_id, deepcopy=False))
                except optuna.exceptions.DuplicatedStudyError:  # made by another process meanwhile
                    raise _exists(one.study_name) from None
            return [one.study_name for one in wanted]
    finally:
        target.close()


def _check_source(url: str) -> str:
    """Return a URL as it may be shown, where Optuna will find its tables: it would make those that it does not."""
    with opened(url, create=False, read_only=True) as database:
        there = database.read("list the tables", lambda connection: inspect(connection).get_table_names())
        missing = [name for name in _TABLES if name not in there]
        if not missing:
            filled = [database.read_one("read its version", f"SELECT * FROM {name}", ()) for name in _TABLES]
            missing = [name for name, row in zip(_TABLES, filled, strict=True) if row is None]
        if missing:
            raise StorageError(
                f"{database.shown!r} is no database of Optuna: nothing is in a table {missing[0]!r}; give the URL that "
                "Optuna's study was made with"
            )
        return database.shown


@contextmanager
def _opened(url: str, shown: str) -> Iterator[optuna.storages.RDBStorage]:
    """Open Optuna's storage for the time of a `with` block; what it raises comes out as one line."""
    source = parse_url(url)
    if source.get_backend_name() == "sqlite":
        source = source.set(query={})
    origin = None
    try:
        # Optuna's own check may refuse a database of another of its versions; its message says what to do.
        origin = optuna.storages.RDBStorage(source.render_as_string(hide_password=False), skip_table_creation=True)
        yield origin
    except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
        raise StorageError(f"cannot read {shown!r} as a database of Optuna: {' '.join(str(error).split())}") from error
    finally:
        if origin is not None:
            origin.remove_session()
            origin.engine.dispose()


def _exists(name: str) -> StudyMismatch:
    return StudyMismatch(f"study {name!r} exists already; rename or delete it first")
