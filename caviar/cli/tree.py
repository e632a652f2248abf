"""`caviar show STUDY --tree`: which trials go on from which others."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from caviar.bootstrap import make_storage
from caviar.cli.arguments import split_trial_name
from caviar.cli.rows import trial_row
from caviar.cli.tables import short
from caviar.errors import SettingsError
from caviar.panda.course import settings_of
from caviar.panda.revive import applied_of
from caviar.records import Session, Trial
from caviar.storage import Storage
from caviar.wording import counted


@dataclass(kw_only=True)
class Node:
    """A trial, how it differs from its parent, and its children."""

    trial: Trial
    #: Settings that were changed where it left its parent.
    changed: dict[str, Any] = field(default_factory=dict)
    n_interventions: int = 0
    children: list[Node] = field(default_factory=list)


def print_tree(study: str, as_json: bool, url: str | None) -> int:
    """Print the lineage of the babysat trials of a study."""
    if "/" in study:
        raise SettingsError(f"--tree draws a study, found the trial {study!r}")
    storage = make_storage(url, create=False)
    try:
        metric = storage.get_study(study).metric
        roots = lineage(storage, study)
    finally:
        storage.close()
    if as_json:
        print(json.dumps([_row(root) for root in roots]))
    elif not roots:
        print(f"no trial of {study!r} is babysat; begin with `caviar panda start {study}/NUMBER`", file=sys.stderr)
    width = shutil.get_terminal_size().columns
    for root in () if as_json else roots:
        for line in _lines(root, metric, width):
            print(line)
    return 0


def lineage(storage: Storage, study: str) -> list[Node]:
    """Return the trials of a study that are babysat or that another goes on from, below those without a parent."""
    spec = storage.get_study(study)
    sessions = {session.trial: session for session in storage.sessions.all(study)}
    nodes: dict[str, Node] = {}

    def add(name: str) -> Node:
        if name in nodes:
            return nodes[name]
        trial = storage.get_trial(*split_trial_name(name))
        session = sessions.get(name)
        applied = applied_of(storage, spec, trial) if session else []
        nodes[name] = Node(trial=trial, n_interventions=len(applied))
        if trial.parent is not None:
            parent = add(trial.parent)
            parent.children.append(nodes[name])
            nodes[name].changed = _changed(storage, parent.trial, trial, session)
        return nodes[name]

    for name in [*sessions, *(trial.name for trial in storage.trials(study, where="parent is not null"))]:
        add(name)
    for node in nodes.values():
        node.children.sort(key=lambda child: child.trial.number)
    return sorted((n for n in nodes.values() if n.trial.parent is None), key=lambda node: node.trial.number)


def _changed(storage: Storage, parent: Trial, trial: Trial, session: Session | None) -> dict[str, Any]:
    if session is None:
        return {}
    if token := session.settings.get("asked_by"):
        asked = storage.sessions.intervention(parent.study, parent.number, token)
        return settings_of(asked.arguments) if asked else {}
    return {name: value for name, value in session.start_params.items() if parent.params.get(name, value) != value}


def _lines(node: Node, metric: str, width: int, first: str = "", rest: str = "") -> Iterator[str]:
    trial = node.trial
    parts = [trial.name, trial.state.value, f"epoch {trial.epoch}"]
    value = trial.metrics.get(metric)
    if value is not None:
        parts.append(f"{metric} {value:.4f}")
    if node.n_interventions:
        parts.append(counted(node.n_interventions, "intervention"))
    yield (first + "  ".join(parts))[:width]
    is_parent = bool(node.children)
    if trial.parent is not None:
        changes = ", ".join(f"{name} {short(value)}" for name, value in node.changed.items())
        yield f"{rest}{'│' if is_parent else ' '}    from epoch {trial.parent_epoch}" + (
            f" with {changes}" if changes else ""
        )
    for index, child in enumerate(node.children):
        is_last = index == len(node.children) - 1
        yield from _lines(
            child, metric, width, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  ")
        )


def _row(node: Node) -> dict[str, Any]:
    return trial_row(node.trial) | {
        "parent_epoch": node.trial.parent_epoch,
        "changed": node.changed,
        "interventions": node.n_interventions,
        "children": [_row(child) for child in node.children],
    }
