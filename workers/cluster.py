"""Finding a Ray cluster: does one answer at an address, does it let us in, and which machines form it."""

from __future__ import annotations

import ipaddress
import os
import platform
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from caviar.errors import ExecutorError

#: For a host that does not answer, and for a port at which something else than Ray does: below 15 s together.
_CONNECT_TIMEOUT_S = 4.0
ANSWER_TIMEOUT_S = 8.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A node of a cluster, as the cluster's head knows it."""

    #: The IP address by which the other nodes reach it.
    host: str
    hostname: str
    n_cores: int
    memory: float
    #: The folder of Ray's files on that machine.
    folder: str
    id: str
    is_head: bool


def prepare_environment(host: str, *, create_token: bool = False) -> None:
    """Set what Ray reads from the environment when it is imported; what the user has set is left alone.

    Args:
        host: IP address at which the cluster is, or is to be.
        create_token: make a token where this user has none, for a cluster that is about to be started.
    """
    if create_token and not has_token():
        _create_token()
    if has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Python 3.11.7 and 3.11.9 understand each other, 3.11 and 3.12 do not
    os.environ.setdefault("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
    # Ray replaces a loopback address by one of the network, and then listens to all of it, unless it thinks that
    # there are no clusters on this kind of machine
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0" if is_loopback(host) else "1"
    if "ray" in sys.modules:  # it has read the environment already: let it read again
        from ray._private import ray_constants
        from ray._raylet import Config  # type: ignore[attr-defined]  # a compiled module

        ray_constants.ENABLE_RAY_CLUSTER = not is_loopback(host)
        Config.initialize("")


def is_loopback(host: str) -> bool:
    """Return whether an IP address is reached from the machine itself alone."""
    return ipaddress.ip_address(host).is_loopback


def has_token() -> bool:
    """Return whether this user has a token for Ray clusters, in any of the places where Ray looks for it."""
    places = [os.environ.get("RAY_AUTH_TOKEN_PATH"), token_path()]
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or any(place and Path(place).is_file() for place in places)


def token_path() -> Path:
    """Return where Ray keeps a user's token, unless RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH say otherwise."""
    return Path.home() / ".ray" / "auth_token"


def _create_token() -> None:
    import secrets

    path = token_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was first
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`.

    Raises:
        ExecutorError: it is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise ExecutorError(f"the address of a Ray cluster is HOST:PORT, as 10.0.0.1:6379, found {address!r}")
    return host.strip("[]"), int(port)


def ip_of(host: str) -> str:
    """Return the IP address of a host, of several the first IPv4 one: Ray compares addresses as texts.

    Raises:
        ExecutorError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ExecutorError(f"no host is called {host!r}: {error}; check the address") from error
    found.sort(key=lambda entry: entry[0] is not socket.AF_INET)
    return str(found[0][4][0])


def resolved(address: str) -> str:
    """Return `HOST:PORT` with the IP address of the host.

    Raises:
        ExecutorError: it is not of that form, or the host is not known.
    """
    host, port = split_address(address)
    ip = ip_of(host)
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def own_host(address: str) -> str:
    """Return the IP address of this machine on the way to a cluster: loopback for one on loopback.

    Raises:
        ExecutorError: there is no way to that host.
    """
    host, port = split_address(resolved(address))
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))  # of a datagram socket: nothing is sent
            found: str = probe.getsockname()[0]
    except OSError as error:
        raise ExecutorError(f"no way leads from this machine to {host!r}: {error}; check the address") from error
    return found


def is_own(host: str) -> bool:
    """Return whether an IP address is one of this machine."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def members(address: str) -> list[Member]:
    """Return the nodes of the cluster at an address, those alone that are alive.

    Raises:
        ExecutorError: nobody answers there, no Ray cluster does, it wants another token, or it has another Ray or
            Python than this process; after 15 s at the latest.
    """
    target = resolved(address)
    try:
        socket.create_connection(split_address(target), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ExecutorError(
            f"no Ray cluster answers at {address!r}: {error}; check the address, or start one there with "
            "`python -m workers --head`"
        ) from error
    return in_time(lambda: _ask_head(target), ANSWER_TIMEOUT_S, f"the Ray cluster at {address!r} does not answer")


def in_time(work: Callable[[], T], timeout_s: float, complaint: str) -> T:
    """Return what `work` does, but wait no longer: Ray retries for minutes when nobody answers.

    Raises:
        ExecutorError: it took longer; what it raised otherwise.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise ExecutorError(f"{complaint} within {timeout_s:g} s; check that the port is Ray's, and the network")
    if failure:
        raise failure[0]
    return outcome[0]


def _ask_head(address: str) -> list[Member]:
    import json

    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # a compiled module

    try:
        head = GcsClient(address=address)
        metadata = json.loads(head.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=5) or b"{}")
        found = head.get_all_node_info(timeout=5)
    except ray.exceptions.AuthenticationError as error:
        raise ExecutorError(
            f"the Ray cluster at {address!r} wants another token; put the cluster's (on its head: `ray "
            f"get-auth-token`) into RAY_AUTH_TOKEN or {token_path()}, with RAY_AUTH_MODE unset or `token`"
        ) from error
    except ray.exceptions.RayError as error:
        raise ExecutorError(f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}") from error
    theirs = metadata.get("ray_version", ray.__version__), metadata.get("python_version", platform.python_version())
    if theirs[0] != ray.__version__ or theirs[1].split(".")[:2] != platform.python_version().split(".")[:2]:
        raise ExecutorError(
            f"the cluster at {address!r} runs Ray {theirs[0]} on Python {theirs[1]}, this process Ray "
            f"{ray.__version__} on Python {platform.python_version()} ({sys.executable}); Ray wants the same version "
            "and the same minor version of Python on both"
        )
    return [
        Member(
            host=node.node_manager_address,
            hostname=node.node_manager_hostname,
            n_cores=int(node.resources_total.get("CPU", 0)),
            memory=float(node.resources_total.get("memory", 0)),
            folder=node.temp_dir,
            id=node_id.hex(),
            is_head=node.is_head_node,
        )
        for node_id, node in found.items()
        if node.state == 0  # ALIVE
    ]
