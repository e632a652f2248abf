"""`caviar dashboard` on the trial database."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.acceptance.database.conftest import Command

TIMEOUT_S = 120


@pytest.fixture
def dashboard(caviar: Command) -> Iterator[str]:
    """The address of a dashboard that runs on the database."""
    pytest.importorskip("optuna_dashboard", reason="install caviar[dashboard]")
    process = subprocess.Popen(
        [caviar.program, "dashboard", "--port", "0", "--storage", caviar.url], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process:
        told = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert found is not None, told
        yield found.group()
        process.send_signal(2)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, "Ctrl-C is how it ends"


def get(address: str, **headers: str) -> Any:
    """Return what a page of the dashboard answers."""
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_dashboard_shows_a_study_while_a_sweep_writes(caviar: Command, dashboard: str) -> None:
    """It answers whole, before and while trials come, and the sweep ends well."""
    (study,) = get(f"{dashboard}/api/studies")["study_summaries"]
    assert study["study_name"] == "digits"
    assert len(get(f"{dashboard}/api/studies/{study['study_id']}")["trials"]) == 10

    sweep = subprocess.Popen(
        [caviar.program, "sweep", "iris", "--workers", "0", "--trials", "300", "--storage", caviar.url],
        cwd=caviar.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    with sweep:
        while sweep.poll() is None:
            for one in get(f"{dashboard}/api/studies")["study_summaries"]:
                seen.append(len(get(f"{dashboard}/api/studies/{one['study_id']}")["trials"]))
        assert sweep.stderr is not None
        assert sweep.returncode == 0, sweep.stderr.read()

    assert len(seen) > 1
    assert caviar.json("show", "iris", "--json")["states"] == {"COMPLETE": 300}


def test_the_dashboard_answers_this_machine_only(dashboard: str) -> None:
    """A page of another site, or one that has another name point here, is refused."""
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(f"{dashboard}/api/studies", **headers)
