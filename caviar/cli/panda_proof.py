"""`caviar panda replay` and `compare`: was the run what its record says, and what helped?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from caviar.cli.arguments import split_trial_name
from caviar.cli.panda_rows import finite, intervention_row, outcome_line
from caviar.cli.tables import shown
from caviar.errors import CaviarError
from caviar.opening import load_study
from caviar.panda.compare import Comparison
from caviar.records import StudySpec
from caviar.wording import counted

_SHOWN = ("val_loss", "val_accuracy")


def print_replay(name: str, address: str | None, as_json: bool, url: str | None) -> int:
    """Train a run again and print `identical`, or where it first differs; return 1 where it does."""
    study, number = split_trial_name(name)
    opened = load_study(study, storage=url)
    try:
        again = opened.replay(number, address=address)
    finally:
        opened.storage.close()
    unread = f", {again.n_unreadable} could not be read" if again.n_unreadable else ""
    what = (
        f"{name} trained again to epoch {again.epoch}, step {again.step}: interventions {again.n_interventions}, "
        f"checkpoints compared {again.n_checkpoints}{unread}"
    )
    if as_json:
        print(json.dumps({"trial": name, "identical": again.is_identical} | asdict(again)))
    elif again.is_identical:
        print(f"identical: {what}")
    if not again.is_identical:
        raise CaviarError(f"not identical: {again.difference}; {what}")
    return 0


def print_compare(name: str, address: str | None, as_json: bool, url: str | None) -> int:
    """Print, for each intervention, how the run ended with it and would have without it."""
    study, number = split_trial_name(name)
    opened = load_study(study, storage=url)
    try:
        comparisons = opened.compare(number, address=address)
    finally:
        opened.storage.close()
    if as_json:
        print(json.dumps([_row(c, opened.spec) for c in comparisons]))
        return 0
    if not comparisons:
        print(f"nothing was done to {name} that changes what it learns")
    for comparison in comparisons:
        print("\n".join(_lines(comparison, opened.spec)))
    return 0


def _lines(comparison: Comparison, spec: StudySpec) -> list[str]:
    done = comparison.intervention
    lines = [
        f"{done.sequence:>3}  {done.kind}  by {shown(done.author or '-')}",
        f"     {outcome_line(done)}",
        f"     {_verdict(comparison, spec)}",
    ]
    own = sorted(comparison.actual, key=lambda name: name != spec.metric)  # the study's metric first
    for metric in _SHOWN if spec.trainable is None else own:
        actual = comparison.actual.get(metric)
        without = None if comparison.control is None else comparison.control.get(metric)
        if actual is not None and without is not None:
            lines.append(f"     {metric:12} {actual:.5g} with, {without:.5g} without: {actual - without:+.3g}")
        elif actual is not None:
            lines.append(f"     {metric:12} {actual:.5g} with")
    return lines


def _verdict(comparison: Comparison, spec: StudySpec) -> str:
    if comparison.trouble is not None:
        return f"cannot be compared: {comparison.trouble}"
    after = f"after {counted(comparison.epochs, 'epoch')}"
    if comparison.has_diverged:
        also = "has, too" if comparison.control is None else "has not"
        return f"the run diverged {after}; without this, by then, it {also}"
    if comparison.control is None:
        return f"helped: {after} the run without it has diverged"
    word = {True: "helped", False: "did not help", None: "made no difference"}[comparison.has_helped(spec)]
    n = comparison.n_examples or 0
    by = f"{word}, {after}, by {spec.metric}"
    if not n or spec.metric != "val_accuracy":
        return by
    count = f"{counted(abs(n), 'example')} of {comparison.n_validation} {'more' if n > 0 else 'fewer'} right"
    return f"{by}: {count}{', which may be chance' if comparison.is_within_noise else ''}"


def _row(comparison: Comparison, spec: StudySpec) -> dict[str, Any]:
    actual, control = comparison.actual, comparison.control
    return {
        "intervention": intervention_row(comparison.intervention),
        "epochs": comparison.epochs,
        "helped": comparison.has_helped(spec),
        "examples": comparison.n_examples,
        "within_noise": comparison.is_within_noise,
        "with": finite(actual),
        "without": finite(control),
        "trouble": comparison.trouble,
        "difference": None if control is None else finite(_difference(actual, control)),
    }


def _difference(actual: Mapping[str, float], control: Mapping[str, float]) -> dict[str, float]:
    return {name: value - control[name] for name, value in actual.items() if name in control}
