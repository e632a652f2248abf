"""Trials as a pandas frame."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from caviar.storage import codec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Columns of `trials` that a frame is made of. Params and metrics follow.
PLAIN = (
    "number", "state", "value", "epoch", "seconds", "started_at", "finished_at", "parent", "parent_epoch", "reason",
    "error", "worker", "space_version",
)  # fmt: skip
COLUMNS = (*PLAIN, "params", "metrics")

_TEXTS = ("state", "parent", "reason", "error", "worker")
_TIMES = ("started_at", "finished_at")


def column_names(params: Sequence[str], metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the columns of params and metrics: with a prefix only where two would be the same."""
    taken = set(PLAIN)
    clash = set(params) & set(metrics) | taken & set(params) | taken & set(metrics)
    return (
        [f"params.{name}" if name in clash else name for name in params],
        [f"metrics.{name}" if name in clash else name for name in metrics],
    )


def make_frame(rows: Sequence[Sequence[Any]], params: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return a frame of rows of `COLUMNS`.

    Args:
        rows: in the order of the frame.
        params: names of the params, in order.
        metrics: names of the metrics, in order.
    """
    import numpy as np
    import pandas as pd

    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    data: dict[str, Any] = {}
    for name, column in zip(PLAIN, by_column, strict=False):
        if name in _TEXTS:
            decoded = {text: codec.decode_text(text) for text in set(column)}
            data[name] = pd.Series([decoded[text] for text in column], dtype=object)
        elif name in _TIMES:
            data[name] = pd.to_datetime(pd.Series(column, dtype=object), format="ISO8601", utc=True)
        elif name in ("number", "epoch", "space_version"):
            data[name] = np.array(column, dtype=np.int64)
        else:
            data[name] = np.array(column, dtype=np.float64)
    param_columns, metric_columns = column_names(params, metrics)
    with _no_garbage():
        texts = by_column[len(PLAIN)]
        parsed = codec.decode_all_params(texts)
        for column_name, name in zip(param_columns, params, strict=True):
            values = [one.get(name) for one in parsed]
            data[column_name] = pd.Series(values, dtype=None if values and _is_uniform(values) else object)
        data.update(zip(metric_columns, _metric_values(by_column[len(PLAIN) + 1], metrics), strict=True))
    return pd.DataFrame(data)


def _metric_values(texts: Sequence[str], names: Sequence[str]) -> list[np.ndarray]:
    """Return the values of each metric, float64, NaN where there is none."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import json

    if texts and names:
        wanted = json.ParseOptions(pa.schema([(name, pa.float64()) for name in names]))
        try:
            table = json.read_json(io.BytesIO("\n".join(texts).encode()), parse_options=wanted)
        except pa.ArrowInvalid:  # NaN, an infinity or -0.0, which are texts in JSON
            pass
        else:
            return [table[name].to_numpy() for name in names]
    parsed = codec.join_json(texts)
    return [np.array([one.get(name) for one in parsed], dtype=np.float64) for name in names]


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep Python from looking for garbage among millions of new objects, where there is none: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_uniform(values: Sequence[Any]) -> bool:
    """Return whether pandas can infer one type without changing a value; None among whole numbers may not."""
    kinds = set(map(type, values))
    return kinds in ({int}, {float}, {float, type(None)}) and (
        int not in kinds or (max(values) < 2**63 and min(values) > -(2**63))
    )
