"""The Ray executor: a local cluster or a running one, and the data once in the object store of each node."""

from __future__ import annotations

from collections.abc import Sequence

from caviar.errors import ExecutorError
from caviar.execution.base import Executor, Job, Runner, Slice
from caviar.execution.facts import ClusterFacts
from caviar.execution.worker import run_slice
from caviar.training.dataset import Dataset
from workers.cluster import members, own_host, prepare_environment
from workers.connection import Connection
from workers.crew import Crew, RayJob
from workers.inspection import inspect_cluster


class RayExecutor(Executor):
    """Trains slices on a Ray cluster: a local one that it starts and stops, or a running one that it joins.

    Args:
        address: `HOST:PORT` of a running cluster; None starts a local one.
        n_workers: slices at a time; None is every core that the cluster has, also those that join later.
        run: what a worker does with a slice.

    Raises:
        ExecutorError: no cluster answers at the address, or Ray does not start.
    """

    def __init__(self, address: str | None = None, n_workers: int | None = None, run: Runner = run_slice) -> None:
        self._has_data = False
        self._connection = Connection(address, n_workers)
        try:
            self._crew = Crew(run, n_workers)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def check(cls, address: str) -> None:
        """See :meth:`Executor.check`."""
        prepare_environment(own_host(address))
        members(address)

    @classmethod
    def inspect(cls, address: str | None = None) -> ClusterFacts:
        """See :meth:`Executor.inspect`."""
        return inspect_cluster(address)

    @property
    def n_workers(self) -> int:
        """See :class:`Executor`."""
        return self._crew.n_workers

    @property
    def is_ready(self) -> bool:
        """See :class:`Executor`."""
        return self._crew.is_ready

    @property
    def backlog_s(self) -> float:
        """See :class:`Executor`."""
        return self._crew.backlog_s

    def load(self, data: Dataset | None) -> None:
        """See :meth:`Executor.load`."""
        import ray

        self._crew.load(ray.put(data))
        self._has_data = True

    def submit(self, slice: Slice) -> Job:
        """See :meth:`Executor.submit`."""
        if not self._has_data:
            raise ExecutorError("a slice was submitted before the data; call load() first")
        return self._crew.submit(slice)

    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """See :meth:`Executor.wait`."""
        if not self._connection.is_open:
            raise ExecutorError("this machine has lost the Ray cluster; run the same command again when it is back")
        self._crew.advance(timeout_s)
        return [job for job in jobs if isinstance(job, RayJob) and job.is_done]

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        self._crew.close()
        self._connection.close()
