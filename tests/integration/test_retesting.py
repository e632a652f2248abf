"""The best trials once more: `Study.retest`."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import caviar.study
from caviar.errors import SettingsError, StudyBusy, TrialNotFound
from caviar.execution.base import Executor
from caviar.opening import create_study, load_study
from caviar.records import SweepProgress, Trial, TrialState
from caviar.space import Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.study import Study
from caviar.testing.digest import study_digest

SPACE = SearchSpace(learning_rate=Float(1e-4, 1.0, scale="log"), hidden_units=Int(4, 16), layers=1)


def swept(storage: Storage, name: str = "s", n_trials: int = 12, **settings: str) -> Study:
    study = create_study(name, SPACE, data="iris", epochs=2, storage=storage, **settings)
    study.sweep(n_trials, n_workers=0)
    return study


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_are_trained_again(storage: Storage, metric: str) -> None:
    """As new trials with their params and other bits; they come back by the mean of the new values."""
    study = swept(storage, metric=metric)
    descending = "-" if metric == "val_accuracy" else ""
    best = sorted(study.trials(), key=study.spec.rank)[:3]
    assert best[0].value == study.trials(sort=f"{descending}value", limit=1)[0].value

    found = study.retest(3, 4, n_workers=0)

    assert {one.trial.number for one in found} == {trial.number for trial in best}
    assert sorted(t.number for one in found for t in one.repeats) == list(range(12, 24))
    for one in found:
        assert [t.params for t in one.repeats] == [one.trial.params] * 4
        assert all(t.state is TrialState.COMPLETE and t.parent is None for t in one.repeats)
        assert one.mean == statistics.fmean(t.value for t in one.repeats)
        losses = [study.reports(t.number).values[:, 1].tolist() for t in (one.trial, *one.repeats)]
        assert len({tuple(loss) for loss in losses}) == 5
    means = [study.spec.direction.sign * one.mean for one in found]
    assert means == sorted(means)


def test_again_nothing_happens_and_more_times_go_on(storage: Storage) -> None:
    """The number of repeats is exact; a sweep goes on with the numbers behind them, and draws what it would have."""
    study = swept(storage)
    first = study.retest(2, 2, n_workers=0)

    assert study.retest(2, 2, n_workers=0) == first
    more = study.retest(2, 3, n_workers=0)

    assert [len(one.repeats) for one in more] == [3, 3]
    study.sweep(20, n_workers=0)
    straight = swept(storage, "t", 20)
    assert [t.params for t in study.trials(where="number >= 18")] == [
        t.params for t in straight.trials(where="number >= 18")
    ]


def test_repeats_are_the_same_bits_on_one_worker_or_after_an_interruption(storage: Storage) -> None:
    """Interrupted after the first of them: called again, it trains the rest, and no others."""
    straight, broken = swept(storage, "straight"), swept(storage, "broken")
    straight.retest(3, 3, n_workers=0)
    ended: list[int] = []

    def look(progress: SweepProgress) -> None:
        ended.append(progress.n_ended_now)

    broken.retest(3, 3, n_workers=0, on_progress=look, is_interrupted=lambda: bool(ended and ended[-1]))

    assert 0 < ended[-1] < 9
    broken.retest(3, 3, n_workers=0)
    assert study_digest(storage, "broken") == study_digest(storage, "straight")
    assert broken.summary().n_trials == 21


def test_repeats_and_babysat_trials_are_neither_tested_again_nor_refined_by(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were not drawn: the same params count once, with the value of the first."""
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path))
    study = swept(storage, n_trials=30)
    before = study.refine(keep=False)
    best = [one.trial.number for one in study.retest(4, 6, n_workers=0)]
    with study.panda(best[0], more_epochs=3) as panda:
        list(panda)
    with study.panda(params=dict(study.trials(where=f"number = {best[0]}")[0].params), epochs=1) as panda:
        list(panda)

    again = study.retest(4, 6, n_workers=0)

    assert [one.trial.number for one in again] == best
    assert [len(one.repeats) for one in again] == [6] * 4
    assert study.refine(keep=False) == before


def test_a_repeat_that_fails_is_counted(storage: Storage) -> None:
    """It has no value; params that failed come after those that never did, however good their other values are."""
    study = swept(storage)
    best = sorted(study.trials(), key=study.spec.rank)[:3]
    failed = [
        Trial(study="s", number=12 + place, state=TrialState.FAIL, params=trial.params, reason="diverged")
        for place, trial in enumerate((best[0], best[0], best[1]))
    ]
    storage.add_trials("s", failed)

    found = study.retest(3, 2, n_workers=0)

    assert [(one.trial.number, one.n_failed, len(one.values)) for one in found] == [
        (best[2].number, 0, 2),
        (best[1].number, 1, 1),
        (best[0].number, 2, 0),
    ]
    assert found[2].mean is None


