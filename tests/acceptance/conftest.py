"""The installed `caviar` command, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


class Caviar:
    """Runs `caviar` in a folder of its own, so that its database is there."""

    #: Of each command; far more than it needs.
    timeout_s = 120

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        beside = Path(sys.executable).parent / "caviar"
        found = str(beside) if beside.exists() else shutil.which("caviar")
        if found is None:
            pytest.skip("no `caviar` command: pip install -e .")
        self.command: str = found

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and return its process."""
        return subprocess.Popen(
            [self.command, *words],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )

    def run(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be `status`."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=self.timeout_s)
        assert process.returncode == status, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def json(self, *words: str) -> Any:
        """Run a command and return the JSON that it prints."""
        return json.loads(self.run(*words).stdout)


@pytest.fixture(scope="session")
def make_caviar() -> type[Caviar]:
    """Makes the command, given a folder to run in."""
    return Caviar


@pytest.fixture
def caviar(tmp_path: Path) -> Caviar:
    """The command, with an empty folder to run in."""
    return Caviar(tmp_path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Caviar:
    """The command in a folder with a study `iris` of three trials of two epochs. Only read from it."""
    command = Caviar(tmp_path_factory.mktemp("swept"))
    command.run("sweep", "iris", "--workers", "0", "--trials", "3", "--epochs", "2")
    return command
