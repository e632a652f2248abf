"""How numbers are put into words."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """Return a number with a noun that takes an `s` where it is not 1."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def plain(value: float) -> str:
    """Return a number with all the digits that it needs, and no more."""
    return repr(value).removesuffix(".0")
