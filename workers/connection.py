"""This process as part of a Ray cluster: a local one that it starts, or a running one that it joins."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import caviar
import workers
from caviar.errors import ExecutorError
from workers.cluster import Member, in_time, is_own, members, own_host, prepare_environment, resolved
from workers.node import ONE_THREAD, Door, is_door

_JOIN_TIMEOUT_S = 30.0


class Connection:
    """Being part of a cluster, until `close`.

    Nodes run the code of this process, whatever caviar is installed there, if any. Where no node of the cluster runs on
    this machine, one without cores is opened for as long as the connection lives.

    Args:
        address: `HOST:PORT` of a running cluster; None starts a local one, which ends with the connection.
        n_cores: of a local one; None is every core.

    Raises:
        ExecutorError: no cluster answers at the address, or Ray does not start.
    """

    def __init__(self, address: str | None, n_cores: int | None = None) -> None:
        prepare_environment(own_host(address) if address else "127.0.0.1", create_token=address is None)
        import ray

        self._door: Door | None = None
        if ray.is_initialized():
            raise ExecutorError("Ray is already in use by this process; call ray.shutdown() first")
        try:
            if address is None:
                _start(n_cores)
            else:
                self._join(address)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether this machine is still part of the cluster."""
        return self._door is None or self._door.is_open

    def doors(self) -> set[str]:
        """Return the ids of the nodes that are there for a connection alone, this one or another."""
        import ray

        return {node["NodeID"] for node in ray.nodes() if is_door(node["ObjectStoreSocketName"])}

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        import ray

        ray.shutdown()
        if self._door is not None:
            self._door.close()
            self._door = None

    def _join(self, address: str) -> None:
        found = members(address)
        here: Member | Door | None = next(
            (member for member in found if is_own(member.host) and not is_door(member.folder)), None
        )
        if here is None:
            here = self._door = Door(address)
        settings = {
            "address": resolved(address),
            # several nodes of one machine are told apart by their folders
            "_node_ip_address": here.host,
            "_temp_dir": here.folder,
            "runtime_env": {
                "env_vars": ONE_THREAD,
                "py_modules": [str(Path(module.__path__[0]).resolve()) for module in (caviar, workers)],
                "excludes": ["__pycache__"],
            },
        }
        complaint = f"Ray could not join the cluster at {address!r}"
        try:
            in_time(lambda: _init(settings), _JOIN_TIMEOUT_S, complaint)
        except ExecutorError:
            raise
        except Exception as error:  # of whatever part of Ray could not
            raise ExecutorError(f"{complaint}: {_first_line(error)}") from error


def _start(n_cores: int | None) -> None:
    """Start a local Ray, which listens on this machine alone and ends with this process."""
    os.environ.update(ONE_THREAD)  # inherited by the workers
    settings = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False, "num_cpus": n_cores}
    try:
        _init(settings)
    except Exception as error:  # as above
        raise ExecutorError(f"Ray could not start: {_first_line(error)}") from error


def _init(settings: dict[str, Any]) -> None:
    import ray

    ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
