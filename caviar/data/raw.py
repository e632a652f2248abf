"""What every source delivers: raw features and encoded labels; its checks and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caviar.data.labels import LabelKind
from caviar.errors import DataError

#: Values per block: 2 MB of float64, so that a block stays in the cache between operations.
_BLOCK_VALUES = 1 << 18
_FINGERPRINT_DIGITS = 32
#: Names quoted in one message; the rest is counted.
_NAMES_SHOWN = 20
#: What a missing text value is called among the categories of its column.
MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and how it becomes features."""

    name: str
    #: Distinct values of a text column, sorted, a missing one ("") last; None where it holds numbers.
    categories: tuple[str, ...] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its features: its own, or `column=value` for each category."""
        if self.categories is None:
            return (self.name,)
        return tuple(f"{self.name}={category or MISSING}" for category in self.categories)


@dataclass(frozen=True, slots=True, eq=False)
class RawData:
    """Features and labels as read, before the split.

    Attributes:
        name: name of the data set, for people.
        x: features, any real or bool dtype, shape (N, D). Kept as read: images stay at a byte a pixel.
        y: labels as indices into `classes`, int64, shape (N,).
        classes: C class names.
        features: D feature names.
        n_test: the last `n_test` rows are the test part that the source itself gives; 0 where it gives none.
        columns: of the table that they come from; empty where each feature is a column of its own.
        labels: what the labels were that the classes are named after.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    features: tuple[str, ...]
    n_test: int = 0
    columns: tuple[Column, ...] = ()
    labels: LabelKind = "text"


def blocks(x: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield consecutive rows of `x` as fresh C-contiguous float64 blocks: no float64 copy of all is needed.

    Args:
        x: shape (N, D), real or bool.
        rows: indices of the rows to yield, in that order; all where None.
    """
    n_rows = len(x) if rows is None else len(rows)
    step = max(1, _BLOCK_VALUES // max(1, x.shape[1]))
    for start in range(0, n_rows, step):
        chosen = x[start : start + step] if rows is None else x[rows[start : start + step]]
        with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite, and is reported as that
            yield np.array(chosen, dtype=np.float64, order="C")


def check(raw: RawData) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        DataError: no rows, no features, NaN or infinity, or a useless target.
    """
    n_rows, n_features = raw.x.shape
    if n_rows == 0:
        raise DataError(f"expected examples in {raw.name!r}, found no rows")
    if n_features == 0:
        raise DataError(f"expected at least one feature in {raw.name!r}, found none beside the labels")
    if len(raw.y) != n_rows:
        raise DataError(f"expected one label per example in {raw.name!r}, found {n_rows} rows and {len(raw.y)} labels")
    check_finite(raw.x, raw.features)
    if len(raw.classes) < 2:
        raise DataError(
            f"expected at least 2 classes in {raw.name!r}, found {raw.classes[0]!r} in all {n_rows} rows; "
            "choose another target"
        )
    if len(raw.classes) == n_rows:
        raise DataError(
            f"expected classes that occur several times in {raw.name!r}, found as many classes as rows "
            f"({n_rows}); choose a target that is no identifier or measurement"
        )


def check_finite(x: np.ndarray, features: tuple[str, ...]) -> None:
    """Refuse features (N, D) that are NaN or infinite.

    Raises:
        DataError: some are.
    """
    if x.dtype.kind != "f":
        return
    bad = np.zeros(x.shape[1], dtype=np.int64)
    for block in blocks(x):
        bad += len(block) - np.isfinite(block).sum(axis=0)
    columns = np.flatnonzero(bad)
    if not len(columns):
        return
    first, others = int(columns[0]), len(columns) - 1
    more = f", and so have {others} more column{'s' if others > 1 else ''}" if others else ""
    raise DataError(
        f"expected numbers, found column {features[first]!r} empty, NaN or infinite in {bad[first]} of "
        f"{len(x)} rows{more}; fill or drop them"
    )


def fingerprint(raw: RawData) -> str:
    """Hash what was read, whatever its dtype, path or file format: float64 features, labels, names, shape."""
    head = [list(raw.x.shape), raw.n_test, list(raw.classes), list(raw.features)]
    digest = hashlib.sha256(json.dumps(head).encode())
    digest.update(raw.y.astype("<i8").tobytes())
    for block in blocks(raw.x):
        block += 0.0  # -0.0 becomes 0.0: formats differ in whether they keep the sign
        digest.update(block.astype("<f8", copy=False).data)
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def check_columns(columns: tuple[Column, ...], found: Sequence[object], where: str) -> None:
    """Refuse examples that lack columns of the training data.

    Args:
        columns: of the training data.
        found: names of those that there are.
        where: what to call the examples in messages.

    Raises:
        DataError: some are missing.
    """
    there = set(found)
    missing = [column.name for column in columns if column.name not in there]
    if missing:
        raise DataError(
            f"expected the columns that the model was trained on in {where}, found none named {listed(missing)}; "
            f"its columns are {listed([str(name) for name in found])}"
        )


def check_numeric(columns: tuple[Column, ...], where: str) -> None:
    """Refuse examples without names of columns where some of these are text.

    Raises:
        DataError: one is.
    """
    words = next((column.name for column in columns if column.categories is not None), None)
    if words is not None:
        raise DataError(
            f"expected a table, since column {words!r} of the training data is text, found {where}; give a frame or a "
            "file whose columns have names"
        )


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Names quoted and joined for a message, cut where there are many."""
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown


def one_line(error: BaseException) -> str:
    """The text of a foreign exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__
