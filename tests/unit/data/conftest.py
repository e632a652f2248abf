"""Builders of small data files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caviar.data import load_dataset, resolve
from caviar.training.dataset import Dataset

Write = Callable[..., Path]
Load = Callable[..., Dataset]


@pytest.fixture
def write_csv(tmp_path: Path) -> Write:
    """Write text to a file, by default `table.csv`, and return its path."""

    def write(text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.fixture
def write_npz(tmp_path: Path) -> Write:
    """Write arrays to `arrays.npz` and return its path."""

    def write(**arrays: np.ndarray) -> Path:
        path = tmp_path / "arrays.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def load_parquet(tmp_path: Path) -> Load:
    """Write a frame to `table.parquet` and load it, by default with target `label`."""

    def load(frame: pd.DataFrame, target: str = "label") -> Dataset:
        path = tmp_path / "table.parquet"
        frame.to_parquet(path)
        return load_dataset(resolve(path, target))

    return load


@pytest.fixture
def load_csv(write_csv: Write) -> Load:
    """Write text to `table.csv` and load it, by default with target `label`."""

    def load(text: str, target: str | None = "label", **file: str) -> Dataset:
        return load_dataset(resolve(write_csv(text, **file), target), dtype="float64")

    return load
