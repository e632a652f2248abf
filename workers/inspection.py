"""Looking at each node of a cluster from a process that trains there, for `caviar doctor`."""

from __future__ import annotations

import os
import time
from typing import Any

from caviar.execution.facts import ClusterFacts, Facts, NodeFacts, collect_facts
from workers.connection import Connection

#: For a worker process to start on a loaded machine, and to fetch caviar's code.
_TIMEOUT_S = 60.0


def inspect_cluster(address: str | None = None) -> ClusterFacts:
    """Return what each node of a cluster is made of; of a local one, started for the purpose, without address.

    Raises:
        ExecutorError: no cluster answers at the address, or Ray does not start.
    """
    connection = Connection(address)
    try:
        import ray

        nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in connection.doors()]
        probes = [(node, _probe(ray, node["NodeID"])) for node in nodes]
        deadline = time.monotonic() + _TIMEOUT_S
        return ClusterFacts(
            address=address,
            wants_token=os.environ.get("RAY_AUTH_MODE") == "token",
            nodes=[_look(ray, node, probe, deadline) for node, probe in probes],
        )
    finally:
        connection.close()


def _probe(ray: Any, node_id: str) -> Any:
    """Start a worker process on a node; it needs no core, so that a busy node answers too."""
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(_Probe).options(num_cpus=0, scheduling_strategy=there).remote()


class _Probe:
    def look(self) -> tuple[str, Facts]:
        import ray

        return ray.__version__, collect_facts()

    def clock(self) -> float:
        return time.time()


def _look(ray: Any, node: dict[str, Any], probe: Any, deadline: float) -> NodeFacts:
    resources = node["Resources"]
    known = {
        "host": node["NodeManagerAddress"],
        "n_cores": int(resources.get("CPU", 0)),
        "memory_gb": resources.get("memory", 0.0) / 1e9,
        "is_head": "node:__internal_head__" in resources,
    }
    try:
        version, facts = ray.get(probe.look.remote(), timeout=max(deadline - time.monotonic(), 1.0))
        ahead, error = min((_compare_clocks(ray, probe) for _ in range(5)), key=lambda pair: pair[1])
    except ray.exceptions.GetTimeoutError:
        return NodeFacts(**known, ray="?", facts=None, error=f"no worker answered within {_TIMEOUT_S:g} s")
    except ray.exceptions.RayError as failure:
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
        return NodeFacts(**known, ray="?", facts=None, error=lines[-1] if lines else type(failure).__name__)
    return NodeFacts(**known, ray=version, facts=facts, clock_ahead=ahead, clock_error=error)


def _compare_clocks(ray: Any, probe: Any) -> tuple[float, float]:
    """Return by how much the clock there is ahead, and half the time of the question, by which this can be wrong."""
    before = time.time()
    there: float = ray.get(probe.clock.remote(), timeout=10)
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2
