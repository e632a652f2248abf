"""Sweeps that end trials early: which ones, at which epoch, and the same however the sweep came about."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import SettingsError, StudyMismatch
from caviar.execution import planner
from caviar.execution.base import Executor
from caviar.opening import create_study, load_study
from caviar.records import Intervention, Reason, SweepProgress, Trial, TrialState
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.storage.exchange import export_study, import_study
from caviar.study import Study
from caviar.sweep import sweep
from caviar.testing.digest import study_digest as digest

SPACE = SearchSpace(
    learning_rate=Float(1e-3, 1.0, scale="log"),
    hidden_units=Int(4, 24),
    layers=Int(0, 2),
    batch_size=Categorical(16, 32),
    optimizer=Categorical("sgd", "momentum", "adam"),
)
#: Of so few values that many trials have the params of an earlier one.
SMALL = SearchSpace(
    learning_rate=Categorical(1e-4, 1e-3, 1e-2, 0.1), hidden_units=Int(4, 12), layers=1, optimizer="sgd"
)
EPOCHS, RUNGS = 20, (3, 7)
#: The generations begin with trials 0, 16 and 64.
N_TRIALS = 100


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: nothing of this is the database's."""
    return sqlite_url


def make_study(storage: Storage, name: str, *, prune: bool = True, **given: Any) -> Study:
    settings = {"space": SPACE, "data": "iris", "epochs": EPOCHS, "seed": 5} | given
    return create_study(name, prune=prune, storage=storage, **settings)


def curve(study: Study, number: int) -> np.ndarray:
    """Return a trial's metric of each epoch, the less the better."""
    reports = study.reports(number)
    if not len(reports):
        return np.empty(0)
    return study.spec.direction.sign * reports.values[:, reports.metrics.index(study.spec.metric)]


def expected_epochs(whole: Study, first: int = 0, beside: tuple[int, ...] = ()) -> dict[int, int]:
    """Work out from curves to the last epoch where each trial ends, by the definition; some are held against nobody."""
    numbers = [trial.number for trial in whole.trials() if trial.number >= first and trial.number not in beside]
    curves = {n: curve(whole, n) for n in numbers}
    ends: dict[int, int] = {}
    for number in numbers:
        start = max((s for s in (0, 16, 64, 256) if s <= number - first), default=0)
        before = [n for n in numbers if n < first + start]
        ends[number] = len(curves[number])
        for share, epoch in zip((3, 9), RUNGS, strict=True):
            there = sorted(curves[n][epoch - 1] for n in before if ends[n] >= epoch <= len(curves[n]))
            n_good = math.ceil(len(before) / share)
            is_judged = before and len(there) >= n_good and epoch <= len(curves[number])
            if is_judged and curves[number][epoch - 1] > there[n_good - 1]:
                ends[number] = epoch
                break
    return ends


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_a_trial_ends_where_it_is_behind(storage: Storage, metric: str) -> None:
    """At a third and a ninth of the epochs, behind the best third and ninth of earlier generations; else it goes on.

    What is trained of it has the bits of the study that prunes nothing, and so has the best trial.
    """
    whole, study = make_study(storage, "whole", prune=False, metric=metric), make_study(storage, "s", metric=metric)
    whole.sweep(N_TRIALS, n_workers=0)

    result = study.sweep(N_TRIALS, n_workers=0)

    ends = expected_epochs(whole)
    assert {trial.number: trial.epoch for trial in study.trials()} == ends
    assert set(ends.values()) >= {*RUNGS, EPOCHS} and sum(end < EPOCHS for end in ends.values()) > N_TRIALS / 2
    for trial in study.trials():
        ours, theirs = study.reports(trial.number), whole.reports(trial.number)
        assert np.array_equal(ours.values, theirs.values[: len(ours)])
        if trial.epoch < EPOCHS and trial.reason != Reason.DIVERGED:
            assert (trial.state, trial.reason, trial.value) == (TrialState.PRUNED, Reason.BEHIND, None)
            assert trial.metrics == ours.last
            assert trial.error is not None and trial.error.startswith(f"behind at epoch {trial.epoch}: {metric} ")
    progress = result.progress
    n_pruned = study.summary().counts[TrialState.PRUNED]
    assert (progress.n_pruned, progress.n_ended) == (n_pruned, N_TRIALS)
    assert study.best_trial is not None and whole.best_trial is not None
    assert study.best_trial.number == whole.best_trial.number


