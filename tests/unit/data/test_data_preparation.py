"""Examples that a model has not seen, prepared as those that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caviar.data import Preparation, load_prepared, resolve
from caviar.errors import DataError, DataNotFound

Write = Callable[..., Path]

N = 30
#: Numbers, text with and without missing values, truth values, and text of which some words are numbers.
ROWS = [
    f"{i / 4},{('red', 'green', '')[i % 3]},{i % 2 == 0},{('1', '2', 'many')[i % 3]},{'yes' if i % 2 else 'no'}"
    for i in range(N)
]
TABLE = "\n".join(["size,colour,old,doors,label", *ROWS, ""])


@pytest.fixture
def prepared(write_csv: Write) -> tuple[np.ndarray, Preparation]:
    """The features of a table in the order of its rows, and how they were prepared."""
    data, preparation = load_prepared(resolve(write_csv(TABLE), "label"), "float64")
    x = np.concatenate([part.x for part in (data.train, data.validation, data.test)])
    return x[np.argsort(x[:, 0])], preparation


@pytest.fixture
def numbers(write_csv: Write) -> Preparation:
    """How a table of two columns of numbers was prepared."""
    text = "a,b,label\n" + "".join(f"{i},{i * i},{i % 2}\n" for i in range(N))
    return load_prepared(resolve(write_csv(text), "label"))[1]


def test_the_training_data_gets_the_same_bits(
    prepared: tuple[np.ndarray, Preparation], write_csv: Write, tmp_path: Path
) -> None:
    """As file of each kind and as frame, with the labels or without."""
    x, preparation = prepared
    path = write_csv(TABLE, "again.csv")
    frame = pd.read_csv(path, keep_default_na=False)
    frame.drop(columns="label").to_parquet(tmp_path / "again.parquet")

    for examples in (path, str(path), tmp_path / "again.parquet", frame):
        assert np.array_equal(preparation.apply(examples), x)


def test_columns_are_found_by_name(prepared: tuple[np.ndarray, Preparation], write_csv: Write) -> None:
    """Whatever their order, and whatever else is there."""
    x, preparation = prepared
    frame = pd.read_csv(write_csv(TABLE, "again.csv"), keep_default_na=False)
    turned = frame[frame.columns[::-1]].assign(id=range(N))

    assert np.array_equal(preparation.apply(turned), x)


@pytest.mark.parametrize("doors", ["1", "2"])
def test_words_that_look_like_numbers_are_still_words(
    prepared: tuple[np.ndarray, Preparation], write_csv: Write, doors: str
) -> None:
    """A file that has none but numbers in a text column, or an empty field among them, means the same words."""
    x, preparation = prepared
    text = f"size,colour,old,doors\n0.0,red,True,{doors}\n0.25,green,False,{doors}\n"

    found = preparation.apply(write_csv(text, "new.csv"))

    same = [index for index, row in enumerate(ROWS) if row.split(",")[3] == doors]
    names = preparation.features
    columns = [index for index, name in enumerate(names) if name.startswith("doors=")]
    assert np.array_equal(found[:, columns], x[[same[0]] * 2][:, columns])
    assert names == ("size", "colour=green", "colour=red", "colour=(missing)", "old", *names[5:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,colour,old\n1,red,True\n", r"none named 'doors'; its columns are 'size', 'colour', 'old'"),
        ("size,colour,old,doors\n1,blue,True,1\n1,red,True,1\n", r"column 'colour', .* found 'blue' .* 1 of 2 rows"),
        ("size,colour,old,doors\n1,red,True,3\n", r"expected one of '1', '2', 'many' in column 'doors', .* found '3'"),
        ("size,colour,old,doors\n1,red,True,\n", r"in column 'doors', .* found '\(missing\)'"),
        ("size,colour,old,doors\nbig,red,True,1\n", r"expected numbers in column 'size' .* found text such as 'big'"),
        ("size,colour,old,doors\n,red,True,1\n1,red,True,1\n", r"column 'size' empty, NaN or infinite in 1 of 2 rows"),
        ("size,colour,old,doors\n1e999,red,True,1\n", r"column 'size' empty, NaN or infinite in 1 of 1 rows"),
        ("size,colour,old,doors\n", r"expected examples in .*new.csv', found none"),
    ],
)
def test_a_table_of_another_kind_is_refused(
    prepared: tuple[np.ndarray, Preparation], write_csv: Write, text: str, message: str
) -> None:
    """The message names the column, what was trained on and what was found."""
    with pytest.raises(DataError, match=message):
        prepared[1].apply(write_csv(text, "new.csv"))


def test_a_column_that_is_there_twice_is_refused(numbers: Preparation) -> None:
    """Nobody can say which of them is meant."""
    frame = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["a", "b", "a"])

    with pytest.raises(DataError, match="found twice: 'a'"):
        numbers.apply(frame)


def test_an_array_is_taken_in_the_order_of_the_columns(numbers: Preparation, write_npz: Write) -> None:
    """Lists, whole numbers, more axes and `.npz` files, with labels or without, mean the same."""
    rows = [[3, 9], [4, 16]]
    expected = numbers.apply(pd.DataFrame(rows, columns=["a", "b"]))

    assert expected.dtype == np.float32
    for examples in (rows, np.array(rows), np.array(rows, np.float64).reshape(2, 2, 1), write_npz(X=np.array(rows))):
        assert np.array_equal(numbers.apply(examples), expected)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([[1.0, 2.0, 3.0]], "expected 2 features in the array, as the model was trained on, found 3"),
        ([1.0, 2.0], r"shape \(examples, features\), found \(2,\)"),
        ([[1.0, 2.0], [1.0]], "ragged"),
        ([["a", "b"]], "expected real numbers in the array, found <U1"),
        ([[1.0, float("nan")]], "column 'b' empty, NaN or infinite in 1 of 1 rows"),
        (np.empty((0, 2)), "expected examples in the array, found none"),
    ],
)
def test_an_array_of_another_kind_is_refused(numbers: Preparation, examples: object, message: str) -> None:
    """It must be numbers, an example a row."""
    with pytest.raises(DataError, match=message):
        numbers.apply(examples)


def test_text_columns_need_a_table(prepared: tuple[np.ndarray, Preparation]) -> None:
    """An array has no names to tell them apart."""
    with pytest.raises(DataError, match="column 'colour' of the training data is text"):
        prepared[1].apply([[1.0, 0.0, 1.0, 0.0]])


def test_a_file_that_is_not_there_is_not_found(numbers: Preparation, tmp_path: Path) -> None:
    """Nor is one without an array of features read."""
    with pytest.raises(DataNotFound, match=r"nothing.csv"):
        numbers.apply(tmp_path / "nothing.csv")
    np.savez(tmp_path / "labels.npz", y=np.arange(3))
    with pytest.raises(DataError, match="expected arrays 'X' in"):
        numbers.apply(tmp_path / "labels.npz")


def test_a_data_set_with_a_name_can_be_judged() -> None:
    """All its examples, in the order of the source."""
    data, preparation = load_prepared(resolve("iris"))

    found = preparation.apply("iris")

    assert found.shape == (150, 4)
    assert {tuple(row) for row in data.test.x.tolist()} <= {tuple(row) for row in found.tolist()}
