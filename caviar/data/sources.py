"""Which name, file or folder gives which raw data."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caviar.data.arrays import read_features, read_npz
from caviar.data.files import read_csv, read_parquet
from caviar.data.idx import read_idx_folder
from caviar.data.named import NAMED, read_named
from caviar.data.raw import Column, RawData, check_columns, check_numeric, listed
from caviar.data.tables import encode_rows, encode_table, label_names
from caviar.errors import DataError, DataNotFound
from caviar.records import DataSpec
from caviar.wording import command

if TYPE_CHECKING:
    import pandas as pd

#: Where Debian's package `dataset-fashion-mnist` puts its files.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

#: Data sets that are given by name; the first is the default.
NAMES = (*NAMED, "fashion-mnist")
_SUFFIXES = (".csv", ".tsv", ".parquet", ".npz")


def resolve(source: str | Path, target: str | None = None, split_seed: int = 0) -> DataSpec:
    """Turn what a user typed into a spec that means the same from any working directory.

    A name goes before a file of the same name. The fingerprint stays empty: `load_dataset` computes it.

    Args:
        source: a name of :data:`NAMES`, or the path of a table or `.npz` file or of a folder of IDX files.
        target: column to predict, for tables.
        split_seed: seed of the split.

    Raises:
        DataNotFound: there is no such name, file or folder.
        DataError: it is neither, has another extension, or a target is given where there are no columns.
    """
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"expected the name of a data set, or the path of a file or folder, found a {type(source).__name__}; write "
            "it to a file, as with frame.to_parquet()"
        )
    source = str(source)
    if source in NAMES:
        if target is not None:
            raise DataError(f"expected no target for data set {source!r}, which has its own, found {target!r}")
        return DataSpec(source=source, split_seed=split_seed)
    path = _expanded(Path(source)).absolute()
    if not source or not path.exists():
        raise DataNotFound(_unknown(source, path))
    if path.is_dir():
        if target is not None:
            raise DataError(f"expected no target for the IDX files of {str(path)!r}, found {target!r}")
    elif path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"expected a file that ends in {', '.join(_SUFFIXES)}, found {path.name!r}; convert it")
    return DataSpec(source=str(path), target=target, split_seed=split_seed)


def has_columns(spec: DataSpec) -> bool:
    """Return whether a spec names a table or an archive, one of whose columns or arrays is the target."""
    return spec.source not in NAMES and not Path(spec.source).is_dir()


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user, so this is no home folder
        return path


def default_source(study: str) -> str:
    """Return what a new study trains on where no data is given: the data set that it is named after, or the first.

    Raises:
        DataError: it is named after a file; whoever typed that meant the file.
    """
    if Path(study).suffix.lower() in _SUFFIXES:
        raise DataError(
            f"expected the name of a study, found that of a file, {study!r}; to train on the file, name both, as in: "
            f"{command('sweep', Path(study).stem, '--data', study)}"
        )
    return study if study in NAMES else NAMES[0]


def read_source(spec: DataSpec) -> RawData:
    """Read what a spec names, unsplit.

    Raises:
        DataNotFound: it is not there.
        DataError: it cannot be used.
    """
    resolved = resolve(spec.source, spec.target)
    source, target = resolved.source, resolved.target
    if source in NAMED:
        return read_named(source)
    if source == "fashion-mnist":
        if not FASHION_MNIST.is_dir():
            raise DataNotFound(
                f"expected the files of 'fashion-mnist' in {str(FASHION_MNIST)!r}, found no such folder; "
                "apt-get install dataset-fashion-mnist, or give a folder that holds them"
            )
        return read_idx_folder(FASHION_MNIST, source, _FASHION_CLASSES)
    path = Path(source)
    if path.is_dir():
        return read_idx_folder(path, path.name)
    if path.suffix.lower() == ".npz":
        return read_npz(path, target, path.stem)
    return encode_table(_read_table(path), target, source, path.stem)


def read_columns(
    source: str | Path, columns: tuple[Column, ...], target: str | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the features of examples, and their classes if they are there.

    Args:
        source: as `resolve` takes it; an IDX folder holds labels, too.
        columns: that the features were made of in training, found by name; in an `.npz` file, by their order.
        target: the column, or array, of the classes.

    Returns:
        Features, any real or bool dtype, shape (N, D); of an `.npz` file D may be another. The name of each example's
        class, None where there is none, shape (N,); None where there are no classes.

    Raises:
        DataNotFound: it is not there.
        DataError: it cannot be used.
    """
    spec = resolve(source)
    path = Path(spec.source)
    if spec.source in NAMES or path.is_dir():
        raw = read_source(spec)
        return _by_name(raw, columns, str(source)), np.array(raw.classes, dtype=object)[raw.y]
    if path.suffix.lower() == ".npz":
        check_numeric(columns, f"array 'X' of {str(source)!r}")
        return read_features(path, target)
    text = [column.name for column in columns if column.categories is not None]
    frame = _read_table(path, text)
    return encode_rows(frame, columns, repr(str(source))), label_names(frame, target)


def _read_table(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    return read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path, text)


def _by_name(raw: RawData, columns: tuple[Column, ...], source: str) -> np.ndarray:
    """Return the features that columns of numbers have the names of."""
    check_numeric(columns, repr(source))
    names = tuple(column.name for column in columns)
    if names == raw.features:
        return raw.x
    places = {name: place for place, name in enumerate(raw.features)}
    check_columns(columns, raw.features, repr(source))
    return raw.x[:, [places[name] for name in names]]


def _unknown(source: str, path: Path) -> str:
    if path.suffix.lower() in _SUFFIXES or "/" in source:
        return f"expected a file or folder at {str(path)!r}, found nothing there; check the path"
    near = difflib.get_close_matches(source.lower().replace("-", "_"), [name.replace("-", "_") for name in NAMES], n=1)
    hint = f"; did you mean {next(name for name in NAMES if name.replace('-', '_') == near[0])!r}?" if near else ""
    return (
        f"expected one of {listed(NAMES)}, or a {', '.join(_SUFFIXES)} file or a folder of IDX files, "
        f"found {source!r}{hint}"
    )