def test_trials_that_diverge_count_as_worse(storage: Storage) -> None:
    """Where fewer than a third get to a rung, whoever gets there goes on."""
    space = SearchSpace(learning_rate=Float(1e-2, 1e12, scale="log"), hidden_units=Int(4, 24), optimizer="sgd")
    whole = make_study(storage, "whole", prune=False, space=space)
    whole.sweep(N_TRIALS, n_workers=0)
    study = make_study(storage, "s", space=space)

    study.sweep(N_TRIALS, n_workers=0)

    assert whole.summary().counts[TrialState.FAIL] > N_TRIALS / 3
    assert {trial.number: trial.epoch for trial in study.trials()} == expected_epochs(whole)


def after(n_ended: int) -> tuple[Callable[[SweepProgress], None], Callable[[], bool]]:
    """Return what interrupts a sweep once so many of its trials have ended."""
    seen = [0]
    return lambda progress: seen.append(progress.n_ended_now), lambda: max(seen) >= n_ended


def test_interrupted_or_grown_it_ends_the_same_trials(storage: Storage) -> None:
    """Within a generation and at its end: the same bits as in one go."""
    straight, grown, broken = (make_study(storage, name) for name in ("straight", "grown", "broken"))
    straight.sweep(N_TRIALS, n_workers=0)

    for n_trials in (7, 16, 40, 64, N_TRIALS):
        grown.sweep(n_trials, n_workers=0)
    n_interrupted = 0
    while True:
        on_progress, is_interrupted = after(1)
        if not broken.sweep(N_TRIALS, n_workers=0, on_progress=on_progress, is_interrupted=is_interrupted).interrupted:
            break
        n_interrupted += 1

    assert n_interrupted > 3
    assert digest(storage, "grown") == digest(storage, "broken") == digest(storage, "straight")


def test_trials_in_parts_end_at_the_same_epochs(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that is trained an epoch at a time is judged like one that is trained in one go."""
    straight, parts = make_study(storage, "straight"), make_study(storage, "parts")
    straight.sweep(40, n_workers=0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)

    parts.sweep(40, n_workers=0)

    assert digest(storage, "parts") == digest(storage, "straight")


@pytest.mark.ray
def test_two_workers_end_the_same_trials(storage: Storage, ray_executor: Executor) -> None:
    """Which of them is faster changes nothing."""
    here, there = make_study(storage, "here"), make_study(storage, "there")
    here.sweep(N_TRIALS, n_workers=0)

    sweep(storage, there.spec, there.data, ray_executor, N_TRIALS)

    assert digest(storage, "there") == digest(storage, "here")


def test_repeats_are_trained_to_the_end_and_set_no_bar(storage: Storage) -> None:
    """Whoever trains them: a retest, or a sweep that finds them; and what is drawn later is not held against them."""
    study, whole = make_study(storage, "s"), make_study(storage, "whole", prune=False)
    study.sweep(40, n_workers=0)
    on_progress, is_interrupted = after(1)
    study.retest(4, 4, n_workers=0, on_progress=on_progress, is_interrupted=is_interrupted)
    left = [trial.number for trial in study.trials(where="state = 'WAITING'")]
    assert left

    study.sweep(N_TRIALS, n_workers=0)

    repeats = tuple(range(40, 56))
    assert {trial.state for trial in study.trials(where="number >= 40 and number < 56")} == {TrialState.COMPLETE}
    whole.sweep(N_TRIALS, n_workers=0)
    ends = expected_epochs(whole, beside=repeats)
    assert {t.number: t.epoch for t in study.trials() if t.number not in repeats} == ends


def test_a_trial_of_panda_mode_is_left_alone_and_sets_no_bar(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was babysat from its number on is none of those that others are held against."""
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path))
    study, whole = make_study(storage, "s"), make_study(storage, "whole", prune=False)
    study.sweep(10, n_workers=0)
    with study.panda(params={"learning_rate": 0.02}, epochs=2) as panda:
        list(panda)
    assert panda.trial.number == 10

    study.sweep(N_TRIALS, n_workers=0)

    whole.sweep(N_TRIALS, n_workers=0)
    ends = expected_epochs(whole, beside=(10,))
    assert {t.number: t.epoch for t in study.trials() if t.number != 10} == ends


