"""The Storage seam: the trial database as the rest of caviar sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caviar.records import Reports, StudySpec, StudySummary, Trial, TrialResult

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StudyNotes:
    """What people wrote about a study."""

    #: Free text, or None.
    note: str | None = None
    #: Sorted, each once.
    tags: tuple[str, ...] = ()


class Storage(ABC):
    """The trial database.

    Promises:
        - Every method is one transaction: it happens whole or not at all, and is durable when it returns.
        - Records that come back are frozen and never change behind the caller's back.
        - Any number of readers may work while one writer writes; nobody sees half a transaction.
        - Database errors come out as `StorageError`, which names the operation and chains the cause.

    It does not promise that two writers of one study stay out of each other's way: hold the study's lease to write.
    """

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
    def add_trials(self, study: str, trials: Sequence[Trial]) -> None:
        """Add new trials in bulk.

        Raises:
            StorageError: a number is taken; then none of them is added.
        """

    @abstractmethod
    def write(self, study: str, results: Sequence[TrialResult]) -> None:
        """Bring trials of a study up to date, and add what they reported, in one transaction.

        The trials exist. A report of an epoch that is there already replaces it, so that writing twice is writing once.
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
    def best_trial(self, study: str) -> Trial | None:
        """Return the COMPLETE trial with the best value (ties: smaller `val_loss`, then smaller number), or None."""

    @abstractmethod
    def reports(self, study: str, number: int) -> Reports:
        """Return all reports of one trial, in order of epoch."""

    @abstractmethod
    def add_space(self, study: str, space: Mapping[str, Any]) -> int:
        """Make another search space the study's; the earlier ones are kept.

        Returns:
            Its version, counted from 1.

        Raises:
            StudyNotFound: there is no such study.
        """

    @abstractmethod
    def rename_study(self, study: str, name: str) -> None:
        """Give a study another name; trials that name it as their parent's follow.

        Raises:
            SettingsError: the name is not one that a study may have.
            StudyMismatch: another study has it.
            StudyNotFound: there is no such study.
            StudyBusy: a coordinator is sweeping it.
        """

    @abstractmethod
    def delete_study(self, study: str) -> None:
        """Delete a study with all that belongs to it; checkpoints on disk stay where they are.

        Raises:
            StudyNotFound: there is no such study.
            StudyBusy: a coordinator is sweeping it.
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

        A lease that has expired is taken over.

        Raises:
            StudyBusy: another owner holds it; the message says who, since when, and when it expires.
        """

    @abstractmethod
    def release_lease(self, study: str, owner: str) -> None:
        """Give up the lease; nothing happens where `owner` does not hold it."""

    @abstractmethod
    def close(self) -> None:
        """Release connections. The storage cannot be used afterwards."""
