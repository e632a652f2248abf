"""A table to features and labels: numbers stay, text becomes one column per distinct value."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from caviar.data.labels import check_missing, encode_labels, label_kind
from caviar.data.raw import MISSING, Column, RawData, check_columns, listed
from caviar.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

#: Text columns with more distinct values are refused: identifiers and free text, which one-hot would blow up.
MAX_CATEGORIES = 50
#: A date as text, with or without a time: what a table without types makes of dates.
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")

#: What `pandas.api.types.infer_dtype` says of a column of objects, and what it is to us. All else is refused.
_OBJECT_KINDS = {
    "string": "text",
    "boolean": "number",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "empty": "number",  # nothing but missing values: reported as missing numbers
    "date": "date",
    "datetime": "date",
    "datetime64": "date",
    "timedelta": "date",
    "timedelta64": "date",
    "time": "date",
    "period": "date",
}


def encode_table(frame: pd.DataFrame, target: str | None, path: str, name: str) -> RawData:
    """Turn a table into features and labels.

    Numbers and truth values become one feature each. A text column (categories too) becomes one feature of 0
    and 1 per distinct value, sorted, named `column=value`; missing text is a category of its own.

    Args:
        frame: N rows, columns with distinct names.
        target: the column to predict.
        path: where the table comes from, for messages.
        name: name of the data set.

    Raises:
        DataError: the target is not there, or a column is neither number nor text with few values.
    """
    if not len(frame.columns):
        raise DataError(f"expected columns in {path!r}, found none")
    target = _check_target(list(frame.columns), target, path)
    if frame.empty:
        raise DataError(f"expected rows below the header of {path!r}, found none")
    values = _label_values(frame[target], target)
    labels, classes = encode_labels(values, f"column {target!r}")
    kind = label_kind(values)
    columns: list[Column] = []
    features: list[np.ndarray] = []
    for title in frame.columns:
        if title == target:
            continue
        column, values = _learn(_plain(frame[title]), title)
        columns.append(column)
        features += _spread(column, values)
    if not columns:
        raise DataError(f"expected feature columns beside the target {target!r} in {path!r}, found none")
    return RawData(
        name=name,
        x=_joined(features),
        y=labels,
        classes=classes,
        features=tuple(feature for column in columns for feature in column.features),
        columns=tuple(columns),
        labels=kind,
    )


def encode_rows(frame: pd.DataFrame, columns: tuple[Column, ...], where: str) -> np.ndarray:
    """Turn rows of another table into the features that columns became in training.

    Args:
        frame: N rows; columns that were not trained on are not looked at.
        columns: of the training data, from :func:`encode_table`.
        where: what to call the table in messages.

    Returns:
        Features, float64, shape (N, D).

    Raises:
        DataError: a column is missing, or holds what was not there in training.
    """
    frame = frame.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)
    check_columns(columns, list(frame.columns), where)
    counts = Counter(frame.columns)
    twice = [column.name for column in columns if counts[column.name] > 1]
    if twice:
        raise DataError(f"expected distinct column names in {where}, found twice: {listed(twice)}; rename them")
    features: list[np.ndarray] = []
    for column in columns:
        series = _plain(frame[column.name])
        if column.categories is not None:
            features += _spread(column, _known_words(series, column))
            continue
        if _kind(series) != "number":
            raise DataError(
                f"expected numbers in column {column.name!r} of {where}, as the model was trained on, found "
                f"{_kind(series)} such as {next(iter(series.dropna()), None)!r:.40}; convert them"
            )
        features.append(_numbers(series))
    return _joined(features)


def label_names(frame: pd.DataFrame, target: str | None) -> np.ndarray | None:
    """Return the class of each row, str or None, shape (N,); None where there is no target, or it holds no classes."""
    titles = [title for title in frame.columns if target and isinstance(title, str) and title.strip() == target.strip()]
    if len(titles) != 1 or list(frame.columns).count(titles[0]) > 1:
        return None
    series = _plain(frame[titles[0]])
    names = np.full(len(series), None, dtype=object)
    is_there = (_text(series) != "") if _kind(series) == "text" else series.notna().to_numpy(dtype=bool)
    if not is_there.any():
        return None
    try:
        y, classes = encode_labels(_label_values(series[is_there], titles[0]), f"column {titles[0]!r}")
    except DataError:
        return None
    names[is_there] = np.array(classes, dtype=object)[y]
    return names


def names_of_labels(labels: Iterable[Any], n: int) -> np.ndarray:
    """Return the class of each of n labels as :func:`label_names` does of a column, shape (n,).

    Raises:
        DataError: there are not n, they are not one for each example, or none is a label.
    """
    import pandas as pd

    values: Any = labels if hasattr(labels, "shape") else list(labels)
    shape = getattr(values, "shape", None) or (len(values),)
    if shape != (n,):
        raise DataError(f"expected a label for each of {n} examples, shape ({n},), found {shape}")
    if not hasattr(values, "dtype"):  # whole numbers with gaps stay whole, where pandas would make floats of them
        values = np.array([value.item() if hasattr(value, "item") else value for value in values], dtype=object)
    column = values if hasattr(values, "iloc") else pd.Series(np.asarray(values))
    names = label_names(pd.DataFrame({"label": column}), "label")
    if names is None:
        raise DataError("expected labels that are whole numbers, truth values or words, found none")
    return names


def _learn(series: pd.Series[Any], name: str) -> tuple[Column, np.ndarray]:
    """Return what a column is, and its values: float64, or str as objects."""
    kind = _kind(series)
    if kind == "number":
        return Column(name), _numbers(series)
    if kind == "text":
        words = _text(series)
        return Column(name, _categories(words, name)), words
    if kind == "date":
        raise DataError(_dates(name))
    raise DataError(f"expected numbers or text, found {kind} in column {name!r}; convert or drop it")


def _spread(column: Column, values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the values of each feature of a column."""
    if column.categories is None:
        yield values
    else:
        for category in column.categories:
            yield (values == category).astype(np.float64)


