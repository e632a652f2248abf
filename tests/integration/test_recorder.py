"""The writer of a sweep: what becomes of results when time passes, the database goes away, or somebody dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from caviar import recorder as recorder_module
from caviar.errors import StorageError, StudyBusy
from caviar.execution.inline import InlineExecutor
from caviar.opening import create_study
from caviar.recorder import Recorder
from caviar.records import SweepProgress, TrialResult, TrialState
from caviar.storage import Storage, open_storage
from caviar.storage.holder import new_holder
from caviar.storage.spool import Spool
from caviar.storage.sql_storage import SqlStorage
from caviar.sweep import sweep
from caviar.testing.storage import make_result, make_spec, make_trial

if TYPE_CHECKING:
    from tests.integration.conftest import Server

DEADLINE_S = 60.0


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once something is so; fail after a generous while."""
    pause = threading.Event()
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.02)


def open_recorder(storage: Storage, folder: Path, owner: str | None = None, **given: Any) -> Recorder:
    """Return a recorder of the study `digits`."""
    return Recorder(storage, "digits", owner or new_holder(), Spool(storage.get_study("digits"), folder, **given))


@pytest.fixture
def digits(storage: Storage) -> Storage:
    """A storage with the study `digits`, without trials."""
    storage.create_study(make_spec())
    return storage


def test_a_result_is_in_the_database_soon(digits: Storage, tmp_path: Path) -> None:
    """Without a further call: another process sees it while this one does something else."""
    recorder = open_recorder(digits, tmp_path)
    recorder.add([make_trial(0, state=TrialState.WAITING)])
    recorder.record(make_result(0))

    wait_until(lambda: digits.summary("digits").counts == {TrialState.COMPLETE: 1})

    recorder.close()
    assert list(tmp_path.glob("*.jsonl")) == []


def test_many_results_are_written_in_order(digits: Storage, tmp_path: Path) -> None:
    """Several groups of new trials, their results, and a later word on one of them."""
    n = 2 * recorder_module.GROUP_TRIALS + 500
    recorder = open_recorder(digits, tmp_path)
    recorder.add([make_trial(number, state=TrialState.WAITING) for number in range(n)])
    for number in range(n):
        recorder.record(make_result(number))
    last = make_trial(7, state=TrialState.COMPLETE, metrics={"val_accuracy": 0.9, "test_accuracy": 0.5})

    recorder.record(TrialResult(trial=last))
    recorder.flush()

    assert digits.summary("digits").counts == {TrialState.COMPLETE: n}
    assert digits.get_trial("digits", 7) == last
    assert len(digits.reports("digits", 7)) == len(digits.reports("digits", n - 1)) > 0
    recorder.close()


