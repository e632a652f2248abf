"""A user's own `.npz` file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caviar.data import load_dataset, resolve
from caviar.data.arrays import read_npz
from caviar.errors import DataError

Write = Callable[..., Path]

X = np.random.default_rng(0).normal(size=(20, 3))
Y = np.arange(20) % 2


def test_arrays_are_read_back(write_npz: Write) -> None:
    """Features in C order, labels as indices, features named by position."""
    raw = read_npz(write_npz(X=X, y=Y), None, "mine")

    assert np.array_equal(raw.x, X)
    assert np.array_equal(raw.y, Y)
    assert raw.classes == ("0", "1")
    assert raw.features == ("x0", "x1", "x2")


def test_more_dimensions_are_flattened(write_npz: Write) -> None:
    """Images of 2 x 3 pixels are 6 features."""
    images = np.arange(120, dtype=np.uint8).reshape(20, 2, 3)

    raw = read_npz(write_npz(X=images, y=Y), None, "mine")

    assert np.array_equal(raw.x, images.reshape(20, 6))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["grün", "blau"] * 10), ("blau", "grün")),
        (np.array([b"b", b"a"] * 10), ("a", "b")),
        (np.array([True, False] * 10), ("False", "True")),
        (np.array([10.0, 9.0] * 10), ("9", "10")),
        (np.array([2**63, 7] * 10, dtype=np.uint64), ("7", str(2**63))),
        (np.array([-1, 1] * 10, dtype=np.int8), ("-1", "1")),
        (np.array(["10", "9"] * 10), ("9", "10")),
        (np.array([" a", "b "] * 10), ("a", "b")),
        (np.array([[1], [0]] * 10), ("0", "1")),
    ],
)
def test_labels_of_any_kind_become_sorted_classes(
    write_npz: Write, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    """Whole numbers are sorted by value, words by code point."""
    raw = read_npz(write_npz(X=X, y=labels), None, "mine")

    assert raw.classes == classes
    words = [raw.classes[code] for code in raw.y[:2]]
    assert sorted(words) == sorted(classes)
    assert raw.y.dtype == np.int64


def test_the_target_names_the_array_of_labels(write_npz: Write) -> None:
    """Without a target it is `y`."""
    raw = read_npz(write_npz(X=X, kind=Y), "kind", "mine")

    assert np.array_equal(raw.y, Y)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.longdouble, bool])
def test_the_fingerprint_ignores_how_wide_the_numbers_are(write_npz: Write, dtype: type) -> None:
    """The same values in another dtype are the same data."""
    values = np.random.default_rng(1).integers(0, 2, (20, 3))
    expected = load_dataset(resolve(str(write_npz(X=values.astype(float), y=Y)))).fingerprint

    found = load_dataset(resolve(str(write_npz(X=values.astype(dtype), y=Y.astype(np.uint8))))).fingerprint

    assert found == expected


def test_the_fingerprint_ignores_the_path(write_npz: Write, tmp_path: Path) -> None:
    """A file that moved is the same data."""
    path = write_npz(X=X, y=Y)
    before = load_dataset(resolve(str(path))).fingerprint

    moved = path.rename(tmp_path / "moved.NPZ")

    assert load_dataset(resolve(str(moved))).fingerprint == before


def one_nan(dtype: type = float) -> np.ndarray:
    x = X.astype(dtype)
    x[4, 1] = x[7, 1] = np.nan
    x[5, 2] = np.inf
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "b": Y}, "expected arrays 'X', 'y' in .* found 'a', 'b'"),
        ({}, "expected arrays 'X', 'y' in .* found none"),
        ({"X": X, "y": Y[:5]}, "equal length, found 20 and 5"),
        ({"X": X + 1j, "y": Y}, "expected real numbers in array 'X' .* found complex128"),
        ({"X": X.astype(str), "y": Y}, "expected real numbers in array 'X' .* found <U32"),
        ({"X": X.astype("M8[s]"), "y": Y}, "expected real numbers in array 'X' .* found datetime64"),
        ({"X": X.astype(object), "y": Y}, "found objects .pickles, which are never loaded"),
        ({"X": X, "y": Y.astype(object)}, "found objects .pickles, which are never loaded"),
        ({"X": X[:, 0], "y": Y}, r"shape \(examples, features\), found \(20,\)"),
        ({"X": np.array(1.0), "y": Y}, r"shape \(examples, features\), found \(\)"),
        ({"X": X, "y": np.eye(2)[Y]}, r"one class label per example .* found \(20, 2\)"),
        ({"X": X[:0], "y": Y[:0]}, "expected examples in 'arrays', found no rows"),
        ({"X": X[:, :0], "y": Y}, "at least one feature in 'arrays', found none"),
        (
            {"X": one_nan(), "y": Y},
            "column 'x1' empty, NaN or infinite in 2 of 20 rows, and so have 1 more column",
        ),
        ({"X": one_nan(np.float16), "y": Y}, "column 'x1' empty, NaN or infinite in 2 of 20 rows"),
        ({"X": X, "y": np.zeros(20)}, "at least 2 classes in 'arrays', found '0' in all 20 rows"),
        ({"X": X, "y": np.arange(20)}, r"as many classes as rows \(20\)"),
        ({"X": X[:1], "y": Y[:1]}, "at least 2 classes"),
        ({"X": X, "y": Y + 0.5}, "found fractions such as 0.5; classification needs classes"),
        (
            {"X": X, "y": np.where(Y, np.nan, 1.0)},
            "expected a label in every row, found none in 10 of 20 rows",
        ),
        ({"X": X, "y": np.where(Y, np.inf, 1.0)}, "found infinity in 10 of 20 rows"),
        ({"X": X, "y": np.where(Y, "a", " ")}, "expected a label in every row, found none in 10 of 20 rows"),
        ({"X": X, "y": Y * 1j}, "expected class labels in array 'y' .* found complex128"),
        ({"X": X, "y": np.array([b"\xff", b"a"] * 10)}, "expected labels as UTF-8 text"),
        ({"X": X, "y": np.array([0] * 18 + [1] * 2)}, "at least 3 examples .* found 2 of '1'"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(write_npz: Write, arrays: dict[str, np.ndarray], message: str) -> None:
    """One line says what was expected and what was found."""
    path = write_npz(**arrays)

    with pytest.raises(DataError, match=message) as caught:
        load_dataset(resolve(str(path)))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 30, 300])
def test_a_file_that_is_no_whole_archive_is_refused(write_npz: Write, keep: int) -> None:
    """Empty and cut files are not taken for pickles."""
    path = write_npz(X=X, y=Y)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"expected .* to be a whole .npz archive"):
        load_dataset(resolve(str(path)))


def test_an_archive_with_a_flipped_byte_is_refused(write_npz: Write) -> None:
    """The checksum of the archive is checked."""
    path = write_npz(X=X, y=Y)
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"cannot read .* as .npz: Bad CRC-32"):
        load_dataset(resolve(str(path)))
