"""The `caviar` command on a database with a study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from caviar.records import TrialResult, TrialState
from caviar.storage import open_storage
from caviar.testing.storage import make_result, make_spec, make_trial


class Command:
    """Runs `caviar` on one database."""

    program = str(Path(sys.executable).with_name("caviar"))
    #: Of each command; far more than it needs.
    timeout_s = 120

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def run(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be `status`."""
        environment = os.environ | {"CAVIAR_STORAGE": self.url, "COLUMNS": "200"}
        done = subprocess.run(
            [self.program, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=self.timeout_s,
        )
        assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if status == 1:
            assert re.fullmatch(r"caviar: error: .*\n", done.stderr), "one line says what went wrong"
        return done

    def json(self, *words: str) -> Any:
        """Run a command and return the JSON that it prints."""
        return json.loads(self.run(*words).stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.fixture(scope="session")
def make_command() -> type[Command]:
    """Makes the command, given a folder to run in and the URL of a database."""
    return Command


@pytest.fixture
def caviar(tmp_path: Path, database_url: str) -> Command:
    """The command on a database, of each kind in turn, with a study `digits` of ten trials."""
    return _filled(tmp_path, database_url)


@pytest.fixture
def on_sqlite(tmp_path: Path, sqlite_url: str) -> Command:
    """The same on SQLite alone."""
    return _filled(tmp_path, sqlite_url)


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> Command:
    """The same on Postgres alone."""
    return _filled(tmp_path, postgres_url)


def _filled(folder: Path, url: str) -> Command:
    storage = open_storage(url)
    storage.create_study(make_spec())
    trials = [make_result(number, value=number / 10) for number in range(8)]
    trials.append(TrialResult(trial=make_trial(8, state=TrialState.FAIL, reason="error", error="ValueError: it's bad")))
    trials.append(TrialResult(trial=make_trial(9)))
    storage.add_trials("digits", [result.trial for result in trials])
    storage.write("digits", trials)
    storage.close()
    return Command(folder, url)
