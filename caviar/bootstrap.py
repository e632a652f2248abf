"""The one place that knows all concrete classes: settings to objects."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

from caviar.errors import ExecutorError
from caviar.execution.base import Executor
from caviar.storage import Storage, open_storage

DEFAULT_STORAGE = "sqlite:///caviar.db"


def storage_url(url: str | None = None) -> str:
    """Return the argument, else `CAVIAR_STORAGE`, else an SQLite file in the working directory."""
    return url or os.environ.get("CAVIAR_STORAGE") or DEFAULT_STORAGE


def make_storage(url: str | None = None, *, create: bool = True) -> Storage:
    """Open the trial database; see :func:`storage_url`.

    Raises:
        StorageError: it cannot be opened.
    """
    return open_storage(storage_url(url), create=create)


def make_executor(address: str | None = None, n_workers: int | None = None) -> Executor:
    """Return where to train: Ray, or this process where `n_workers` is 0.

    Raises:
        ExecutorError: Ray is not there, does not start, or nobody answers at the address.
    """
    name = "inline" if n_workers == 0 else "ray"
    found = {entry.name: entry for entry in entry_points(group="caviar.executors")}
    if name not in found:
        raise ExecutorError(
            f"no executor {name!r} is installed (found: {', '.join(found) or 'none'}); pip install caviar"
        )
    make = found[name].load()
    executor: Executor = make() if name == "inline" else make(address=address, n_workers=n_workers)
    return executor