@pytest.mark.parametrize(("number", "space"), [(0, SPACE), (5, SPACE), (0, SMALL)])
def test_a_trial_that_was_taken_is_left_out_before_and_after_an_interruption(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, space: SearchSpace
) -> None:
    """Also where it is the first one of all, from whose number on generations are counted."""
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)
    studies = [make_study(storage, name, space=space) for name in ("straight", "broken")]
    for study in studies:
        count, is_interrupted = after(20)

        def look(progress: SweepProgress, count: Callable[[SweepProgress], None] = count) -> None:
            deadline = time.monotonic() + 60
            while not storage.trials(progress.study, where=f"number = {number}"):
                assert time.monotonic() < deadline, "no trial was written"
                time.sleep(0.01)
            name = f"{progress.study}/{number}"  # asking twice with one token is asking once
            storage.sessions.ask(Intervention(trial=name, token=f"take {name}", kind="take"))
            count(progress)

        if study.name == "broken":
            assert study.sweep(N_TRIALS, n_workers=0, on_progress=look, is_interrupted=is_interrupted).interrupted
        study.sweep(N_TRIALS, n_workers=0, on_progress=look)
        assert [session.number for session in storage.sessions.all(study.name)] == [number]

    bits = [[(t.number, t.state, t.epoch, t.metrics.get("val_loss")) for t in study.trials()] for study in studies]
    assert [row for row in bits[0] if row[0] != number] == [row for row in bits[1] if row[0] != number]


def test_trials_that_were_planned_too_early_wait_for_those_before(storage: Storage) -> None:
    """A database in which trials of several generations wait gives the study that one sweep gives."""
    straight, planned = make_study(storage, "straight"), make_study(storage, "planned")
    straight.sweep(N_TRIALS, n_workers=0)
    waiting = [
        Trial(study="planned", number=trial.number, state=TrialState.WAITING, params=trial.params)
        for trial in straight.trials()
    ]
    storage.add_trials("planned", waiting)

    planned.sweep(N_TRIALS, n_workers=0)

    assert digest(storage, "planned") == digest(storage, "straight")


def test_what_has_ended_is_written_before_what_comes_next(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the coordinator dies, no trial of a generation is there while one before it has not ended."""
    study, seen = make_study(storage, "s"), []
    add = storage.add_trials

    def look(name: str, trials: Any, **given: Any) -> None:
        open_ones = [trial.number for trial in study.trials(where="state = 'WAITING'")]
        seen.append((trials[0].number, open_ones))
        add(name, trials, **given)

    monkeypatch.setattr(storage, "add_trials", look)
    study.sweep(N_TRIALS, n_workers=0)

    firsts = {first: open_ones for first, open_ones in seen if first in (16, 64)}
    assert firsts == {16: [], 64: []}


def test_params_that_come_again_are_trained_to_the_end(storage: Storage) -> None:
    """In a space of few values most trials are repeats; whether a sweep or a retest trains one changes nothing."""
    studies = [make_study(storage, name, space=SMALL) for name in ("straight", "broken")]
    for study in studies:
        study.sweep(N_TRIALS, n_workers=0)
        on_progress, is_interrupted = after(1)
        stops = is_interrupted if study.name == "broken" else lambda: False
        study.retest(2, 30, n_workers=0, on_progress=on_progress, is_interrupted=stops)
        study.sweep(N_TRIALS + 80, n_workers=0)

    assert digest(storage, "broken") == digest(storage, "straight")
    seen: set[Any] = set()
    for trial in studies[0].trials():
        key = tuple(sorted(trial.params.items()))
        assert trial.state is TrialState.COMPLETE or key not in seen
        seen.add(key)
    for found in studies[0].retest(2, 30, n_workers=0):
        assert len(found.values) == len(found.repeats) >= 30


def test_an_exported_study_goes_on_where_it_has_its_reports(storage: Storage, tmp_path: Path) -> None:
    """From JSONL it ends as the original does; from CSV, which has none, it is refused in one line."""
    study = make_study(storage, "s")
    study.sweep(40, n_workers=0)
    for kind in ("jsonl", "csv"):
        export_study(storage, "s", tmp_path / f"s.{kind}")
        import_study(storage, tmp_path / f"s.{kind}", name=kind)
    study.sweep(N_TRIALS, n_workers=0)

    load_study("jsonl", storage=storage).sweep(N_TRIALS, n_workers=0)

    assert digest(storage, "jsonl") == digest(storage, "s")
    with pytest.raises(SettingsError, match=r"^study 'csv' ends trials early by .*, and csv/0 has no reports, as "):
        load_study("csv", storage=storage).sweep(N_TRIALS, n_workers=0)
    assert load_study("csv", storage=storage).sweep(40, n_workers=0).progress.n_ended == 40


def test_a_pruned_trial_can_be_babysat(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new trial goes on from the epoch at which it ended, as the study that prunes nothing does."""
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path))
    study, whole = make_study(storage, "s"), make_study(storage, "whole", prune=False)
    study.sweep(30, n_workers=0)
    pruned = study.trials(where="state = 'PRUNED' and epoch = 3", limit=1)[0]
    whole.sweep(30, n_workers=0)

    with study.panda(pruned, epochs=EPOCHS) as panda:
        reports = [[report.metrics["train_loss"]] for report in panda]

    assert (panda.trial.parent, panda.trial.parent_epoch) == (pruned.name, 3)
    assert np.array_equal(reports, whole.reports(pruned.number).values[3:, :1])
    assert study.storage.get_trial("s", pruned.number) == pruned


