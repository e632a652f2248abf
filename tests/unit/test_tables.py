"""Tables on terminals of some width and in pipes, and the block of a sweep."""

from __future__ import annotations

import sys

import pytest
from rich.console import Console

from caviar.cli.display import block
from caviar.cli.tables import print_table
from caviar.records import SweepProgress
from caviar.wording import command, counted

ROWS = [
    {"study": "digits", "number": n, "state": "COMPLETE", "learning_rate": 0.1 * n, "val_accuracy": 0.9, "error": None}
    for n in range(3)
]


def printed(rows: list[dict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> str:
    """Return what a terminal of so many columns gets."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(rows, "nothing")
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [30, 40, 50])
def test_columns_that_do_not_fit_follow_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """No line is wider than the terminal, each block says whose rows they are, and no column is lost."""
    blocks = [block.splitlines() for block in printed(ROWS, monkeypatch, capsys, width).split("\n\n")]

    assert len(blocks) > 1
    assert max(len(line) for block in blocks for line in block) <= width
    for head, *lines in blocks:
        assert head.split()[:2] == ["study", "number"]
        assert [line.split()[:2] for line in lines] == [["digits", str(n)] for n in range(3)]
    assert [name for head, *_ in blocks for name in head.split()[2:]] == [*ROWS[0]][2:]


def test_a_table_that_fits_is_one_block(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is parted without need."""
    assert len(printed(ROWS, monkeypatch, capsys, 120).splitlines()) == 1 + len(ROWS)


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs that read a table find each row in one line, however narrow the terminal beside."""
    monkeypatch.setenv("COLUMNS", "20")
    print_table(ROWS, "nothing")

    assert len(capsys.readouterr().out.splitlines()) == 1 + len(ROWS)


def test_a_cell_wider_than_the_terminal_is_printed_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stands alone; the terminal breaks it."""
    out = printed([{"number": 1, "error": "x" * 50, "epoch": 3}], monkeypatch, capsys, 30)

    assert "x" * 50 in out
    assert "epoch" in out


@pytest.mark.parametrize(
    ("n_pruned", "n_running", "n_workers", "expected"),
    [
        (0, 0, 1, "7 done on 1 worker, 0 failed"),
        (0, 3, 2, "7 done, 3 running on 2 workers, 0 failed"),
        (5, 3, 2, "7 done, 5 pruned, 3 running on 2 workers, 0 failed"),
    ],
)
def test_a_sweep_is_not_said_to_run_nothing(
    capsys: pytest.CaptureFixture[str], n_pruned: int, n_running: int, n_workers: int, expected: str
) -> None:
    """What is trained in this process is not counted as running, and still is trained."""
    progress = SweepProgress(
        study="digits",
        n_trials=64,
        n_complete=7,
        n_pruned=n_pruned,
        n_failed=0,
        n_running=n_running,
        n_babysat=0,
        n_ended_now=7,
        seconds=1.0,
        n_workers=n_workers,
        best=None,
        seconds_left=None,
    )
    Console(width=80).print(block(progress, "val_accuracy"))

    out = capsys.readouterr().out
    assert expected in out
    assert f"{7 + n_pruned}/64" in out


def test_one_takes_no_s() -> None:
    """All other numbers do."""
    assert [counted(n, "worker") for n in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////some/where/caviar.db", "sqlite:////some/where/caviar.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:secret@host/db", "'postgresql://me:***@host/db'"),
        (
            "postgresql://me:se/c@r:et@host:5432/db?sslmode=require",
            "'postgresql://me:***@host:5432/db?sslmode=require'",
        ),
        ("postgresql:///db?host=/tmp&password=secret&user=me", "'postgresql:///db?host=/tmp&password=***&user=me'"),
    ],
)
def test_a_command_does_not_show_a_password(url: str, shown: str) -> None:
    """What is printed is kept in logs; the rest is as it is typed."""
    assert command("show", "digits", storage=url) == f"caviar show digits --storage {shown}"
