"""Which rows are for training, validation and test: a split in which each class keeps its share."""

from __future__ import annotations

import numpy as np

from caviar.errors import DataError

#: One row in five is held out for validation, and one in five for the test: 60/20/20.
_HELD_OUT = 5
#: Where the source gives the test part, one row in six of the rest: 10,000 of MNIST's 60,000.
_HELD_OUT_OF_GIVEN = 6
#: Separates these keys from other uses of a Philox generator with the same seed.
_STREAM = 0x5350_4C49_54
#: Rare classes named in one message.
_CLASSES_SHOWN = 5


def split_rows(
    y: np.ndarray, classes: tuple[str, ...], seed: int, n_test: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split rows into train, validation and test so that each class is in each part in proportion.

    Each row gets a 64-bit key from a Philox counter (its bit stream, unlike `Generator`'s methods, is the
    same in all versions of NumPy), and the rows of a class with the smallest keys are held out. Held-out rows
    per class are its share rounded by largest remainder, and at least one, so that a class of three rows has
    one in each part.

    Args:
        y: labels, int64, shape (N,).
        classes: C class names, for messages.
        seed: any int; the same seed and labels give the same split.
        n_test: the last `n_test` rows are the test part already; 0 to take 20 % as test.

    Returns:
        Row indices of train, validation and test: disjoint, together all rows, each ascending.

    Raises:
        DataError: a class has too few examples: 3, or 2 outside a given test part.
    """
    n_open = len(y) - n_test
    labels = y[:n_open]
    counts = np.bincount(labels, minlength=len(classes))
    _check_counts(counts, classes, n_test)
    held = _quotas(counts, _HELD_OUT_OF_GIVEN if n_test else _HELD_OUT)

    key = np.array([seed % 2**64, _STREAM], dtype=np.uint64)
    keys = np.random.Philox(key=key).random_raw(n_open)
    order = np.lexsort((keys, labels))  # by class, then by key
    starts = np.cumsum(counts) - counts
    ordered_labels = labels[order]
    rank = np.arange(n_open) - starts[ordered_labels]  # place of each row within its class
    quota = held[ordered_labels]
    in_validation = rank < quota
    in_test = np.zeros_like(in_validation) if n_test else ~in_validation & (rank < 2 * quota)

    train = np.sort(order[~in_validation & ~in_test])
    validation = np.sort(order[in_validation])
    test = np.arange(n_open, len(y)) if n_test else np.sort(order[in_test])
    return train, validation, test


def _check_counts(counts: np.ndarray, classes: tuple[str, ...], n_test: int) -> None:
    needed = 2 if n_test else 3
    parts = "train and validation" if n_test else "train, validation and test"
    rare = np.flatnonzero(counts < needed).tolist()
    if not rare:
        return
    found = ", ".join(f"{int(counts[code])} of {classes[code]!r}" for code in rare[:_CLASSES_SHOWN])
    more = f" and too few of {len(rare) - _CLASSES_SHOWN} more" if len(rare) > _CLASSES_SHOWN else ""
    raise DataError(
        f"expected at least {needed} examples of each of the {len(classes)} classes, to split into {parts}, "
        f"found {found}{more}; add examples, or merge or drop the class"
    )


def _quotas(counts: np.ndarray, share: int) -> np.ndarray:
    """Rows to hold out per class: about counts / share, at least 1, and in sum the same share of all."""
    # whole numbers throughout: no rounding that could differ between machines
    quotas: np.ndarray = np.maximum(counts // share, 1)
    remainders = np.where(counts >= share, counts % share, 0)
    missing = (int(counts.sum()) + share // 2) // share - int(quotas.sum())
    if missing > 0:
        largest = np.argsort(-remainders, kind="stable")[:missing]
        quotas[largest[remainders[largest] > 0]] += 1
    return quotas
