"""Checkpoints: the same bits in another process, and whole or not at all whatever happens while writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from caviar.errors import CheckpointError
from caviar.training.checkpoint import load_checkpoint, read_arrays, save_checkpoint, write_arrays
from caviar.training.state import TrainState, state_to_arrays

PARAMS = {"learning_rate": 0.1, "hidden_units": "4-3", "optimizer": "adam", "batch_size": 2**40}


def make_state(seed: int = 0, dtype: str = "float32", moments: int = 2) -> TrainState:
    """Return a state of 7 parameters and 3 units with awkward counters."""
    rng = np.random.default_rng(seed)
    return TrainState(
        key=(2**63 - 1, 12),
        parameters=rng.standard_normal(7).astype(dtype),
        moments=rng.standard_normal((moments, 7)).astype(dtype),
        running=np.array([[1e-40, -0.0, np.inf], [0, 1, np.nan]], dtype),
        epoch=3,
        position=64,
        batch=2,
        step=17,
        loss_sum=0.1 + 0.2,
        n_examples=64,
    )


def same(one: TrainState, other: TrainState) -> bool:
    """Tell whether two states are equal in every bit."""
    (arrays, text), (other_arrays, other_text) = state_to_arrays(one), state_to_arrays(other)
    return text == other_text and all(
        (array.dtype, array.shape, array.tobytes())
        == (other_arrays[name].dtype, other_arrays[name].shape, other_arrays[name].tobytes())
        for name, array in arrays.items()
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("moments", [0, 1, 2])
def test_a_checkpoint_keeps_every_bit(tmp_path: Path, dtype: str, moments: int):
    """What is loaded is what was saved: arrays, counters, the exact sum of losses, and the params."""
    state = make_state(dtype=dtype, moments=moments)

    save_checkpoint(tmp_path / "c", state, PARAMS)
    loaded = load_checkpoint(tmp_path / "c")

    assert same(loaded.state, state)
    assert loaded.params == PARAMS
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]


def test_softmax_regression_with_gradient_descent_has_empty_arrays(tmp_path: Path):
    """A state without moments and without hidden units is kept too."""
    state = TrainState(key=(0, 0), parameters=np.ones(3), moments=np.zeros((0, 3)), running=np.zeros((2, 0)))

    save_checkpoint(tmp_path / "c", state, {})

    assert same(load_checkpoint(tmp_path / "c").state, state)


TRAIN_ON = """
import sys
from pathlib import Path
import numpy as np
from caviar.nn.kernel import choose_kernel
from caviar.training.advance import advance
from caviar.training.checkpoint import load_checkpoint, save_checkpoint
from caviar.training.dataset import Dataset, Examples
rng = np.random.default_rng(5)
part = lambda n: Examples(rng.standard_normal((n, 6)).astype(np.float32), rng.integers(0, 3, n))
data = Dataset("random", part(50), part(20), part(20), ("a", "b", "c"), tuple("uvwxyz"), "")
source, target, epoch, batch = sys.argv[1:]
checkpoint = load_checkpoint(Path(source))
progress = advance(checkpoint.state, checkpoint.params, data, (int(epoch), int(batch)), kernel=choose_kernel("numpy"))
save_checkpoint(Path(target), progress.state, checkpoint.params)
"""


def test_training_goes_on_in_another_process_bit_for_bit(tmp_path: Path):
    """Stopped within an epoch, saved, and loaded by a new process, training ends in the same bits."""
    from caviar.training.advance import initial_state
    from caviar.training.dataset import Dataset, Examples

    params = {"optimizer": "adam", "batch_size": 8, "hidden_units": 5}
    part = Examples(np.zeros((2, 6), np.float32), np.zeros(2, np.int64))
    shapes = Dataset("shapes", part, part, part, ("a", "b", "c"), tuple("uvwxyz"), "")
    save_checkpoint(tmp_path / "0", initial_state((1, 2), params, shapes), params)

    def train_on(source: str, target: str, epoch: int, batch: int) -> None:
        command = [sys.executable, "-c", TRAIN_ON, tmp_path / source, tmp_path / target, str(epoch), str(batch)]
        subprocess.run(command, check=True)

    train_on("0", "whole", 3, 0)
    train_on("0", "part", 1, 4)
    train_on("part", "resumed", 3, 0)

    assert same(load_checkpoint(tmp_path / "resumed").state, load_checkpoint(tmp_path / "whole").state)


CRASH = """
import os, sys
from pathlib import Path
import numpy as np
import caviar.training.checkpoint as checkpoint
from caviar.training.state import TrainState
path, stage = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def dying(function):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == stage:
            os._exit(9)
        return function(*args, **kwargs)
    return wrapper
