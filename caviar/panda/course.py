"""What is in force while a model is trained, and what an intervention makes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caviar.errors import ParamsError, RequestRejected
from caviar.records import Intervention, Params
from caviar.training.hyperparameters import Hyperparameters, check_param
from caviar.training.state import Point

#: What `set` may change; `epochs` is how many are trained in all.
ADJUSTABLE = ("learning_rate", "momentum", "l2", "learning_rate_decay", "batch_size", "epochs")

#: Interventions that change what is trained; the others leave no trace in the weights.
STEERING = ("set", "rollback")

_MAX_EPOCHS = 10**9


@dataclass(frozen=True, slots=True)
class Course:
    """The params in force, those that will be from the next epoch on, and the epochs to train in all."""

    params: Params
    #: None: until somebody stops it.
    epochs: int | None = None
    #: A batch size that was set within an epoch.
    next_params: Params = field(default_factory=dict)

    def at_epoch_start(self) -> Course:
        """Return the course with what was put off until the next epoch."""
        if not self.next_params:
            return self
        return Course({**self.params, **self.next_params}, self.epochs)

    def changed(self, arguments: Mapping[str, Any], *, mid_epoch: bool) -> Course:
        """Return the course after `set`, whose arguments are valid."""
        now = dict(arguments)
        epochs = now.pop("epochs", self.epochs)
        later = {"batch_size": now.pop("batch_size")} if mid_epoch and "batch_size" in now else {}
        return Course({**self.params, **now}, epochs, {**self.next_params, **later})

    def value(self, name: str) -> Any:
        """Return what is in force, or will be from the next epoch on, under a name of `ADJUSTABLE`."""
        if name == "epochs":
            return self.epochs
        full = Hyperparameters.from_params(self.params).to_params()
        return self.next_params.get(name, full[name])


def check_set(arguments: Mapping[str, Any], *, epochs_done: int = 0) -> dict[str, Any]:
    """Return the arguments of `set` with their types put right.

    Raises:
        RequestRejected: there is none, a name is not adjustable, or a value is out of bounds or of the wrong type.
    """
    if not arguments:
        raise RequestRejected(f"set needs NAME=VALUE, with a NAME of {', '.join(ADJUSTABLE)}")
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in ADJUSTABLE:
            raise RequestRejected(f"{name!r} cannot be changed while a model is trained; {', '.join(ADJUSTABLE)} can")
        if name == "epochs":
            checked[name] = _check_epochs(value, epochs_done)
            continue
        try:
            check_param(name, value)
        except ParamsError as error:
            raise RequestRejected(str(error)) from error
        checked[name] = value if name == "batch_size" else float(value)
    return checked


def _check_epochs(value: Any, done: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_EPOCHS:
        raise RequestRejected(f"epochs must be a whole number from 1 to {_MAX_EPOCHS}, found {value!r}")
    if value < done:
        raise RequestRejected(f"epochs is how many are trained in all: {done} are done already, found {value}")
    return value


def fold(course: Course, interventions: Sequence[Intervention]) -> Course:
    """Return the course after these interventions, which were applied in this order."""
    epoch: int | None = None
    for intervention in interventions:
        if intervention.kind not in STEERING:
            continue
        if epoch is not None and intervention.epoch != epoch:
            course = course.at_epoch_start()
        epoch, is_mid = place_after(intervention)[0], bool(place_after(intervention)[1])
        course = steered(
            course if is_mid else course.at_epoch_start(), intervention.kind, intervention.arguments, is_mid
        )
    return course


def steered(course: Course, kind: str, arguments: Mapping[str, Any], mid_epoch: bool) -> Course:
    """Return the course after `set` or `rollback`, which may set something too."""
    if kind == "rollback":
        arguments = {name: value for name, value in arguments.items() if name in ADJUSTABLE}
    return course.changed(arguments, mid_epoch=mid_epoch)


def place_after(intervention: Intervention) -> Point:
    """Return where training goes on after an intervention that was applied."""
    if intervention.kind == "rollback":
        assert intervention.after is not None
        return intervention.after["epoch"], intervention.after["batch"]
    assert intervention.epoch is not None and intervention.batch is not None
    return intervention.epoch, intervention.batch


def place(epoch: int | None, epochs: int | None, best: bool) -> dict[str, Any]:
    """Return the arguments that name a checkpoint: of an epoch, of so many epochs ago, or the best.

    Raises:
        RequestRejected: none of these is given, or more than one.
    """
    given: list[dict[str, Any]] = []
    if epoch is not None:
        given.append({"to": "epoch", "at": epoch})
    if epochs is not None:
        given.append({"to": "back", "at": epochs})
    if best:
        given.append({"to": "best"})
    if len(given) != 1:
        raise RequestRejected("name one checkpoint: epoch=E, epochs=K (so many epochs ago) or best")
    return given[0]
