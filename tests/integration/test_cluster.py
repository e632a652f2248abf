"""Clusters of several nodes on this machine: joined by address, and training with the code of whoever sweeps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from caviar.doctor import diagnose
from caviar.errors import ExecutorError
from caviar.execution.base import Slice, TrialOutcome
from caviar.opening import create_study
from caviar.records import SweepProgress
from caviar.storage import Storage, open_storage
from caviar.study import Study
from caviar.testing.digest import study_digest
from caviar.training.dataset import Dataset

pytestmark = pytest.mark.ray

N_TRIALS = 60
#: For anything that takes seconds on a machine that has nothing else to do.
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head without cores and two nodes of one core, on which another caviar is installed that cannot train."""
    from workers.cluster import prepare_environment

    other = tmp_path_factory.mktemp("other") / "caviar"
    other.mkdir()
    (other / "__init__.py").write_text("raise ImportError('another caviar')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("PYTHONPATH", str(other.parent))
        prepare_environment("127.0.0.1", create_token=True)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made
    for node in nodes:
        if node in made.worker_nodes:
            made.remove_node(node)
    made.shutdown()


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def numpy_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep with the kernel that need not be compiled on each node first."""
    monkeypatch.setenv("CAVIAR_KERNEL", "numpy")


def make_study(storage: Storage, name: str) -> Study:
    return create_study(name, data="iris", seed=3, epochs=60, storage=storage)


def trained_by(storage: Storage, study: str) -> set[str]:
    """Return the ids of the processes that trained its trials."""
    return {(trial.worker or "").rpartition(":")[2] for trial in storage.trials(study)}


def test_the_doctor_sees_each_node(cluster: Any, sqlite_url: str) -> None:
    """It names nodes, versions, cores and BLAS threads, and finds nothing wrong."""
    open_storage(sqlite_url).close()

    found = diagnose(cluster.address, sqlite_url)

    assert found.cluster is not None and found.database is not None
    assert [finding for finding in found.findings if finding.level == "problem"] == []
    assert sorted(node.n_cores for node in found.cluster.nodes) == [0, 1, 1]
    assert {node.facts.blas_threads for node in found.cluster.nodes if node.facts} == {1}
    assert all(abs(node.clock_ahead) <= node.clock_error + 0.5 for node in found.cluster.nodes)
    assert found.is_well


def test_a_worker_that_dies_of_its_slice_is_not_tried_for_ever(cluster: Any) -> None:
    """A slice that kills each worker ends as lost, and the next one is trained."""
    from caviar.data import load_dataset, resolve
    from caviar.errors import SliceLost
    from caviar.execution.base import TrialTask
    from workers.executor import RayExecutor

    data = load_dataset(resolve("iris", None), "float32")

    def run(slice: Slice, data: Dataset) -> list[TrialOutcome]:
        if slice.kernel == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return []

    executor = RayExecutor(cluster.address, run=run)
    try:
        executor.load(data)
        task = TrialTask(number=0, params={}, key=(0, 0), until=1)
        deadly, harmless = (executor.submit(Slice(tasks=(task,), kernel=kernel)) for kernel in ("deadly", "good"))
        open_jobs, deadline = {deadly, harmless}, time.monotonic() + DEADLINE_S
        while open_jobs and time.monotonic() < deadline:
            open_jobs -= set(executor.wait(list(open_jobs), 1.0))

        assert not open_jobs
        assert harmless.result() == []
        with pytest.raises(SliceLost, match="a worker died 3 times while it trained 1 trials"):
            deadly.result()
    finally:
        executor.close()


def test_two_workers_train(cluster: Any, storage: Storage, numpy_kernel: None) -> None:
    """Trials end in two processes and not in this one, which has only joined; the bits are those of this one alone."""
    here, there = make_study(storage, "here"), make_study(storage, "there")
    n_trials, deadline = 0, time.monotonic() + DEADLINE_S

    while len(trained_by(storage, "there")) < 2 and time.monotonic() < deadline:
        n_trials += N_TRIALS  # a node that starts late may have missed all of a sweep
        there.sweep(n_trials, address=cluster.address)

    here.sweep(n_trials, n_workers=0)
    assert len(trained_by(storage, "there")) >= 2
    assert trained_by(storage, "here") == {str(os.getpid())}
    assert str(os.getpid()) not in trained_by(storage, "there")
    assert study_digest(storage, "there") == study_digest(storage, "here")


def test_a_lost_node_is_not_missed(cluster: Any, storage: Storage, numpy_kernel: None) -> None:
    """A node is taken away and another joins: every trial completes, with the bits of this process alone."""
    here, there = make_study(storage, "here"), make_study(storage, "there")
    here.sweep(N_TRIALS, n_workers=0)
    lost: list[Any] = []

    def take_one_away(progress: SweepProgress) -> None:
        if progress.n_ended_now and not lost:
            assert progress.n_ended_now < N_TRIALS
            lost.append(cluster.worker_nodes.copy().pop())
            cluster.remove_node(lost[0], allow_graceful=False)
            cluster.add_node(num_cpus=1)

    result = there.sweep(N_TRIALS, address=cluster.address, on_progress=take_one_away)

    assert lost
    assert (result.progress.n_complete, result.progress.n_failed) == (N_TRIALS, 0)
    assert str(os.getpid()) not in trained_by(storage, "there")
    assert study_digest(storage, "there") == study_digest(storage, "here")


def test_another_token_is_refused(cluster: Any, tmp_path: Path) -> None:
    """A process without the cluster's token is told so, in one line, and no study is left behind."""
    command = [Path(sys.executable).with_name("caviar"), "sweep", "iris", "--address", cluster.address]

    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=os.environ | {"RAY_AUTH_TOKEN": "f" * 64},
    )

    (line,) = [line for line in done.stderr.splitlines() if line.startswith("caviar: ")]
    assert done.returncode == 1
    assert "wants another token" in line and "RAY_AUTH_TOKEN" in line
    assert not (tmp_path / "caviar.db").exists()


