"""Examples that a model has not seen, prepared as those that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from caviar.data import Preparation, load_prepared, resolve
from caviar.data.sources import read_source
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


@pytest.mark.parametrize("words", [("NA",), ("NA", "1"), ("NA", ""), ("true",), ("01",), ("1.50", "1e3"), ("+1", "Gd")])
def test_a_word_is_the_same_whatever_is_beside_it(write_csv: Write, words: tuple[str, ...]) -> None:
    """As a file of a few rows, whose columns a reader takes for numbers, truth values or nothing at all."""
    known = ("NA", "Gd", "1", "", "true", "01", "1.50", "1e3", "+1")
    table = "grade,label\n" + "".join(f"{known[i % 9]},{i % 2}\n" for i in range(90))
    preparation = load_prepared(resolve(write_csv(table), "label"), "float64")[1]
    expected = preparation.apply(write_csv("grade,label\n" + "".join(f"{word},0\n" for word in known), "all.csv"))

    found = preparation.apply(write_csv("grade,n\n" + "".join(f"{word},1\n" for word in words), "few.csv"))

    assert np.array_equal(found, expected[[known.index(word) for word in words]])


@pytest.mark.parametrize("doors", ["1", "2"])
def test_words_that_look_like_numbers_are_still_words(
    prepared: tuple[np.ndarray, Preparation], write_csv: Write, doors: str
) -> None:
    """A file that has none but numbers in a text column means the same words, as a frame does."""
    x, preparation = prepared
    text = f"size,colour,old,doors\n0.0,red,True,{doors}\n0.25,green,False,{doors}\n"

    path = write_csv(text, "new.csv")
    found = preparation.apply(path)

    assert np.array_equal(preparation.apply(pd.read_csv(path)), found)
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


def test_frames_of_other_kinds_and_names_with_space_are_understood(numbers: Preparation) -> None:
    """What has `to_pandas`, and names as a file may have them."""
    frame = pd.DataFrame({"b": [9, 16], " a ": [3, 4]})
    expected = numbers.apply([[3, 9], [4, 16]])

    assert np.array_equal(numbers.apply(frame), expected)
    assert np.array_equal(numbers.apply(pa.Table.from_pandas(frame)), expected)
    assert list(frame.columns) == ["b", " a "]


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
        (np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]), "column 'a' empty, NaN or infinite in 1 of 1 rows"),
        (np.empty((0, 2)), "expected examples in the array, found none"),
    ],
)
def test_an_array_of_another_kind_is_refused(numbers: Preparation, examples: object, message: str) -> None:
    """It must be numbers, an example a row."""
    with pytest.raises(DataError, match=message):
        numbers.apply(examples)


def test_text_columns_need_a_table(prepared: tuple[np.ndarray, Preparation], write_npz: Write) -> None:
    """An array has no names to tell them apart, and may have as many columns as there are features."""
    with pytest.raises(DataError, match="column 'colour' of the training data is text, found array 'X'"):
        prepared[1].apply(write_npz(X=np.zeros((2, 8))))
    with pytest.raises(DataError, match="column 'colour' of the training data is text, found 'iris'"):
        prepared[1].apply("iris")
    with pytest.raises(DataError, match="column 'colour' of the training data is text"):
        prepared[1].apply([[1.0, 0.0, 1.0, 0.0]])


def test_a_file_that_is_not_there_is_not_found(numbers: Preparation, tmp_path: Path) -> None:
    """Nor is one of a user who is not there, and one without an array of features is not read."""
    with pytest.raises(DataNotFound, match=r"x.csv"):
        numbers.apply("~nobody-of-this-name/x.csv")
    with pytest.raises(DataNotFound, match=r"nothing.csv"):
        numbers.apply(tmp_path / "nothing.csv")
    np.savez(tmp_path / "labels.npz", y=np.arange(3))
    with pytest.raises(DataError, match="expected arrays 'X' in"):
        numbers.apply(tmp_path / "labels.npz")


def test_a_data_set_is_taken_by_the_names_of_its_columns(write_csv: Write) -> None:
    """All its examples, in the order of the source, however the columns were ordered in training."""
    data, preparation = load_prepared(resolve("iris"), "float64")
    names, x = data.features, read_source(resolve("iris")).x
    lines = [",".join((*names[::-1], "label")), *(",".join(map(str, (*row[::-1], i // 50))) for i, row in enumerate(x))]
    turned = load_prepared(resolve(write_csv("\n".join([*lines, ""])), "label"), "float64")[1]

    found = preparation.apply("iris")

    assert found.shape == (150, 4)
    assert {tuple(row) for row in data.test.x.tolist()} <= {tuple(row) for row in found.tolist()}
    raw = turned.apply("iris") * turned.scaling.std + turned.scaling.mean
    np.testing.assert_allclose(raw / turned.scaling.scale, x[:, ::-1])
    with pytest.raises(DataError, match="expected the columns that the model was trained on in 'wine'"):
        preparation.apply("wine")
