"""What a process that trains is made of: versions, cores, memory, BLAS. Read on each node, compared with this one."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Packages whose version decides the last bits of a result.
DECIDE_BITS = ("numpy", "scipy", "numba")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What one process found out about itself and its machine."""

    hostname: str
    python: str
    executable: str
    #: Installed there; the code that runs is that of the process that sweeps. None where none is installed.
    caviar: str | None
    #: Versions by package; None where one is missing.
    packages: dict[str, str | None]
    n_cores: int
    memory_gb: float | None
    processor: str
    #: What threadpoolctl finds: threads that a product of matrices would use, and the library. None without NumPy.
    blas_threads: int | None
    blas: str | None
    #: Seconds since 1970 by that machine's clock.
    clock: float
    #: What keeps it from training.
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """A node of a cluster, seen from here."""

    host: str
    #: Slices that it trains at a time.
    n_cores: int
    memory_gb: float
    ray: str
    is_head: bool
    #: None where it did not answer.
    facts: Facts | None
    #: Seconds that its clock is ahead of this machine's, known to within `clock_error`.
    clock_ahead: float = 0.0
    clock_error: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterFacts:
    """A cluster, seen from here."""

    #: None is one that was started on this machine for the purpose.
    address: str | None
    wants_token: bool
    nodes: list[NodeFacts] = field(default_factory=list)


def collect_facts() -> Facts:
    """Look at this process and its machine."""
    threads, blas, error = _blas()
    return Facts(
        hostname=socket.gethostname(),
        python=platform.python_version(),
        executable=sys.executable,
        caviar=_version("caviar"),
        packages={name: _version(name) for name in DECIDE_BITS},
        n_cores=os.cpu_count() or 1,
        memory_gb=_memory_gb(),
        processor=_processor(),
        blas_threads=threads,
        blas=blas,
        clock=time.time(),
        error=error,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _blas() -> tuple[int | None, str | None, str | None]:
    try:
        import numpy as np
        from threadpoolctl import threadpool_info

        import caviar.execution.worker  # noqa: F401 - what a worker needs
    except ImportError as error:
        return None, None, f"{type(error).__name__}: {error}"
    np.ones((2, 2)) @ np.ones((2, 2))
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not found:
        return 1, None, None
    most = max(found, key=lambda library: library["num_threads"])
    return most["num_threads"], f"{most['internal_api']} {most['version']}", None


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return None


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:  # not there on every system
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
