"""The commands of the trial database: SQL, files, and what is done to a whole study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from caviar.bootstrap import checkpoint_folder, make_storage, storage_url
from caviar.cli.arguments import MODEL_SUFFIX, Epoch, Storage, Text, Whole
from caviar.cli.interrupt import ended_by_signals
from caviar.errors import SettingsError
from caviar.wording import command


def sql(
    statement: Text,
    /,
    *,
    limit: Whole = 1000,
    timeout: float = 30.0,
    format: Literal["table", "json", "csv", "parquet"] = "table",
    storage: Storage = None,
) -> int:
    """Run one SQL statement that reads, as "select * from v_best".

    The views are v_trials, v_best, v_reports, v_lineage and v_interventions.

    Parameters
    ----------
    statement
        One statement; one that writes is refused.
    limit
        Return at most so many rows.
    timeout
        Give up after so many seconds.
    format
        How to print them; parquet needs stdout to be a file or pipe.
    """
    from caviar.cli.sql import print_sql

    return print_sql(statement, limit, timeout, format, storage)


def export(study: str, /, *, to: Path, epoch: Epoch = None, storage: Storage = None) -> int:
    """Write STUDY, or the model of a trial, to a file.

    Parameters
    ----------
    study
        Name of the study; for a model, STUDY/NUMBER, or STUDY for that of its best trial.
    to
        FILE.jsonl or FILE.parquet, with all reports, FILE.csv, without them, or FILE.safetensors, a model.
    epoch
        Of a model: number of an epoch, or best, at whose end it is wanted [the last].
    """
    if to.suffix.lower() == MODEL_SUFFIX:
        from caviar.cli.model import export_model

        return export_model(study, to, epoch, storage)
    if epoch is not None:
        raise SettingsError(f"--epoch is for a model, which is written to FILE.safetensors, found {str(to)!r}")
    if "/" in study:
        raise SettingsError(f"of a trial, its model can be written, to FILE.safetensors, found {str(to)!r}")
    from caviar.storage.exchange import export_study

    opened = make_storage(storage, create=False)
    try:
        n_trials = export_study(opened, study, to)
    finally:
        opened.close()
    _say(f"{n_trials} trials of {study!r} are in {str(to)!r}")
    return 0


def import_(
    file: Path | None = None,
    /,
    *,
    name: str | None = None,
    from_optuna: str | None = None,
    study: str | None = None,
    storage: Storage = None,
) -> int:
    """Read a study from FILE, written by `caviar export`, or studies from a database of Optuna.

    Parameters
    ----------
    file
        A .jsonl, .parquet or .csv file.
    name
        Name that the study of FILE gets [the one that it had].
    from_optuna
        URL of a database of Optuna's RDBStorage; it stays as it is.
    study
        Import this one of Optuna's studies only [all].
    """
    if (file is None) == (from_optuna is None):
        raise SettingsError("give either a FILE that `caviar export` wrote, or --from-optuna URL")
    if from_optuna is not None:
        from caviar.storage.optuna_import import import_from_optuna

        if name is not None:
            raise SettingsError("--name goes with a FILE; studies of Optuna keep their names")
        names = import_from_optuna(storage_url(storage), from_optuna, study=study)
        _say(f"imported {', '.join(map(repr, names)) or 'nothing: there is no study'}")
        return 0
    if study is not None:
        raise SettingsError("--study goes with --from-optuna URL; a file holds one study")
    assert file is not None
    from caviar.storage.exchange import check_export, import_study

    check_export(file)  # before a database is made for nothing
    opened = make_storage(storage)
    try:
        with ended_by_signals():
            spec = import_study(opened, file, name=name)
        n_trials = opened.summary(spec.name).n_trials
    finally:
        opened.close()
    _say(f"{n_trials} trials of {str(file)!r} are in study {spec.name!r}")
    return 0


def dashboard(*, port: int = 8080, storage: Storage = None) -> int:
    """Show the database in optuna-dashboard, in a browser on this machine, until Ctrl-C.

    Parameters
    ----------
    port
        Where to listen, on 127.0.0.1 alone; 0 takes one that is free.
    """
    from caviar.storage.dashboard import serve

    serve(storage_url(storage), port, lambda address: _say(f"{address} (Ctrl-C stops it)"))
    return 0


def delete(study: str, /, *, yes: Annotated[bool, Parameter(negative="")] = False, storage: Storage = None) -> int:
    """Delete STUDY with all its trials; its checkpoints are left on the disk.

    Parameters
    ----------
    study
        Name of the study.
    yes
        Do it; without this it is only said what would be deleted.
    """
    from caviar.panda.shelf import Shelf

    opened = make_storage(storage, create=False)
    try:
        n_trials = opened.summary(study).n_trials
        if not yes:
            raise SettingsError(
                f"this deletes study {study!r} with {n_trials} trials for good: give --yes to do it, or keep a copy "
                f"first with `{command('export', study, '--to', 'FILE.parquet')}`"
            )
        left = Shelf(checkpoint_folder(opened), opened.get_study(study), 0, opened.identity).study_folder
        opened.delete_study(study)
    finally:
        opened.close()
    _say(f"deleted {study!r} with {n_trials} trials")
    if left.exists():
        _say(f"its checkpoints are still in {str(left)!r}")
    return 0


def rename(study: str, name: str, /, *, storage: Storage = None) -> int:
    """Give STUDY the name NAME.

    Parameters
    ----------
    study
        Name of the study.
    name
        Its new name.
    """
    opened = make_storage(storage, create=False)
    try:
        opened.rename_study(study, name)
    finally:
        opened.close()
    _say(f"{study!r} is now {name!r}")
    return 0


def note(study: str, text: Text | None = None, /, *, storage: Storage = None) -> int:
    """Print the note of STUDY, or replace it by TEXT.

    Parameters
    ----------
    study
        Name of the study.
    text
        The new note; an empty one removes it.
    """
    opened = make_storage(storage, create=False)
    try:
        notes = opened.notes(study) if text is None else opened.annotate(study, note=text)
    finally:
        opened.close()
    if notes.note:
        print(notes.note)
    return 0


def tag(
    study: str,
    /,
    *tags: str,
    remove: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    storage: Storage = None,
) -> int:
    """Tag STUDY, and print the tags that it has.

    Parameters
    ----------
    study
        Name of the study.
    tags
        Words to add.
    remove
        A tag to take away; may be given several times.
    """
    opened = make_storage(storage, create=False)
    try:
        notes = opened.annotate(study, add_tags=tags, remove_tags=remove) if tags or remove else opened.notes(study)
    finally:
        opened.close()
    for word in notes.tags:
        print(word)
    return 0


def _say(message: str) -> None:
    print(f"caviar: {message}", file=sys.stderr)
