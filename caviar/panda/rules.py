"""Rules that babysit: what they are, and reading them from a file."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from caviar.errors import SettingsError
from caviar.panda.adjustable import adjustable_of
from caviar.records import EPOCH_METRICS, StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Diverged:
    """On a loss that is NaN or infinite, or over `factor` times its best: back to the best checkpoint, and slower."""

    factor: float = 3.0
    #: `warn`, `rollback`, `pause` or `stop`.
    action: str = "rollback"
    #: The learning rate is divided by this after a rollback.
    divide_learning_rate: float = 2.0
    #: What is divided; of a model of the user's own it may have another name.
    param: str = "learning_rate"
    #: Rollbacks at most; after that the run ends as it would without the rule.
    limit: int = 10
    metric: str = "val_loss"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """When the metric has not improved for `epochs` epochs: divide the learning rate."""

    epochs: int = 5
    #: `warn` or `set`.
    action: str = "set"
    divide_learning_rate: float = 2.0
    #: What is divided.
    param: str = "learning_rate"
    #: The learning rate is not divided further than this.
    lowest_learning_rate: float = 1e-6
    #: By how much of its best the metric must improve to count.
    improvement: float = 1e-3
    metric: str = "val_loss"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """When the metric has not improved for `epochs` epochs: stop."""

    epochs: int = 20
    #: `warn`, `pause` or `stop`.
    action: str = "stop"
    improvement: float = 1e-3
    metric: str = "val_loss"


Rule = Diverged | Plateau | Patience

_RULES: Mapping[str, type[Rule]] = {"diverged": Diverged, "plateau": Plateau, "patience": Patience}
_ACTIONS = {
    "diverged": ("warn", "rollback", "pause", "stop"),
    "plateau": ("warn", "set"),
    "patience": ("warn", "pause", "stop"),
}
#: What holds where no rules are given: people are told, and nothing is done.
DEFAULT_RULES: Mapping[str, Mapping[str, Any]] = {
    "diverged": {"action": "warn"},
    "plateau": {"action": "warn", "epochs": 10},
}


def read_rules(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rules of a TOML file as plain, valid data.

    Raises:
        SettingsError: the file cannot be read, or holds something else.
    """
    try:
        rules = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"could not read the rules {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the rules {str(path)!r} are not TOML: {error}") from error
    for name, settings in rules.items():
        _make_rule(name, settings)
    return rules


def make_rules(rules: Mapping[str, Any], spec: StudySpec) -> dict[str, Rule]:
    """Return the rules of a study from plain data.

    Of a model of the user's own they look at the study's metric, where they name no other.

    Raises:
        SettingsError: a name is unknown, or a value has the wrong type or is out of bounds, or they look at or change
            what the study's models do not have.
    """
    usual = {} if spec.trainable is None else {"metric": spec.metric}
    made = {name: _make_rule(name, settings, usual) for name, settings in rules.items()}
    for name, rule in made.items():
        _check_fits(name, rule, spec)
    return made


def _check_fits(name: str, rule: Rule, spec: StudySpec) -> None:
    if not isinstance(rule, Patience) and rule.action in ("rollback", "set"):
        _check_divides(name, rule.param, spec)
    if spec.trainable is None:
        if rule.metric not in EPOCH_METRICS:
            raise SettingsError(
                f"metric of rule {name!r} must be one of {', '.join(EPOCH_METRICS)}, found {rule.metric!r}"
            )
        return
    if spec.direction_of(rule.metric) is None:
        raise SettingsError(
            f"metric of rule {name!r} must be {spec.metric!r}, or a loss or an accuracy, found {rule.metric!r}"
        )


def _check_divides(rule: str, param: str, spec: StudySpec) -> None:
    adjustable = adjustable_of(spec, spec.space)
    if param not in adjustable.names or not adjustable.is_number(param):
        numbers = [name for name in adjustable.names if adjustable.is_number(name)]
        instead = f"param = {' or '.join(map(repr, numbers))}, or " if numbers else ""
        others = [action for action in _ACTIONS[rule] if action not in ("rollback", "set")]
        raise SettingsError(
            f"rule {rule!r} divides {param!r}, which is no number that can be changed here; give {instead}another "
            f"action: {', '.join(others)}"
        )


def _make_rule(name: str, settings: Any, usual: Mapping[str, Any] | None = None) -> Rule:
    kind = _RULES.get(name)
    if kind is None:
        raise SettingsError(f"unknown rule {name!r} (known: {', '.join(_RULES)})")
    if not isinstance(settings, Mapping):
        raise SettingsError(f"rule {name!r} must be a table, as in [{name}], found {settings!r}")
    known = {field.name: field for field in fields(kind)}
    given: dict[str, Any] = dict(usual or {})
    for key, value in settings.items():
        if key not in known:
            raise SettingsError(f"rule {name!r} has no {key!r} (known: {', '.join(known)})")
        given[key] = _check(name, key, value)
    return kind(**given)


def _check(rule: str, key: str, value: Any) -> Any:
    if key == "action":
        expected, is_valid = f"one of {', '.join(_ACTIONS[rule])}", value in _ACTIONS[rule]
    elif key == "param":
        expected, is_valid = "the name of a param, as 'learning_rate'", isinstance(value, str) and bool(value)
    elif key == "metric":
        expected, is_valid = "the name of a metric, as 'val_loss'", isinstance(value, str) and bool(value)
    elif key in ("epochs", "limit"):
        expected, is_valid = "a whole number of at least 1", type(value) is int and value >= 1
    else:
        low, strict = {"factor": (1.0, True), "divide_learning_rate": (1.0, True)}.get(key, (0.0, False))
        expected = f"a number {'above' if strict else 'of at least'} {low:g}"
        # not math.isfinite(), which fails on whole numbers that no float holds
        is_number = type(value) in (int, float) and abs(value) <= sys.float_info.max
        is_valid = is_number and (value > low if strict else value >= low)
        value = float(value) if is_valid else value
    if not is_valid:
        raise SettingsError(f"{key} of rule {rule!r} must be {expected}, found {value!r}")
    return value
