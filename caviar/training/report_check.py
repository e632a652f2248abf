"""What code of the user's reports, as plain numbers by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from caviar.errors import TrainableError


class ReportCheck:
    """Checks the reports of one trial: all have the same names, and the study's metric is among them.

    Args:
        name: of what reports, for messages.
        metric: of the study.
        names: of the reports before, where there were some.
    """

    def __init__(self, name: str, metric: str, names: Sequence[str] = ()) -> None:
        self._name, self._metric = name, metric
        self.names: tuple[str, ...] = tuple(names)

    def metrics(self, report: Any, epoch: int) -> dict[str, float]:
        """Return the metrics of an epoch, counted from 1: a dict of numbers, or one number, the study's metric.

        Raises:
            TrainableError: it is something else.
        """
        found = self._numbers(report)
        if self._metric not in found:
            listed = ", ".join(found) or "nothing"
            raise TrainableError(f"expected metric {self._metric!r} among what {self._name} reports, found {listed}")
        if not self.names:
            self.names = tuple(found)
        if sorted(self.names) != sorted(found):
            raise TrainableError(
                f"expected {self._name} to report the same metrics in each epoch, {', '.join(self.names)}, found "
                f"{', '.join(found)} in epoch {epoch}"
            )
        return {name: found[name] for name in self.names}

    def check_any(self) -> None:
        """Check that there was a report.

        Raises:
            TrainableError: there was none.
        """
        if not self.names:
            raise TrainableError(
                f"expected {self._name} to report {self._metric!r} after each epoch, found that it reported nothing"
            )

    def _numbers(self, report: Any) -> dict[str, float]:
        named = report if isinstance(report, Mapping) else {self._metric: report}
        try:
            if any(isinstance(value, str | bytes) for value in named.values()):
                raise TypeError
            metrics = {metric: float(value) for metric, value in named.items()}
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
            raise self._refusal(report) from None
        if not all(isinstance(metric, str) and metric and metric.isprintable() for metric in metrics):
            raise self._refusal(report)
        return metrics

    def _refusal(self, report: Any) -> TrainableError:
        shown = re.sub(r" at 0x[0-9a-f]+", "", f"{report!r:.80}")  # the same in each trial
        hint = "; is a return missing?" if report is None else ""
        return TrainableError(
            f"expected {self._name} to report numbers by name, as {{'loss': 0.3}}, found {shown}{hint}"
        )
