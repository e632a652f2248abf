"""This machine as a node of a Ray cluster: `ray start` in a process that ends with the one that started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from caviar.errors import ExecutorError
from workers.cluster import is_loopback, members, own_host, resolved

#: Read by the BLAS when NumPy is imported, so they must stand in a worker's environment before it starts.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: A head notices within about ten seconds that a machine is gone; Ray's own settings take up to a minute.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
#: What the name of a door's folder begins with.
_DOOR = "cvdoor-"
_DOOR_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeOptions:
    """What a node is to be."""

    #: IP address by which the others reach this machine; Ray listens there.
    host: str
    #: Of the cluster to join; None makes this machine the head of a new one.
    address: str | None = None
    #: At which a head listens.
    port: int = 6379
    #: Slices that it trains at a time; None is every core.
    n_cores: int | None = None
    #: Where Ray keeps its files; None is Ray's own choice.
    folder: str | None = None


class Node:
    """The processes of a node. They end with this process, however it ends."""

    def __init__(self, options: NodeOptions, log: int | None = None) -> None:
        environment = os.environ | ONE_THREAD
        for name, value in _HEALTH.items():
            environment.setdefault(name, value)
        # the pipe ends when this process does; a session of its own, so that Ctrl-C reaches this process alone
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.node", *_ray_arguments(options)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        """Whether it is; a node also ends by itself, when its cluster is gone."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> bool:
        """Return whether it has ended, waiting for that at most so long."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End it: Ray's processes are asked first and killed after a while."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not self.wait(_STOP_TIMEOUT_S):
            self._process.kill()
            self._process.wait()


class Door:
    """A node without cores on this machine, so that this process can take part in a cluster that runs elsewhere."""

    def __init__(self, address: str) -> None:
        self.host = own_host(address)
        if is_loopback(self.host):
            raise ExecutorError(
                f"the cluster at {address!r} has no node on this machine; give the address by which its other nodes "
                "reach its head"
            )
        # a short path: Ray puts sockets below it, and the path of a socket has at most 107 characters
        self.folder = tempfile.mkdtemp(prefix=_DOOR, dir="/tmp" if Path("/tmp").is_dir() else None)
        self._node = Node(
            NodeOptions(host=self.host, address=address, n_cores=0, folder=self.folder), log=subprocess.DEVNULL
        )
        try:
            self._wait(address)
        except BaseException:
            self.close()
            raise

    def _wait(self, address: str) -> None:
        deadline = time.monotonic() + _DOOR_TIMEOUT_S
        while not any(member.folder == self.folder for member in members(address)):
            if self._node.wait(0.1):
                raise ExecutorError(
                    f"this machine ({self.host}) could not join the cluster at {address!r}; "
                    f"`python -m workers --address {address} --cores 0` says why"
                )
            if time.monotonic() > deadline:
                raise ExecutorError(
                    f"this machine ({self.host}) did not join the cluster at {address!r} within {_DOOR_TIMEOUT_S:g} s; "
                    "check that the nodes can open connections to this machine as well"
                )

    @property
    def is_open(self) -> bool:
        """Whether the node is still part of the cluster."""
        return self._node.is_running

    def close(self) -> None:
        """Leave the cluster."""
        self._node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_door(path: str) -> bool:
    """Return whether the files of a node, of which this is one, are those of a door."""
    return any(part.startswith(_DOOR) for part in Path(path).parts)


def _ray_arguments(options: NodeOptions) -> list[str]:
    arguments = ["start", "--block", "--disable-usage-stats", f"--node-ip-address={options.host}"]
    if options.address is None:
        arguments += ["--head", f"--port={options.port}", "--include-dashboard=false"]
    else:
        arguments.append(f"--address={resolved(options.address)}")
    if options.n_cores is not None:
        arguments.append(f"--num-cpus={options.n_cores}")
    if options.folder is not None:
        arguments.append(f"--temp-dir={options.folder}")
    return arguments


def _end_with_parent() -> None:
    """Wait for the end of the pipe that the parent holds, then ask this process to stop."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run `ray start` in this process, until the parent's end or a signal."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from ray.scripts.scripts import cli

    cli.main(args=sys.argv[1:], prog_name="ray")


if __name__ == "__main__":
    main()
