"""Data sets by name, and what `resolve` and `load_dataset` promise of any."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caviar.data import default_source, load_dataset, resolve
from caviar.data import sources as data_sources
from caviar.data.named import NAMED, read_named
from caviar.data.sources import NAMES
from caviar.errors import DataError, DataNotFound, SettingsError
from caviar.records import DataSpec


@pytest.mark.parametrize(
    ("name", "n_rows", "n_features", "n_classes", "first_class"),
    [
        ("digits", 1797, 64, 10, "0"),
        ("iris", 150, 4, 3, "setosa"),
        ("wine", 178, 13, 3, "class_0"),
        ("breast_cancer", 569, 30, 2, "malignant"),
    ],
)
def test_a_named_set_is_loaded_and_split(
    name: str, n_rows: int, n_features: int, n_classes: int, first_class: str
) -> None:
    """60/20/20, standardised, with the names of classes and features."""
    data = load_dataset(resolve(name))

    parts = (data.train, data.validation, data.test)
    assert sum(len(part.y) for part in parts) == n_rows
    assert abs(len(data.test.y) - n_rows / 5) <= 1
    assert len(data.classes) == n_classes
    assert data.classes[0] == first_class
    assert len(data.features) == n_features
    for part in parts:
        assert part.x.shape == (len(part.y), n_features)
        assert part.x.dtype == np.float32
        assert part.y.dtype == np.int64
        assert not part.x.flags.writeable
        assert not part.y.flags.writeable
    np.testing.assert_allclose(data.train.x.mean(axis=0), 0.0, atol=1e-6)


def test_a_named_set_equals_its_closed_form() -> None:
    """The parts hold the values of the source, standardised by the biased moments of the training rows."""
    from sklearn.datasets import load_iris

    data = load_dataset(resolve("iris"), dtype="float64")

    x, y = load_iris(return_X_y=True)
    parts = (data.train, data.validation, data.test)
    assert np.array_equal(np.bincount(np.concatenate([part.y for part in parts])), np.bincount(y))
    # one affine map per feature for all parts: recovered from the extremes, then checked on all values
    everything = np.concatenate([part.x for part in parts])
    slope = (everything.max(axis=0) - everything.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))
    expected = np.sort((x - x.min(axis=0)) * slope + everything.min(axis=0), axis=0)
    np.testing.assert_allclose(np.sort(everything, axis=0), expected, atol=1e-12)
    np.testing.assert_allclose(data.train.x.std(axis=0), 1.0, rtol=1e-12)


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_split() -> None:
    """The split depends on its seed alone."""
    first, again, other = (load_dataset(resolve("digits", split_seed=seed)) for seed in (3, 3, 4))

    assert np.array_equal(first.train.x, again.train.x)
    assert np.array_equal(first.test.y, again.test.y)
    assert not np.array_equal(first.train.x, other.train.x)
    assert first.fingerprint == other.fingerprint


def test_float64_is_float32_before_rounding() -> None:
    """The dtype changes neither split nor fingerprint."""
    single, double = load_dataset(resolve("wine")), load_dataset(resolve("wine"), dtype="float64")

    assert double.train.x.dtype == np.float64
    assert np.array_equal(double.train.x.astype(np.float32), single.train.x)
    assert single.fingerprint == double.fingerprint


def test_a_pinned_fingerprint_is_checked() -> None:
    """The right one loads; another one says that the data changed."""
    spec = resolve("iris")
    pinned = dataclasses.replace(spec, fingerprint=load_dataset(spec).fingerprint)

    assert load_dataset(pinned).fingerprint == pinned.fingerprint
    with pytest.raises(DataError, match="the data changed: expected 'iris' with fingerprint 'other', found"):
        load_dataset(dataclasses.replace(spec, fingerprint="other"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("digit", "digits"),
        ("Iris", "iris"),
        ("breast-cancer", "breast_cancer"),
        ("fashion_mnist", "fashion-mnist"),
    ],
)
def test_an_unknown_name_lists_the_names_and_suggests_one(typed: str, meant: str) -> None:
    """Everything that can be given is in the message."""
    with pytest.raises(DataNotFound, match=f"did you mean '{meant}'") as caught:
        resolve(typed)

    assert all(repr(name) in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("typed", ["", "qqqq"])
def test_a_name_like_no_other_gets_no_suggestion(typed: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(DataNotFound, match=f"found '{typed}'$"):
        resolve(typed)


@pytest.mark.parametrize("typed", ["nothing.csv", "no/where", "./digits"])
def test_a_missing_file_is_named_with_the_place_looked_at(typed: str) -> None:
    """The absolute path shows what a relative one was taken for."""
    with pytest.raises(DataNotFound, match=re.escape(f"expected a file or folder at '{Path(typed).absolute()}'")):
        resolve(typed)


def test_a_spec_of_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    """Loading looks again: the spec may come from another machine."""
    with pytest.raises(DataNotFound, match=r"gone.csv"):
        load_dataset(DataSpec(source=str(tmp_path / "gone.csv"), target="label"))


def test_an_unknown_extension_lists_the_known(tmp_path: Path) -> None:
    """The content is never guessed."""
    (tmp_path / "table.xlsx").write_bytes(b"")

    with pytest.raises(DataError, match=r"ends in .csv, .tsv, .parquet, .npz, found 'table.xlsx'"):
        resolve(str(tmp_path / "table.xlsx"))


def test_a_named_set_takes_no_target() -> None:
    """A target that would be ignored is an error."""
    with pytest.raises(DataError, match="expected no target for data set 'iris'"):
        resolve("iris", "species")


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spec means the same from any working directory."""
    (tmp_path / "table.csv").write_text("a,label\n")
    monkeypatch.chdir(tmp_path)

    spec = resolve("table.csv", "label", split_seed=5)

    assert spec == DataSpec(source=str(tmp_path / "table.csv"), target="label", split_seed=5)


