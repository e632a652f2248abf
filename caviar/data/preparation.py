"""What was done to the data before training, to do the same to examples that a model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from caviar.data.labels import LabelKind
from caviar.data.raw import Column, check_finite, check_numeric, one_line
from caviar.data.scaling import Scaling
from caviar.data.sources import read_columns
from caviar.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    #: Examples as people have them: a data set's name, a file or folder, a frame, or numbers of shape (N, ...).
    Given: TypeAlias = str | Path | pd.DataFrame | np.ndarray | Sequence[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Preparation:
    """How examples become the features of a data set: :func:`caviar.data.load_prepared` makes it."""

    #: That features are made of.
    columns: tuple[Column, ...]
    #: Names of the C classes, by index.
    classes: tuple[str, ...]
    #: What the labels were that these are named after.
    labels: LabelKind
    scaling: Scaling
    #: `float32` or `float64`.
    dtype: str
    #: The column, or array, of the classes; None where the data has its own.
    target: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the D features."""
        return tuple(feature for column in self.columns for feature in column.features)

    def apply(self, examples: Given) -> np.ndarray:
        """Return the features of examples, encoded and standardised as the training part was, shape (N, D).

        Args:
            examples: a `.csv`, `.tsv` or `.parquet` file, a frame of pandas or what has `to_pandas`, a data set's name
                or an IDX folder: columns are found by name. Or an array of numbers or an `.npz` file with one, an
                example a row, in the order of the training data's columns.

        Raises:
            DataNotFound: there is no such file.
            DataError: they are not like those that were trained on.
        """
        return self.labelled(examples)[0]

    def labelled(self, examples: Given) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the features of examples as `apply` does, and the name of each one's class, if the labels are there.

        Returns:
            Features (N, D); names of classes, None where an example has none, shape (N,), or None where none has.
        """
        x, names, where = self._read(examples)
        n_features = len(self.features)
        if x.shape[1] != n_features:
            raise DataError(
                f"expected {n_features} features in {where}, as the model was trained on, found {x.shape[1]}"
            )
        if not len(x):
            raise DataError(f"expected examples in {where}, found none")
        check_finite(x, self.features)
        return self.scaling.apply(x, None, self.features, self.dtype), names

    def _read(self, examples: Given) -> tuple[np.ndarray, np.ndarray | None, str]:
        """Return features as they are before they are standardised, classes, and what to call them in messages."""
        if isinstance(examples, str | Path):
            return *read_columns(examples, self.columns, self.target), repr(str(examples))
        if hasattr(examples, "to_pandas"):  # a table of Arrow or Polars
            examples = examples.to_pandas()
        if hasattr(examples, "columns"):
            from caviar.data.tables import encode_rows, label_names

            x = encode_rows(examples, self.columns, "the frame")
            return x, label_names(examples, self.target), "the frame"
        check_numeric(self.columns, "an array")
        return self._numbers(examples), None, "the array"

    def _numbers(self, examples: np.ndarray | Sequence[Any]) -> np.ndarray:
        try:
            x = np.asanyarray(examples)
        except ValueError as error:
            raise DataError("expected examples of equal length, found a ragged array") from error
        except (TypeError, RuntimeError) as error:  # as of a tensor that is part of a graph
            raise DataError(f"expected numbers of shape (examples, features), found: {one_line(error)}") from error
        if isinstance(x, np.ma.MaskedArray):
            x = np.ma.filled(x.astype(np.float64), np.nan)  # refused like any other missing number
        if x.dtype.kind not in "biuf":
            raise DataError(f"expected real numbers in the array, found {x.dtype}")
        if x.ndim < 2:
            raise DataError(f"expected an array of shape (examples, features), found {x.shape}")
        return x.reshape(len(x), -1) if x.size else x.reshape(0, len(self.features))
