"""Was the run what its record says? Training it again, with its interventions, to the same bits or not."""

from __future__ import annotations

from dataclasses import dataclass

from caviar.errors import CheckpointError, TrialNotFound
from caviar.panda.course import STEERING
from caviar.panda.retrace import Passed, Retrace
from caviar.panda.revive import Cub, history_of, start_state
from caviar.panda.shelf import Shelf
from caviar.panda.start import Nursery
from caviar.records import Intervention, StoredCheckpoint
from caviar.training.agreement import is_same
from caviar.training.state import State
from caviar.wording import command


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """How a run that was trained again compares with what is on disk and in the database."""

    #: Where it ended: epochs completed, and updates in all.
    epoch: int
    step: int
    n_interventions: int
    #: Checkpoints that were compared, and how many could not be read.
    n_checkpoints: int
    n_unreadable: int
    #: The first place where it differs, and in what; None where all is identical.
    difference: str | None

    @property
    def is_identical(self) -> bool:
        """Whether weights, moments, statistics and metrics agree bit for bit."""
        return self.difference is None


def replay(nursery: Nursery, number: int) -> Replay:
    """Train a babysat trial again from its start, with its interventions, and compare it on the way.

    Args:
        nursery: study, data and executor.
        number: of the trial.

    Raises:
        TrialNotFound: it is not babysat.
        CheckpointError: the state that it started from cannot be had, or no checkpoint can be read.
    """
    cub = babysat(nursery, number)
    trial = cub.trial
    while True:  # read again where it was steered meanwhile
        applied = cub.applied()
        stored, reports = cub.checkpoints(), nursery.storage.reports(nursery.spec.name, number)
        if cub.applied() == applied:
            break
    last = max(
        (c for c in stored if not c.abandoned), key=lambda c: (c.segment, c.epoch, c.batch, c.sequence), default=None
    )
    if last is None:
        why = "its checkpoints are not here" if trial.epoch else "it has not been trained yet"
        raise CheckpointError(f"{trial.name} has no checkpoint to compare with: {why}")
    applied = [i for i in applied if (i.sequence or 0) <= last.sequence]
    judge = _Judge(cub.shelf, stored)
    start = Passed(start_state(cub), cub.beginning)
    judge.look(start, None)
    retrace = Retrace(
        cub.trainer,
        start,
        applied,
        (last.epoch, last.batch),
        judge.look,
        looked_at=[(c.epoch, c.batch) for c in stored if c.batch],
    )
    reached = retrace.run()
    judge.look(reached, None)
    if not judge.n_compared:
        raise CheckpointError(f"no checkpoint of {trial.name} can be read, so there is nothing to compare with")
    recorded = {epoch: cub.spec.telling(row) for epoch, row in history_of(reports, trial.epoch).items()}
    judge.look_at_metrics(retrace.history, recorded)
    return Replay(
        epoch=reached.state.epoch,
        step=reached.state.step,
        n_interventions=sum(i.kind in STEERING for i in applied),
        n_checkpoints=judge.n_compared,
        n_unreadable=judge.n_unreadable,
        difference=judge.difference,
    )


def babysat(nursery: Nursery, number: int) -> Cub:
    """Return a babysat trial of a number.

    Raises:
        TrialNotFound: there is no such trial, or it was never babysat.
    """
    trial = nursery.storage.get_trial(nursery.spec.name, number)
    session = nursery.storage.sessions.get(nursery.spec.name, number)
    if session is None:
        raise TrialNotFound(f"{trial.name} was never babysat; begin with `{command('panda', 'start', trial.name)}`")
    return nursery.cub(trial, session)


class _Judge:
    """Compares the states that a run passes with the checkpoints of those places."""

    def __init__(self, shelf: Shelf, stored: list[StoredCheckpoint]) -> None:
        self._shelf = shelf
        self._stored = {(c.segment, c.epoch, c.batch): c for c in stored}
        self._segment = 0
        self._seen: set[str] = set()
        self.n_compared = self.n_unreadable = 0
        self.difference: str | None = None

    def look(self, passed: Passed, step: Intervention | None) -> None:
        """Compare a state; after a rollback the checkpoints are those of the next segment."""
        checkpoint = self._stored.get((self._segment, *passed.state.point))
        if checkpoint is not None and checkpoint.path not in self._seen:
            self._seen.add(checkpoint.path)
            self._compare(passed.state, checkpoint)
        if step is not None and step.kind == "rollback":
            self._segment += 1

    def look_at_metrics(self, again: dict[int, dict[str, float]], recorded: dict[int, dict[str, float]]) -> None:
        """Compare the metrics of each epoch."""
        for epoch, metrics in sorted(recorded.items()):
            for name, value in metrics.items():
                here = again.get(epoch, {}).get(name)
                if here is not None and not is_same(here, value) and self.difference is None:
                    self.difference = f"{name} of epoch {epoch} is {here!r}, recorded was {value!r}"

    def _compare(self, state: State, checkpoint: StoredCheckpoint) -> None:
        try:
            stored = self._shelf.load(checkpoint).state
        except CheckpointError:
            self.n_unreadable += 1
            return
        self.n_compared += 1
        if self.difference is not None:
            return
        differing = state.differing(stored)
        if differing or state.step != stored.step:
            what = ", ".join(differing) or "the number of steps"
            self.difference = f"{what} differ at epoch {state.epoch}, step {state.step} ({checkpoint.path})"
