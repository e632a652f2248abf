"""`caviar panda ...`: what can be typed; the work is done elsewhere, and imported when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from caviar.cli.arguments import Json, MaybeWhole, Settings, Storage, TrialName

panda = App(
    name="panda",
    help="Babysit one model: watch it live, steer it, go back, branch. Commands that ask wait for the answer.",
)

Address = Annotated[str | None, Parameter(help="HOST:PORT of a Ray cluster to train on [this process].")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asking:
    """What each command that asks takes."""

    id: Annotated[str | None, Parameter(help="Name of the request: asked twice, it is done once.")] = None
    note: Annotated[str | None, Parameter(help="Why, for the log.")] = None
    timeout: Annotated[float, Parameter(help="Seconds to wait for the answer.")] = 30.0
    json: Json = False
    storage: Storage = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Place:
    """Which checkpoint, and what to set there."""

    epoch: Annotated[MaybeWhole, Parameter(help="The checkpoint of this epoch.")] = None
    epochs: Annotated[MaybeWhole, Parameter(help="The checkpoint of so many epochs ago.")] = None
    best: Annotated[bool, Parameter(negative="", help="The checkpoint of the best epoch.")] = False
    set: Settings = None


@panda.command
def start(
    name: Annotated[str, Parameter(name="STUDY/NUMBER", help="Trial to go on from, or STUDY for a fresh model.")],
    /,
    *,
    epochs: Annotated[str | None, Parameter(help="Epochs in all, or +K for K more [as the study's trials].")] = None,
    until_stopped: Annotated[bool, Parameter(negative="", help="Train until `stop`.")] = False,
    set: Settings = None,
    rules: Annotated[Path | None, Parameter(help="TOML file of rules that babysit [they only warn].")] = None,
    checkpoint_every: Annotated[MaybeWhole, Parameter(help="A checkpoint each so many epochs [1].")] = None,
    keep: Annotated[MaybeWhole, Parameter(help="Checkpoints kept besides best and pinned; 0 keeps all [20].")] = None,
    address: Address = None,
    data: Annotated[str | None, Parameter(help="Data of a new study; see `caviar sweep`.")] = None,
    target: Annotated[str | None, Parameter(help="Column to predict, for a new study on a table.")] = None,
    seed: Annotated[MaybeWhole, Parameter(help="Seed of a new study [0].")] = None,
    json: Json = False,
    storage: Storage = None,
) -> int:
    """Train one model in the foreground, with a live view; Ctrl-C leaves it with a checkpoint.

    A finished trial stays as it is, and a new one goes on from it.
    One that a sweep trains is taken from it at the end of a slice.
    One that was babysat goes on from its last checkpoint.
    """
    from caviar.cli.panda_start import run_start

    return run_start(
        name,
        epochs=epochs,
        until_stopped=until_stopped,
        settings=set or (),
        rules=rules,
        checkpoint_every=checkpoint_every,
        keep=keep,
        address=address,
        data=data,
        target=target,
        seed=seed,
        as_json=json,
        storage=storage,
    )


@panda.command(name="set")
def set_(
    name: TrialName,
    /,
    *settings: Annotated[
        str, Parameter(name="NAME=VALUE", help="learning_rate, momentum, l2, ..., a param of your own, or epochs.")
    ],
    asking: Asking = Asking(),
) -> int:
    """Change settings from the next mini-batch on (batch_size, and params of your own models: from the next epoch)."""
    from caviar.cli.arguments import read_settings

    return _ask(name, "set", read_settings(settings), asking)


@panda.command
def pause(name: TrialName, /, *, asking: Asking = Asking()) -> int:
    """Stop training until `resume`; the process stays."""
    return _ask(name, "pause", {}, asking)


@panda.command
def resume(name: TrialName, /, *, asking: Asking = Asking()) -> int:
    """Go on after `pause`."""
    return _ask(name, "resume", {}, asking)


@panda.command
def checkpoint(name: TrialName, /, *, asking: Asking = Asking()) -> int:
    """Keep a checkpoint of this moment."""
    return _ask(name, "checkpoint", {}, asking)


@panda.command
def rollback(name: TrialName, /, *, place: Place = Place(), asking: Asking = Asking()) -> int:
    """Go back to a checkpoint; the settings stay as they are, or as --set says."""
    return _ask(name, "rollback", _arguments(place), asking)


@panda.command
def branch(name: TrialName, /, *, place: Place = Place(), asking: Asking = Asking()) -> int:
    """Make a new trial that goes on from a checkpoint of this one, which goes on as it is, or stays at rest."""
    return _ask(name, "branch", _arguments(place), asking)


@panda.command
def stop(name: TrialName, /, *, asking: Asking = Asking()) -> int:
    """End the run: the trial is COMPLETE, with the value of its last epoch."""
    return _ask(name, "stop", {}, asking)


@panda.command
def status(
    name: Annotated[
        str | None, Parameter(name="STUDY/NUMBER", help="Name of the trial [all that are babysat].")
    ] = None,
    /,
    *,
    json: Json = False,
    storage: Storage = None,
) -> int:
    """Show the babysat trials, or one of them: epoch, settings in force, checkpoints, last interventions."""
    from caviar.cli.panda_status import print_pandas, print_status

    return print_pandas(json, storage) if name is None else print_status(name, json, storage)


@panda.command
def log(name: TrialName, /, *, json: Json = False, storage: Storage = None) -> int:
    """Show what was done to a model: when, by whom, at which step, and the metrics before and after."""
    from caviar.cli.panda_log import print_log

    return print_log(name, json, storage)


@panda.command
def replay(name: TrialName, /, *, address: Address = None, json: Json = False, storage: Storage = None) -> int:
    """Train a run again with its interventions; say whether all is identical, bit for bit."""
    from caviar.cli.panda_proof import print_replay

    return print_replay(name, address, json, storage)


@panda.command
def compare(name: TrialName, /, *, address: Address = None, json: Json = False, storage: Storage = None) -> int:
    """Train, for each intervention, the run without it: did it help?"""
    from caviar.cli.panda_proof import print_compare

    return print_compare(name, address, json, storage)


def _arguments(place: Place) -> dict[str, Any]:
    from caviar.cli.arguments import read_settings
    from caviar.errors import SettingsError
    from caviar.panda import course

    if sum([place.epoch is not None, place.epochs is not None, place.best]) != 1:
        raise SettingsError("name one checkpoint: --epoch E, --epochs K (so many epochs ago) or --best")
    return {**course.place(place.epoch, place.epochs, place.best), **read_settings(place.set or ())}


def _ask(name: str, kind: str, arguments: dict[str, Any], asking: Asking) -> int:
    from caviar.cli.panda_ask import ask_and_print

    return ask_and_print(
        name, kind, arguments, asking.id, asking.note, asking.timeout, as_json=asking.json, url=asking.storage
    )
