"""Studies from a database that Optuna made."""

from __future__ import annotations

import optuna
from sqlalchemy.exc import SQLAlchemyError

from caviar.errors import StorageError, StudyMismatch, StudyNotFound
from caviar.storage.database import Database
from caviar.storage.optuna_api import OptunaStorage
from caviar.storage.url import parse_url


def import_from_optuna(url: str, source: str, *, study: str | None = None) -> list[str]:
    """Copy studies from a database of Optuna's RDBStorage, with trials, attributes and intermediate values.

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
    Database(source, create=False).close()  # Optuna would make a missing file
    shown = parse_url(source).render_as_string(hide_password=True)
    target = OptunaStorage(url)
    try:
        try:
            # Optuna's own check may refuse a database of another of its versions; its message says what to do.
            origin = optuna.storages.RDBStorage(parse_url(source).render_as_string(hide_password=False))
            found = origin.get_all_studies()
        except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
            raise StorageError(
                f"cannot read {shown!r} as a database of Optuna: {' '.join(str(error).split())}"
            ) from error
        names = [one.study_name for one in found]
        if study is not None and study not in names:
            raise StudyNotFound(
                f"there is no study {study!r} in {shown!r} (there are {', '.join(map(repr, names[:10]))})"
            )
        wanted = [one for one in found if study is None or one.study_name == study]
        taken = {one.study_name for one in target.get_all_studies()}
        for one in wanted:
            if one.study_name in taken:
                raise StudyMismatch(f"study {one.study_name!r} exists already; rename or delete it first")
        try:
            for one in wanted:
                study_id = target.create_new_study(one.directions, one.study_name)
                for key, value in one.user_attrs.items():
                    target.set_study_user_attr(study_id, key, value)
                for key, value in one.system_attrs.items():
                    target.set_study_system_attr(study_id, key, value)
                for trial in origin.get_all_trials(one._study_id, deepcopy=False):
                    target.create_new_trial(study_id, template_trial=trial)
        finally:
            origin.remove_session()
            origin.engine.dispose()
        return [one.study_name for one in wanted]
    finally:
        target.close()