def _joined(features: list[np.ndarray]) -> np.ndarray:
    """Features one after the other as (N, D), each of them contiguous."""
    x = np.empty((len(features), len(features[0])))
    for row, values in zip(x, features, strict=True):
        row[:] = values
    return x.T


def _check_target(columns: list[str], target: str | None, path: str) -> str:
    if target is None:
        raise DataError(
            f"expected a target column for {path!r} (--target), found none; its columns are {listed(columns)}"
        )
    if target in columns:
        return target
    if target.strip() in columns:
        return target.strip()
    near = difflib.get_close_matches(target, columns, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"expected target {target!r} among the columns of {path!r}, found {listed(columns)}{hint}")


def _plain(series: pd.Series[Any]) -> pd.Series[Any]:
    """A categorical column as a column of its values."""
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.astype(series.dtype.categories.dtype if not series.isna().any() else object)
    return series


def _kind(series: pd.Series[Any]) -> str:
    """`number`, `text`, `date`, or a word for what it is instead."""
    from pandas.api import types

    dtype = series.dtype
    if types.is_complex_dtype(dtype):
        return "complex numbers"
    if types.is_numeric_dtype(dtype):  # bool and the nullable kinds are numeric too
        return "number"
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return "date"
    inferred = types.infer_dtype(series, skipna=True)
    if inferred == "empty" and types.is_string_dtype(dtype) and not types.is_object_dtype(dtype):
        return "text"
    return _OBJECT_KINDS.get(inferred, f"{inferred} values")


def _numbers(series: pd.Series[Any]) -> np.ndarray:
    """A column as float64, missing values as NaN."""
    if series.dtype == object:
        with np.errstate(over="ignore"):
            values = [np.nan if missing else value for value, missing in zip(series, series.isna(), strict=True)]
            return np.array([_float(value) for value in values], dtype=np.float64)
    if series.isna().any():
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(series.to_numpy(dtype=np.float64))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond 1e308
        return float("inf") if value > 0 else float("-inf")


