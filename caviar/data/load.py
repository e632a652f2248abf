"""Load a data set: read, check, fingerprint, split, standardise."""

from __future__ import annotations

import numpy as np

from caviar.data.preparation import Preparation
from caviar.data.raw import Column, check, fingerprint
from caviar.data.scaling import Scaling
from caviar.data.sources import read_source
from caviar.data.split import split_rows
from caviar.errors import DataError, SettingsError
from caviar.records import DataSpec
from caviar.training.dataset import Dataset, Examples

_DTYPES = ("float32", "float64")


def load_dataset(spec: DataSpec, dtype: str = "float32") -> Dataset:
    """Load the data that a spec names, ready for training.

    The same spec gives the same bits: the split depends on the labels and `spec.split_seed` alone. Features
    are standardised by the training part (biased variance); all arrays are read-only and C-contiguous.

    Args:
        spec: what to load; `resolve` makes one. An empty fingerprint accepts whatever is found.
        dtype: `float32` or `float64`, of the features.

    Returns:
        The data set with its fingerprint; `dataclasses.replace(spec, fingerprint=dataset.fingerprint)` pins
        it.

    Raises:
        DataNotFound: there is no such data set or file.
        DataError: it cannot be used, or is not what it was when the fingerprint was taken.
        SettingsError: unknown dtype.
    """
    return load_prepared(spec, dtype)[0]


def load_prepared(spec: DataSpec, dtype: str = "float32") -> tuple[Dataset, Preparation]:
    """Return what :func:`load_dataset` does, and how it was prepared, for other examples."""
    if dtype not in _DTYPES:
        raise SettingsError(f"expected dtype {' or '.join(map(repr, _DTYPES))}, found {dtype!r}")
    raw = read_source(spec)
    check(raw)
    found = fingerprint(raw)
    if spec.fingerprint not in ("", found):
        raise DataError(
            f"the data changed: expected {spec.source!r} with fingerprint {spec.fingerprint!r}, "
            f"found {found!r}; restore the data or start a new study"
        )
    parts = split_rows(raw.y, raw.classes, spec.split_seed, raw.n_test)
    scaling = Scaling.of(raw.x, parts[0])
    train, validation, test = (
        Examples(scaling.apply(raw.x, rows, raw.features, dtype), _read_only(raw.y[rows])) for rows in parts
    )
    columns = raw.columns or tuple(map(Column, raw.features))
    preparation = Preparation(
        columns=columns, classes=raw.classes, labels=raw.labels, scaling=scaling, dtype=dtype, target=spec.target
    )
    return Dataset(raw.name, train, validation, test, raw.classes, raw.features, found), preparation


def _read_only(labels: np.ndarray) -> np.ndarray:
    labels.flags.writeable = False
    return labels
