"""`caviar panda start`: a trial to a session, training with a live view, the result to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caviar.cli.arguments import author, read_settings, split_trial_name
from caviar.cli.interrupt import interruptible
from caviar.cli.panda_display import PandaDisplay
from caviar.cli.panda_rows import checkpoint_row, kept_epochs
from caviar.cli.rows import trial_row
from caviar.cli.tables import short
from caviar.errors import CaviarError, SettingsError
from caviar.opening import create_study, load_study
from caviar.panda.rules import read_rules
from caviar.panda.session import PandaSession
from caviar.panda.shelf import Policy
from caviar.records import TrialState
from caviar.study import Study
from caviar.wording import command


def run_start(
    name: str,
    *,
    epochs: str | None,
    until_stopped: bool,
    settings: Sequence[str],
    rules: Path | None,
    checkpoint_every: int | None,
    keep: int | None,
    address: str | None,
    data: str | None,
    target: str | None,
    seed: int | None,
    as_json: bool,
    storage: str | None,
) -> int:
    """Babysit one model to its end, or until Ctrl-C; return the exit code."""
    total, more = _read_epochs(epochs)
    changes = read_settings(settings)
    given = {"every": checkpoint_every, "keep": keep}
    policy = {key: value for key, value in given.items() if value is not None}
    watched = None if rules is None else read_rules(rules)
    study, number = _open(name, data, target, seed, storage)
    display = PandaDisplay()
    with interruptible() as is_interrupted:
        session = study.panda(
            number,
            params=changes,
            epochs=total,
            more_epochs=more,
            until_stopped=until_stopped,
            checkpoints=Policy(**policy) if policy else None,
            rules=watched,
            address=address,
            author=author(),
            on_event=display.tell,
            is_interrupted=is_interrupted,
        )
        try:
            with (
                session as panda,
                display.watch(panda, n_examples=None if study.spec.trainable else len(study.data.train)),
            ):
                for report in panda:
                    display.update(report)
        except KeyboardInterrupt:
            _say_how_to_go_on(session, storage)
            return 130
    try:
        print(json.dumps(_summary(session)) if as_json else _text(study, session, storage))
    finally:
        study.storage.close()
    if not session.is_over:
        _say_how_to_go_on(session, storage)
        return 130
    if session.trial.state is TrialState.FAIL:
        raise CaviarError(f"{session.trial.name} {session.trial.error}")
    return 0


def _open(
    name: str, data: str | None, target: str | None, seed: int | None, url: str | None
) -> tuple[Study, int | None]:
    """Return the study, and the number of the trial to go on from; a study for a fresh model is made."""
    if "/" not in name:
        return create_study(name, data=data, target=target, seed=seed, storage=url), None
    study, number = split_trial_name(name)
    if (data, target, seed) != (None, None, None):
        raise SettingsError(f"--data, --target and --seed are for a new study; {name} has its own")
    return load_study(study, storage=url), number


def _read_epochs(text: str | None) -> tuple[int | None, int | None]:
    """Return the epochs in all, or those from now on."""
    if text is None:
        return None, None
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) > 0):
        raise SettingsError(f"epochs must be a whole number, or +K for K more, found {text!r}")
    return (None, int(digits)) if text.startswith("+") else (int(digits), None)


def _summary(panda: PandaSession) -> dict[str, Any]:
    return trial_row(panda.trial) | {
        "epochs": panda.epochs,
        "best_epoch": panda.best_epoch,
        "interrupted": not panda.is_over,
        "interventions": len(panda.interventions),
        "checkpoints": [checkpoint_row(checkpoint) for checkpoint in panda.checkpoints],
    }


def _text(study: Study, panda: PandaSession, url: str | None) -> str:
    trial = panda.trial
    lines = [f"{trial.name:12} {_how_it_was_left(panda)}" + (f" ({trial.reason})" if trial.reason else "")]
    if trial.parent:
        lines.append(f"{'from':12} epoch {trial.parent_epoch} of {trial.parent}")
    if study.spec.trainable is not None:
        lines += [f"{name:12} {value:.6g}" for name, value in trial.metrics.items()]
    else:
        for metric, label in (("val_accuracy", "validation"), ("test_accuracy", "test")):
            if metric in trial.metrics:
                lines.append(f"{label:12} {trial.metrics[metric]:.4f} accuracy")
    lines.append(f"{'checkpoints':12} {kept_epochs(panda.checkpoints)}; best epoch {panda.best_epoch}")
    lines += [f"  {key:20} {short(value)}" for key, value in trial.params.items()]
    asking = (("panda", "log"), ("panda", "compare")) if panda.interventions else (("show",),)
    nexts = [command(*words, trial.name, storage=url) for words in asking]
    more = ("--epochs", "+10") if panda.is_over else ()
    nexts.append(command("panda", "start", trial.name, *more, storage=url))
    return "\n".join([*lines, "next", *(f"  {line}" for line in nexts)])


def _how_it_was_left(panda: PandaSession) -> str:
    here = f"at epoch {panda.trial.epoch}"
    if panda.is_over:
        return f"{panda.trial.state.value} {here}"
    last = max(panda.checkpoints, key=lambda c: (c.epoch, c.batch), default=None)
    if last is not None and (last.epoch, last.batch) == panda.state.point:
        return f"left with a checkpoint {here}"
    # the disk was full, or the folder could not be written
    written = f"the last that was is of epoch {last.epoch}" if last else "none was before"
    return f"left {here}, of which no checkpoint could be written: {written}, and what came after is trained again"


def _say_how_to_go_on(panda: PandaSession, url: str | None) -> None:
    print(f"caviar: interrupted; to go on: {command('panda', 'start', panda.trial.name, storage=url)}", file=sys.stderr)
