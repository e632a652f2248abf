"""`caviar panda set`, `rollback`, `branch`, ...: ask a babysat model, wait, print what became of it."""

from __future__ import annotations

import json
import math
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from caviar.bootstrap import checkpoint_folder, make_storage
from caviar.cli.arguments import author, split_trial_name
from caviar.cli.panda_rows import intervention_row, outcome_line
from caviar.errors import PandaBusy, SettingsError
from caviar.opening import load_study
from caviar.panda.adjustable import Adjustable, adjustable_of, refuse_function
from caviar.panda.asking import ask, is_running
from caviar.panda.course import settings_of
from caviar.panda.resting import branch_at_rest
from caviar.records import Intervention, Status
from caviar.storage import Storage


def ask_and_print(
    name: str,
    kind: str,
    arguments: Mapping[str, Any],
    token: str | None,
    note: str | None,
    timeout_s: float,
    *,
    as_json: bool,
    url: str | None,
) -> int:
    """Ask for something; return 0 where it was applied, 1 where it was rejected."""
    study, number = split_trial_name(name)
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise SettingsError(f"timeout must be a number of seconds above 0, found {timeout_s:g}")
    if token is not None and not 1 <= len(token) <= 64:
        raise SettingsError(f"an id has 1 to 64 characters, found {len(token)}")
    asked = Intervention(
        trial=f"{study}/{number}",
        token=token or uuid.uuid4().hex,
        kind=kind,
        arguments=arguments,
        author=author(),
        note=note,
    )
    storage = make_storage(url, create=False)
    try:
        answered = _ask(storage, asked, timeout_s)
    except KeyboardInterrupt:
        print(
            f"caviar: not waiting any longer; if it was asked already, the request stays: give --id {asked.token} to "
            "ask what became of it",
            file=sys.stderr,
        )
        return 130
    finally:
        storage.close()
    print(json.dumps(intervention_row(answered)) if as_json else outcome_line(answered))
    return 0 if answered.status is Status.APPLIED else 1


def _ask(storage: Storage, asked: Intervention, timeout_s: float) -> Intervention:
    study, number = split_trial_name(asked.trial)
    spec, trial = storage.get_study(study), storage.get_trial(study, number)
    refuse_function(spec)
    adjustable = adjustable_of(spec, trial.params)
    asked = replace(asked, arguments=_checked(asked.kind, asked.arguments, adjustable))
    session = storage.sessions.get(study, number)
    if asked.kind == "branch" and (session is None or not is_running(session)):
        try:
            try_params = partial(load_study(study, storage=storage).try_params, trial)
            return branch_at_rest(storage, spec, checkpoint_folder(storage), trial, asked, try_params)
        except PandaBusy:  # somebody has just started it
            pass
    return ask(storage, asked, timeout_s=timeout_s)


def _checked(kind: str, arguments: Mapping[str, Any], adjustable: Adjustable) -> dict[str, Any]:
    """Return the arguments with their types put right; what depends on the model is checked by who trains it.

    Raises:
        RequestRejected: a setting is not adjustable or not valid.
    """
    if kind == "set":
        return adjustable.check(arguments)
    settings = settings_of(arguments)
    return {**arguments, **(adjustable.check(settings) if settings else {})}
