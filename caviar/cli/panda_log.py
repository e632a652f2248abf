"""`caviar panda log`: the record of one babysat trial."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from caviar.bootstrap import make_storage
from caviar.cli.arguments import split_trial_name
from caviar.cli.panda_rows import intervention_row, local, metric_changes, outcome_line
from caviar.cli.tables import shown
from caviar.errors import PandaNotRunning
from caviar.panda.adjustable import refuse_function
from caviar.records import Intervention
from caviar.wording import command


def print_log(name: str, as_json: bool, url: str | None) -> int:
    """Print what was asked of a trial, in the order in which it was answered, and what became of it."""
    study, number = split_trial_name(name)
    storage = make_storage(url, create=False)
    try:
        trial = storage.get_trial(study, number)
        session = storage.sessions.get(study, number)
        interventions = storage.sessions.interventions(study, number)
        if session is None:
            refuse_function(storage.get_study(study))
    finally:
        storage.close()
    if session is None:
        raise PandaNotRunning(f"{name} is not babysat; begin with `{command('panda', 'start', name)}`")
    interventions.sort(key=lambda i: i.applied_at or i.asked_at or datetime.min.replace(tzinfo=UTC))
    if as_json:
        print(json.dumps([intervention_row(i) for i in interventions]))
        return 0
    begun = f"epoch {trial.parent_epoch} of {trial.parent}" if trial.parent else "its first step"
    print(f"{trial.name} went on from {begun}; interventions: {len(interventions)}")
    for intervention in interventions:
        print("\n".join(_entry(intervention)))
    return 0


def _entry(i: Intervention) -> list[str]:
    number = "-" if i.sequence is None else str(i.sequence)
    lines = [
        f"{number:>3}  {local(i.applied_at or i.asked_at)}  {i.kind}  by {shown(i.author or '-')}",
        f"     {outcome_line(i)}",
    ]
    if i.note:
        lines.append(f"     note: {shown(i.note)}")
    if i.metrics_before or i.metrics_after:
        lines.append(f"     {metric_changes(i)}")
    return lines
