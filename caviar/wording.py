"""How numbers and commands are put into words."""

from __future__ import annotations

import re
import shlex


def counted(n: int, noun: str) -> str:
    """Return a number with a noun that takes an `s` where it is not 1."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def plain(value: float) -> str:
    """Return a number with all the digits that it needs, and no more."""
    return repr(value).removesuffix(".0")


def command(*words: str, storage: str | None = None) -> str:
    """Return a command of caviar as it is typed, whatever is in its words.

    Args:
        words: as `panda`, `start` and the name of a trial.
        storage: the URL that was given, if one was; its password is not shown.
    """
    return shlex.join(("caviar", *words, *(("--storage", without_passwords(storage)) if storage else ())))


def without_passwords(text: str) -> str:
    """Hide the passwords of URLs in a text: what is printed is kept in logs."""
    text = re.sub(r"(:/+[^\s:/@'\"]*:)[^\s'\"]*@", r"\1***@", text)
    return re.sub(r"([?&]\w*pass\w*=)[^\s&'\"]*", r"\1***", text)
