"""The search space: which params may be sampled, from which range, on which scale.

Scales (lecture, "using an appropriate scale"):

- `linear`: uniform between the bounds;
- `log`: uniform in log(x), for values that range over powers of ten, such as the learning rate;
- `one-minus-log`: uniform in log(1 - x), for values that approach 1, such as the momentum.

Bounds are inclusive. Tiers 1 (tune first) to 3 (tune last) say how much a param matters.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from caviar.errors import SpaceError
from caviar.wording import plain

SCALES = ("linear", "log", "one-minus-log")
TIERS = (1, 2, 3)

#: A linear range over more than this ratio samples almost nothing of its lower decades.
_WIDE_RATIO = 100.0

#: Above it a whole number is no float.
_MAX = sys.float_info.max

Value = float | int | str


@dataclass(frozen=True)
class Float:
    """A real number in [low, high].

    Args:
        low: smallest value.
        high: largest value.
        scale: one of `linear`, `log` (needs low > 0), `one-minus-log` (needs bounds inside (0, 1)).
        tier: 1, 2 or 3.

    Raises:
        SpaceError: the bounds or the scale are not valid.
    """

    low: float
    high: float
    scale: str = "linear"
    tier: int = 2

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, float)
        _check_scale(self.low, self.high, self.scale)
        _check_tier(self.tier)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    def __str__(self) -> str:
        return _words(self)


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high].

    Args:
        low: smallest value.
        high: largest value.
        scale: `linear` or `log` (needs low >= 1).
        tier: 1, 2 or 3.

    Raises:
        SpaceError: the bounds or the scale are not valid.
    """

    low: int
    high: int
    scale: str = "linear"
    tier: int = 2

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, int)
        if self.scale == "one-minus-log":
            raise SpaceError(
                "scale 'one-minus-log' is for real numbers in (0, 1), not for type 'int'; use 'linear' or 'log'"
            )
        _check_scale(self.low, self.high, self.scale)
        _check_tier(self.tier)

    def __str__(self) -> str:
        return _words(self)


@dataclass(frozen=True, init=False)
class Categorical:
    """One of some values, each as likely as the others.

    Args:
        *choices: at least one number or string, all different.
        tier: 1, 2 or 3.

    Raises:
        SpaceError: there are no choices, or two that are equal, or one of another type.
    """

    choices: tuple[Value, ...]
    tier: int

    def __init__(self, *choices: Value, tier: int = 2) -> None:
        if not choices:
            raise SpaceError("choices must hold at least one value, found none")
        choices = tuple(map(_plain_value, choices))
        for position, choice in enumerate(choices):
            if not _is_value(choice):
                raise SpaceError(f"a choice must be a finite number or a string, found {choice!r}")
            if choice in choices[:position]:
                raise SpaceError(f"choices must differ from each other, found {choice!r} twice")
        _check_tier(tier)
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "tier", tier)

    def __str__(self) -> str:
        return ", ".join(plain(one) if isinstance(one, float) else repr(one) for one in self.choices)

    def __repr__(self) -> str:
        return f"Categorical({', '.join(map(repr, self.choices))}, tier={self.tier})"


Domain = Float | Int | Categorical


