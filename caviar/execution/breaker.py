"""Ending a sweep whose first trials all fail alike: the rest would, too."""

from __future__ import annotations

import re

from caviar.errors import TrainableError
from caviar.records import Trial, TrialState
from caviar.wording import command

#: When so many trials have ended and all failed with the same error, the rest would too.
_TRIALS = 10


class Breaker:
    """Watches how the first trials of a study end. One that does well, or fails otherwise, puts it to rest for good."""

    def __init__(self) -> None:
        self._errors: list[str] | None = []

    def rest(self) -> None:
        """Watch no more, as where these are not the study's first trials."""
        self._errors = None

    def see(self, trial: Trial) -> str | None:
        """Take a trial that has ended; return why the sweep should end, if it should."""
        if self._errors is None:
            return None
        if trial.state is not TrialState.FAIL:
            self.rest()
            return None
        self._errors.append(trial.error or "")
        if len({re.sub(r"0x[0-9a-f]+|\d+", "N", error) for error in self._errors}) > 1:
            self.rest()
            return None
        # code that is not written as it is to be fails in each trial
        if len(self._errors) < _TRIALS and not self._errors[0].startswith(f"{TrainableError.__name__}: "):
            return None
        n = len(self._errors)
        return (
            f"the first {f'{n} trials all failed alike' if n > 1 else 'trial failed'} ({trial.error}); see "
            f"`{command('show', trial.name)}`, then mend the code and sweep on, or take another space or other data "
            f"under another study name, or after `{command('delete', trial.study)}`"
        )
