"""The stratified split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caviar.data.split import split_rows
from caviar.errors import DataError


def names(n_classes: int) -> tuple[str, ...]:
    return tuple(f"class {code}" for code in range(n_classes))


@st.composite
def labels(draw: st.DrawFn, at_least: int) -> np.ndarray:
    counts = draw(st.lists(st.integers(at_least, 40), min_size=2, max_size=8))
    order = draw(st.randoms(use_true_random=False))
    y = [code for code, count in enumerate(counts) for _ in range(count)]
    order.shuffle(y)
    return np.array(y, dtype=np.int64)


@given(y=labels(at_least=3), seed=st.integers(-(2**70), 2**70))
def test_a_split_is_disjoint_complete_and_has_every_class_in_every_part(y: np.ndarray, seed: int) -> None:
    """Each row is in one part, and classes of three rows or more are in all three."""
    parts = split_rows(y, names(y.max() + 1), seed)

    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))
    for rows in parts:
        assert set(y[rows]) == set(y)


@given(y=labels(at_least=3), seed=st.integers(0, 2**64))
def test_each_class_is_split_in_proportion(y: np.ndarray, seed: int) -> None:
    """A class has a fifth of its rows, give or take one, in validation and the same number in test."""
    _, validation, test = split_rows(y, names(y.max() + 1), seed)

    counts, held = np.bincount(y), np.bincount(y[validation])
    assert np.all(np.abs(held - counts / 5) < 1)
    assert np.array_equal(held, np.bincount(y[test]))


@given(y=labels(at_least=2), n_test=st.integers(1, 20), seed=st.integers(0, 2**64))
def test_a_given_test_part_stays_as_it_is(y: np.ndarray, n_test: int, seed: int) -> None:
    """The last rows are the test part, and validation is taken from the others."""
    n_open = len(y)
    y = np.concatenate([y, np.zeros(n_test, np.int64)])

    train, validation, test = split_rows(y, names(y.max() + 1), seed, n_test)

    assert np.array_equal(test, np.arange(n_open, n_open + n_test))
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(n_open))
    assert set(y[train]) == set(y[validation]) == set(y[:n_open])


def test_sizes_are_60_20_20_when_no_class_is_rare() -> None:
    """1,000 rows of seven classes give 600, 200 and 200."""
    y = np.random.default_rng(0).integers(0, 7, 1000)

    assert [len(rows) for rows in split_rows(y, names(7), 0)] == [600, 200, 200]


def test_the_split_of_a_seed_is_pinned() -> None:
    """The rows of a seed never change: studies of several years stay comparable."""
    train, validation, test = split_rows(np.arange(20) % 2, names(2), 7)

    assert train.tolist() == [0, 3, 7, 9, 10, 11, 12, 14, 15, 16, 18, 19]
    assert validation.tolist() == [2, 4, 5, 13]
    assert test.tolist() == [1, 6, 8, 17]


def test_another_seed_gives_another_split() -> None:
    """Seeds 0 to 9 give ten different validation parts."""
    y = np.arange(100) % 3

    parts = {tuple(split_rows(y, names(3), seed)[1].tolist()) for seed in range(10)}

    assert len(parts) == 10


def test_a_class_of_two_cannot_be_split_in_three() -> None:
    """The message names the class and says how many examples it has."""
    y = np.array([0] * 10 + [1] * 2)

    with pytest.raises(DataError, match=r"at least 3 examples .* found 2 of 'class 1'; add examples"):
        split_rows(y, names(2), 0)


def test_many_rare_classes_are_counted_not_listed() -> None:
    """Five rare classes are named; the rest is a number."""
    with pytest.raises(DataError, match=r"found 1 of 'class 0', .* 1 of 'class 4' and too few of 95 more"):
        split_rows(np.arange(100), names(100), 0)


def test_a_given_test_part_needs_two_of_each_class_outside_it() -> None:
    """A class that occurs in the test part alone cannot be learned."""
    y = np.array([0, 0, 0, 0, 1])

    with pytest.raises(DataError, match=r"at least 2 examples .* found 0 of 'class 1'"):
        split_rows(y, names(2), 0, n_test=1)