# each call into the operating system on the way, in the order of writing
Path.open, os.fsync, Path.replace, os.open = map(dying, (Path.open, os.fsync, Path.replace, os.open))
state = TrainState(key=(9, 9), parameters=np.full(3, 2.0), moments=np.zeros((0, 3)), running=np.zeros((2, 0)))
checkpoint.save_checkpoint(path, state, {"l2": 1.0})
"""


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 6])
def test_a_process_that_dies_while_writing_leaves_a_whole_checkpoint(tmp_path: Path, stage: int):
    """Killed before opening, syncing or renaming, the old one loads; after the renaming, the new one."""
    path = tmp_path / "c"
    save_checkpoint(path, make_state(), PARAMS)

    crashed = subprocess.run([sys.executable, "-c", CRASH, path, str(stage)])

    assert crashed.returncode == 9
    assert load_checkpoint(path).params == (PARAMS if stage <= 4 else {"l2": 1.0})


def test_a_full_disk_is_a_checkpoint_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An error of the operating system names the file, and leaves no litter."""
    path = tmp_path / "c"

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match=r"could not write the checkpoint .*: No space left on device"):
        save_checkpoint(path, make_state(), PARAMS)
    monkeypatch.undo()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_checkpoint_error(tmp_path: Path):
    """Nothing is created on the way."""
    with pytest.raises(CheckpointError, match="could not write"):
        save_checkpoint(tmp_path / "nowhere" / "c", make_state(), PARAMS)


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    """The message says that there is none."""
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "c")


def test_a_folder_is_no_checkpoint(tmp_path: Path):
    """A folder of that name is refused."""
    with pytest.raises(CheckpointError, match="could not read"):
        load_checkpoint(tmp_path)


def test_a_torn_checkpoint_is_refused_at_every_length(tmp_path: Path):
    """Cut anywhere, a checkpoint is refused with a CheckpointError."""
    path = tmp_path / "c"
    save_checkpoint(path, make_state(), PARAMS)
    whole = path.read_bytes()

    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_any_altered_byte_is_noticed(tmp_path: Path):
    """A flipped bit anywhere, header or tensors, never loads as if nothing had happened."""
    path, state = tmp_path / "c", make_state()
    save_checkpoint(path, state, PARAMS)
    whole = path.read_bytes()

    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            loaded = load_checkpoint(path)
        except CheckpointError:
            continue
        # padding of the header carries nothing
        assert same(loaded.state, state)
        assert loaded.params == PARAMS


def test_another_format_version_is_refused(tmp_path: Path):
    """A checkpoint of a later caviar is named as such."""
    path = tmp_path / "c"
    save_file({"parameters": np.ones(3)}, path, metadata={"caviar_checkpoint": "99"})

    with pytest.raises(CheckpointError, match="in file format 2, found '99'"):
        load_checkpoint(path)


def test_somebody_elses_safetensors_are_refused(tmp_path: Path):
    """A file of weights from elsewhere is no checkpoint."""
    save_file({"parameters": np.ones(3)}, tmp_path / "c")

    with pytest.raises(CheckpointError, match="no checkpoint of caviar"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("broken", ["parameters", "moments", "dtype", "loss_sum", "params", "step"])
def test_what_is_no_state_is_refused(tmp_path: Path, broken: str):
    """Arrays or counters that do not fit together."""
    arrays, text = state_to_arrays(make_state())
    text["params"] = json.dumps(PARAMS)
    if broken in arrays:
        arrays[broken] = np.ones(4, np.float32)
    elif broken == "dtype":
        text[broken] = "float64"
    else:
        text[broken] = "?"
    write_arrays(tmp_path / "c", arrays, text)

    with pytest.raises(CheckpointError, match="is not a checkpoint of a trial"):
        load_checkpoint(tmp_path / "c")


def test_arrays_of_any_trainable_are_kept(tmp_path: Path):
    """The format takes any arrays, also ones that are not contiguous, and any text."""
    arrays = {"a": np.arange(6).reshape(2, 3).T, "b": np.array(3.0)}

    write_arrays(tmp_path / "c", arrays, {"note": "é\n"})
    loaded, text = read_arrays(tmp_path / "c")

    np.testing.assert_array_equal(loaded["a"], arrays["a"])
    assert (loaded["b"], text) == (3.0, {"note": "é\n"})
