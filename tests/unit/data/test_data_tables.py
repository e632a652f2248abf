"""Tables: `.csv` and `.parquet` files to features and labels."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caviar.data import load_dataset, resolve
from caviar.data.files import read_csv, read_parquet
from caviar.data.raw import RawData
from caviar.data.tables import encode_table
from caviar.errors import DataError
from caviar.training.dataset import Dataset

Write = Callable[..., Path]
Load = Callable[..., Dataset]

N = 30
ROWS = [f"{i},{i % 7},{'yes' if i % 2 else 'no'}" for i in range(N)]
PLAIN = "\n".join(["a,b,label", *ROWS, ""])


def mixed_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "größe": rng.normal(size=N) * 10.0 ** rng.integers(-200, 200, N),
            "farbe, Ton": ["rot", "grün", ""] * 10,
            "安い": rng.random(N) < 0.5,
            "n": rng.integers(-5, 5, N),
            "label": ["猫", "犬"] * 15,
        }
    )


def read(path: Path, target: str = "label") -> RawData:
    frame = read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    return encode_table(frame, target, str(path), path.stem)


def column_csv(values: list[object], n_rows: int = N) -> str:
    """A table of column `a`, which repeats the values, and two classes."""
    return "a,label\n" + "".join(f"{values[i % len(values)]},{i % 2}\n" for i in range(n_rows))


def column_frame(values: object) -> pd.DataFrame:
    return pd.DataFrame({"a": values, "label": ["x", "y"] * 15})


def test_csv_and_parquet_of_one_table_are_the_same_data(tmp_path: Path) -> None:
    """Numbers, truth values, text, missing text, unicode: same features, classes and fingerprint."""
    frame = mixed_frame()
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.to_csv(tmp_path / "index.csv")
    frame.to_csv(tmp_path / "semicolon.csv", index=False, sep=";")
    frame.to_csv(tmp_path / "tab.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "marked.csv", index=False, encoding="utf-8-sig")
    frame.to_csv(tmp_path / "lines.csv", index=False, lineterminator="\r\n")
    frame.to_parquet(tmp_path / "plain.parquet")
    frame.set_index("n", append=True).reset_index(level=1)[list(frame)].to_parquet(tmp_path / "index.parquet")
    frame.astype({"label": "category", "farbe, Ton": "category", "n": "Int16"}).to_parquet(tmp_path / "kinds.parquet")

    loaded = {path.name: load_dataset(resolve(str(path), "label")) for path in sorted(tmp_path.iterdir())}

    assert len(loaded) == 9
    assert {data.classes for data in loaded.values()} == {("犬", "猫")}
    assert {data.features for data in loaded.values()} == {
        ("größe", "farbe, Ton=grün", "farbe, Ton=rot", "farbe, Ton=(missing)", "安い", "n")
    }
    assert len({data.fingerprint for data in loaded.values()}) == 1, loaded


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [(3, "n", 99), (0, "größe", 0.5), (5, "farbe, Ton", "rot"), (7, "安い", None), (9, "label", "猫")],
)
def test_a_changed_cell_changes_the_fingerprint(load_parquet: Load, row: int, column: str, value: object) -> None:
    """Features and labels both count."""
    frame = mixed_frame()
    before = load_parquet(frame).fingerprint

    frame.loc[row, column] = not frame.loc[row, column] if value is None else value

    assert load_parquet(frame).fingerprint != before


def test_a_renamed_column_changes_the_fingerprint(load_parquet: Load) -> None:
    """Names are part of the data, as they are part of what is shown."""
    frame = mixed_frame()

    renamed = frame.rename(columns={"n": "m"})

    assert load_parquet(frame).fingerprint != load_parquet(renamed).fingerprint


def test_text_is_one_hot_encoded(write_csv: Write) -> None:
    """One feature of 0 and 1 per distinct value, sorted; a missing one is a category of its own."""
    raw = read(write_csv(column_csv(["u", "t", "", " u "])))

    assert raw.features == ("a=t", "a=u", "a=(missing)")
    assert raw.x[:4].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_words_for_nothing_are_words_among_words(write_csv: Write) -> None:
    """`NA` and `None` are categories of a text column and classes of a text target."""
    raw = read(write_csv("a,label\n" + "NA,None\nx,Some\nNone,None\n" * 5))

    assert raw.features == ("a=NA", "a=None", "a=x")
    assert raw.classes == ("None", "Some")


@pytest.mark.parametrize("dtype", ["uint64", "UInt64", "uint64[pyarrow]"])
def test_labels_beyond_int64_are_told_apart(tmp_path: Path, dtype: str) -> None:
    """They are whole numbers like others, and no floats, in which these two are one."""
    labels = pd.Series([2**63, 2**63 + 1] * 15, dtype=dtype)
    pd.DataFrame({"a": range(30), "label": labels}).to_parquet(tmp_path / "x.parquet")

    raw = read(tmp_path / "x.parquet")

    assert raw.classes == (str(2**63), str(2**63 + 1))


def test_fifty_distinct_values_are_the_limit(load_csv: Load) -> None:
    """Fifty are encoded; fifty-one are refused with name and count."""
    values: list[object] = [f"v{i}" for i in range(51)]

    assert len(load_csv(column_csv(values[:50], 500)).features) == 50
    with pytest.raises(DataError, match="at most 50 distinct values in text column 'a', found 51; drop"):
        load_csv(column_csv(values, 500))


def test_numbers_with_a_decimal_comma_are_told_apart_from_words(load_csv: Load) -> None:
    """Of a file that parts its columns otherwise; a comma more is a word."""
    values: list[object] = [f'"{i},{i % 10}"' for i in range(60)]

    with pytest.raises(DataError, match="expected numbers in column 'a', found '0,0' and the like; write them with a"):
        load_csv(column_csv(values, 500))
    with pytest.raises(DataError, match="at most 50 distinct values in text column 'a'"):
        load_csv(column_csv([f'"{i},0,0"' for i in range(60)], 500))


def test_numbers_with_a_few_words_name_the_words(load_csv: Load) -> None:
    """A `?` for a missing number is pointed at, not counted as a category."""
    with pytest.raises(DataError, match=r"expected numbers in column 'a', found '\?' .* in 8 of 80 rows"):
        load_csv("a,label\n" + "".join(f"{i if i % 10 else '?'},{i % 2}\n" for i in range(80)))


@pytest.mark.parametrize("mark", ["?", "-", "."])
def test_a_mark_among_few_numbers_is_a_missing_number(load_csv: Load, mark: str) -> None:
    """A column of numbers is never one-hot encoded for the sake of a question mark."""
    with pytest.raises(DataError, match=r"expected numbers in column 'a', found '.' .* in 6 of 30 rows; fill"):
        load_csv(column_csv([1, 2, 3, 4, mark]))


def test_numbers_and_words_of_few_kinds_are_categories(load_csv: Load) -> None:
    """`0, 1, 2, 3+` is text."""
    assert load_csv(column_csv([0, 1, 2, "3+"])).features == ("a=0", "a=1", "a=2", "a=3+")


def test_signs_alone_are_categories(load_csv: Load) -> None:
    """`+` and `-` among no numbers mean themselves."""
    assert load_csv(column_csv(["+", "-"])).features == ("a=+", "a=-")


def test_truth_values_are_0_and_1(write_csv: Write) -> None:
    """As features they are numbers, as labels the classes False and True."""
    raw = read(write_csv("a,label\n" + "True,False\nFalse,True\n" * 5))

    assert raw.features == ("a",)
    assert raw.x[:2, 0].tolist() == [1.0, 0.0]
    assert raw.classes == ("False", "True")


def test_whole_numbers_beyond_64_bits_are_numbers_as_features_and_exact_as_labels(write_csv: Write) -> None:
    """Two labels that a float64 cannot tell apart stay two classes."""
    raw = read(write_csv("a,label\n" + f"{10**20},{10**25}\n-1,{10**25 + 1}\n" * 5))

    assert raw.x[:2, 0].tolist() == [1e20, -1.0]
    assert raw.classes == (str(10**25), str(10**25 + 1))


def test_int64_labels_beyond_float64_stay_apart(load_parquet: Load) -> None:
    """9007199254740993 is not 9007199254740992."""
    frame = pd.DataFrame({"a": range(N), "label": [2**53, 2**53 + 1] * 15})

    assert load_parquet(frame).classes == (str(2**53), str(2**53 + 1))


def test_numbers_from_csv_have_the_bits_that_were_written(write_csv: Write) -> None:
    """Decimal text is rounded correctly."""
    values = np.random.default_rng(5).normal(size=2000) * 10.0 ** np.random.default_rng(6).integers(-290, 290, 2000)
    text = "a,label\n" + "".join(f"{value!r},{i % 2}\n" for i, value in enumerate(values.tolist()))

    assert np.array_equal(read(write_csv(text)).x[:, 0], values)


def test_a_byte_order_mark_is_not_part_of_the_first_name(load_csv: Load) -> None:
    """Excel's UTF-8 files work, the target in the first column too."""
    data = load_csv("label,a\n" + "x,1\ny,2\n" * 5, encoding="utf-8-sig")

    assert data.features == ("a",)


