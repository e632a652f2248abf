"""The part of the Storage seam that panda mode needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from caviar.records import Intervention, Session, StoredCheckpoint, Trial, TrialResult


class Sessions(ABC):
    """The part of the trial database that panda mode needs: babysat trials, what was asked of them, their checkpoints.

    Promises what :class:`Storage` promises. The process that holds a session's lease writes its trial; everybody may
    ask. A method that takes `owner` refuses with PandaBusy, and changes nothing, where the lease is another's by now.
    """

    @abstractmethod
    def create(self, trial: Trial, settings: Mapping[str, Any]) -> Trial:
        """Add a new trial of the next free number, babysat from its first step.

        Args:
            trial: its number is ignored; its params are those before the first intervention.
            settings: see :class:`caviar.records.Session`.

        Returns:
            The trial with its number.
        """

    @abstractmethod
    def adopt(
        self,
        trial: Trial,
        settings: Mapping[str, Any],
        *,
        answer: Intervention | None = None,
        start: StoredCheckpoint | None = None,
    ) -> None:
        """Make a trial that is not finished a babysat one, as it is given; no sweep trains it from now on.

        Args:
            trial: as it now stands.
            settings: see :class:`caviar.records.Session`.
            answer: the request that is answered by this, in the same transaction.
            start: the checkpoint of the state that it has.

        Raises:
            TrialNotFound: there is none of that number.
            PandaBusy: it is babysat already, or finished.
        """

    @abstractmethod
    def restore(self, session: Session, interventions: Sequence[Intervention]) -> None:
        """Make a trial that is there a babysat one again, in any state, with what was done to it; nobody trains it.

        Args:
            session: as `get` returned it; its lease is not restored.
            interventions: as `interventions` returned them.
        """

    @abstractmethod
    def configure(self, study: str, number: int, settings: Mapping[str, Any]) -> None:
        """Change how a trial is babysat from its next session on; the epochs stay what they were.

        Raises:
            TrialNotFound: it is not babysat.
        """

    @abstractmethod
    def get(self, study: str, number: int) -> Session | None:
        """Return the session of a trial, or None where it has none."""

    @abstractmethod
    def all(self, study: str | None = None) -> list[Session]:
        """Return the sessions of a study, or of all, in order of creation."""

    @abstractmethod
    def acquire(self, study: str, number: int, owner: str, ttl_s: float) -> None:
        """Become the one that trains a babysat trial for `ttl_s` seconds, or prolong that.

        A lease that has expired, or whose owner is known to have died, is taken over.

        Raises:
            PandaBusy: another owner holds it; the message says who and since when.
        """

    @abstractmethod
    def renew(self, study: str, number: int, owner: str, ttl_s: float) -> None:
        """Prolong the lease, from now on for `ttl_s` seconds.

        Unlike `acquire` it never takes a lease anew: whoever slept while others came and went has an old state in hand.

        Raises:
            PandaBusy: `owner` does not hold it any more.
        """

    @abstractmethod
    def release(self, study: str, number: int, owner: str) -> None:
        """Give up the lease; nothing happens where `owner` does not hold it."""

    @abstractmethod
    def write(
        self,
        result: TrialResult,
        owner: str,
        *,
        checkpoint: StoredCheckpoint | None = None,
        forgotten: Sequence[StoredCheckpoint] = (),
        answered: Sequence[Intervention] = (),
    ) -> StoredCheckpoint | None:
        """Bring a babysat trial up to date, with its reports, a new checkpoint and those that are no longer kept.

        Args:
            result: the trial as it now stands, and new reports.
            owner: of the lease.
            checkpoint: to be added.
            forgotten: checkpoints to be removed from the database; their files are the caller's to remove, afterwards.
            answered: interventions whose `metrics_after` are known now.

        Returns:
            The checkpoint with its id.
        """

    @abstractmethod
    def ask(self, intervention: Intervention) -> Intervention:
        """Store a request; where one with its token is there already, that one is returned as it stands.

        Raises:
            RequestRejected: the token was used for another request, or cannot be stored.
            TrialNotFound: there is no such trial.
        """

    @abstractmethod
    def asked(self, study: str, number: int) -> list[Intervention]:
        """Return the requests that wait for an answer, in the order in which they were made."""

    @abstractmethod
    def asked_of(self, study: str, kind: str) -> list[Intervention]:
        """Return the requests of a kind that wait for an answer, of all trials of a study."""

    @abstractmethod
    def answer(
        self,
        intervention: Intervention,
        owner: str | None,
        *,
        rollback_to: StoredCheckpoint | None = None,
        pinned: Sequence[StoredCheckpoint] = (),
    ) -> None:
        """Write what became of a request; it is added where it was never asked, as a rule's is not.

        Args:
            intervention: as it now stands.
            owner: of the lease; None where nobody holds it.
            rollback_to: reports of later epochs are removed, and later checkpoints are marked as abandoned.
            pinned: checkpoints that it needs, with their pins.
        """

    @abstractmethod
    def withdraw(self, intervention: Intervention) -> bool:
        """Reject a request on behalf of whoever asked, unless it has been answered; return whether that was so."""

    @abstractmethod
    def intervention(self, study: str, number: int, token: str) -> Intervention | None:
        """Return the request of that token, or None."""

    @abstractmethod
    def interventions(self, study: str, number: int) -> list[Intervention]:
        """Return all requests: those applied in their order of application, the others after them."""

    @abstractmethod
    def checkpoints(self, study: str, number: int) -> list[StoredCheckpoint]:
        """Return the checkpoints of a trial, oldest first, abandoned ones included."""
