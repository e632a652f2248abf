"""The Storage seam: the trial database as the rest of caviar sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caviar.records import (
    Reports,
    StudySpec,
    StudySummary,
    SweepRun,
    TrainableSpec,
    Trial,
    TrialResult,
)
from caviar.storage.sessions import Sessions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StudyNotes:
    """What people wrote about a study."""

    #: Free text, or None.
    note: str | None = None
    #: Sorted, each once.
    tags: tuple[str, ...] = ()


class Ledgers(ABC):
    """The runs of studies' coordinators."""

    @abstractmethod
    def begin(self, study: str, owner: str, started_at: datetime) -> int:
        """Note that a coordinator begins; return a number for `put`.

        Raises:
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def put(self, id: int, run: SweepRun) -> None:
        """Replace what is known of a run, but its owner and start."""

    @abstractmethod
    def all(self, study: str) -> list[SweepRun]:
        """Return the runs of a study, oldest first.

        Raises:
            StudyNotFound: there is no such study.
        """


class Storage(ABC):
    """The trial database.

    Promises:
        - Every method is one transaction: it happens whole or not at all, and is durable when it returns.
        - Records that come back are frozen and never change behind the caller's back.
        - Any number of readers may work while one writer writes; nobody sees half a transaction.
        - Database errors come out as `StorageError`, which names the operation and chains the cause; where the database
          does not answer, as `StorageUnreachable`.

    It does not promise that two writers of one study stay out of each other's way: hold the study's lease to write.
    """

    ledgers: Ledgers
    #: The database's file; None where it is on a server or in memory.
    path: Path | None

    @property
    @abstractmethod
    def sessions(self) -> Sessions:
        """The babysat trials."""

    @property
    def identity(self) -> str:
        """What tells a database from a copy of it, also where both are in a place of one name; empty on a server."""
        # it stays where a file is moved within its file system, and is another where it is copied
        return "" if self.path is None else str(self.path.stat().st_ino)

    @abstractmethod
    def create_study(self, spec: StudySpec) -> StudySpec:
        """Store a new study.

        Returns:
            The spec as stored, with `created_at`.

        Raises:
            StudyMismatch: a study of that name exists.
        """

    @abstractmethod
    def get_study(self, name: str) -> StudySpec:
        """Return a study's spec.

        Raises:
            StudyNotFound: there is none of that name; the message lists those there are.
        """

    @abstractmethod
    def studies(self) -> list[StudySummary]:
        """Return all studies, oldest first."""

    @abstractmethod
    def summary(self, study: str) -> StudySummary:
        """Return one study at a glance.

        Raises:
            StudyNotFound: there is none of that name.
        """

    @abstractmethod
    def reserve_numbers(self, study: str, below: int) -> None:
        """Keep the numbers below `below` for trials that are added by number: `Sessions.create` gives later ones."""

    @abstractmethod
    def add_trials(self, study: str, trials: Sequence[Trial], *, owner: str | None = None) -> None:
        """Add new trials in bulk.

        Args:
            study: name of the study.
            trials: of that study.
            owner: who must hold the study's lease; None to add them whoever does.

        Raises:
            StorageError: a number is taken; then none of them is added.
            StudyBusy: `owner` has lost the lease.
        """

    @abstractmethod
    def write(self, study: str, results: Sequence[TrialResult], *, owner: str | None = None) -> None:
        """Bring trials of a study up to date, and add what they reported, in one transaction.

        The trials exist. A report of an epoch that is there already replaces it, so that writing twice is writing once.
        Their numbers and the versions of their spaces stay as they were added.

        Args:
            study: name of the study.
            results: at most one of each trial.
            owner: who must hold the study's lease; None to write whoever does.

        Raises:
            TrialNotFound: a trial does not exist; then none is written.
            StudyBusy: `owner` has lost the lease.
        """

    @abstractmethod
    def get_trial(self, study: str, number: int) -> Trial:
        """Return one trial.

        Raises:
            StudyNotFound, TrialNotFound
        """

    @abstractmethod
    def trials(
        self, study: str, *, where: str | None = None, sort: str | None = None, limit: int | None = None
    ) -> list[Trial]:
        """Return trials, filtered and sorted in the database.

        Args:
            study: name of the study.
            where: an expression over params, metrics and columns, as `val_accuracy > 0.9 and optimizer = 'adam'`.
            sort: a name to sort by, descending with a leading `-`; by number where absent. Trials without that value
                come last in both directions; ties are broken by number.
            limit: return at most so many.

        Raises:
            QueryError: the expression or the name to sort by is not valid.
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def pages(self, study: str, *, where: str | None = None, size: int = 10_000) -> Iterator[list[Trial]]:
        """Return trials in order of number, `size` at a time, so that a large study need not fit in memory.

        Each page is one transaction: a trial that is written meanwhile is in a later page, or not at all.

        Raises:
            QueryError: the expression is not valid, or `size` is below 1.
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def frame(
        self, study: str, *, where: str | None = None, sort: str | None = None, limit: int | None = None
    ) -> pd.DataFrame:
        """Return trials as a pandas frame, one row each, params and metrics as columns.

        A param or metric is named as in an expression: with `params.` or `metrics.` before it only where the name alone
        would be another column's too. Arguments and errors are those of `trials`.
        """

    @abstractmethod
    def frame_pages(self, study: str, *, where: str | None = None, size: int = 10_000) -> Iterator[pd.DataFrame]:
        """Return the same as `pages`, as frames; all have the columns that the study has when the first is read."""

    @abstractmethod
    def best_trial(self, study: str) -> Trial | None:
        """Return the COMPLETE trial with the best value (ties: smaller `val_loss`, then smaller number), or None."""

    @abstractmethod
    def reports(self, study: str, number: int) -> Reports:
        """Return all reports of one trial, in order of epoch."""

    @abstractmethod
    def reports_between(self, study: str, first: int, last: int) -> dict[int, Reports]:
        """Return all reports of the trials from number `first` to `last`, by number; trials without any are left out.

        All are read at once, which is many times as fast as one trial after the other.
        """

    @abstractmethod
    def add_space(self, study: str, space: Mapping[str, Any]) -> int:
        """Make another search space the study's; the earlier ones are kept.

        Returns:
            Its version, counted from 1.

        Raises:
            StudyNotFound: there is no such study.
            StudyBusy: a coordinator is sweeping it.
        """

    @abstractmethod
    def spaces(self, study: str) -> list[dict[str, Any]]:
        """Return the versions of a study's space, oldest first: version v is at place v - 1.

        Raises:
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def move_data(self, study: str, source: str, target: str | None) -> None:
        """Note where the data of a study lies now; it is the same, and so its fingerprint is.

        Raises:
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def move_trainable(self, study: str, trainable: TrainableSpec) -> None:
        """Note where the code is now that trains a study, and its text: the same, or no trial has come to anything yet.

        Raises:
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def rename_study(self, study: str, name: str, *, owner: str | None = None, remove_tags: Sequence[str] = ()) -> None:
        """Give a study another name; trials that name it as their parent's follow.

        Args:
            study: that is there.
            name: not taken.
            owner: of the study's lease, if it is held.
            remove_tags: taken from it in the same transaction.

        Raises:
            SettingsError: the name is not one that a study may have.
            StudyMismatch: another study has it.
            StudyNotFound: there is no such study.
            StudyBusy: a coordinator is sweeping it, or somebody babysits a trial of it.
        """

    @abstractmethod
    def delete_study(self, study: str) -> None:
        """Delete a study with all that belongs to it; checkpoints on disk stay where they are.

        Raises:
            StudyNotFound: there is no such study.
            StudyBusy: a coordinator is sweeping it, or somebody babysits a trial of it.
        """

    @abstractmethod
    def notes(self, study: str) -> StudyNotes:
        """Return note and tags of a study.

        Raises:
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def annotate(
        self, study: str, *, note: str | None = None, add_tags: Iterable[str] = (), remove_tags: Iterable[str] = ()
    ) -> StudyNotes:
        """Change note and tags of a study.

        Args:
            study: name of the study.
            note: replaces the note; an empty one removes it, None leaves it.
            add_tags: each a word of 1 to 100 characters.
            remove_tags: those that it does not have are ignored.

        Returns:
            What they are now.

        Raises:
            SettingsError: a tag is not valid.
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def acquire_lease(self, study: str, owner: str, ttl_s: float) -> None:
        """Become the one writer of a study for `ttl_s` seconds, or prolong that.

        A lease that has expired is taken over at once, and so is one whose holder is known to have died: `owner` says
        so where it is from :func:`caviar.storage.holder.new_holder`.

        Raises:
            StudyBusy: another owner holds it; the message says who, since when, and when it expires.
        """

    @abstractmethod
    def prolong_lease(self, study: str, owner: str, ttl_s: float) -> None:
        """Remain the one writer of a study for `ttl_s` seconds from now.

        A lease that has expired can be prolonged as long as nobody else has taken it.

        Raises:
            StudyBusy: `owner` does not hold it any more, even if nobody does: what another has written meanwhile must
                not be written over.
        """

    @abstractmethod
    def release_lease(self, study: str, owner: str) -> None:
        """Give up the lease; nothing happens where `owner` does not hold it."""

    @abstractmethod
    def close(self) -> None:
        """Release connections. The storage cannot be used afterwards."""
