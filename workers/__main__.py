"""`python -m workers`: make this machine the head of a cluster, or join it to one, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from caviar.errors import CaviarError, SettingsError
from workers.cluster import has_token, ip_of, is_loopback, is_own, members, own_host, prepare_environment, token_path
from workers.node import Node, NodeOptions, is_door

#: Between two looks at the cluster.
_LOOK_S = 2.0
_READY_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        options = _options(given)
        prepare_environment(options.host, create_token=given.head)
        return _run(options, stop)
    except CaviarError as error:
        _say(f"error: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--head", action="store_true", help="start a cluster")
    what.add_argument("--address", metavar="HOST:PORT", help="join the cluster whose head is there")
    parser.add_argument(
        "--host",
        metavar="HOST",
        help="address by which the other machines reach this one [a head: 127.0.0.1, this machine alone; "
        "else the one that leads to the head]",
    )
    parser.add_argument("--port", type=int, default=6379, help="at which a head listens [6379]")
    parser.add_argument("--cores", type=int, metavar="N", help="models trained at a time here [every core]")
    return parser


def _options(given: argparse.Namespace) -> NodeOptions:
    if given.cores is not None and given.cores < 0:
        raise SettingsError(f"cores must be at least 0, found {given.cores}")
    if not 0 < given.port < 65536:
        raise SettingsError(f"a port is 1 to 65535, found {given.port}")
    host = ip_of(given.host or "127.0.0.1") if given.host or given.head else own_host(given.address)
    if not is_own(host):
        raise SettingsError(f"--host is an address or name of this machine, as 192.168.1.5, found {given.host!r}")
    if given.address and is_loopback(host):
        raise SettingsError(
            f"the cluster at {given.address} is on this machine, which it has already; for one that others can join, "
            "start its head with --host"
        )
    return NodeOptions(host=host, address=given.address, port=given.port, n_cores=given.cores)


def _run(options: NodeOptions, stop: threading.Event) -> int:
    """Be a node until told to stop. A member whose cluster is gone joins again when it is back."""
    address = options.address or f"{options.host}:{options.port}"
    if options.address is not None:
        members(address)  # nobody there, or another token: say so now, and end
    joined_once = False
    while True:
        node = Node(options)
        try:
            joined = _wait_until_joined(node, address, options, stop)
            if joined:
                joined_once = True
                _announce(options, address)
            while not stop.is_set() and not node.wait(_LOOK_S):
                if joined and _is_member(address, options.host) is False:
                    break  # the others think that it is dead; Ray here would notice within a minute
        finally:
            node.stop()
        if stop.is_set():
            _say("stopped")
            return 0
        if options.address is None or not joined_once:
            _say("error: Ray ended by itself; what it printed above says why")
            return 1
        _say(f"left the cluster at {address}; joining again when it answers")
        while not stop.wait(_LOOK_S) and _is_member(address, options.host) is None:
            pass
        if stop.is_set():
            return 0


def _wait_until_joined(node: Node, address: str, options: NodeOptions, stop: threading.Event) -> bool:
    for _ in range(int(_READY_S / 0.2)):
        if stop.is_set() or node.wait(0.2):
            return False
        if _is_member(address, options.host):
            return True
    return False


def _is_member(address: str, host: str) -> bool | None:
    """Return whether a node of this machine is in the cluster, or None where the head does not say."""
    try:
        return any(member.host == host and not is_door(member.folder) for member in members(address))
    except CaviarError:
        return None


def _announce(options: NodeOptions, address: str) -> None:
    cores = os.cpu_count() if options.n_cores is None else options.n_cores
    if options.address is not None:
        _say(f"{options.host} joined the cluster at {address} with {cores} cores; Ctrl-C leaves it")
        return
    _say(f"a cluster runs at {address} with {cores} cores here; Ctrl-C ends it")
    _say(f"sweep on it:         caviar sweep digits --address {address}")
    if is_loopback(options.host):
        _say("other machines cannot join: it listens on this one alone; --host changes that")
    else:
        _say(f"join another machine: python -m workers --address {address}")
    if os.environ.get("RAY_AUTH_MODE") == "token" and has_token():
        where = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(token_path())
        _say(f"whoever has the token in {where} can run any program on these machines; the others need it there too")
    else:
        _say("warning: RAY_AUTH_MODE is not `token`: whoever reaches this port can run any program here")


def _say(text: str) -> None:
    print(f"workers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
