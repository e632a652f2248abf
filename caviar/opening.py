"""From a name to a study: a new one, the one that is there, or all there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from caviar.bootstrap import make_storage
from caviar.checks import truth, whole
from caviar.data import default_source, has_columns, load_prepared, resolve
from caviar.errors import SettingsError, SpaceError, StorageError, StudyMismatch, StudyNotFound
from caviar.records import DataSpec, Reason, StudySpec, StudySummary, TrainableSpec
from caviar.space import Domain, SearchSpace, Value
from caviar.storage import Storage
from caviar.storage.holder import new_holder
from caviar.study import Study
from caviar.study_settings import (
    check_asked,
    check_kernel,
    check_settings,
    checked_direction,
    found_data,
    is_edited,
    new_spec,
    refuse_differences,
)
from caviar.training.source import trainable_spec

#: Nobody need wait for so long, where a process ends while it takes mended code into a study.
_LEASE_S = 15.0


def create_study(
    name: str,
    space: Mapping[str, Domain | Value] | None = None,
    *,
    data: str | Path | None = None,
    target: str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    metric: str | None = None,
    direction: str | None = None,
    trainable: str | Path | Callable[..., Any] | None = None,
    dtype: str | None = None,
    prune: bool | None = None,
    new_space: bool = False,
    storage: str | Storage | None = None,
) -> Study:
    """Create a study, or open the one of that name if it asks the same question.

    What is not given is the default for a new study (the lectures' space, `digits` or the data set that the study is
    named after, seed 0, 20 epochs, `val_accuracy`, float32), and whatever an existing one has.

    Args:
        name: of the study; no `/`.
        space: what to sample, a :class:`caviar.SearchSpace` or what it is made of.
        data: a data set's name, or a file or folder.
        target: the column to predict, for tables.
        seed: 0 to 2**63 - 1; with a trial's number it decides all that is random in the trial.
        epochs: that each trial is trained.
        metric: `val_accuracy` (maximised), `val_loss` or `train_loss` (minimised); of a trainable, what it reports.
        direction: `maximize` or `minimize`; where absent, more of an accuracy is better, and less of a loss.
        trainable: trains the trials instead of the built-in network: a function or class of a Python file, itself or as
            `FILE.py:NAME`; see :class:`caviar.Task`. It needs a space and a metric, and no data.
        dtype: `float32` or `float64`.
        prune: end trials early that are behind those before them; see :mod:`caviar.execution.halving`.
        new_space: where the study exists with another space, make this one its next version: trials to come are drawn
            from it, and each trial says from which version it was drawn.
        storage: URL of the trial database, or an open one; see `caviar.bootstrap.storage_url`.

    Raises:
        StudyMismatch: the study exists with other settings; the message says which.
        DataError, SpaceError, SettingsError, TrainableError: these are not valid.
    """
    code = None if trainable is None else trainable_spec(trainable)
    seed, epochs = whole("seed", seed), whole("epochs", epochs)
    prune = None if prune is None else truth("prune", prune)
    check_settings(seed, epochs, dtype)
    if space is not None:
        if not isinstance(space, Mapping):
            raise SpaceError(f"expected a SearchSpace, as SearchSpace(learning_rate=0.1), found {space!r}")
        space = space if isinstance(space, SearchSpace) else SearchSpace(**space)
    elif new_space:
        raise SettingsError("a new space must be given to make it the study's: --new-space goes with --space FILE.toml")
    way = None if direction is None else checked_direction(direction)
    given: dict[str, Any] = {"seed": seed, "epochs": epochs, "metric": metric, "dtype": dtype, "prune": prune}
    given |= {"direction": way, "trainable": code}
    asked: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if space is not None:
        asked["space"] = space.to_dict()
    if asked.keys() & {"metric", "direction", "space"}:  # of which a trainable has its own
        check_asked(asked, code or _trainable_of(name, storage))
    opened = storage if isinstance(storage, Storage) else make_storage(storage)
    try:
        found = opened.get_study(name)
    except StudyNotFound:
        if code is not None and data is None and target is None:
            spec, prepared = new_spec(name, DataSpec(source=""), asked), None
        else:
            spec = new_spec(name, resolve(default_source(name) if data is None else data, target), asked)
            prepared = load_prepared(spec.data, spec.dtype)
            spec = replace(spec, data=replace(spec.data, fingerprint=prepared[0].fingerprint))
        try:
            return Study(opened.create_study(spec), opened, prepared)
        except StudyMismatch:  # another process was faster
            found = opened.get_study(name)
    if data is None and target is not None and not found.data.source:
        raise SettingsError(f"study {name!r} has no data, and so no target: leave --target out")
    if data is not None or target is not None:
        wanted = replace(found.data, target=target) if data is None else resolve(data, target)
        if target is None and has_columns(wanted):
            wanted = replace(wanted, target=found.data.target)
        asked["data"] = found_data(wanted, found)
    return Study(_continued(found, asked, new_space, opened), opened)


def _continued(found: StudySpec, asked: dict[str, Any], new_space: bool, storage: Storage) -> StudySpec:
    """Return a study that exists, with what is asked for: its next space, or where its data lies now."""
    space = asked.get("space", found.space)
    # an earlier version of its space asks the same question: the study has been refined since
    if new_space or space in storage.spaces(found.name):
        asked = {**asked, "space": found.space}
    code = asked.get("trainable")
    if code is not None and is_edited(found.trainable, code) and _has_come_to_nothing(found, storage):
        found = _mended(found, code, storage)
    refuse_differences(found, asked)
    check_kernel(found)
    if code is not None and found.trainable is not None and code.file != found.trainable.file:
        storage.move_trainable(found.name, replace(found.trainable, file=code.file))
    data = asked.get("data", found.data)
    if data != found.data:
        storage.move_data(found.name, data.source, data.target)
    if new_space and space != found.space:
        storage.add_space(found.name, space)
    return storage.get_study(found.name)


def _has_come_to_nothing(found: StudySpec, storage: Storage) -> bool:
    """Return whether no trial of a study says anything of its params: all that have ended raised, or were lost."""
    telling = f"state != 'WAITING' and (state != 'FAIL' or reason = '{Reason.DIVERGED}')"
    return not storage.trials(found.name, where=telling, limit=1)


def _mended(found: StudySpec, code: TrainableSpec, storage: Storage) -> StudySpec:
    """Return a study with other code than it was made with.

    Raises:
        StudyBusy: a coordinator trains it with the code of before.
    """
    owner = new_holder()
    storage.acquire_lease(found.name, owner, _LEASE_S)
    try:
        if _has_come_to_nothing(found, storage):
            storage.move_trainable(found.name, code)
    finally:
        storage.release_lease(found.name, owner)
    return storage.get_study(found.name)


def _trainable_of(name: str, storage: str | Storage | None) -> TrainableSpec | None:
    """Return what trains a study, if it is there and that is not the network; no database is made."""
    try:
        if isinstance(storage, Storage):
            return storage.get_study(name).trainable
        opened = make_storage(storage, create=False)
        try:
            return opened.get_study(name).trainable
        finally:
            opened.close()
    except StorageError:
        return None


def load_study(name: str, *, storage: str | Storage | None = None) -> Study:
    """Open an existing study.

    Raises:
        StudyNotFound: there is none of that name.
    """
    opened = storage if isinstance(storage, Storage) else make_storage(storage, create=False)
    return Study(opened.get_study(name), opened)


def studies(*, storage: str | Storage | None = None) -> list[StudySummary]:
    """Return all studies of a trial database at a glance, oldest first."""
    if isinstance(storage, Storage):
        return storage.studies()
    opened = make_storage(storage, create=False)
    try:
        return opened.studies()
    finally:
        opened.close()
