"""The Ray executor: slices as Ray tasks, the data once in the object store of each node."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caviar.errors import ExecutorError, SliceLost
from caviar.execution.base import Executor, Job, Slice, TrialOutcome
from caviar.training.dataset import Dataset

#: Read by the BLAS when NumPy is imported, so they must stand in a worker's environment before it starts.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: A slice whose worker died is tried so many times more, before its trials are tried alone.
_RETRIES = 2
_CONNECT_TIMEOUT_S = 12.0


class RayJob(Job):
    """A slice on its way through Ray."""

    def __init__(self, slice: Slice, ref: Any) -> None:
        self.slice = slice
        self.ref = ref

    def result(self) -> list[TrialOutcome]:
        """See :meth:`Job.result`."""
        import ray

        try:
            outcomes: list[TrialOutcome] = ray.get(self.ref)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
        ) as error:
            raise SliceLost(
                f"a worker died {_RETRIES + 1} times while it trained {len(self.slice.tasks)} trials"
            ) from error
        except ray.exceptions.RayError as error:
            raise ExecutorError(f"Ray could not run a slice: {str(error).splitlines()[0]}") from error
        return outcomes


class RayExecutor(Executor):
    """Trains slices on a Ray cluster: a local one that it starts and stops, or a running one that it joins.

    Args:
        address: of a running cluster, `HOST:PORT` or `ray://HOST:PORT`; None starts a local one.
        n_workers: slices at a time; None is every core that the cluster has, also those that join later.

    Raises:
        ExecutorError: no cluster answers at the address, or Ray does not start.
    """

    def __init__(self, address: str | None = None, n_workers: int | None = None) -> None:
        # Ray reads the mode when it is imported; for a cluster that it starts, it finds the token by itself
        if address is not None and "ray" not in sys.modules and _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        import ray

        self._fixed_workers = n_workers
        self._data: Any = None
        self._owns = address is None
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if address is None:
            os.environ.update(ONE_THREAD)  # inherited by the workers
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            settings |= {"address": "local", "include_dashboard": False, "num_cpus": n_workers}
        else:
            settings |= {"address": address, "runtime_env": {"env_vars": ONE_THREAD}}
        if ray.is_initialized():
            raise ExecutorError("Ray is already in use by this process; call ray.shutdown() first")
        _connect(ray, settings, address)
        self._train = ray.remote(_train).options(num_cpus=1, max_retries=_RETRIES)

    @property
    def n_workers(self) -> int:  # type: ignore[override]
        """See :class:`Executor`."""
        import ray

        if self._fixed_workers is not None:
            return self._fixed_workers
        return max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def load(self, data: Dataset) -> None:
        """See :meth:`Executor.load`."""
        import ray

        self._data = ray.put(data)

    def submit(self, slice: Slice) -> Job:
        """See :meth:`Executor.submit`."""
        if self._data is None:
            raise ExecutorError("a slice was submitted before the data; call load() first")
        return RayJob(slice, self._train.remote(slice, self._data))

    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """See :meth:`Executor.wait`."""
        import ray

        by_ref = {job.ref: job for job in jobs if isinstance(job, RayJob)}
        done, _ = ray.wait(list(by_ref), num_returns=1, timeout=timeout_s)
        if done:  # and whatever else is done by now
            done, _ = ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0)
        return [by_ref[ref] for ref in done]

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        import ray

        self._data = None
        ray.shutdown()


def _has_token() -> bool:
    """Return whether this user has a token for Ray clusters, in any of the places where Ray looks for it."""
    places = [os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray" / "auth_token"]
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or any(place and Path(place).is_file() for place in places)


def _train(slice: Slice, data: Dataset) -> list[TrialOutcome]:
    from caviar.execution.worker import run_slice

    return run_slice(slice, data)


def _connect(ray: Any, settings: dict[str, Any], address: str | None) -> None:
    """Call ray.init, but do not wait for ever: it retries for minutes when nobody answers."""
    failure: list[BaseException] = []

    def init() -> None:
        try:
            ray.init(**settings)
        except BaseException as error:  # noqa: BLE001 - Ray raises many kinds; each is reported below
            failure.append(error)

    if address is None:
        init()
    else:
        if (reason := _unreachable(address)) is not None:
            raise ExecutorError(f"no Ray cluster answers at {address!r}: {reason}; start one with `ray start --head`")
        thread = threading.Thread(target=init, daemon=True)
        thread.start()
        thread.join(_CONNECT_TIMEOUT_S)
        if thread.is_alive():
            raise ExecutorError(
                f"no Ray cluster answers at {address!r} within {_CONNECT_TIMEOUT_S:g} s; check the address, "
                "and that RAY_AUTH_MODE and the token are the cluster's"
            )
    if failure:
        where = "start" if address is None else f"join the cluster at {address!r}"
        first = (str(failure[0]).strip() or type(failure[0]).__name__).splitlines()[0]
        raise ExecutorError(f"Ray could not {where}: {first}") from failure[0]


def _unreachable(address: str) -> str | None:
    """Return why nothing listens at an address, or None where something does or it is not HOST:PORT."""
    import socket

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return None
    if not host or not port.isdigit():
        return "an address is HOST:PORT"
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return None