def test_quoted_delimiters_and_line_ends_belong_to_the_value(load_csv: Load) -> None:
    """A comma or a line end within quotes separates nothing."""
    data = load_csv('"a, b",c,label\n' + '"x, y",1,p\n"x\nz",2,q\n' * 5)

    assert data.features == ("a, b=x\nz", "a, b=x, y", "c")


@pytest.mark.parametrize("lead", ["\n\n", "   \n", "\t\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_blank_lines_above_the_header_are_skipped(load_csv: Load, lead: str, delimiter: str) -> None:
    """The header is the first line with something in it."""
    data = load_csv(lead + PLAIN.replace(",", delimiter))

    assert data.features == ("a", "b")


def test_space_around_names_and_values_is_dropped(load_csv: Load) -> None:
    """`a, b` is read as people mean it, and so is `--target ' label'`."""
    data = load_csv("a , b , label \n" + "1, u, yes \n2, v,no\n" * 5, target=" label")

    assert data.features == ("a", "b=u", "b=v")
    assert data.classes == ("no", "yes")


def test_constant_and_huge_columns_are_standardised_without_nan(load_csv: Load) -> None:
    """A constant becomes 0, values of 1e300 become about 1."""
    text = "a,b,label\n" + "".join(f"0.1,{i + 1}e300,{i % 2}\n" for i in range(N))

    data = load_csv(text)

    assert not data.train.x[:, 0].any()
    np.testing.assert_allclose(data.train.x[:, 1].std(), 1.0)


def test_a_class_of_three_rows_is_in_every_part(load_csv: Load) -> None:
    """One of it in each."""
    data = load_csv("a,label\n" + "".join(f"{i},{'rare' if i % 10 == 3 else 'often'}\n" for i in range(N)))

    assert [int((part.y == 1).sum()) for part in (data.train, data.validation, data.test)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (
            PLAIN,
            None,
            r"expected a target column for .* \(--target\), found none; its columns are 'a', 'b', 'label'",
        ),
        (PLAIN, "lable", "expected target 'lable' among .* found 'a', 'b', 'label'; did you mean 'label'"),
        (",".join(f"c{i}" for i in range(99)) + "\n", "q", "'c19' and 79 more"),
        ("", "label", "expected a header line in .* found an empty file"),
        ("\n \n", "label", "expected a header line in .* found an empty file"),
        ("a,label\n", "label", "expected rows below the header"),
        ("label\n" + "x\ny\n" * 5, "label", "expected feature columns beside the target 'label'"),
        ("a,label\n1,x\n", "label", "at least 2 classes in 'table', found 'x' in all 1 rows"),
        (
            PLAIN.replace("b", "a", 1),
            "label",
            "expected distinct column names in .* found twice: 'a'; rename",
        ),
        ("a,,label\n1,2,x\n", "label", "expected a name for each column .* found none for column 2"),
        (PLAIN + "1,2,yes,4\n", "label", "cannot read .* as a table: .*Expected 3 fields in line 32, saw 4"),
        ("a,label\n1,x,3\n2,y,4\n", "label", "cannot read .* as a table: .*loss of data"),
        (
            PLAIN + "1\n",
            "label",
            "expected a label in every row, found none in 1 of 31 rows of column 'label'",
        ),
        ('a,label\n1,"x\n2,y\n', "label", "cannot read .* as a table: .*EOF inside string"),
        (
            PLAIN + ",,yes\n,3,no\n",
            "label",
            "column 'a' empty, NaN or infinite in 2 of 32 rows, and so have 1 more",
        ),
        (PLAIN + "NA,3,no\n", "label", "column 'a' empty, NaN or infinite in 1 of 31 rows"),
        (PLAIN + "-inf,3,no\n", "label", "column 'a' empty, NaN or infinite in 1 of 31 rows"),
        (column_csv(["True", "", "False"]), "label", "column 'a' empty, NaN or infinite in 10 of 30 rows"),
        (column_csv([""]), "label", "column 'a' empty, NaN or infinite in 30 of 30 rows"),
        (column_csv([1, 2]) + "3,\n", "label", "expected a label in every row, found none in 1 of 31 rows"),
        (
            column_csv(["x", "y"]) + "x,\n",
            "label",
            "expected a label in every row, found none in 1 of 31 rows",
        ),
        ("a,label\n" + "1,u\n2,v\n3,\n" * 4, "label", "found none in 4 of 12 rows of column 'label'"),
        (column_csv([1]) + "1,0.5\n", "label", "column 'label', found fractions such as 0.5"),
        (
            column_csv([f"2024-02-{d:02}" for d in range(1, 29)]),
            "label",
            "found dates or times in column 'a'; turn",
        ),
        (column_csv(["2024-02-01 10:00", "2024-02-02T11:00"]), "label", "found dates or times in column 'a'"),
        ("a,label\n" + "".join(f"{i},{i}\n" for i in range(9)), "label", r"as many classes as rows \(9\)"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(load_csv: Load, text: str, target: str | None, message: str) -> None:
    """One line says what was expected, where, and what was found."""
    with pytest.raises(DataError, match=message) as caught:
        load_csv(text, target)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("encoding", "byte"), [("latin-1", "0xe9"), ("utf-16", "0xff")])
def test_text_in_another_encoding_is_refused(load_csv: Load, encoding: str, byte: str) -> None:
    """Nothing is guessed: UTF-8 is asked for."""
    with pytest.raises(DataError, match=f"expected UTF-8 text in .* found byte {byte}; save it as UTF-8"):
        load_csv("a,label\n1,é\n2,b\n" * 5, encoding=encoding)


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["v", "u", "w"] * 10),
        pd.array(["v", "u", "w"] * 10, dtype="string"),
        np.array(["v", "u", "w"] * 10, dtype=object),
    ],
)
def test_parquet_text_of_any_kind_is_one_hot_encoded(load_parquet: Load, values: object) -> None:
    """Dictionary columns are text like any other."""
    assert load_parquet(column_frame(values)).features == ("a=u", "a=v", "a=w")


