"""IDX files, the format of MNIST: a magic number, big-endian sizes, then the bytes; often gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from caviar.data.labels import LabelKind, encode_labels
from caviar.data.raw import RawData, one_line
from caviar.errors import DataError, DataNotFound

_GZIP_MAGIC = b"\x1f\x8b"
#: Third byte of the magic number: elements are unsigned bytes. The other types do not occur in image sets.
_UNSIGNED_BYTE = 0x08

_PARTS = ("train", "t10k")


def read_idx(path: Path, n_dims: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes, plain or gzipped (told by its content, not by its name).

    Args:
        path: the file.
        n_dims: how many dimensions it must have: 3 for images, 1 for labels.

    Returns:
        uint8, read-only, of the shape that the file declares.

    Raises:
        DataError: the file cannot be read, has another magic number, or another length than it declares.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read IDX file {str(path)!r}: {one_line(error)}") from error
    magic = bytes([0, 0, _UNSIGNED_BYTE, n_dims])
    if not content.startswith(magic):
        raise DataError(
            f"expected IDX file {str(path)!r} to start with 0x{magic.hex()} "
            f"({n_dims} dimension{'s' if n_dims > 1 else ''} of unsigned bytes), found 0x{content[:4].hex()}"
        )
    start = 4 + 4 * n_dims
    if len(content) < start:
        raise DataError(f"expected the {start} bytes of a header in IDX file {str(path)!r}, found {len(content)}")
    shape = struct.unpack(f">{n_dims}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"expected {math.prod(shape)} bytes after the header of IDX file {str(path)!r}, "
            f"found {len(content) - start}; get the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_idx_folder(folder: Path, name: str, class_names: tuple[str, ...] | None = None) -> RawData:
    """Read `train-images`, `train-labels`, `t10k-images` and `t10k-labels` from a folder.

    Args:
        folder: holds four files, as `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, or with `.gz`.
        name: name of the data set.
        class_names: names of the labels 0, 1, ...; the labels themselves where None.

    Returns:
        Training rows, then those of the t10k files as the given test part; a feature a pixel, a byte each.

    Raises:
        DataNotFound: a file is not there.
        DataError: a file is damaged, or the files do not belong together.
    """
    paths = [_find(folder, part, kind) for part in _PARTS for kind in ("images-idx3", "labels-idx1")]
    images, labels = [], []
    for images_path, labels_path in (paths[:2], paths[2:]):
        images.append(read_idx(images_path, 3))
        labels.append(read_idx(labels_path, 1))
        if len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"expected one label per image in {str(folder)!r}, found {len(images[-1])} images in "
                f"{images_path.name!r} and {len(labels[-1])} labels in {labels_path.name!r}"
            )
        if not len(images[-1]):
            raise DataError(f"expected images in {str(images_path)!r}, found none")
    if images[0].shape[1:] != images[1].shape[1:]:
        raise DataError(
            f"expected training and test images of one size in {str(folder)!r}, "
            f"found {images[0].shape[1:]} and {images[1].shape[1:]}"
        )
    rows, columns = images[0].shape[1:]
    y, classes = encode_labels(np.concatenate(labels), f"the labels of {str(folder)!r}")
    kind: LabelKind = "number"
    if class_names is not None and classes == tuple(str(code) for code in range(len(class_names))):
        classes, kind = class_names, "text"
    return RawData(
        name=name,
        x=np.concatenate([part.reshape(len(part), rows * columns) for part in images]),
        y=y,
        classes=classes,
        features=tuple(f"pixel_{row}_{column}" for row in range(rows) for column in range(columns)),
        n_test=len(labels[1]),
        labels=kind,
    )


def _find(folder: Path, part: str, kind: str) -> Path:
    candidates = [
        folder / f"{part}-{spelling}-ubyte{suffix}"
        for spelling in (kind, kind.replace("-", ".", 1))  # unpacked copies are named images.idx3
        for suffix in ("", ".gz")
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataNotFound(
        f"expected the four IDX files of an image set in {str(folder)!r}, found no {candidates[0].name!r} "
        "(plain or .gz); complete the folder or name a file"
    )
