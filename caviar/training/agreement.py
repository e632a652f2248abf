"""Whether a model that was trained again is the one that it was."""

from __future__ import annotations

import math
from collections.abc import Mapping

#: How far metrics of one training may lie apart on other processors, or with other versions of BLAS.
_TOLERANCE = 0.02


def differing(recorded: Mapping[str, float], again: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are not the same to the bit, as they are now; those on one side alone are left out."""
    return {name: value for name, value in again.items() if value != recorded.get(name, value)}


def another(recorded: Mapping[str, float], again: Mapping[str, float]) -> str | None:
    """Return a metric that differs by more than rounding does, as of another model; None where all agree."""
    for name, value in differing(recorded, again).items():
        if not math.isclose(value, recorded[name], rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            return name
    return None
