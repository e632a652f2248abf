"""The one place that knows all concrete classes: settings to objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caviar.errors import ExecutorError
from caviar.storage import Storage, open_storage

if TYPE_CHECKING:
    from caviar.execution.base import Executor
    from caviar.execution.facts import ClusterFacts

#: More processes for each core than this do nothing but fill the memory.
_WORKERS_OF_A_CORE = 32

DEFAULT_STORAGE = "sqlite:///caviar.db"


def storage_url(url: str | None = None) -> str:
    """Return the argument, else `CAVIAR_STORAGE`, else an SQLite file in the working directory."""
    return url or os.environ.get("CAVIAR_STORAGE") or DEFAULT_STORAGE


def spool_folder() -> Path:
    """Return `CAVIAR_SPOOL`, else a folder in the working directory: where results wait for a lost database."""
    from caviar.storage.spool import DEFAULT_FOLDER

    return Path(os.environ.get("CAVIAR_SPOOL") or DEFAULT_FOLDER)


def checkpoint_folder(storage: Storage) -> Path:
    """Return `CAVIAR_CHECKPOINTS`, else a folder beside the database's file, else one in the working directory."""
    given = os.environ.get("CAVIAR_CHECKPOINTS")
    if given:
        return Path(given)
    path = storage.path
    return Path("caviar-checkpoints") if path is None else path.with_name(f"{path.stem}-checkpoints")


def make_storage(url: str | None = None, *, create: bool = True) -> Storage:
    """Open the trial database; see :func:`storage_url`.

    Raises:
        StorageError: it cannot be opened.
    """
    return open_storage(storage_url(url), create=create)


def cluster_address(address: str | None = None) -> str | None:
    """Return the argument, else `CAVIAR_ADDRESS`, else None: a Ray of this machine's own."""
    return address or os.environ.get("CAVIAR_ADDRESS") or None


def check_cluster(address: str) -> None:
    """Refuse an address at which no cluster answers, before anything is written.

    Raises:
        ExecutorError: none does; after 15 s at the latest.
    """
    _executor("ray").check(address)


def inspect_cluster(address: str | None = None) -> ClusterFacts:
    """Look at each node of a cluster; without address, of one that is started on this machine for the purpose.

    Raises:
        ExecutorError: there is none, or Ray does not start.
    """
    found: ClusterFacts = _executor("ray").inspect(address)
    return found


def make_executor(address: str | None = None, n_workers: int | None = None) -> Executor:
    """Return where to train: Ray, or this process where `n_workers` is 0; see :func:`cluster_address`.

    Raises:
        ExecutorError: Ray is not there, does not start, or nobody answers at the address.
    """
    executor: Executor
    _check_fits(address, n_workers)
    if n_workers == 0:
        executor = _executor("inline")()
    else:
        executor = _executor("ray")(address=cluster_address(address), n_workers=n_workers)
    return executor


def make_sweep_executor(address: str | None = None, n_workers: int | None = None) -> Executor:
    """Return where to sweep: as `make_executor`, but for a Ray of this machine's own, this process begins.

    A number of workers that is asked for is started at once; else Ray is started where the sweep takes long enough for
    that to pay.

    Raises:
        ExecutorError: nobody answers at the address.
    """
    if n_workers == 0 or cluster_address(address) is not None:
        return make_executor(address, n_workers)
    _check_fits(address, n_workers)  # else it would be known only once the workers start
    from caviar.execution.head_start import HeadStart

    return HeadStart(lambda: make_executor(None, n_workers), at_once=n_workers is not None)


def _check_fits(address: str | None, n_workers: int | None) -> None:
    """Refuse more workers than this machine could hold: each is a process, of some hundred megabytes.

    Raises:
        ExecutorError: they are more.
    """
    most = _WORKERS_OF_A_CORE * (os.cpu_count() or 1)
    if cluster_address(address) is None and n_workers is not None and n_workers > most:
        raise ExecutorError(
            f"expected at most {most} workers on this machine of {os.cpu_count()} cores, found {n_workers}; more are "
            "for a cluster: --address HOST:PORT"
        )


def _executor(name: str) -> Any:
    from importlib.metadata import entry_points  # takes longer than a query has

    found = {entry.name: entry for entry in entry_points(group="caviar.executors")}
    if name not in found:
        raise ExecutorError(
            f"no executor {name!r} is installed (found: {', '.join(found) or 'none'}); pip install caviar"
        )
    return found[name].load()
