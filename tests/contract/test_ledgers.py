"""The runs of coordinators in the database, over SQLite and Postgres."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caviar.errors import StudyNotFound
from caviar.records import DataSpec, StudySpec, SweepRun
from caviar.storage import Storage

STARTED = datetime(2024, 2, 29, 12, 30, 1, 250, UTC)


@pytest.fixture
def study(storage: Storage) -> str:
    """The name of a study without runs."""
    return storage.create_study(StudySpec(name="s", data=DataSpec(source="iris", fingerprint="f"), space={})).name


def test_a_run_that_begins_is_there(storage: Storage, study: str) -> None:
    """Until it ends it has an owner and a start, and nothing else."""
    storage.ledgers.begin(study, "me", STARTED)

    assert storage.ledgers.all(study) == [SweepRun(owner="me", started_at=STARTED)]


def test_runs_come_back_as_they_were_put_oldest_first(storage: Storage, study: str) -> None:
    """Each keeps its own ledger; putting again replaces it."""
    first, second = (storage.ledgers.begin(study, owner, STARTED) for owner in ("a", "b"))
    runs = [
        SweepRun(
            owner=owner,
            started_at=STARTED,
            finished_at=STARTED + timedelta(seconds=n),
            n_workers=n,
            n_ended=10**10 + n,
            ledger={"train": 0.1 + n, "é": -1e300},
        )
        for n, owner in enumerate("ab", start=1)
    ]

    storage.ledgers.put(first, SweepRun(owner="a", started_at=STARTED, n_ended=3))
    for id, run in zip((first, second), runs, strict=True):
        storage.ledgers.put(id, run)

    assert storage.ledgers.all(study) == runs


def test_runs_belong_to_their_study(storage: Storage, study: str) -> None:
    """Another study has its own, they follow a rename, and go with the study."""
    storage.create_study(StudySpec(name="t", data=DataSpec(source="iris", fingerprint="f"), space={}))
    storage.ledgers.begin(study, "me", STARTED)

    assert storage.ledgers.all("t") == []
    storage.rename_study(study, "u")
    assert len(storage.ledgers.all("u")) == 1
    storage.delete_study("u")
    with pytest.raises(StudyNotFound):
        storage.ledgers.all("u")


def test_a_study_that_is_not_there_has_no_runs(storage: Storage) -> None:
    """Nothing can be begun either."""
    with pytest.raises(StudyNotFound):
        storage.ledgers.begin("none", "me", STARTED)
