"""A babysat run whose database or disk is away, full, or another's too, goes on with what there is."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from caviar.errors import CheckpointError, TrialNotFound
from caviar.opening import load_study
from caviar.panda.shelf import Policy
from caviar.records import TrialState
from caviar.study import Study
from caviar.testing.panda import DEADLINE_S, assert_as_retold, files, last_checkpoint

if TYPE_CHECKING:
    from tests.integration.conftest import Server


@pytest.mark.postgres
def test_a_database_that_restarts_is_waited_for(server: Server, make_study: Callable[..., Study]) -> None:
    """Training goes on meanwhile, people are told, and nothing is missing in the end."""
    study, said = make_study(server.url), []
    with study.panda(epochs=9, on_event=said.append) as panda:
        next(panda)
        panda.set(learning_rate=0.01)
        server.stop()
        epochs = [next(panda).epoch for _ in range(3)]
        server.start()
        epochs += [report.epoch for report in panda]

    assert epochs == list(range(2, 10))
    assert any("training goes on" in line for line in said) and "the database answers again" in said
    assert study.trials()[0].state is TrialState.COMPLETE
    assert len(study.storage.reports("s", 0)) == 9
    assert study.replay(0).is_identical


FULL_DISK = """
import resource, signal, sys
from caviar.cli.panda_start import _text
from caviar.opening import load_study

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
study = load_study("s", storage=sys.argv[1])
said = []
with study.panda(0, on_event=said.append) as panda:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for report in panda:
        if report.epoch == 3:
            panda.scribe.flush()
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), limit[1]))
        if report.epoch == 5:
            try:
                panda.checkpoint()
            except Exception as error:
                print(type(error).__name__, error)
            try:
                panda.branch(epoch=2)
            except Exception as error:
                print(type(error).__name__, error)
        if report.epoch == 6:
            panda.scribe.flush()
            if sys.argv[2] == "ends":
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            else:
                break
print("SAID", *said, sep="\\n")
print(_text(study, panda, None))
"""


@pytest.mark.parametrize("then", ["ends", "is left"])
@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_with_a_full_disk_training_goes_on_without_checkpoints(
    make_study: Callable[..., Study], postgres_url: str, then: str
) -> None:
    """Whoever asks for a checkpoint is told; no half file is left; later the run goes on from what there is."""
    study = make_study(postgres_url)  # the limit holds for every file of the process, so its database is elsewhere
    with study.panda(epochs=8):
        pass
    size = last_checkpoint(study, 0).size_bytes

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, postgres_url, then, str(size // 2)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "RequestRejected could not write the checkpoint" in done.stdout
    assert done.stdout.count("RequestRejected") == 2, done.stdout
    assert "training goes on without this checkpoint" in done.stdout
    assert not [name for name in files(study) if name.endswith(".part")]
    known = study.storage.sessions.checkpoints("s", 0)
    assert {c.epoch for c in known} == ({0, 1, 2, 3, 7, 8} if then == "ends" else {0, 1, 2, 3})
    with_files = {name for name in files(study) if "/0/" in name}
    assert len(with_files) == len(known)
    if then == "is left":
        assert (
            "left at epoch 6, of which no checkpoint could be written: the last that was is of epoch 3" in done.stdout
        )
        with study.panda(0) as panda:
            assert panda.epoch == 3
            assert [report.epoch for report in panda] == [4, 5, 6, 7, 8]
    assert study.storage.get_trial("s", 0).epoch == 8
    assert_as_retold(study, 0)
    with pytest.raises(TrialNotFound):  # the branch that could not begin
        study.storage.get_trial("s", 1)


def test_without_room_for_checkpoints_a_fresh_model_leaves_no_trial(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command begins it, once the folder can be made."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "file" / "folder"))

    with pytest.raises(CheckpointError, match="could not make the folder"):
        study.panda()
    assert study.summary().n_trials == 0
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "folder"))

    with study.panda(epochs=2) as panda:
        assert panda.trial.number == 0
        assert [report.epoch for report in panda] == [1, 2]
    assert_as_retold(study, 0)


def test_a_copy_of_a_database_leaves_the_checkpoints_of_the_first_alone(
    study: Study, tmp_path: Path, sqlite_url: str
) -> None:
    """With one folder for both, each goes on from its own last checkpoint and is the run of its own record."""
    with study.panda(epochs=20, checkpoints=Policy(keep=2)) as panda:
        while panda.epoch < 6:
            next(panda)
    known = {c.path for c in study.storage.sessions.checkpoints("s", 0)}
    with (
        sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as first,
        sqlite3.connect(tmp_path / "copy.db") as second,
    ):
        first.backup(second)
    copy = load_study("s", storage=f"sqlite:///{tmp_path / 'copy.db'}")

    with copy.panda(0, epochs=12) as panda:
        assert panda.epoch == 6
        assert len(list(panda)) == 6

    there_are = files(study)
    assert all(any(file.endswith(path) for file in there_are) for path in known)
    assert len([c for c in copy.storage.sessions.checkpoints("s", 0) if not c.pins]) <= 2
    with study.panda(0, params={"learning_rate": 0.01}) as panda:
        assert panda.epoch == 6
        assert len(list(panda)) == 14
    for one in (study, copy):
        assert_as_retold(one, 0)
        assert one.replay(0).is_identical
    copy.storage.close()