def test_a_name_goes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stray file does not change what `digits` means."""
    (tmp_path / "digits").write_text("")
    monkeypatch.chdir(tmp_path)

    assert resolve("digits") == DataSpec(source="digits")


def test_an_absent_fashion_mnist_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package and the other way are in the message."""
    monkeypatch.setattr(data_sources, "FASHION_MNIST", tmp_path / "absent")

    with pytest.raises(DataNotFound, match="apt-get install dataset-fashion-mnist, or give a folder"):
        load_dataset(resolve("fashion-mnist"))


def test_an_unknown_dtype_is_refused() -> None:
    """Only what the kernels train with."""
    with pytest.raises(SettingsError, match="expected dtype 'float32' or 'float64', found 'float16'"):
        load_dataset(resolve("iris"), dtype="float16")


def test_importing_the_package_loads_no_heavy_library() -> None:
    """pandas, scikit-learn and pyarrow are imported when a source needs them."""
    code = "import sys, caviar.data; print({'pandas', 'sklearn', 'pyarrow'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))

    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("name", NAMED)
def test_a_set_of_scikit_learn_is_what_it_loads(name: str) -> None:
    """Read from the file, as importing it takes long: the same values, labels and names, in the same order."""
    from sklearn import datasets

    raw = data_sources.read_source(resolve(name))

    bunch = getattr(datasets, f"load_{name}")()
    np.testing.assert_array_equal(raw.x, bunch.data)
    np.testing.assert_array_equal(raw.y, bunch.target)
    assert raw.classes == tuple(str(name) for name in bunch.target_names)
    assert raw.features == tuple(bunch.feature_names)


@pytest.mark.parametrize("name", NAMED)
def test_a_set_of_scikit_learn_is_read_without_it(name: str) -> None:
    """Importing it takes longer than all else before the first epoch of a small model."""
    code = f"import sys; from caviar.data import load_dataset, resolve; load_dataset(resolve({name!r})); "
    code += "assert not {'sklearn', 'pandas'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("text", ["150,4,a,b,c\n5.1,3.5,1.4,0.2,0\n", "nothing\nof the kind\n", None])
def test_a_file_that_is_not_as_it_is_known_is_left_to_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """Cut, of another form or not there: what its own loader gives is taken."""
    expected = read_named("iris")
    if text is not None:
        (tmp_path / "iris.csv").write_text(text)
    monkeypatch.setitem(NAMED, "iris", dataclasses.replace(NAMED["iris"], file=str(tmp_path / "iris.csv")))

    found = read_named("iris")

    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.y, expected.y)
    assert (found.classes, found.features) == (expected.classes, expected.features)


def test_a_study_trains_on_what_it_is_named_after() -> None:
    """On a data set of its name, else on digits; a file in the place of a name is a slip."""
    assert [default_source(name) for name in ("wine", "mine", "csv", "v1.2")] == ["wine", "digits", "digits", "digits"]
    for name in ("big.csv", "./my data.CSV", "/a/b.parquet"):
        with pytest.raises(DataError, match=r"expected the name of a study, found that of a file, .*--data "):
            default_source(name)
