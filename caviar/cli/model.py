"""`caviar predict`, and `caviar export` of a trained model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from caviar.cli.arguments import MODEL_SUFFIX, Epoch, Storage, split_trial_name
from caviar.cli.formats import check_terminal, print_rows
from caviar.cli.interrupt import interruptible
from caviar.data import resolve
from caviar.errors import SettingsError
from caviar.model import Model, load_model
from caviar.opening import load_study
from caviar.study import Study
from caviar.wording import command, counted


def predict(
    model: Annotated[str, Parameter(name="MODEL")],
    examples: Annotated[str, Parameter(name="EXAMPLES")],
    /,
    *,
    epoch: Epoch = None,
    probabilities: Annotated[bool, Parameter(negative="")] = False,
    format: Literal["table", "json", "csv", "parquet"] = "table",
    storage: Storage = None,
) -> int:
    """Print the class that a trained model predicts for each of EXAMPLES, in their order.

    Parameters
    ----------
    model
        STUDY, whose best trial it is, STUDY/NUMBER, or FILE.safetensors that `caviar export` wrote.
    examples
        A .csv, .parquet or .npz file with the columns of the training data; labels may be there, and are counted.
    epoch
        Number of an epoch, or best: the model that the trial had at its end [the last].
    probabilities
        Print the probability of each class, too.
    format
        How to print them; parquet needs stdout to be a file or pipe.
    """
    check_terminal(format)
    n_trained_on = 0
    if Path(model).suffix.lower() == MODEL_SUFFIX:
        if epoch is not None:
            raise SettingsError(f"a file holds the model of one epoch, so --epoch is for trials, found {model!r}")
        found = load_model(model)
        x, names = found.preparation.labelled(examples)
    else:
        with _opened(model, storage) as (study, number):
            x, names = study.preparation.labelled(examples)  # what is wrong with them is told before a model is trained
            found = _trained(study, number, epoch)
            if resolve(examples).source == study.spec.data.source:
                n_trained_on = len(study.data.train)
    probability = found.probabilities(x)
    rows: list[dict[str, Any]] = []
    for index, (values, best) in enumerate(zip(probability.tolist(), probability.argmax(axis=1).tolist(), strict=True)):
        row = {"example": index + 1, "predicted": found.classes[best], "probability": values[best]}
        if probabilities:
            row |= {f"probability of {name}": value for name, value in zip(found.classes, values, strict=True)}
        rows.append(row)
    print_rows(rows, format, tuple(rows[0]), "")
    if names is not None:
        n_right, n_labelled = found.count_right(names, probability)
        told = f"accuracy {n_right / n_labelled:.4f}: {n_right} of {counted(n_labelled, 'example')} with a label"
        _say(f"{told}; it was trained on {n_trained_on} of them" if n_trained_on else told)
    return 0


def export_model(name: str, to: Path, epoch: str | None, url: str | None) -> int:
    """Write the model of a trial, or of the best one of a study, to a file."""
    # told before it is trained
    if not to.parent.is_dir():
        raise SettingsError(f"there is no folder {str(to.parent)!r} to write {to.name!r} to; make it")
    if to.is_dir() or not os.access(to.parent, os.W_OK):
        raise SettingsError(f"{str(to)!r} {'is a folder' if to.is_dir() else 'cannot be written'}; name another file")
    with _opened(name, url) as (study, number):
        _trained(study, number, epoch).save(to)
    _say(f"it is in {str(to)!r}; to use it: {command('predict', str(to), 'EXAMPLES')}")
    return 0


@contextmanager
def _opened(name: str, url: str | None) -> Iterator[tuple[Study, int | None]]:
    """Open the study of `STUDY` or `STUDY/NUMBER`; yield it with the number."""
    study_name, number = split_trial_name(name) if "/" in name else (name, None)
    study = load_study(study_name, storage=url)
    try:
        yield study, number
    finally:
        study.storage.close()


def _trained(study: Study, number: int | None, epoch: str | None) -> Model:
    """Return the model of a trial, or of the best one of a study, and say on stderr whose it is."""
    at = int(epoch) if epoch is not None and epoch.isascii() and epoch.isdigit() else epoch
    with interruptible() as is_interrupted:
        model = study.model(number, epoch=at, on_event=_say, is_interrupted=is_interrupted)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in model.metrics.items() if name != "train_loss")
    when = "" if epoch is None else f" at epoch {model.epoch}"
    _say(f"the model is that of {model.name}{when}: {metrics}")
    return model


def _say(message: str) -> None:
    print(f"caviar: {message}", file=sys.stderr)
