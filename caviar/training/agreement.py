"""Whether a model that was trained again is the one that it was."""

from __future__ import annotations

import math
from collections.abc import Mapping


def differing(recorded: Mapping[str, float], again: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are not the same to the bit, as they are now; those on one side alone are left out."""
    return {name: value for name, value in again.items() if not is_same(value, recorded.get(name, value))}


def is_same(a: float, b: float) -> bool:
    """Return whether two numbers are the same; NaN is what NaN is."""
    return a == b or (math.isnan(a) and math.isnan(b))


def another(recorded: Mapping[str, float], again: Mapping[str, float], *, tolerance: float = 0.02) -> str | None:
    """Return a metric that differs by more than rounding does, as of another model; None where all agree.

    Args:
        recorded: the metrics as they were.
        again: as they are now.
        tolerance: how far they may lie apart, absolutely or by their size: on other processors, or with another BLAS.
    """
    for name, value in differing(recorded, again).items():
        if not math.isclose(value, recorded[name], rel_tol=tolerance, abs_tol=tolerance):
            return name
    return None
