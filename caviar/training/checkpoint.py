"""Checkpoints: a state on disk from which training goes on bit for bit (safetensors; nothing is ever unpickled)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from caviar.errors import CheckpointError
from caviar.records import Params
from caviar.replacing import replacing
from caviar.training.state import State, state_from_arrays, state_to_arrays

#: Raised whenever an older caviar could misread what a newer one wrote.
FORMAT_VERSION = "2"

#: Metadata that `write_arrays` adds to the caller's.
_VERSION, _CHECKSUM = "caviar_checkpoint", "crc32"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a checkpoint holds."""

    state: State
    #: The params in force.
    params: Params


def save_checkpoint(path: Path, state: State, params: Params) -> None:
    """Write a checkpoint.

    Promises: afterwards `path` is the new checkpoint, on the disk itself; until then, and where writing fails at any
    stage, it is what it was before.

    Raises:
        CheckpointError: the file could not be written.
    """
    arrays, metadata = state_to_arrays(state)
    write_arrays(path, arrays, {**metadata, "params": json.dumps(dict(params))})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing, torn, altered, or of another format version.
    """
    arrays, metadata = read_arrays(path)
    try:
        return Checkpoint(state=state_from_arrays(arrays, metadata), params=json.loads(metadata["params"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{str(path)!r} is not a checkpoint of a trial ({type(error).__name__}: {error}); use an earlier one"
        ) from error


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], *, noun: str = "checkpoint"
) -> None:
    """Write named arrays with metadata as one safetensors file, whole or not at all.

    Args:
        path: of the file.
        arrays: by name.
        metadata: text by name.
        noun: what the file is, for messages.

    Raises:
        CheckpointError: the file could not be written; what `path` was before is untouched.
    """
    whole = {**metadata, _VERSION: FORMAT_VERSION}
    whole[_CHECKSUM] = _checksum(arrays, whole)
    try:
        content = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=whole)
        with replacing(path) as beside:
            beside.write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"could not write the {noun} {str(path)!r}: {error.strerror or error}") from error
    except (
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # arrays or texts that the format has no place for
        raise CheckpointError(f"could not write the {noun} {str(path)!r}: {error}") from error


def read_arrays(
    path: Path, *, noun: str = "checkpoint", advice: str = "use an earlier one"
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and metadata of a file that `write_arrays` wrote, once its checksum is found right.

    Args:
        path: of the file.
        noun: what it should be, for messages.
        advice: what to do where it is damaged.

    Raises:
        CheckpointError: the file is missing, torn, altered, or of another format version.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {noun} {str(path)!r}") from error
    except OSError as error:
        raise CheckpointError(f"could not read the {noun} {str(path)!r}: {error}") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{str(path)!r} is not a whole {noun} ({error}); {advice}") from error
    version = metadata.get(_VERSION)
    if version is None:
        raise CheckpointError(f"{str(path)!r} is a safetensors file, but no {noun} of caviar")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"expected {str(path)!r} in file format {FORMAT_VERSION}, found {version!r}; "
            "load it with the caviar that wrote it"
        )
    if metadata.pop(_CHECKSUM, None) != _checksum(arrays, metadata):
        raise CheckpointError(f"{str(path)!r} was altered: its checksum does not match; {advice}")
    del metadata[_VERSION]
    return arrays, metadata


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return the CRC-32 over metadata, names, dtypes, shapes and bytes, in hexadecimal.

    It finds what disks and copying do to a file. A cryptographic digest, which would withstand a forger too, takes as
    long as writing and syncing the file (benchmarks/panda.py).
    """
    found = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name, array in sorted(arrays.items()):
        found = zlib.crc32(json.dumps([name, str(array.dtype), array.shape]).encode(), found)
        found = zlib.crc32(np.asarray(array, order="C").data.cast("B") if array.size else b"", found)
    return f"{found:08x}"
