"""IDX files: the parser, and a folder of images as a data set."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from caviar.data import load_dataset, resolve
from caviar.data.idx import read_idx
from caviar.data.sources import FASHION_MNIST
from caviar.errors import DataError, DataNotFound


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_folder(folder: Path, suffix: str = "", spelling: str = "-idx") -> tuple[np.ndarray, np.ndarray]:
    """Write 60 training and 10 test images of 3 x 2 pixels in 3 classes; return all images and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 3, 2), dtype=np.uint8)
    labels = (np.arange(70) % 3).astype(np.uint8)
    for part, rows in (("train", slice(60)), ("t10k", slice(60, 70))):
        for kind, array in ((f"images{spelling}3", images[rows]), (f"labels{spelling}1", labels[rows])):
            content = idx_bytes(array)
            path = folder / f"{part}-{kind}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)
    return images, labels


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
def test_a_folder_of_idx_files_is_a_data_set(tmp_path: Path, suffix: str, spelling: str) -> None:
    """The t10k files are the test part, in their order, standardised by the training part."""
    images, labels = write_folder(tmp_path, suffix, spelling)

    data = load_dataset(resolve(str(tmp_path)), dtype="float64")

    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (50, 10, 10)
    assert data.test.y.tolist() == labels[60:].tolist()
    assert data.classes == ("0", "1", "2")
    assert data.features == tuple(f"pixel_{row}_{column}" for row in range(3) for column in range(2))
    flat = images.reshape(70, 6).astype(float)
    slope = np.diff(data.test.x, axis=0) / np.diff(flat[60:], axis=0, append=np.nan)[:9]
    np.testing.assert_allclose(slope, np.tile(slope[0], (9, 1)))
    np.testing.assert_allclose(data.train.x.mean(axis=0), 0.0, atol=1e-12)


def test_plain_and_gzipped_folders_are_the_same_data(tmp_path: Path) -> None:
    """The fingerprint is that of the content."""
    folders = [tmp_path / "plain", tmp_path / "packed"]
    for folder, suffix in zip(folders, ("", ".gz"), strict=True):
        folder.mkdir()
        write_folder(folder, suffix)

    prints = {load_dataset(resolve(str(folder))).fingerprint for folder in folders}

    assert len(prints) == 1


def test_an_idx_file_is_read_back(tmp_path: Path) -> None:
    """Shape and bytes are those written."""
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(array))

    assert np.array_equal(read_idx(path, 3), array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
GZIPPED = gzip.compress(GOOD, mtime=0)  # else the time of day is in it, and each test process collects other tests


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0x$"),
        (b"\x89PNG" + GOOD[4:], "expected IDX file .* to start with 0x00000803 .* found 0x89504e47"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "3 dimensions of unsigned bytes.*found 0x00000801"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "found 0x00000d03"),
        (GOOD[:10], "expected the 16 bytes of a header .* found 10"),
        (GOOD[:-1], "expected 24 bytes after the header .* found 23"),
        (GOOD + b"\x00", "expected 24 bytes after the header .* found 25"),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "bytes after the header"),
        (GZIPPED[:-9], "cannot read IDX file"),
        (GZIPPED[:12] + b"\xff\xff\xff" + GZIPPED[15:], "cannot read IDX file"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Wrong magic number, wrong length and broken gzip each say so in one line."""
    path = tmp_path / "images"
    path.write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)

    assert "\n" not in str(caught.value)


def test_a_missing_file_of_a_folder_is_named(tmp_path: Path) -> None:
    """The message says which of the four is not there."""
    write_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()

    with pytest.raises(DataNotFound, match=r"no 't10k-labels-idx1-ubyte' \(plain or .gz\)"):
        load_dataset(resolve(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(5, np.uint8), "one label per image .* 60 images .* 5 labels"),
        (
            "t10k-images-idx3-ubyte",
            np.zeros((10, 2, 3), np.uint8),
            r"one size .* found \(3, 2\) and \(2, 3\)",
        ),
        ("t10k-labels-idx1-ubyte", np.full(10, 9, np.uint8), "at least 2 examples .* found 0 of '9'"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    """Numbers of labels, image sizes and classes must agree."""
    write_folder(tmp_path)
    (tmp_path / name).write_bytes(idx_bytes(array))

    with pytest.raises(DataError, match=message):
        load_dataset(resolve(str(tmp_path)))


def test_images_of_no_examples_are_refused(tmp_path: Path) -> None:
    """A test part of zero images is an error, not an empty array."""
    write_folder(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((0, 3, 2), np.uint8)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0, np.uint8)))

    with pytest.raises(DataError, match=r"expected images in .*t10k-images-idx3-ubyte', found none"):
        load_dataset(resolve(str(tmp_path)))


def test_a_folder_takes_no_target(tmp_path: Path) -> None:
    """Its labels are in files of their own."""
    with pytest.raises(DataError, match="expected no target for the IDX files"):
        resolve(str(tmp_path), "label")


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_fashion_mnist_keeps_its_test_part() -> None:
    """50,000 and 10,000 of the training images, all classes alike, and the 10,000 test images as given."""
    data = load_dataset(resolve("fashion-mnist"))

    assert data.train.x.shape == (50_000, 784)
    assert np.bincount(data.validation.y).tolist() == [1000] * 10
    assert data.test.y[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]
    assert data.classes[9] == "Ankle boot"
    assert np.isfinite(data.test.x).all()
