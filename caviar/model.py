"""A trained model on its own, to classify examples that nobody has labelled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caviar.data.labels import named_labels
from caviar.data.preparation import Preparation
from caviar.data.raw import Column, listed
from caviar.data.scaling import Scaling
from caviar.errors import CheckpointError, DataError, ParamsError, ShapeError
from caviar.nn.inference import BLOCK, Inference
from caviar.nn.network import Network
from caviar.nn.threads import one_thread
from caviar.records import Params, Trial
from caviar.training.checkpoint import read_arrays, write_arrays
from caviar.training.hyperparameters import Hyperparameters
from caviar.training.state import TrainState

if TYPE_CHECKING:
    from caviar.data.preparation import Given

#: Raised whenever an older caviar could misread what a newer one wrote.
_FORMAT = "1"
_NOUN = "model"
#: What the metadata of a file say of it.
_ABOUT = {
    "name": str,
    "params": dict,
    "metrics": dict,
    "epoch": int,
    "fingerprint": str,
    "columns": list,
    "classes": list,
    "dtype": str,
    "step": int,
}
_ADVICE = "write it again: caviar export STUDY/NUMBER --to FILE.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Model:
    """A trained network with all that it needs to classify examples; neither database nor training data is asked.

    :meth:`caviar.Study.model` makes one of a trial, :func:`caviar.load_model` reads one from a file.
    """

    #: Of the trial, as STUDY/NUMBER.
    name: str
    params: Params
    #: What the trial ended with.
    metrics: Mapping[str, float]
    epoch: int
    #: Of the data that it was trained on.
    fingerprint: str
    preparation: Preparation
    #: (P,) and (2, U), as in :class:`TrainState`.
    parameters: np.ndarray
    running: np.ndarray
    step: int

    def __repr__(self) -> str:
        return f"Model({self.name!r}, params={dict(self.params)}, metrics={dict(self.metrics)})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes, in the order of the columns of :meth:`predict_proba`."""
        return self.preparation.classes

    @property
    def network(self) -> Network:
        """The architecture."""
        return Hyperparameters.from_params(self.params).network(len(self.preparation.features), len(self.classes))

    @property
    def labels(self) -> np.ndarray:
        """The C classes as the labels that the training data had: whole numbers, truth values or words."""
        return named_labels(self.classes, self.preparation.labels)

    def predict(self, examples: Given) -> np.ndarray:
        """Return the label of the most probable class of each example, shape (N,); see :meth:`predict_proba`."""
        predicted: np.ndarray = self.labels[self.predict_proba(examples).argmax(axis=1)]
        return predicted

    def predict_proba(self, examples: Given) -> np.ndarray:
        """Return the probability of each class, shape (N, C), in the dtype of training; a row sums to 1.

        Args:
            examples: a `.csv`, `.tsv`, `.parquet` or `.npz` file, a frame, or an array of numbers, an example a row;
                see :meth:`caviar.data.Preparation.apply`.

        Raises:
            DataError: they are not like those that were trained on.
        """
        return self.probabilities(self.preparation.apply(examples))

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return the same of features that are prepared already, shape (N, D).

        Raises:
            DataError: an example is so far out that its scores overflow.
        """
        inference = Inference(self.network, self.parameters, self.running, self.step)
        probabilities = np.empty((len(x), len(self.classes)), x.dtype)
        with one_thread("numpy"):
            for first in range(0, len(x), BLOCK):
                z = inference.scores(x[first : first + BLOCK])  # C,M
                is_finite = np.isfinite(z).all(axis=0)
                if not is_finite.all():
                    raise DataError(
                        "expected examples like those trained on, found the values of example "
                        f"{first + int(np.argmin(is_finite)) + 1} so far out that its scores overflow; drop it"
                    )
                np.exp(z - z.max(axis=0), out=z)
                probabilities[first : first + BLOCK] = (z / z.sum(axis=0)).T
        return probabilities

    def score(self, examples: Given, labels: Sequence[Any] | np.ndarray | None = None) -> float:
        """Return the accuracy: the share of examples that are predicted right, of those that have a label.

        Args:
            examples: as for :meth:`predict_proba`.
            labels: the true class of each, shape (N,); where absent, they are where the training data had them.

        Raises:
            DataError: they are not like those that were trained on, or none has a label.
        """
        x, names = self.preparation.labelled(examples)
        if labels is not None:
            from caviar.data.tables import names_of_labels  # with pandas, which takes longer than to classify

            names = names_of_labels(labels, len(x))
            if not any(name in self.classes for name in names):
                raise DataError(
                    f"expected labels among the classes {listed(self.classes)}, found {next(iter(names), None)!r:.40}"
                )
        if names is None:
            target = self.preparation.target
            where = f" in column {target!r}" if target else ""
            raise DataError(f"expected examples with labels{where}, found none; predict() needs none")
        n_right, n_labelled = self.count_right(names, self.probabilities(x))
        return n_right / n_labelled

    def count_right(self, names: np.ndarray, probabilities: np.ndarray) -> tuple[int, int]:
        """Return how many examples are predicted right, and how many have a label.

        Args:
            names: of the true classes, None where an example has no label, shape (N,).
            probabilities: from :meth:`predict_proba`, shape (N, C).
        """
        is_there = np.array([name is not None for name in names])
        predicted = np.array(self.classes, dtype=object)[probabilities.argmax(axis=1)]
        return int((predicted == names)[is_there].sum()), int(is_there.sum())

    def save(self, path: str | Path) -> None:
        """Write it to a `.safetensors` file, which holds no code; what is there already is replaced.

        Raises:
            CheckpointError: the file could not be written.
        """
        scaling = self.preparation.scaling
        about = {
            "name": self.name,
            "params": dict(self.params),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "columns": [asdict(column) for column in self.preparation.columns],
            "classes": list(self.classes),
            "labels": self.preparation.labels,
            "dtype": self.preparation.dtype,
            "target": self.preparation.target,
            "step": self.step,
        }
        arrays = {"parameters": self.parameters, "running": self.running}
        arrays |= {"scale": scaling.scale, "mean": scaling.mean, "std": scaling.std}
        write_arrays(Path(path), arrays, {"caviar_model": _FORMAT, "about": json.dumps(about)}, noun=_NOUN)


def model_of(trial: Trial, state: TrainState, preparation: Preparation, fingerprint: str) -> Model:
    """Return the model that a trial ended with."""
    return Model(
        name=trial.name,
        params=trial.params,
        metrics=trial.metrics,
        epoch=trial.epoch,
        fingerprint=fingerprint,
        preparation=preparation,
        parameters=state.parameters,
        running=state.running,
        step=state.step,
    )


def load_model(path: str | Path) -> Model:
    """Read a model that :meth:`Model.save` or `caviar export` wrote.

    Raises:
        CheckpointError: the file is missing, torn, altered, or no model.
    """
    arrays, metadata = read_arrays(Path(path), noun=_NOUN, advice=_ADVICE)
    version = metadata.get("caviar_model")
    if version is None:
        raise CheckpointError(
            f"{str(path)!r} is a checkpoint, and no model; write that of its trial: "
            "caviar export STUDY/NUMBER --to FILE.safetensors"
        )
    if version != _FORMAT:
        raise CheckpointError(
            f"expected {str(path)!r} in model format {_FORMAT}, found {version!r}; "
            "load it with the caviar that wrote it"
        )
    try:
        return _from_arrays(arrays, json.loads(metadata["about"]))
    except (LookupError, ValueError, TypeError, RecursionError, ParamsError, ShapeError) as error:
        raise CheckpointError(
            f"{str(path)!r} does not hold together as a model ({type(error).__name__}: {error}); {_ADVICE}"
        ) from error


def _from_arrays(arrays: Mapping[str, np.ndarray], about: Any) -> Model:
    """Return the model of a file.

    Raises:
        LookupError, TypeError, ValueError, ParamsError, ShapeError: it is not as :meth:`Model.save` writes it.
    """
    known = {name: _typed(about[name], name, kind) for name, kind in _ABOUT.items()}
    classes, columns = _names(known["classes"], "classes"), tuple(map(_column, known["columns"]))
    scaling = Scaling(arrays["scale"], arrays["mean"], arrays["std"])
    target, labels = about.get("target"), about.get("labels", "text")  # files of before have none
    if labels not in ("text", "number", "truth"):
        raise ValueError(f"expected labels as text, number or truth, found {labels!r}")
    if labels == "number":
        list(map(int, classes))
    preparation = Preparation(
        columns=columns,
        classes=classes,
        labels=labels,
        scaling=scaling,
        dtype=known["dtype"],
        target=None if target is None else _typed(target, "target", str),
    )
    model = Model(
        name=known["name"],
        params=known["params"],
        metrics={name: _typed(value, name, float) for name, value in known["metrics"].items()},
        epoch=known["epoch"],
        fingerprint=known["fingerprint"],
        preparation=preparation,
        parameters=arrays["parameters"],
        running=arrays["running"],
        step=known["step"],
    )
    _check_arrays(model)
    return model


def _check_arrays(model: Model) -> None:
    scaling, dtype = model.preparation.scaling, model.preparation.dtype
    if dtype not in ("float32", "float64"):
        raise ValueError(f"expected dtype float32 or float64, found {dtype!r}")
    n_features = (len(model.preparation.features),)
    expected = {
        "parameters": (model.parameters, (model.network.n_parameters,), dtype),
        "running": (model.running, (2, model.network.n_units), dtype),
        "scale": (scaling.scale, n_features, "float64"),
        "mean": (scaling.mean, n_features, "float64"),
        "std": (scaling.std, n_features, "float64"),
    }
    for name, (array, shape, kind) in expected.items():
        if array.shape != shape or array.dtype != kind:
            raise ValueError(f"expected {name} of {kind}, shape {shape}, found {array.dtype}, {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"expected finite numbers in {name}")
    if (model.running[1] < 0).any() or (scaling.std <= 0).any() or (scaling.scale <= 0).any():
        raise ValueError("expected positive scales and variances")
    if not 0 <= model.step < 2**63 or not 0 <= model.epoch < 2**63:
        raise ValueError(f"expected numbers of steps and epochs, found {model.step} and {model.epoch}")


def _column(about: Any) -> Column:
    categories = about["categories"]
    return Column(
        _typed(about["name"], "column", str),
        None if categories is None else _names(_typed(categories, "categories", list), "categories"),
    )


def _names(values: list[Any], what: str) -> tuple[str, ...]:
    names = tuple(_typed(value, what, str) for value in values)
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"expected distinct {what}")
    return names


def _typed(value: Any, name: str, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {name} as {kind.__name__}, found {type(value).__name__}")
    return value
