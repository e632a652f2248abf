"""A user's `.npz` file: features `X` and labels `y` as NumPy arrays."""

from __future__ import annotations

import math
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from caviar.data.labels import encode_labels, label_kind
from caviar.data.raw import RawData, listed, one_line
from caviar.errors import DataError

_FEATURES = "X"
_LABELS = "y"


def read_npz(path: Path, target: str | None, name: str) -> RawData:
    """Read features and labels from an `.npz` file; pickled objects are never loaded.

    Args:
        path: the file, with array `X` of shape (N, ...), flattened to (N, D), and labels of shape (N,) or (N,
        1).
        target: name of the array of labels, `y` where None.
        name: name of the data set.

    Raises:
        DataError: the file or its arrays cannot be used.
    """
    target = target or _LABELS
    if target == _FEATURES:
        raise DataError(f"expected the labels in another array than the features, found target {target!r}")
    x, y = _read_arrays(path, (_FEATURES, target))
    x = _flat(x, path)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"expected one class label per example in array {target!r} of {str(path)!r}, shape ({len(x)},), "
            f"found {y.shape}"
        )
    if len(x) != len(y):
        raise DataError(
            f"expected {_FEATURES!r} and {target!r} of {str(path)!r} to have equal length, found {len(x)} and {len(y)}"
        )
    labels, classes = encode_labels(y, f"array {target!r} of {str(path)!r}")
    features = tuple(f"x{index}" for index in range(x.shape[1]))
    return RawData(name=name, x=x, y=labels, classes=classes, features=features, labels=label_kind(y))


def read_features(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read array `X` from an `.npz` file, flattened to (N, D), and the class of each example if it has labels.

    Returns:
        The features, and names of classes, shape (N,), or None.

    Raises:
        DataError: the file or the array cannot be used.
    """
    target = target or _LABELS
    (x, *rest) = _read_arrays(path, (_FEATURES,), (target,))
    x = _flat(x, path)
    for y in rest:
        if y.shape in ((len(x),), (len(x), 1)):
            with suppress(DataError):  # no classes, which nobody asked for
                labels, classes = encode_labels(y.reshape(-1), f"array {target!r} of {str(path)!r}")
                return x, np.array(classes, dtype=object)[labels]
    return x, None


def _flat(x: np.ndarray, path: Path) -> np.ndarray:
    """Return features of any shape as (N, D)."""
    where = f"array {_FEATURES!r} of {str(path)!r}"
    if x.dtype.kind not in "biuf":
        raise DataError(f"expected real numbers in {where}, found {x.dtype}")
    if x.ndim < 2:
        raise DataError(f"expected {where} to have shape (examples, features), found {x.shape}")
    return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))


def _read_arrays(path: Path, wanted: tuple[str, ...], others: tuple[str, ...] = ()) -> list[np.ndarray]:
    """Read some arrays, then those of the others that are there."""
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(
                f"expected {str(path)!r} to be a whole .npz archive, found other content; save it with np.savez"
            )
        with np.load(path, allow_pickle=False) as archive:
            missing = [array for array in wanted if array not in archive.files]
            if missing:
                found = listed(archive.files) if archive.files else "none"
                raise DataError(f"expected arrays {listed(wanted)} in {str(path)!r}, found {found}")
            found_too = [array for array in others if array in archive.files]
            return [np.asarray(archive[array]) for array in (*wanted, *found_too)]
    except DataError:
        raise
    except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"expected plain arrays in {str(path)!r}, found objects (pickles, which are never loaded); "
                "save numbers as float and labels as int or str"
            ) from error
        raise DataError(f"cannot read {str(path)!r} as .npz: {one_line(error)}") from error
