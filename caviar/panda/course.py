"""What is in force while a model is trained, and what an intervention makes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caviar.errors import RequestRejected
from caviar.panda.adjustable import Adjustable
from caviar.records import Intervention, Params
from caviar.training.state import Point

#: Interventions that change what is trained; the others leave no trace in the weights.
STEERING = ("set", "rollback")

_PLACE = ("to", "at")


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

    def value(self, name: str, adjustable: Adjustable) -> Any:
        """Return what is in force, or will be from the next epoch on, of what may be changed."""
        if name == "epochs":
            return self.epochs
        return self.next_params.get(name, adjustable.completed(self.params)[name])


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
        arguments = settings_of(arguments)
    return course.changed(arguments, mid_epoch=mid_epoch)


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a rollback or branch sets, without where it goes."""
    return {name: value for name, value in arguments.items() if name not in _PLACE}


def with_settings(params: Params, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with what is set; how many epochs are trained is none of them."""
    return {**params, **{name: value for name, value in settings.items() if name != "epochs"}}


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
