"""Several writers of one checkpoint, and targets that are no file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from caviar.errors import CheckpointError
from caviar.training.checkpoint import load_checkpoint, save_checkpoint
from caviar.training.state import TrainState


def make_state(step: int) -> TrainState:
    """Return a small state that tells which writer it is from."""
    return TrainState(
        key=(1, 2), parameters=np.full(5, float(step)), moments=np.zeros((1, 5)), running=np.zeros((2, 0)), step=step
    )


def test_threads_that_write_one_checkpoint_leave_it_whole(tmp_path: Path) -> None:
    """Whatever the order, each write succeeds, each read finds one writer's state, and nothing is left beside it."""
    path = tmp_path / "trial.safetensors"
    save_checkpoint(path, make_state(0), {})

    def write_and_read(step: int) -> bool:
        save_checkpoint(path, make_state(step), {"step": step})
        found = load_checkpoint(path)
        return bool((found.state.parameters == found.state.step).all() and found.params["step"] == found.state.step)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_read, range(1, 101)))

    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", ["", "."])
def test_a_target_that_is_a_folder_is_a_checkpoint_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """A path without a file name is refused like any other that cannot be written, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CheckpointError, match="could not write the checkpoint"):
        save_checkpoint(Path(target), make_state(1), {})

    assert not list(tmp_path.iterdir())