@pytest.mark.parametrize(
    "values",
    [
        pd.array([3, 1, 2] * 10, dtype="Int64"),
        pd.array([True, False, True] * 10, dtype="boolean"),
        pd.Categorical([3, 1, 2] * 10),
        [decimal.Decimal("1.5"), decimal.Decimal("2.5"), decimal.Decimal("-3.5")] * 10,
        np.arange(N, dtype=np.float32),
        np.arange(N, dtype=np.uint8),
    ],
)
def test_parquet_numbers_of_any_kind_are_one_feature(load_parquet: Load, values: object) -> None:
    """Nullable, decimal and dictionary numbers are numbers."""
    assert load_parquet(column_frame(values)).features == ("a",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.array([1, None, 3] * 10, dtype="Int64"), "column 'a' empty, NaN or infinite in 10 of 30 rows"),
        (pd.array([True, None, False] * 10, dtype="boolean"), "column 'a' empty, NaN or infinite in 10 of 30"),
        (pd.Categorical([1, 2, None] * 10), "column 'a' empty, NaN or infinite in 10 of 30"),
        (
            [decimal.Decimal("1.5"), None, decimal.Decimal("2.5")] * 10,
            "column 'a' empty, NaN or infinite in 10 of",
        ),
        ([None] * N, "column 'a' empty, NaN or infinite in 30 of 30"),
        (pd.date_range("2020", periods=N), "dates or times in column 'a'"),
        (pd.date_range("2020", periods=N, tz="UTC"), "dates or times in column 'a'"),
        ([datetime.date(2020, 1, 1)] * N, "dates or times in column 'a'"),
        ([datetime.timedelta(1)] * N, "dates or times in column 'a'"),
        ([b"x"] * N, "found bytes values in column 'a'; convert or drop it"),
        ([[1, 2]] * N, "found .* in column 'a'; convert or drop it"),
    ],
)
def test_parquet_columns_that_are_neither_number_nor_text_are_refused(
    load_parquet: Load, values: object, message: str
) -> None:
    """The column is named, with what it holds."""
    with pytest.raises(DataError, match=message):
        load_parquet(column_frame(values))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pd.array([1, 10, 9] * 10, dtype="Int8"), ("1", "9", "10")),
        (pd.Categorical(["b", "a", "b"] * 10), ("a", "b")),
        (pd.Categorical([2, 1, 2] * 10), ("1", "2")),
        ([decimal.Decimal(1), decimal.Decimal(2), decimal.Decimal(1)] * 10, ("1", "2")),
        ([2.0, 1.0, 2.0] * 10, ("1", "2")),
        ([True, False, True] * 10, ("False", "True")),
    ],
)
def test_parquet_labels_of_any_kind_become_classes(
    load_parquet: Load, labels: object, classes: tuple[str, ...]
) -> None:
    """As from an array."""
    assert load_parquet(pd.DataFrame({"a": range(N), "label": labels})).classes == classes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pd.array([1, None, 2] * 10, dtype="Int64"), "found none in 10 of 30 rows of column 'label'"),
        (["x", None, "y"] * 10, "found none in 10 of 30 rows of column 'label'"),
        ([None] * N, "found none in 30 of 30 rows of column 'label'"),
        (pd.date_range("2020", periods=N), "expected class labels in column 'label', found dates or times"),
        ([[1, 2]] * N, "expected class labels in column 'label'"),
    ],
)
def test_parquet_labels_that_are_no_classes_are_refused(load_parquet: Load, labels: object, message: str) -> None:
    """Missing labels are counted, other types are named."""
    with pytest.raises(DataError, match=message):
        load_parquet(pd.DataFrame({"a": range(N), "label": labels}))


