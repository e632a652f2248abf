"""A sweep across hosts, whatever happens to them: N trials, and the bits of one machine left in peace."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caviar.opening import create_study
from caviar.storage import Storage, open_storage
from caviar.testing.digest import study_digest

from .conftest import DEADLINE_S, Cluster, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.ray, pytest.mark.postgres]

N_TRIALS = 100
SETTINGS = ("--data", "digits", "--epochs", "20", "--seed", "3", "--trials", str(N_TRIALS))
#: Trials that have ended when something happens.
EARLY = 8


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the study, swept in this process alone."""
    storage = open_storage(f"sqlite:///{tmp_path_factory.mktemp('alone') / 'caviar.db'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAVIAR_KERNEL", "numpy")
        create_study("alone", data="digits", seed=3, epochs=20, storage=storage).sweep(N_TRIALS, n_workers=0)
    found = study_digest(storage, "alone")
    storage.close()
    return found


@pytest.fixture
def storage(cluster: Cluster) -> Iterator[Storage]:
    """The trial database of the cluster."""
    opened = open_storage(cluster.storage)
    yield opened
    opened.close()


@pytest.fixture
def both(cluster: Cluster) -> Cluster:
    """The cluster with both workers."""
    if "worker2" not in cluster.running:
        n_joined = cluster.n_joined("worker2")
        cluster.start("worker2")
        eventually(lambda: cluster.n_joined("worker2") > n_joined, "worker2 joined")
    return cluster


def workers(storage: Storage, study: str) -> Counter[str]:
    """Return how many trials each host ended."""
    ended = storage.trials(study, where="state = 'COMPLETE'")
    return Counter((trial.worker or "").partition(":")[0] for trial in ended)


def has_trials(storage: Storage, study: str, n_trials: int, host: str | None = None) -> bool:
    """Return whether so many have ended, on a host."""
    if study not in [summary.spec.name for summary in storage.studies()]:
        return False
    found = workers(storage, study)
    return (found[host] if host else found.total()) >= n_trials


def assert_undisturbed(storage: Storage, study: str, expected: str) -> None:
    """The study holds each trial once, all COMPLETE, with the bits of one machine."""
    trials = storage.trials(study)
    assert [trial.number for trial in trials] == list(range(N_TRIALS))
    assert {trial.state for trial in trials} == {"COMPLETE"}
    assert study_digest(storage, study) == expected


def finish(cluster: Cluster, study: str, sweep: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a sweep, which must be a good one."""
    status = sweep.wait(DEADLINE_S)
    assert status == 0, cluster.log(study).read_text(errors="replace")[-3000:]


def test_a_worker_that_joins_late_is_used(cluster: Cluster, storage: Storage, expected: str) -> None:
    """A sweep begins on one worker; a second one that joins trains as well."""
    sweep = cluster.sweep("late", *SETTINGS)
    eventually(lambda: has_trials(storage, "late", EARLY), "trials ended")

    cluster.start("worker2")
    finish(cluster, "late", sweep)

    assert set(workers(storage, "late")) == {"worker1", "worker2"}
    assert_undisturbed(storage, "late", expected)


def test_a_killed_worker_is_not_missed(both: Cluster, storage: Storage, expected: str) -> None:
    """All processes of a worker are killed in mid-sweep."""
    sweep = both.sweep("killed", *SETTINGS)
    eventually(lambda: has_trials(storage, "killed", EARLY, "worker2"), "worker2 ended trials")

    both.kill("worker2")
    finish(both, "killed", sweep)

    assert_undisturbed(storage, "killed", expected)


def test_a_worker_cut_off_is_not_missed_and_comes_back(both: Cluster, storage: Storage, expected: str) -> None:
    """A worker's cable is pulled in mid-sweep; once it is mended, the worker joins again by itself."""
    n_joined = both.n_joined("worker2")
    sweep = both.sweep("cut", *SETTINGS)
    eventually(lambda: has_trials(storage, "cut", EARLY, "worker2"), "worker2 ended trials")

    both.hosts["worker2"].cut()
    try:
        finish(both, "cut", sweep)
    finally:
        both.hosts["worker2"].mend()

    assert_undisturbed(storage, "cut", expected)
    eventually(lambda: both.n_joined("worker2") > n_joined, "worker2 joined again")


def test_a_client_that_is_killed_goes_on(both: Cluster, storage: Storage, expected: str) -> None:
    """The machine that sweeps is killed in mid-sweep; the same command goes on to the budget."""
    sweep = both.sweep("client", *SETTINGS)
    eventually(lambda: has_trials(storage, "client", EARLY), "trials ended")

    both.network.kill(sweep)
    assert not has_trials(storage, "client", N_TRIALS)
    # until the lease of the dead one expires, the study is busy
    eventually(lambda: both.sweep("client", *SETTINGS).wait(DEADLINE_S) == 0, "the sweep went on")

    assert_undisturbed(storage, "client", expected)


def test_a_database_that_restarts_is_waited_for(both: Cluster, storage: Storage, expected: str) -> None:
    """Postgres is killed in mid-sweep and started again some results later."""
    sweep = both.sweep("database", *SETTINGS)
    eventually(lambda: has_trials(storage, "database", EARLY), "trials ended")

    both.kill("postgres")
    log = both.log("database").read_text(errors="replace")
    eventually(lambda: both.log("database").read_text(errors="replace") != log, "the sweep went on")
    both.start("postgres")
    eventually(lambda: both.is_healthy("postgres"), "Postgres is healthy")
    finish(both, "database", sweep)

    assert_undisturbed(storage, "database", expected)


def test_data_crosses_once_per_node(both: Cluster, storage: Storage, tmp_path: Path) -> None:
    """Of 24 MB of data, trained on by many slices, a worker's host receives little more than one copy."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12_000, 500)).astype(np.float32)
    np.savez(tmp_path / "big.npz", X=x, y=(x[:, 0] > 0).astype(np.int64))
    (tmp_path / "space.toml").write_text("layers = 0\nbatch_size = 1024\n[learning_rate]\nlow = 0.01\nhigh = 0.1\n")
    host = both.hosts["worker1"]
    before = host.n_bytes_received()

    words = ("--data", str(tmp_path / "big.npz"), "--space", str(tmp_path / "space.toml"), "--epochs", "2")
    finish(both, "big", both.sweep("big", *words, "--trials", "60"))

    received = host.n_bytes_received() - before
    assert workers(storage, "big")["worker1"] > 5
    assert x.nbytes < received < 1.6 * x.nbytes
