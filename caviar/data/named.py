"""The data sets that come with scikit-learn, from the files that it reads.

Importing scikit-learn takes longer than all else before the first epoch of a small model, so that is left for files
that are not as they are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np

from caviar.data.labels import LabelKind
from caviar.data.raw import RawData

_MEASURED = "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"


@dataclass(frozen=True, slots=True)
class _Known:
    """A file of scikit-learn: a line for each example, its features and then its class, under a header or none."""

    file: str
    n_examples: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    n_header: int = 1
    labels: LabelKind = "text"

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_examples, len(self.features) + 1


#: By name; the first is the default.
NAMED: dict[str, _Known] = {
    "digits": _Known(
        "digits.csv.gz",
        1797,
        tuple(map(str, range(10))),
        tuple(f"pixel_{row}_{column}" for row, column in product(range(8), repeat=2)),
        n_header=0,
        labels="number",
    ),
    "iris": _Known(
        "iris.csv",
        150,
        ("setosa", "versicolor", "virginica"),
        tuple(f"{part} {size} (cm)" for part, size in product(("sepal", "petal"), ("length", "width"))),
    ),
    "wine": _Known(
        "wine_data.csv",
        178,
        ("class_0", "class_1", "class_2"),
        (
            "alcohol",
            "malic_acid",
            "ash",
            "alcalinity_of_ash",
            "magnesium",
            "total_phenols",
            "flavanoids",
            "nonflavanoid_phenols",
            "proanthocyanins",
            "color_intensity",
            "hue",
            "od280/od315_of_diluted_wines",
            "proline",
        ),
    ),
    "breast_cancer": _Known(
        "breast_cancer.csv",
        569,
        ("malignant", "benign"),
        tuple(
            form.format(name.replace("_", " "))
            for form, name in product(("mean {}", "{} error", "worst {}"), _MEASURED.split())
        ),
    ),
}


def read_named(name: str) -> RawData:
    """Read a data set of :data:`NAMED`."""
    known = NAMED[name]
    table = _read_file(known)
    if table is None:
        return _read_by_sklearn(name)
    return RawData(
        name=name,
        x=table[:, :-1],
        y=table[:, -1].astype(np.int64),
        classes=known.classes,
        features=known.features,
        labels=known.labels,
    )


def _read_file(known: _Known) -> np.ndarray | None:
    """Return features and class of each example, float64, shape (N, D + 1); None where the file is another."""
    found = find_spec("sklearn")
    for folder in (found.submodule_search_locations if found else None) or ():
        try:
            table = np.loadtxt(
                Path(folder, "datasets", "data", known.file), delimiter=",", skiprows=known.n_header, ndmin=2
            )
        except (OSError, ValueError):
            continue
        if table.shape == known.shape:
            return table
    return None


def _read_by_sklearn(name: str) -> RawData:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return RawData(
        name=name,
        x=np.asarray(bunch.data),
        y=np.asarray(bunch.target, dtype=np.int64),
        classes=tuple(str(word) for word in bunch.target_names),
        features=tuple(str(word) for word in bunch.feature_names),
        labels=NAMED[name].labels,
    )
