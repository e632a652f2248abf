"""Labels as people write them (words, numbers, truth values) to class indices and class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np

from caviar.errors import DataError

#: What labels are: words, whole numbers of any width, or truth values.
LabelKind: TypeAlias = Literal["text", "number", "truth"]


def encode_labels(values: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn labels into class indices.

    Text is stripped of surrounding space. Classes are sorted: by value where all are whole numbers (`'9'`
    before `'10'`), else by code point. A whole number has the same name whether it came as int, float or
    text.

    Args:
        values: shape (N,): bool, int, whole numbers as float, str, UTF-8 bytes, or objects (str or None).
        where: what to call it in messages, as `column 'species'`.

    Returns:
        Indices into the class names, int64, shape (N,), and the class names.

    Raises:
        DataError: labels are missing, or are not classes (fractions, complex numbers, dates, objects).
    """
    kind = values.dtype.kind
    if kind == "b":
        return _encode_words([str(value) for value in values.tolist()])
    if kind in "iu":
        return _encode_numbers(values)
    if kind == "f":
        return _encode_numbers(_whole(values, where))
    if kind == "S":
        try:
            values = np.array([value.decode() for value in values.tolist()], dtype=object)
        except UnicodeDecodeError as error:
            raise DataError(f"expected labels as UTF-8 text in {where}, found other bytes") from error
    elif kind not in "UO":
        raise DataError(f"expected class labels in {where}, found {values.dtype}")
    return _encode_words(_words(values.tolist(), where))


def label_kind(values: np.ndarray) -> LabelKind:
    """Return what labels are, of which `encode_labels` made classes."""
    if values.dtype.kind == "b":
        return "truth"
    return "number" if values.dtype.kind in "iuf" else "text"


def named_labels(classes: Sequence[str], kind: LabelKind) -> np.ndarray:
    """Return the names of classes as the labels that they were, shape (C,): whole numbers, bool or str."""
    if kind == "number":
        numbers = [int(name) for name in classes]
        return np.array(numbers, dtype=np.int64 if max(numbers) < 2**63 else np.uint64)
    return np.array([name == "True" for name in classes]) if kind == "truth" else np.array(classes)


def check_missing(n_missing: int, n_rows: int, where: str) -> None:
    """Refuse missing labels.

    Raises:
        DataError: there are some.
    """
    if n_missing:
        raise DataError(
            f"expected a label in every row, found none in {n_missing} of {n_rows} rows of {where}; "
            "fill them or drop the rows"
        )


def _whole(values: np.ndarray, where: str) -> np.ndarray:
    check_missing(int(np.isnan(values).sum()), len(values), where)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(f"expected class labels in {where}, found infinity in {infinite} of {len(values)} rows")
    fractions = values[values != np.floor(values)]
    if len(fractions):
        raise DataError(
            f"expected class labels in {where}, found fractions such as {float(fractions[0])!r}; "
            "classification needs classes: choose another target or cut it into ranges"
        )
    return values


def _words(values: Iterable[object], where: str) -> list[str]:
    words: list[str] = []
    n_missing = 0
    for value in values:
        if value is None or value != value:  # NaN alone differs from itself
            word = ""
        elif isinstance(value, str):
            word = value.strip()
        else:
            raise DataError(f"expected class labels in {where}, found a {type(value).__name__} such as {value!r:.40}")
        n_missing += not word
        words.append(word)
    check_missing(n_missing, len(words), where)
    return words


def _encode_numbers(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    distinct, y = np.unique(values, return_inverse=True)
    return y.astype(np.int64).reshape(-1), tuple(str(int(value)) for value in distinct)


def _encode_words(words: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    distinct = set(words)
    classes = sorted(distinct, key=int) if all(map(_is_whole, distinct)) else sorted(distinct)
    index = {name: code for code, name in enumerate(classes)}
    return np.fromiter((index[word] for word in words), np.int64, len(words)), tuple(classes)


def _is_whole(word: str) -> bool:
    digits = word.removeprefix("-")
    # at most 18 digits: int() of a long string is slow, and no longer text names a number people count with
    return digits.isascii() and digits.isdigit() and len(digits) <= 18 and str(int(word)) == word