def test_what_another_sweep_left_stays_and_so_do_repeats_that_are_not_asked_for(storage: Storage) -> None:
    """Interrupted sweeps and retests leave trials that wait; each call trains its own, and again nothing."""
    study = swept(storage)
    ended: list[int] = []
    study.sweep(
        300,
        n_workers=0,
        on_progress=lambda progress: ended.append(progress.n_ended_now),
        is_interrupted=lambda: bool(ended and ended[-1]),
    )
    counts = study.summary().counts
    assert counts[TrialState.WAITING] > 10
    study.retest(3, 50, n_workers=0, is_interrupted=lambda: True)
    waiting = study.summary().counts[TrialState.WAITING]
    assert waiting == counts[TrialState.WAITING] + 150

    found = study.retest(2, 2, n_workers=0)

    assert [len(one.values) for one in found] == [2, 2]
    assert study.summary().counts[TrialState.WAITING] == waiting - 4
    assert study.retest(2, 2, n_workers=0) == found
    assert study.summary().counts[TrialState.WAITING] == waiting - 4


def test_two_retests_at_once_train_each_repeat_once(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends while the other starts its workers has done what the other thought to be missing."""
    study = swept(storage)
    make = caviar.study.make_sweep_executor

    def late(address: str | None, n_workers: int | None) -> Executor:
        monkeypatch.setattr(caviar.study, "make_sweep_executor", make)
        load_study("s", storage=storage).retest(2, 3, n_workers=0)
        return make(address, n_workers)

    monkeypatch.setattr(caviar.study, "make_sweep_executor", late)

    found = study.retest(2, 3, n_workers=0)

    assert [len(one.values) for one in found] == [3, 3]
    assert study.summary().n_trials == 18


def test_a_babysat_trial_that_comes_meanwhile_takes_a_later_number(storage: Storage) -> None:
    """Also where an earlier one lies among the numbers that a sweep, or a retest, goes on with."""
    study = swept(storage)
    untrained = Trial(study="s", number=0, state=TrialState.WAITING, params={"layers": 1})
    assert storage.sessions.create(untrained, {}).number == 12
    taken: list[int] = []

    def babysit(progress: SweepProgress) -> None:
        if not taken:
            taken.append(storage.sessions.create(untrained, {}).number)

    study.retest(3, 2, n_workers=0, on_progress=babysit)
    assert taken == [19]
    taken.clear()
    study.sweep(60, n_workers=0, on_progress=babysit)

    assert taken == [60]
    left = [trial.number for trial in study.trials() if not trial.state.is_finished]
    assert (left, study.summary().n_trials) == ([12, 19, 60], 61)


def test_repeats_are_of_the_space_that_their_trial_was_drawn_from(storage: Storage) -> None:
    """Whatever it is by now; trials to come are drawn from the one in force."""
    study = swept(storage)
    create_study("s", SearchSpace(**dict(SPACE) | {"layers": 2}), new_space=True, storage=storage)

    found = study.retest(2, 2, n_workers=0)
    study.sweep(18, n_workers=0)

    assert [t.space_version for one in found for t in one.repeats] == [1] * 4
    assert [t.space_version for t in study.trials(where="number >= 16")] == [2, 2]


def test_what_cannot_be_tested_again_is_refused(storage: Storage) -> None:
    """No trial, numbers below one, and a study that another coordinator sweeps."""
    study = create_study("s", SPACE, data="iris", epochs=1, storage=storage)
    with pytest.raises(TrialNotFound, match=r"^study 's' has no COMPLETE trial that a sweep trained, "):
        study.retest()
    study.sweep(2, n_workers=0)
    for numbers in ((0, 1), (1, 0)):
        with pytest.raises(SettingsError, match=r"(best|times) must be at least 1, found 0"):
            study.retest(*numbers)
    with pytest.raises(SettingsError, match=r"best must be a whole number, found 2\.5"):
        study.retest(2.5)
    with pytest.raises(SettingsError, match="workers must be at least 0"):
        study.retest(n_workers=-1)
    storage.acquire_lease("s", "other", 60)
    with pytest.raises(StudyBusy):
        study.retest(1, 1, n_workers=0)
    assert study.summary().n_trials == 2
