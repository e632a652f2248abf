"""What several commands take, and how the words of a command line become data."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

from caviar.errors import SettingsError

Storage = Annotated[
    str | None,
    Parameter(name="--storage", help="Database URL [CAVIAR_STORAGE, else sqlite:///caviar.db]."),
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
TrialName = Annotated[str, Parameter(name="STUDY/NUMBER", help="Name of the trial.")]
Settings = Annotated[
    tuple[str, ...] | None,
    Parameter(name="--set", consume_multiple=True, negative="", help="NAME=VALUE ..., settings to change at once."),
]


def _refuse_option(_type: object, text: object) -> None:
    """Refuse what looks like an option: it is a misspelt one."""
    if isinstance(text, str) and re.fullmatch(r"-[A-Za-z]|--[A-Za-z][\w-]*(=.*)?", text, re.DOTALL):
        raise ValueError(f"Unknown option: {text}")


def _refuse_long_option(_type: object, text: object) -> None:
    """Refuse what stands where a value was forgotten: no name begins with two minuses."""
    if isinstance(text, str) and text.startswith("--"):
        raise ValueError(f"expected a name, found the option {text}")


def _whole(_type: object, tokens: Sequence[Token]) -> int:
    """Read a whole number, and round none that is not."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, found {text!r}") from None


#: A whole number, and one that need not be given.
Whole = Annotated[int, Parameter(converter=_whole)]
MaybeWhole = Annotated[int | None, Parameter(converter=_whole)]

#: Which model of a trial: a number, or `best`.
Epoch = Annotated[str | None, Parameter(name="--epoch")]

#: A name to sort by, which may begin with a minus.
SortKey = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_refuse_long_option)]

#: A text of the user's, which may begin with a minus.
Text = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_refuse_option)]

#: How the file of a model ends.
MODEL_SUFFIX = ".safetensors"

#: Words for an `epochs` without end.
_ENDLESS = ("none", "until-stopped")


def split_trial_name(name: str) -> tuple[str, int]:
    """Return study and number of `STUDY/NUMBER`.

    Raises:
        SettingsError: it is not such a name.
    """
    study, slash, number = name.rpartition("/")
    if not (slash and study and number.isascii() and number.isdigit() and len(number) < 19):
        raise SettingsError(f"a trial is named STUDY/NUMBER, found {name!r}")
    return study, int(number)


def read_settings(words: Iterable[str]) -> dict[str, Any]:
    """Return `NAME=VALUE ...` as data: whole numbers, numbers and words.

    Raises:
        SettingsError: a word is something else, a name is there twice, or epochs are given as so many more.
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name and text):
            raise SettingsError(f"expected NAME=VALUE, as in learning_rate=0.003, found {word!r}")
        if name in settings:
            raise SettingsError(f"{name} is set twice: {settings[name]} and {text}")
        if name == "epochs" and text.startswith("+"):
            raise SettingsError(f"epochs is how many are trained in all, found {word!r}; write epochs=N without a plus")
        settings[name] = None if name == "epochs" and text in _ENDLESS else _value(text)
    return settings


def author() -> str:
    """Return who types here, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container with a number for a user
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
