"""`caviar panda status`: the babysat trials, or one of them."""

from __future__ import annotations

import json
from typing import Any

from caviar.bootstrap import checkpoint_folder, make_storage
from caviar.cli.arguments import split_trial_name
from caviar.cli.panda_rows import checkpoint_row, intervention_row, kept_epochs, local, outcome_line
from caviar.cli.tables import print_table, short, sparkline
from caviar.cli.tables import shown as escaped
from caviar.errors import PandaNotRunning
from caviar.panda.adjustable import adjustable_of, refuse_function
from caviar.panda.asking import condition, trains_again_to
from caviar.panda.course import Course, fold
from caviar.panda.revive import applied_of
from caviar.panda.shelf import Shelf
from caviar.records import Session, Status
from caviar.storage import Storage
from caviar.storage.holder import shown
from caviar.wording import command

#: Interventions that are shown of one trial; `log` shows all.
_LAST = 5


def print_pandas(as_json: bool, url: str | None) -> int:
    """Print all babysat trials, one a line."""
    storage = make_storage(url, create=False)
    try:
        rows = [_row(storage, session) for session in storage.sessions.all()]
    finally:
        storage.close()
    if as_json:
        print(json.dumps(rows))
        return 0
    table = [
        {
            "trial": row["trial"],
            "is": row["condition"],
            "epoch": row["epoch"],
            "of": "-" if row["epochs"] is None else str(row["epochs"]),
            **{name: value for name, value in row["metrics"].items() if name != "train_loss"},
            "learning_rate": row["settings"].get("learning_rate"),
            "from": row["parent"],
            "interventions": row["n_interventions"],
        }
        for row in rows
    ]
    print_table(table, "no trial is babysat; begin with `caviar panda start STUDY/NUMBER`")
    return 0


def print_status(name: str, as_json: bool, url: str | None) -> int:
    """Print one babysat trial in detail."""
    study, number = split_trial_name(name)
    storage = make_storage(url, create=False)
    try:
        storage.get_trial(study, number)
        session = storage.sessions.get(study, number)
        if session is None:
            refuse_function(storage.get_study(study))
            raise PandaNotRunning(f"{name} is not babysat; begin with `{command('panda', 'start', name)}`")
        row = _row(storage, session)
        interventions = storage.sessions.interventions(study, number)
        checkpoints = [c for c in storage.sessions.checkpoints(study, number) if not c.abandoned]
        reports = storage.reports(study, number)
        folder = Shelf(checkpoint_folder(storage), storage.get_study(study), number, storage.identity).folder
    finally:
        storage.close()
    if as_json:
        print(
            json.dumps(
                row
                | {
                    "checkpoints": [checkpoint_row(c) for c in checkpoints],
                    "checkpoint_folder": str(folder),
                    "interventions": [intervention_row(i) for i in interventions],
                }
            )
        )
        return 0
    of = "until stopped" if row["epochs"] is None else f"of {row['epochs']}"
    print(f"{row['trial']:12} {row['condition']}" + (f" by {row['by']} since {row['since']}" if row["by"] else ""))
    if row["trains_again_to"] is not None:
        place = f"epoch {row['trains_again_to']}, step {row['trains_again_to_step']}"
        print(f"{'':12} trains again up to {place}, where its record ends, and answers then")
    print(f"{'epoch':12} {row['epoch']} {of}")
    if row["parent"]:
        print(f"{'from':12} epoch {row['parent_epoch']} of {row['parent']}")
    for index, metric in enumerate(reports.metrics):
        if len(reports):
            print(f"{metric:12} {short(reports.last[metric])}  {sparkline(reports.values[:, index].tolist())}")
    print("settings")
    for key, value in row["settings"].items():
        print(f"  {key:20} {short(value)}")
    size = sum(c.size_bytes for c in checkpoints)
    print(f"{'checkpoints':12} epochs {kept_epochs(checkpoints, 8)}: {size / 1e6:.3g} MB in {folder}")
    rules = [f"{name}: {rule['action']}" for name, rule in session.settings.get("rules", {}).items()]
    print(f"{'rules':12} {', '.join(rules) or 'none'}")
    waiting = [i for i in interventions if i.status is Status.ASKED]
    applied = [i for i in interventions if i.status is Status.APPLIED]
    if applied or waiting:
        print(f"last {_LAST} of {len(applied)} interventions" if len(applied) > _LAST else "interventions")
    for i in (*applied[-_LAST:], *waiting):
        print(f"  {i.kind} by {escaped(i.author or '-')} at {local(i.asked_at)}: {outcome_line(i)}")
    return 0


def _row(storage: Storage, session: Session) -> dict[str, Any]:
    study, number = split_trial_name(session.trial)
    trial, spec = storage.get_trial(study, number), storage.get_study(study)
    applied = applied_of(storage, spec, trial)
    course = fold(Course(session.start_params, session.settings.get("epochs")), applied)
    how = condition(trial, session, applied)
    is_held = how in ("running", "paused") and session.owner is not None
    again = None
    if is_held:
        again = trains_again_to(trial, session, applied, storage.sessions.checkpoints(study, number))
    return {
        "trial": trial.name,
        "condition": how,
        "trains_again_to": again[0] if again else None,
        "trains_again_to_step": again[1] if again else None,
        "state": trial.state.value,
        "by": shown(session.owner) if is_held and session.owner else None,
        "since": local(session.acquired_at) if is_held else None,
        "epoch": trial.epoch,
        "epochs": course.epochs,
        "parent": trial.parent,
        "parent_epoch": trial.parent_epoch,
        "metrics": dict(trial.metrics),
        "settings": adjustable_of(spec, trial.params).settings({**course.params, **course.next_params}),
        "n_interventions": len(applied),
    }