def test_a_named_index_of_pandas_is_a_column(load_parquet: Load) -> None:
    """What pandas hides in the index can be the target; an index without a name is no feature."""
    frame = column_frame(range(N))

    named = load_parquet(frame.set_index("label"))
    shuffled = load_parquet(frame.set_axis(range(N, 0, -1)))

    assert named.features == shuffled.features == ("a",)
    assert named.fingerprint == shuffled.fingerprint


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    """`year=2020` in the path is not data."""
    folder = tmp_path / "year=2020"
    folder.mkdir()
    column_frame(range(N)).to_parquet(folder / "table.parquet")

    assert load_dataset(resolve(str(folder / "table.parquet"), "label")).features == ("a",)


def test_duplicate_columns_of_a_parquet_file_are_refused(tmp_path: Path) -> None:
    """Which of two would be meant is not guessed."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a "]), path)

    with pytest.raises(DataError, match=r"expected distinct column names in .* found twice: 'a'"):
        load_dataset(resolve(str(path), "a"))


def test_a_parquet_file_without_columns_is_refused(load_parquet: Load) -> None:
    """There is nothing to choose a target from."""
    with pytest.raises(DataError, match=r"expected columns in .* found none"):
        load_parquet(pd.DataFrame())


@pytest.mark.parametrize("content", [b"", b"PAR1 and then something else"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    """The operation is named, with the reader's reason on one line."""
    path = tmp_path / "table.parquet"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"cannot read .* as parquet: ") as caught:
        load_dataset(resolve(str(path), "label"))

    assert "\n" not in str(caught.value)
