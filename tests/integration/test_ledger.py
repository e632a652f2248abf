"""What a sweep notes about where its time went."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caviar.ledger import ACCOUNTS
from caviar.opening import create_study
from caviar.records import SweepProgress
from caviar.storage import Storage, open_storage
from caviar.study import Study


@pytest.fixture
def study(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A small study without trials."""
    monkeypatch.setenv("CAVIAR_KERNEL", "numpy")
    storage: Storage = open_storage(sqlite_url)
    yield create_study("iris", epochs=3, storage=storage)
    storage.close()


def test_each_run_of_a_sweep_has_its_ledger(study: Study) -> None:
    """Trials are counted, and the parts add up to what workers had."""
    study.sweep(8, n_workers=0)
    study.sweep(12, n_workers=0)

    first, second = study.storage.ledgers.all("iris")
    assert (first.n_ended, second.n_ended) == (8, 4)
    for run in (first, second):
        assert run.finished_at is not None and run.finished_at > run.started_at
        assert (run.n_workers, tuple(run.ledger)) == (1, ACCOUNTS)
        parts = run.ledger["train"] + run.ledger["dispatch"] + run.ledger["idle"]
        assert parts == pytest.approx(run.ledger["workers"], abs=0.01)
        assert 0 < run.ledger["train"] <= run.ledger["workers"] + 0.01
        assert run.ledger["workers"] <= (run.finished_at - run.started_at).total_seconds() + 0.01
    trained = sum(trial.seconds or 0.0 for trial in study.trials())
    assert first.ledger["train"] + second.ledger["train"] == pytest.approx(trained, abs=0.01)


def test_a_sweep_with_nothing_to_do_leaves_no_ledger(study: Study) -> None:
    """The same command again changes nothing in the database."""
    study.sweep(4, n_workers=0)

    study.sweep(4, n_workers=0)

    assert len(study.storage.ledgers.all("iris")) == 1


def test_an_interrupted_sweep_has_a_ledger(study: Study) -> None:
    """It says how many trials ended before."""
    asked = iter([False, False])
    study.sweep(200, n_workers=0, is_interrupted=lambda: next(asked, True))

    (run,) = study.storage.ledgers.all("iris")
    assert run.finished_at is not None
    assert run.n_ended == sum(trial.state.is_finished for trial in study.trials())


def test_a_sweep_that_ends_by_an_error_counts_its_last_stretch(study: Study) -> None:
    """What was trained is a part of what workers had, however the sweep ended."""

    def fail(progress: SweepProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.sweep(200, n_workers=0, on_progress=fail)

    (run,) = study.storage.ledgers.all("iris")
    assert 0 < run.ledger["train"] <= run.ledger["workers"] + 0.01
