"""Who holds a lease: a process, named so that others on the same machine can tell whether it still lives."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from pathlib import Path

_PROC = Path("/proc")


def new_holder() -> str:
    """Return a name for a new holder in this process: `HOST:PID:...`."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_started(pid) or 0}:{_machine() or 'unknown'}:{uuid.uuid4().hex[:8]}"


def is_dead(holder: str) -> bool:
    """Return whether a holder was a process of this machine that has ended.

    False means that it lives or that this cannot be known from here: another host or container, another boot of this
    one, a name that `new_holder` did not give, or a system without `/proc`.
    """
    parts = holder.rsplit(":", 4)
    if len(parts) != 5 or parts[3] != _machine():
        return False
    pid, started = parts[1], parts[2]
    if not (pid.isdecimal() and started.isdecimal() and int(started)):
        return False
    # A number of a process is used again: only with its start is it the same one.
    return _started(int(pid)) != int(started)


def shown(holder: str) -> str:
    """Return what people need to know of a holder: `HOST:PID`."""
    parts = holder.rsplit(":", 4)
    return ":".join(parts[:2]) if len(parts) == 5 else holder


def _machine() -> str | None:
    """Return what tells one running system, and one set of process numbers in it, from another."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        numbers = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return None
    return hashlib.sha256(f"{boot}{numbers}".encode()).hexdigest()[:12]


def _started(pid: int) -> int | None:
    """Return when a living process started, in ticks since boot; None where there is no such process."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name of a program may hold spaces and brackets
    state, started = fields[0], fields[19]
    return None if state in "ZX" else int(started)