@pytest.mark.parametrize("port_is_open", [False, True])
def test_an_address_without_cluster_is_refused_before_a_study_is_made(tmp_path: Path, port_is_open: bool) -> None:
    """Nobody there, or a server that is no Ray: one line within 15 seconds or so, and no database."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        if not port_is_open:
            server.close()
        command = [Path(sys.executable).with_name("caviar"), "sweep", "iris", "--address", f"127.0.0.1:{port}"]

        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)

    (line,) = [line for line in done.stderr.splitlines() if line.startswith("caviar: ")]
    assert done.returncode == 1
    assert f"'127.0.0.1:{port}'" in line
    assert not (tmp_path / "caviar.db").exists()


class TestNode:
    """`python -m workers` as a user runs it."""

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "workers", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def test_a_head_listens_on_loopback_alone_and_stops_at_sigterm(self) -> None:
        """It says how to sweep on it; no port of it is reached from outside; SIGTERM ends all of it with exit 0."""
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        with self.start("--head", "--cores", "1", "--port", str(port)) as head:
            assert head.stderr is not None
            lines = iter(head.stderr.readline, "")
            said = next(line for line in lines if line.startswith("workers: "))
            session = os.getsid(_child(head.pid))
            listening = _listening(session)

            head.send_signal(signal.SIGTERM)
            head.communicate(timeout=DEADLINE_S)

        assert said.startswith(f"workers: a cluster runs at 127.0.0.1:{port} with 1 cores here")
        assert listening and all(address.startswith("127.") for address in listening)
        assert head.returncode == 0
        assert _listening(session) == set()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--address", "127.0.0.1:6379"), "the cluster at 127.0.0.1:6379 is on this machine"),
            (("--address", "nonsense"), "the address of a Ray cluster is HOST:PORT"),
            (("--head", "--host", "192.0.2.77"), "--host is an address or name of this machine"),
            (("--head", "--cores", "-1"), "cores must be at least 0, found -1"),
            (("--head", "--port", "0"), "a port is 1 to 65535, found 0"),
        ],
    )
    def test_what_cannot_be_is_refused(self, words: tuple[str, ...], message: str) -> None:
        """One line says what was expected, and the exit code is 1."""
        with self.start(*words) as process:
            _, err = process.communicate(timeout=DEADLINE_S)

        assert process.returncode == 1
        assert err.startswith(f"workers: error: {message}")
        assert err.count("\n") == 1


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _listening(session: int) -> set[str]:
    """Return the addresses on which the processes of a session listen."""
    sockets = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                sockets |= {str(file.readlink()) for file in (process / "fd").iterdir()}
        except OSError:  # it has ended
            continue
    found = set()
    for line in [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and f"socket:[{rest[5]}]" in sockets:
            host = bytes.fromhex(local.partition(":")[0])
            found.add(socket.inet_ntoa(host[-4:][::-1]))
    return found


def test_a_malformed_address_is_refused() -> None:
    """An address is HOST:PORT."""
    from workers.executor import RayExecutor

    for address in ("localhost", "a:b", ":6379", "host:99999", "ray://host:10001"):
        with pytest.raises(ExecutorError, match="HOST:PORT"):
            RayExecutor.check(address)