def test_a_new_space_begins_with_a_generation_of_its_own(storage: Storage) -> None:
    """Its trials are held against each other; those of the old one that were left are held against theirs."""
    old = SPACE.to_dict()
    finer = SearchSpace.from_dict({**old, "learning_rate": {**old["learning_rate"], "low": 0.05}})
    straight, study, whole = (make_study(storage, name, prune=name != "whole") for name in ("straight", "s", "whole"))
    straight.sweep(70, n_workers=0)
    whole.sweep(70, n_workers=0)
    on_progress, is_interrupted = after(64)
    study.sweep(70, n_workers=0, on_progress=on_progress, is_interrupted=is_interrupted)
    assert study.trials(where="number >= 64 and state = 'WAITING'")

    for one in (study, whole, straight):
        make_study(storage, one.name, space=finer, new_space=True, prune=one is not whole)
        one.sweep(110, n_workers=0)

    assert digest(storage, "s") == digest(storage, "straight")
    ends = {trial.number: trial.epoch for trial in study.trials(where="space_version = 2")}
    assert ends == expected_epochs(whole, first=70)
    assert set(ends) == set(range(70, 110)) and all(ends[n] == EPOCHS for n in range(70, 86))


def test_a_study_stays_with_what_it_began_with(storage: Storage) -> None:
    """It goes on pruning unasked, refuses to begin or to end with it, and says so of too few epochs."""
    study, other = make_study(storage, "s"), make_study(storage, "other", prune=False)
    assert load_study("s", storage=storage).spec.prune and not other.spec.prune
    assert create_study("s", storage=storage).spec == study.spec

    with pytest.raises(StudyMismatch, match="prune = True, not False"):
        make_study(storage, "s", prune=False)
    with pytest.raises(StudyMismatch, match="prune = False, not True"):
        make_study(storage, "other")
    with pytest.raises(
        SettingsError, match=r"^prune needs at least 4 epochs, to judge trials before the last, found 3$"
    ):
        make_study(storage, "few", epochs=3)
    assert make_study(storage, "enough", epochs=4).spec.prune


def test_a_space_is_refined_where_its_trials_are_pruned(storage: Storage) -> None:
    """Those that were behind count as trials that are none of the best."""
    study = make_study(storage, "s")
    study.sweep(200, n_workers=0)
    counts = study.summary().counts

    found = study.refine(keep=False)

    assert (found.n_trials, found.n_pruned) == (200, counts[TrialState.PRUNED])
    assert found.n_best == math.isqrt(counts[TrialState.COMPLETE])
    assert found.is_narrower
