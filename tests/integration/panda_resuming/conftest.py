"""A study of small networks to babysit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from caviar.study import Study
from caviar.testing.panda import make_study, write_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """150 examples, 90 of which are trained on."""
    return write_table(tmp_path / "table.csv")


@pytest.fixture
def study(sqlite_url: str, table: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A study trained by the NumPy kernel."""
    monkeypatch.setenv("CAVIAR_KERNEL", "numpy")
    made = make_study(sqlite_url, table)
    monkeypatch.delenv("CAVIAR_KERNEL")
    yield made
    made.storage.close()
