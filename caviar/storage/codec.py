"""How params, metrics and texts become what both databases can hold, and come back exactly.

JSON has no NaN, no infinities and, in Postgres, no negative zero, no NUL and no lone surrogate; Postgres also forgets
that 1e22 was a float. Such values are rare, so they alone are written in another way:

- params: `{"$json": "..."}`, whose text is the JSON that Python writes for the value;
- metrics, which are always floats: the strings `"NaN"`, `"Infinity"`, `"-Infinity"` and `"-0.0"`;
- free texts (`error`, `traceback`, ...): the prefix `\\json:` and the JSON of the text, in ASCII.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caviar.errors import StorageError

if TYPE_CHECKING:
    import numpy as np

#: Key of the object that stands for a param value that JSON cannot hold.
EXACT = "$json"
_TEXT_PREFIX = "\\json:"

#: From here on the shortest text of a float has no point in it, so that Postgres would return an int.
_LARGE = 1e16

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def is_storable(text: str) -> bool:
    """Return whether both databases hold this text as it is: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_name(kind: str, name: Any) -> None:
    """Refuse a name of a param or metric that is no text or that a database cannot hold.

    Raises:
        StorageError: it is not.
    """
    if not isinstance(name, str) or not is_storable(name):
        raise StorageError(f"the name of a {kind} must be a text without NUL and lone surrogates, found {name!r}")


def encode_params(params: Mapping[str, Any]) -> str:
    """Return params as JSON text.

    Raises:
        StorageError: a value is neither number nor string, or a name cannot be stored.
    """
    plain = {}
    for name, value in params.items():
        check_name("param", name)
        plain[name] = _plain_param(name, value)
    return _dumps(plain)


def _plain_param(name: str, value: Any) -> Any:
    if hasattr(value, "dtype") and value.shape == ():  # a number of NumPy, which a query need not import
        value = value.item()
    if isinstance(value, float):
        if -_LARGE < value < _LARGE and (value != 0.0 or math.copysign(1.0, value) > 0.0):
            return value
        return {EXACT: json.dumps(value)}
    if isinstance(value, str):
        return value if is_storable(value) else {EXACT: json.dumps(value)}
    if value is None or isinstance(value, int):
        return value
    raise StorageError(f"param {name!r} must be a number or a string, found {value!r}")


def decode_params(text: str) -> dict[str, Any]:
    """Return the params that `encode_params` wrote."""
    return decode_all_params([text])[0]


def decode_all_params(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the params of many trials."""
    decoded: list[dict[str, Any]] = join_json(texts)
    for text, params in zip(texts, decoded, strict=True):
        if EXACT in text:
            params.update({name: json.loads(value[EXACT]) for name, value in params.items() if isinstance(value, dict)})
    return decoded


def _plain_metric(name: str, value: Any) -> float | str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise StorageError(f"metric {name!r} must be a number, found {value!r}") from None
    if math.isfinite(number) and (number != 0.0 or math.copysign(1.0, number) > 0.0):
        return number
    return json.dumps(number)


def encode_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics as JSON text.

    Raises:
        StorageError: a value is no number, or a name cannot be stored.
    """
    plain = {}
    for name, value in metrics.items():
        check_name("metric", name)
        plain[name] = _plain_metric(name, value)
    return _dumps(plain)


def decode_metrics(text: str) -> dict[str, float]:
    """Return the metrics that `encode_metrics` wrote."""
    return decode_all_metrics([text])[0]


def decode_all_metrics(texts: Sequence[str]) -> list[dict[str, float]]:
    """Return the metrics of many trials."""
    return [{name: float(value) for name, value in metrics.items()} for metrics in join_json(texts)]


def encode_report_rows(names: Sequence[str], values: np.ndarray) -> list[str]:
    """Return one JSON text for each row of a matrix of metrics.

    Args:
        names: K names, one a column.
        values: float64, shape (E, K).
    """
    import numpy as np  # takes longer than most queries, which need none

    if np.isfinite(values).all() and not (np.signbit(values) & (values == 0.0)).any():
        # Formatting into a template is three times faster than a JSON encoder per row.
        pairs = (json.dumps(name, ensure_ascii=False).replace("%", "%%") + ":%r" for name in names)
        template = "{" + ",".join(pairs) + "}"
        return [template % tuple(row) for row in values.tolist()]
    return [encode_metrics(dict(zip(names, row, strict=True))) for row in values.tolist()]


def encode_text(text: str | None) -> str | None:
    """Return a free text as both databases can hold it."""
    if text is None or (is_storable(text) and not text.startswith(_TEXT_PREFIX)):
        return text
    return _TEXT_PREFIX + json.dumps(text)


def decode_text(text: str | None) -> str | None:
    """Return the text that `encode_text` wrote."""
    if text is None or not text.startswith(_TEXT_PREFIX):
        return text
    decoded: str = json.loads(text[len(_TEXT_PREFIX) :])
    return decoded


def finite_or_none(value: float | None) -> float | None:
    """Return a number that can be sorted by, or None in place of NaN and of nothing."""
    if value is None or math.isnan(value):
        return None
    return float(value)


def encode_json(value: Any) -> str:
    """Return any plain data as JSON text in ASCII, NaN and infinities as Python writes them."""
    return json.dumps(value, separators=(",", ":"))


def join_json(texts: Iterable[str]) -> list[Any]:
    """Parse many JSON texts at once, which is faster than one by one."""
    parsed: list[Any] = json.loads("[" + ",".join(texts) + "]")
    return parsed
