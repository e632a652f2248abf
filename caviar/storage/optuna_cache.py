"""Finished trials, which never change, kept in memory: samplers ask for all of them before each trial."""

from __future__ import annotations

from optuna.trial import FrozenTrial
from sqlalchemy import select
from sqlalchemy.engine import Connection

from caviar.storage import optuna_view, schema

_trials = schema.trials.c


class TrialCache:
    """The trials of each study that were read before. Not safe to use from several threads at once."""

    def __init__(self) -> None:
        self._finished: dict[int, dict[int, FrozenTrial]] = {}

    def forget(self, study_id: int) -> None:
        """Forget a study."""
        self._finished.pop(study_id, None)

    def refresh(self, connection: Connection, study_id: int) -> list[FrozenTrial]:
        """Return all trials of a study in order of number, reading only those that may be new."""
        finished = self._finished.setdefault(study_id, {})
        first, last = schema.trial_ids(study_id)
        highest = max(finished, default=first - 1)
        n_open, n_all = _count(connection, study_id)
        unread = set(connection.execute(select(_trials.id).where(_trials.id.between(highest + 1, last))).scalars())
        if n_open:
            is_open = _trials.state.in_(["WAITING", "RUNNING"])
            unread.update(connection.execute(select(_trials.id).where(_trials.study_id == study_id, is_open)).scalars())
        if len(unread) + len(finished) != n_all:
            # One below the highest that is known has finished or was added since.
            every = connection.execute(select(_trials.id).where(_trials.id.between(first, last))).scalars()
            unread = set(every) - finished.keys()
        read = optuna_view.load(connection, study_id, sorted(unread))
        open_now = {trial._trial_id: trial for trial in read if not trial.state.is_finished()}
        finished.update((trial._trial_id, trial) for trial in read if trial.state.is_finished())
        return [open_now.get(trial_id) or finished[trial_id] for trial_id in sorted([*finished, *open_now])]


def _count(connection: Connection, study_id: int) -> tuple[int, int]:
    counts = schema.study_counts
    row = connection.execute(select(counts).where(counts.c.study_id == study_id)).one()
    n_open = row.n_waiting + row.n_running
    return n_open, n_open + row.n_complete + row.n_pruned + row.n_fail