def test_the_lease_is_renewed_whatever_the_caller_does(
    digits: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that is busy for longer than a lease lasts is still the only one."""
    monkeypatch.setattr(recorder_module, "LEASE_S", 5.0)
    monkeypatch.setattr(recorder_module, "_RENEW_S", 0.1)
    recorder = open_recorder(digits, tmp_path)

    busy_until = time.monotonic() + 7.0
    while time.monotonic() < busy_until:
        with pytest.raises(StudyBusy):
            digits.acquire_lease("digits", "other", 60)

    recorder.close()
    digits.acquire_lease("digits", "other", 60)


def test_whoever_has_lost_the_lease_writes_nothing(digits: Storage, tmp_path: Path) -> None:
    """A coordinator that was stopped while another took over is told, and its results stay out."""
    recorder = open_recorder(digits, tmp_path, owner="slow")
    recorder.add([make_trial(0, state=TrialState.WAITING)])
    recorder.flush()
    digits.release_lease("digits", "slow")
    digits.acquire_lease("digits", "quick", 60)

    recorder.record(make_result(0))
    with pytest.raises(StudyBusy, match="lease of study 'digits' was lost, 'quick' holds it now"):
        recorder.flush()

    recorder.close()
    assert digits.get_trial("digits", 0).state is TrialState.WAITING
    with pytest.raises(StudyBusy):
        digits.acquire_lease("digits", "third", 60)


_HOLD = """
import sys
from caviar.storage import open_storage
from caviar.storage.holder import new_holder
open_storage(sys.argv[1]).acquire_lease("digits", new_holder(), 3600)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lease_of_a_dead_process_is_taken_over_at_once(digits: Storage, database_url: str) -> None:
    """While it lives its lease holds; once it was killed, another on the same machine need not wait."""
    holding = subprocess.Popen(
        [sys.executable, "-c", _HOLD, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "held\n"
        with pytest.raises(StudyBusy, match=f":{holding.pid}' since"):
            digits.acquire_lease("digits", new_holder(), 60)
        with pytest.raises(StudyBusy):
            digits.delete_study("digits")
        holding.kill()
        holding.wait()

        digits.acquire_lease("digits", new_holder(), 60)


def test_a_holder_of_elsewhere_is_not_taken_for_dead(digits: Storage) -> None:
    """Another machine's process numbers say nothing here."""
    host, _pid, started, _machine, tail = new_holder().rsplit(":", 4)
    elsewhere = f"{host}:999999:{started}:another:{tail}"
    digits.acquire_lease("digits", elsewhere, 60)

    with pytest.raises(StudyBusy):
        digits.acquire_lease("digits", new_holder(), 60)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(sqlite_url: str, tmp_path: Path) -> None:
    """The trials of the transaction that did not fit are as they were; with space again, the rest is written."""
    storage = open_storage(sqlite_url)
    assert isinstance(storage, SqlStorage)
    storage.create_study(make_spec())
    storage.add_trials("digits", [make_trial(number, state=TrialState.WAITING) for number in range(900)])
    engine = storage.database._engine
    engine.dispose()

    def no_more_pages(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    event.listen(engine, "connect", no_more_pages)
    recorder = open_recorder(storage, tmp_path)
    for number in range(900):
        recorder.record(make_result(number))
    with pytest.raises(StorageError, match="database or disk is full; free some space, then run the command again"):
        recorder.flush()
    recorder.close()

    assert storage.summary("digits").counts == {TrialState.WAITING: 900}
    assert len(storage.reports("digits", 0)) == 0
    event.remove(engine, "connect", no_more_pages)
    engine.dispose()
    recorder = open_recorder(storage, tmp_path)
    for number in range(900):
        recorder.record(make_result(number))
    recorder.flush()
    recorder.close()
    assert storage.summary("digits").counts == {TrialState.COMPLETE: 900}
    storage.close()


@pytest.mark.postgres
def test_results_wait_while_the_server_is_away(server: Server, tmp_path: Path) -> None:
    """They are in a file meanwhile, which says so, and in the database when it is back; the file is gone then."""
    storage = open_storage(server.url)
    storage.create_study(make_spec())
    recorder = open_recorder(storage, tmp_path)
    recorder.add([make_trial(number, state=TrialState.WAITING) for number in range(10)])
    recorder.flush()
    server.stop()

    recorder.record(make_result(0))
    recorder.add([make_trial(10, state=TrialState.WAITING)])
    recorder.record(make_result(10))
    judged = {"val_accuracy": 0.9, "test_accuracy": 0.5}
    recorder.record(TrialResult(trial=make_trial(10, state=TrialState.COMPLETE, metrics=judged)))
    recorder.flush()

    (waiting,) = tmp_path.glob("*.jsonl")
    assert len(waiting.read_text().splitlines()) == 1 + 4
    assert recorder.notice is not None
    assert "does not answer since" in recorder.notice and "4 results wait in" in recorder.notice
    server.start()
    wait_until(lambda: recorder.wait_for_database(0.1))
    assert recorder.notice is None
    assert not waiting.exists()
    counts = storage.summary("digits").counts
    assert counts == {TrialState.COMPLETE: 2, TrialState.WAITING: 9}
    assert len(storage.reports("digits", 10)) > 0
    assert storage.get_trial("digits", 10).metrics["test_accuracy"] == 0.5
    recorder.close()
    storage.close()


@pytest.mark.postgres
def test_another_process_writes_what_waits(server: Server, tmp_path: Path) -> None:
    """A recorder that ends while the server is away leaves the file to the next; what another trained stays."""
    storage = open_storage(server.url)
    storage.create_study(make_spec())
    recorder = open_recorder(storage, tmp_path, owner="me")
    recorder.add([make_trial(number, state=TrialState.WAITING) for number in range(3)])
    recorder.flush()
    server.stop()
    recorder.record(make_result(0))
    recorder.record(make_result(1))
    recorder.close()
    server.start()
    elsewhere = make_trial(1, state=TrialState.COMPLETE, finished_at=datetime.now(UTC), metrics={"test_accuracy": 0.7})
    storage.write("digits", [TrialResult(trial=elsewhere)])

    open_recorder(storage, tmp_path, owner="me").close()

    assert storage.get_trial("digits", 0) == make_result(0).trial
    assert storage.get_trial("digits", 1) == elsewhere
    assert list(tmp_path.glob("*.jsonl")) == []
    storage.close()


@pytest.mark.postgres
def test_a_full_spool_asks_for_no_more(server: Server, tmp_path: Path) -> None:
    """From its limit on there is no room, until the server is back."""
    storage = open_storage(server.url)
    storage.create_study(make_spec())
    recorder = open_recorder(storage, tmp_path, limit_bytes=1000)
    recorder.add([make_trial(number, state=TrialState.WAITING) for number in range(10)])
    recorder.flush()
    server.stop()

    for number in range(5):
        recorder.record(make_result(number))
    recorder.flush()

    assert not recorder.has_room
    assert recorder.notice is not None and "the file is full, so that training waits" in recorder.notice
    server.start()
    wait_until(lambda: recorder.wait_for_database(0.1))
    assert recorder.has_room
    recorder.close()
    storage.close()


@pytest.mark.postgres
@pytest.mark.slow
def test_a_sweep_goes_on_while_the_server_is_away(server: Server, tmp_path: Path) -> None:
    """Training goes on, the display is told, and in the end the database holds what it would have held."""
    storage = open_storage(server.url)
    study = create_study("iris", epochs=20, storage=storage)
    stopped, notices = [], []

    def on_progress(progress: SweepProgress) -> None:
        if progress.n_ended_now and not stopped:
            server.stop()
            stopped.append(progress.n_ended_now)
        if progress.notice:
            notices.append(progress)
        if progress.notice and progress.n_ended_now == 300 and len(stopped) == 1:
            server.start()
            stopped.append(progress.n_ended_now)

    result = sweep(
        storage, study.spec, study.data, InlineExecutor(), 300, on_progress=on_progress, spool_folder=tmp_path
    )

    assert stopped[0] < 300 == stopped[1], "the server was not away while trials ended"
    assert notices
    assert result.progress.notice is None
    assert storage.summary("iris").counts == {TrialState.COMPLETE: 300}
    assert list(tmp_path.glob("*.jsonl")) == []
    other = open_storage("sqlite://")
    undisturbed = create_study("iris", epochs=20, storage=other)
    sweep(other, undisturbed.spec, undisturbed.data, InlineExecutor(), 300)
    assert [(t.params, t.value, t.epoch) for t in storage.trials("iris")] == [
        (t.params, t.value, t.epoch) for t in other.trials("iris")
    ]
    storage.close()


@pytest.mark.slow
def test_a_killed_sweep_goes_on_at_once(sqlite_url: str, tmp_path: Path) -> None:
    """kill -9, the same command: no wait for a lease, and the exact budget."""
    command = [Path(sys.executable).with_name("caviar"), "sweep", "digits", "--workers", "0", "--trials", "200"]
    command += ["--storage", sqlite_url]
    storage = open_storage(sqlite_url)
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_until(lambda: any(summary.counts.get(TrialState.COMPLETE) for summary in storage.studies()))
        os.kill(process.pid, signal.SIGKILL)
    n_before = storage.summary("digits").counts[TrialState.COMPLETE]

    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    assert 0 < n_before < 200
    assert storage.summary("digits").counts == {TrialState.COMPLETE: 200}
    storage.close()
