"""Studies that several processes babysit, whose checkpoints lie in one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from caviar.study import Study
from caviar.testing import panda


@pytest.fixture
def make_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Study]]:
    """Make studies of small networks, 12 mini-batches an epoch, trained by the NumPy kernel."""
    table = panda.write_table(tmp_path / "table.csv")
    made: list[Study] = []

    def make(url: str, **params: Any) -> Study:
        monkeypatch.setenv("CAVIAR_KERNEL", "numpy")
        monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "checkpoints"))
        made.append(panda.make_study(url, table, epochs=60, **params))
        return made[-1]

    yield make
    for study in made:
        study.storage.close()


@pytest.fixture
def study(make_study: Callable[..., Study], sqlite_url: str) -> Study:
    """One in an SQLite file."""
    return make_study(sqlite_url)
