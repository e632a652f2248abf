"""Table files (`.csv`, `.tsv`, `.parquet`) to a frame with distinct, stripped column names."""

from __future__ import annotations

import csv
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caviar.data.raw import listed, one_line
from caviar.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_DELIMITERS = (",", ";", "\t", "|")
#: At most 308 digits: more do not fit a float64.
_WHOLE = re.compile(r"[+-]?[0-9]{1,308}")
#: How pandas names the row index in a parquet file.
_INDEX_PREFIX = "__index_level_"


def read_csv(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """Read UTF-8 text with a header line.

    The delimiter is the one of `,` `;` tab `|` that gives the header most columns. An unnamed first column
    (the row index that pandas and R write) is left out. In text columns only an empty field is missing: `NA` and
    `None` are words there, but missing values among numbers.

    Args:
        path: of the file.
        text: names of columns that are text, whatever they look like.

    Raises:
        DataError: the file cannot be read as such a table.
    """
    import pandas as pd

    try:
        header = _read_header(path)
        frame = _read_body(path, header, text)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected UTF-8 text in {str(path)!r}, found byte 0x{error.object[error.start]:02x}; save it as UTF-8"
        ) from error
    # pandas' own errors are ValueErrors
    except (OSError, ValueError, OverflowError, csv.Error, pd.errors.ParserWarning) as error:
        raise DataError(f"cannot read {str(path)!r} as a table: {one_line(error)}") from error
    frame = _wide_integers(frame, [index for index, name in enumerate(header.names) if name not in text])
    names = header.names
    if not names[0]:
        frame, names = frame.iloc[:, 1:], names[1:]
    return _named(frame, names, path)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a parquet file; the row index that pandas stores with it is left out unless it has a name.

    Raises:
        DataError: the file cannot be read as such a table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # `read_table` would take `a=1` in a path for a column, and pandas' metadata would hide columns
        with pq.ParquetFile(path) as file:
            table = file.read()
        kept = [i for i, name in enumerate(table.column_names) if not name.startswith(_INDEX_PREFIX)]
        names = [table.column_names[index].strip() for index in kept]
        frame = table.select(kept).rename_columns([str(i) for i in range(len(kept))]).to_pandas(ignore_metadata=True)
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        raise DataError(f"cannot read {str(path)!r} as parquet: {one_line(error)}") from error
    return _named(frame, names, path)


@dataclass(frozen=True, slots=True)
class _Header:
    """What the first line that is not blank says."""

    names: list[str]
    delimiter: str
    n_blank_lines: int  # above it


def _read_header(path: Path) -> _Header:
    best = _Header([], _DELIMITERS[0], 0)
    for delimiter in _DELIMITERS:
        with path.open(encoding="utf-8-sig", newline="") as file:
            blank = list(itertools.takewhile(lambda line: not line.strip(), file))
            file.seek(0)
            lines = itertools.islice(file, len(blank), None)
            fields = next(csv.reader(lines, delimiter=delimiter, skipinitialspace=True), [])
        if len(fields) > len(best.names):
            best = _Header([field.strip() for field in fields], delimiter, len(blank))
    if not best.names:
        raise DataError(f"expected a header line in {str(path)!r}, found an empty file")
    return best


def _read_body(path: Path, header: _Header, text: Collection[str]) -> pd.DataFrame:
    """The rows below the header, columns named 0, 1, ..."""
    import pandas as pd

    options: dict[str, Any] = {
        "sep": header.delimiter,
        "skiprows": header.n_blank_lines,
        "header": 0,
        "names": list(range(len(header.names))),
        "index_col": False,  # a longer row is an error, not a sign that the first column is an index
        "encoding": "utf-8-sig",
        "skipinitialspace": True,
        "low_memory": False,  # one dtype per column, not one per chunk
    }
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
        options["float_precision"] = "round_trip"  # the same bits as parquet; later versions always give them
    with warnings.catch_warnings():
        # pandas warns where it drops surplus fields
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(path, **options)
        words = [
            column
            for column, name in zip(frame.columns, header.names, strict=True)
            if name in text
            or (frame[column].dtype.kind not in "biuf" and frame[column].isna().any() and not _is_bool(frame[column]))
        ]
        if words:
            exact = {"usecols": words, "dtype": str, "keep_default_na": False, "na_values": [""]}
            exactly = pd.read_csv(path, **options, **exact)
            for column in words:
                frame[column] = exactly[column]
    return frame


def _wide_integers(frame: pd.DataFrame, columns: Iterable[int]) -> pd.DataFrame:
    """Make numbers of columns that pandas left as text because they hold whole numbers beyond 64 bits."""
    import pandas as pd

    for column in columns:
        if frame[column].dtype.kind in "biuf" or frame[column].isna().any():
            continue
        words = [str(value) for value in frame[column]]
        if words and all(_WHOLE.fullmatch(word) for word in words):
            frame[column] = pd.Series([int(word) for word in words], dtype=object)
    return frame


def _is_bool(series: pd.Series[Any]) -> bool:
    from pandas.api import types

    return bool(types.infer_dtype(series, skipna=True) == "boolean")


def _named(frame: pd.DataFrame, names: list[str], path: Path) -> pd.DataFrame:
    unnamed = [position for position, name in enumerate(names, start=1) if not name]
    if unnamed:
        raise DataError(
            f"expected a name for each column of {str(path)!r}, found none for column {unnamed[0]}; name it"
        )
    twice = sorted(name for name, n_columns in Counter(names).items() if n_columns > 1)
    if twice:
        raise DataError(f"expected distinct column names in {str(path)!r}, found twice: {listed(twice)}; rename them")
    frame.columns = names
    return frame