class SearchSpace(Mapping[str, "Domain | Value"]):
    """The params of a study: a domain to sample from, or a fixed value, for each name.

    Immutable; two spaces are equal where they hold the same names and domains, whatever the order.

    Args:
        **params: a :class:`Float`, :class:`Int` or :class:`Categorical`, or a fixed number or string.

    Raises:
        SpaceError: a param is none of these.

    Examples:
        >>> space = SearchSpace(learning_rate=Float(1e-4, 1.0, scale="log", tier=1), optimizer="adam")
        >>> space["learning_rate"].high
        1.0
    """

    def __init__(self, /, **params: Domain | Value) -> None:
        params = {name: _plain_value(domain) for name, domain in params.items()}
        for name, domain in params.items():
            if not isinstance(domain, Float | Int | Categorical) and not _is_value(domain):
                raise SpaceError(
                    f"param {name!r} must be a Float, Int, Categorical, finite number or string, found {domain!r}"
                )
        self._params = params

    def __getitem__(self, name: str) -> Domain | Value:
        return self._params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __repr__(self) -> str:
        return f"SearchSpace({', '.join(f'{name}={domain!r}' for name, domain in self.items())})"

    def __hash__(self) -> int:
        return hash(frozenset(self._params.items()))

    @property
    def domains(self) -> dict[str, Domain]:
        """The params that are sampled, sorted by name: the order in which a sampler draws them."""
        return {name: domain for name, domain in sorted(self.items()) if isinstance(domain, Float | Int | Categorical)}

    @property
    def fixed(self) -> dict[str, Value]:
        """The params with one fixed value."""
        return {name: value for name, value in self.items() if not isinstance(value, Float | Int | Categorical)}

    def advice(self) -> list[str]:
        """Return a sentence for each param whose scale looks wrong."""
        sentences = []
        for name, domain in self.domains.items():
            if not isinstance(domain, Float) or domain.scale != "linear":
                continue
            if domain.low > 0 and domain.high / domain.low >= _WIDE_RATIO:
                sentences.append(
                    f"{name} goes from {domain.low:g} to {domain.high:g} on a linear scale: 9 of 10 trials will lie "
                    f"above {domain.low + 0.1 * (domain.high - domain.low):g}; consider scale = 'log'"
                )
            elif domain.low >= 0.5 and domain.high < 1 and (1 - domain.low) / (1 - domain.high) >= _WIDE_RATIO:
                sentences.append(
                    f"{name} approaches 1 on a linear scale: few trials will lie near {domain.high:g}, where it "
                    "matters most; consider scale = 'one-minus-log'"
                )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Return the space as plain data, as a space file holds it; `from_dict` reads it back."""
        return {name: _domain_to_dict(domain) for name, domain in sorted(self.items())}

    def to_toml(self) -> str:
        """Return the text of a space file; `from_toml` reads it back."""
        fixed = [f"{_toml(name)} = {_toml(value, is_key=False)}" for name, value in sorted(self.fixed.items())]
        tables = []
        for name, domain in self.domains.items():
            lines = [f"{key} = {_toml(value, is_key=False)}" for key, value in _domain_to_dict(domain).items()]
            tables.append("\n".join([f"[{_toml(name)}]", *lines]))
        return "\n\n".join([*(["\n".join(fixed)] if fixed else []), *tables]) + "\n"

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> SearchSpace:
        """Read a space from plain data: a table or a fixed value for each name.

        Raises:
            SpaceError: a table is not valid; the message names the param.
        """
        params = {}
        for name, table in tables.items():
            try:
                params[name] = _domain_from_dict(table)
            except SpaceError as error:
                raise SpaceError(f"param {name!r}: {error}") from error
        return cls(**params)

    @classmethod
    def from_toml(cls, path: str | Path) -> SearchSpace:
        """Read a space file.

        Raises:
            SpaceError: the file cannot be read, is not TOML, or does not describe a space.
        """
        try:
            tables = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except OSError as error:
            raise SpaceError(f"cannot read the space file {str(path)!r}: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpaceError(f"the space file {str(path)!r} is not valid TOML: {error}") from error
        if not tables:
            raise SpaceError(f"the space file {str(path)!r} is empty; it needs a table such as [learning_rate]")
        try:
            return cls.from_dict(tables)
        except SpaceError as error:
            raise SpaceError(f"{path}: {error}") from error


def default_space() -> SearchSpace:
    """Return the space of the lectures: alpha and beta on their scales, sizes uniform."""
    return SearchSpace(
        learning_rate=Float(1e-4, 1.0, scale="log", tier=1),
        momentum=Float(0.9, 0.999, scale="one-minus-log", tier=2),
        hidden_units=Int(16, 128, tier=2),
        batch_size=Categorical(32, 64, 128, 256, tier=2),
        layers=Int(1, 3, tier=3),
        learning_rate_decay=Float(0.0, 0.2, tier=3),
    )


_KEYS = ("low", "high", "scale", "type", "choices", "value", "tier")


def _domain_from_dict(table: Any) -> Domain | Value:
    if not isinstance(table, Mapping):
        if not _is_value(table):
            raise SpaceError(f"expected a table, a finite number or a string, found {table!r}")
        value: Value = table
        return value
    for key in table:
        if key not in _KEYS:
            close = get_close_matches(key, _KEYS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SpaceError(f"unknown key {key!r} (known: {', '.join(_KEYS)}){hint}")
    tier = table.get("tier", 2)
    if "value" in table:
        _refuse_with(table, "value", {"value", "tier"})
        _check_tier(tier)
        return _domain_from_dict(table["value"])
    if "choices" in table:
        _refuse_with(table, "choices", {"choices", "tier"})
        choices = table["choices"]
        if not isinstance(choices, list | tuple):
            raise SpaceError(f"choices must be a list, found {choices!r}")
        return Categorical(*choices, tier=tier)
    missing = [key for key in ("low", "high") if key not in table]
    if missing:
        raise SpaceError(f"{' and '.join(missing)} missing: give low and high, or choices, or value")
    kind = table.get("type", "float")
    scale = table.get("scale", "linear")
    if kind == "int":
        return Int(table["low"], table["high"], scale=scale, tier=tier)
    if kind == "float":
        return Float(table["low"], table["high"], scale=scale, tier=tier)
    raise SpaceError(f"type must be 'int' or 'float', found {kind!r}")


def _domain_to_dict(domain: Domain | Value) -> Any:
    if isinstance(domain, Categorical):
        return {"choices": list(domain.choices), "tier": domain.tier}
    if isinstance(domain, Float | Int):
        kind = "int" if isinstance(domain, Int) else "float"
        return {
            "type": kind,
            "low": domain.low,
            "high": domain.high,
            "scale": domain.scale,
            "tier": domain.tier,
        }
    return domain


def _words(domain: Float | Int) -> str:
    """Return a range as people read it."""
    scale = "" if domain.scale == "linear" else f" ({domain.scale})"
    return f"{plain(domain.low)} to {plain(domain.high)}{scale}"


def _toml(value: Any, *, is_key: bool = True) -> str:
    """Return a name or a value as TOML has it."""
    if isinstance(value, list):
        return f"[{', '.join(_toml(one, is_key=False) for one in value)}]"
    if not isinstance(value, str):
        return repr(value)
    if is_key and re.fullmatch(r"[A-Za-z0-9_-]+", value):
        return value
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the escapes of JSON are TOML's, too


def _refuse_with(table: Mapping[str, Any], key: str, allowed: set[str]) -> None:
    for other in table:
        if other not in allowed:
            raise SpaceError(f"{other!r} cannot stand beside {key!r}; remove one of them")


def _plain_value(value: Any) -> Any:
    """Return a number of any library, or a text, as Python's own; what is neither as it is."""
    if isinstance(value, bool | Float | Int | Categorical):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _is_value(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))


def _check_bounds(low: Any, high: Any, kind: type) -> None:
    allowed = (int,) if kind is int else (int, float)
    for name, bound in (("low", low), ("high", high)):
        if isinstance(bound, bool) or not isinstance(bound, allowed) or not abs(bound) <= _MAX:
            raise SpaceError(f"{name} must be a finite {kind.__name__}, found {bound!r}")
    if low > high:
        raise SpaceError(f"low must not be above high, found low = {low!r} and high = {high!r}")


def _check_scale(low: float, high: float, scale: Any) -> None:
    if scale not in SCALES:
        raise SpaceError(f"unknown scale {scale!r} (known: {', '.join(SCALES)})")
    if scale == "log" and low <= 0:
        raise SpaceError(f"scale 'log' needs low > 0, found low = {low!r}")
    if scale == "one-minus-log" and not 0 < low <= high < 1:
        raise SpaceError(f"scale 'one-minus-log' needs bounds inside (0, 1), found low = {low!r} and high = {high!r}")


def _check_tier(tier: Any) -> None:
    if isinstance(tier, bool) or tier not in TIERS:
        raise SpaceError(f"tier must be 1, 2 or 3, found {tier!r}")