def _text(series: pd.Series[Any]) -> np.ndarray:
    """A text column as objects: stripped str, '' where missing."""
    values = ["" if missing else value.strip() for value, missing in zip(series, series.isna(), strict=True)]
    return np.array(values, dtype=object)


def _known_words(series: pd.Series[Any], column: Column) -> np.ndarray:
    """A column of another table as the words of the training data; whole numbers and truth values are words too."""
    kind, categories = _kind(series), column.categories or ()
    if kind == "number":  # a file without words does not say that they could be some
        pairs = zip(series.astype(object), series.isna(), strict=True)
        words = np.array(["" if missing else _word(value, categories) for value, missing in pairs], dtype=object)
    elif kind == "text":
        words = _text(series)
    else:
        raise DataError(f"expected text in column {column.name!r}, as the model was trained on, found {kind}")
    new = [word for word in words.tolist() if word not in categories]
    if new:
        raise DataError(
            f"expected one of {listed([category or MISSING for category in categories])} in column {column.name!r}, as "
            f"the model was trained on, found {(new[0] or MISSING)!r:.40} and the like in {len(new)} of {len(words)} "
            "rows; drop them, or train on data that has it"
        )
    return words


def _word(number: Any, categories: tuple[str, ...]) -> str:
    """Return a number or truth value as the text of a table has it."""
    as_is = str(number)
    is_whole = isinstance(number, float) and number.is_integer()
    return str(int(number)) if is_whole and as_is not in categories else as_is


def _categories(words: np.ndarray, column: str) -> tuple[str, ...]:
    values: list[str] = words.tolist()
    found = set(values)
    categories = sorted(found - {""})
    if categories and all(map(_ISO_DATE.fullmatch, categories)):
        raise DataError(_dates(column))
    no_numbers = {category for category in categories if not _is_number(category)}
    in_words = sum(value in no_numbers for value in values)
    marks_only = not any(character.isalnum() for word in no_numbers for character in word)
    too_many = len(categories) > MAX_CATEGORIES
    # `?` or `-` among numbers stands for a missing one; `3+` is a category, unless there are too many to be categories
    if 0 < in_words < len(values) / 2 and (marks_only or too_many):
        raise DataError(
            f"expected numbers in column {column!r}, found {min(no_numbers)!r:.40} and the like in {in_words} of "
            f"{len(values)} rows; fill or drop them"
        )
    if too_many and all(_is_number(category.replace(",", ".", 1)) for category in categories):
        raise DataError(
            f"expected numbers in column {column!r}, found {min(categories)!r:.40} and the like; write them with a "
            "decimal point"
        )
    if too_many:
        raise DataError(
            f"expected at most {MAX_CATEGORIES} distinct values in text column {column!r}, found {len(categories)}; "
            "drop the column, group its values or turn it into numbers"
        )
    return (*categories, "") if "" in found else tuple(categories)


def _dates(column: str) -> str:
    return (
        f"expected numbers or text, found dates or times in column {column!r}; "
        "turn it into numbers (such as days since a date) or drop it"
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _label_values(series: pd.Series[Any], target: str) -> np.ndarray:
    """The target column as an array that `encode_labels` knows."""
    series = _plain(series)
    kind = _kind(series)
    where = f"column {target!r}"
    check_missing(int(series.isna().sum()), len(series), where)
    if kind == "text":
        return np.array(series.tolist(), dtype=object)
    if kind != "number":
        raise DataError(f"expected class labels in {where}, found {'dates or times' if kind == 'date' else kind}")
    if series.dtype != object:
        values = series.tolist()  # nullable kinds become plain ones
        # NumPy makes floats of whole numbers of which one is beyond int64, and rounds them
        is_large = any(type(value) is int and value >= 2**63 for value in values)
        return np.array(values, dtype=np.uint64 if is_large else None)
    if all(isinstance(value, int) for value in series):
        # beyond 64 bits, where an array of numbers would round them; bool is an int, and its name is the same
        return np.array([str(value) for value in series], dtype=object)
    return _numbers(series)
