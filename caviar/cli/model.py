"""`caviar predict`, and `caviar export` of a trained model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from caviar.cli.arguments import Storage, split_trial_name
from caviar.cli.formats import print_rows
from caviar.cli.interrupt import interruptible
from caviar.model import SUFFIX, Model, load_model
from caviar.study import load_study


def predict(
    model: Annotated[str, Parameter(name="MODEL")],
    examples: Annotated[str, Parameter(name="EXAMPLES")],
    /,
    *,
    probabilities: Annotated[bool, Parameter(negative="")] = False,
    format: Literal["table", "json", "csv", "parquet"] = "table",
    storage: Storage = None,
) -> int:
    """Print what a trained model takes each of EXAMPLES for, in their order.

    Parameters
    ----------
    model
        STUDY, whose best trial it is, STUDY/NUMBER, or FILE.safetensors that `caviar export` wrote.
    examples
        A .csv, .parquet or .npz file like that trained on; labels need not be there, nor are they looked at.
    probabilities
        Print the probability of each class, too.
    format
        How to print them; parquet needs stdout to be a file or pipe.
    """
    found = load_model(model) if model.endswith(SUFFIX) else trained_model(model, storage)
    found_probabilities = found.predict_proba(examples)
    rows: list[dict[str, Any]] = []
    for number, values in enumerate(found_probabilities.tolist(), 1):
        best = max(range(len(values)), key=values.__getitem__)
        row = {"example": number, "predicted": found.classes[best], "probability": values[best]}
        if probabilities:
            row |= {f"probability of {name}": value for name, value in zip(found.classes, values, strict=True)}
        rows.append(row)
    print_rows(rows, format, ("example", "predicted", "probability"), "no examples")
    return 0


def trained_model(name: str, url: str | None) -> Model:
    """Return the model of a trial, or of the best one of a study, and say on stderr whose it is."""
    study_name, number = split_trial_name(name) if "/" in name else (name, None)
    study = load_study(study_name, storage=url)
    try:
        with interruptible() as is_interrupted:
            model = study.model(number, on_event=_say, is_interrupted=is_interrupted)
    finally:
        study.storage.close()
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in model.metrics.items() if name != "train_loss")
    _say(f"the model is that of {model.name}: {metrics}")
    return model


def export_model(name: str, to: Path, url: str | None) -> int:
    """Write the model of a trial, or of the best one of a study, to a file."""
    model = trained_model(name, url)
    model.save(to)
    _say(f"it is in {str(to)!r}; caviar predict {to} EXAMPLES")
    return 0


def _say(message: str) -> None:
    print(f"caviar: {message}", file=sys.stderr)
