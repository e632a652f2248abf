"""Numbers and truth values as people and libraries give them."""

from __future__ import annotations

import operator
from typing import Any

from caviar.errors import SettingsError


def whole(name: str, value: Any) -> int | None:
    """Return a whole number of any library as Python's own.

    Raises:
        SettingsError: it is none.
    """
    try:
        if not isinstance(value, bool):  # which Python takes for a number
            return None if value is None else operator.index(value)
    except TypeError:
        pass
    raise SettingsError(f"{name} must be a whole number, found {value!r}")


def counted_to(name: str, value: Any, most: int) -> int:
    """Return a whole number of any library as Python's own, from 1 to the most.

    Raises:
        SettingsError: it is none, or beyond them.
    """
    number = whole(name, value)
    if number is None or number < 1:
        raise SettingsError(f"{name} must be at least 1, found {value!r}")
    if number > most:
        raise SettingsError(f"{name} must be at most {most}, found {value!r}")
    return number


def truth(name: str, value: Any) -> bool:
    """Return a truth value of any library as Python's own.

    Raises:
        SettingsError: it is none.
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return bool(value)
    raise SettingsError(f"{name} must be True or False, found {value!r}")
