"""A trial of a running sweep is taken into panda mode: the sweep goes on without it, and all end as they would have."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import caviar
from caviar.errors import PandaBusy, RequestRejected, StorageUnreachable
from caviar.execution import planner
from caviar.records import Intervention, Status, SweepProgress, Trial, TrialState
from caviar.storage import Storage
from caviar.storage.exchange import export_study, import_study
from caviar.study import Study

EPOCHS = 12


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def long_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make slices so short that each trial takes one for each epoch."""
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)


def make_study(storage: Storage, name: str) -> Study:
    return caviar.create_study(name, data="iris", seed=3, epochs=EPOCHS, storage=storage)


def ask(storage: Storage, name: str) -> Intervention:
    return storage.sessions.ask(Intervention(trial=name, token=f"take {name}", kind="take"))


def bits(storage: Storage, trial: Trial) -> object:
    """Return all that must not depend on who trained a trial."""
    reports = storage.reports(trial.study, trial.number)
    metrics = {name: value for name, value in trial.metrics.items() if not name.startswith("test_")}
    return trial.params, trial.state, trial.value, trial.epoch, metrics, reports.first_epoch, reports.values.tobytes()


def wait_until(is_true: Callable[[], bool]) -> None:
    """Return once something has become true, which another thread sees to."""
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def asking_once(storage: Storage, where: str) -> Callable[[SweepProgress], None]:
    """Return an `on_progress` that waits until the database has such a trial, and asks for the first of them."""
    study: list[str] = []

    def on_progress(progress: SweepProgress) -> None:
        if study:
            return
        study.append(progress.study)
        wait_until(lambda: bool(storage.trials(progress.study, where=where)))
        ask(storage, storage.trials(progress.study, where=where)[0].name)

    return on_progress


@pytest.mark.usefixtures("long_trials")
def test_trials_trained_in_many_slices_end_as_in_one(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at each epoch or not at all, a trial has the same bits and its time is the sum."""
    cut = make_study(storage, "cut")
    cut.sweep(5, n_workers=0)
    monkeypatch.undo()
    whole = make_study(storage, "whole")
    whole.sweep(5, n_workers=0)

    assert [bits(storage, trial) for trial in cut.trials()] == [bits(storage, trial) for trial in whole.trials()]
    assert all(trial.seconds and trial.started_at and trial.finished_at for trial in cut.trials())


@pytest.mark.parametrize("number", [0, 5])
def test_a_trial_that_is_taken_and_left_alone_ends_as_it_would_have(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whether it is being trained or still waits, and the other trials do not notice."""
    whole = make_study(storage, "whole")
    whole.sweep(6, n_workers=0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    study = make_study(storage, "taken")
    # the longest trials go first: some of the six is being trained, the last waits

    result = study.sweep(6, n_workers=0, on_progress=asking_once(storage, f"number = {number}"))

    assert (result.progress.n_complete, result.progress.n_babysat) == (5, 1)
    assert study.summary().counts == {TrialState.COMPLETE: 5, study.trials()[number].state: 1}
    others = [bits(storage, trial) for trial in study.trials() if trial.number != number]
    assert others == [bits(storage, trial) for trial in whole.trials() if trial.number != number]
    with study.panda(number) as panda:
        epochs = [report.epoch for report in panda]
    assert epochs[-1] == EPOCHS
    assert bits(storage, study.trials()[number]) == bits(storage, whole.trials()[number])


@pytest.mark.usefixtures("long_trials")
def test_a_trial_is_handed_over_within_its_training(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that the sweep reached goes along: no epoch is trained twice."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    study = make_study(storage, "s")

    study.sweep(4, n_workers=0, on_progress=asking_once(storage, "state = 'RUNNING' and epoch > 0"))

    (taken,) = study.trials(where="state = 'RUNNING'")
    answer = storage.sessions.intervention("s", taken.number, f"take {taken.name}")
    assert answer is not None
    assert (answer.status, answer.epoch) == (Status.APPLIED, taken.epoch)
    assert 0 < taken.epoch < EPOCHS
    with study.panda(taken) as panda:
        assert next(panda).epoch == taken.epoch + 1


@pytest.mark.usefixtures("long_trials")
def test_without_room_for_its_checkpoint_a_trial_stays(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is rejected with the reason, and the sweep goes on as if nobody had asked."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "file" / "folder"))
    alone, study = make_study(storage, "alone"), make_study(storage, "s")
    alone.sweep(4, n_workers=0)

    study.sweep(4, n_workers=0, on_progress=asking_once(storage, "state = 'RUNNING' and epoch > 0"))

    (answer,) = (i for number in range(4) for i in storage.sessions.interventions("s", number))
    assert answer.status is Status.REJECTED
    assert "could not make the folder" in answer.message
    for number in range(4):
        assert bits(storage, storage.get_trial("s", number)) == bits(storage, storage.get_trial("alone", number))


@pytest.mark.usefixtures("long_trials")
def test_an_ended_trial_is_not_handed_over(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is rejected, and says why."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    study = make_study(storage, "s")

    study.sweep(2, n_workers=0)

    study.sweep(4, n_workers=0, on_progress=asking_once(storage, "state = 'COMPLETE'"))

    (answer,) = storage.sessions.interventions("s", 0)
    assert (answer.status, answer.message) == (Status.REJECTED, "this sweep does not train it")
    assert study.summary().counts == {TrialState.COMPLETE: 4}


@pytest.mark.usefixtures("long_trials")
@pytest.mark.parametrize("where", ["state = 'WAITING'", "state = 'RUNNING' and epoch > 0"])
def test_of_two_who_ask_for_a_trial_one_gets_it(storage: Storage, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The one that asked first, whether the trial waits or is being trained; the sweep goes on."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    study = make_study(storage, "s")
    asked: list[Intervention] = []

    def ask_twice(progress: SweepProgress) -> None:
        if not asked:
            wait_until(lambda: bool(storage.trials("s", where=where)))
            name = storage.trials("s", where=where)[-1].name
            asked.extend(storage.sessions.ask(Intervention(trial=name, token=t, kind="take")) for t in "ab")

    result = study.sweep(6, n_workers=0, on_progress=ask_twice)

    answers = [storage.sessions.intervention("s", asked[0].number, token) for token in "ab"]
    assert [answer and answer.status for answer in answers] == [Status.APPLIED, Status.REJECTED]
    assert answers[1] and answers[1].message == "somebody babysits it already"
    assert (result.progress.n_complete, result.progress.n_babysat) == (5, 1)


@pytest.mark.usefixtures("long_trials")
@pytest.mark.parametrize("is_told", [True, False])
def test_a_database_that_goes_away_in_the_middle_is_asked_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    """It may have been told of a trial that changed hands, or not: nobody trains one twice, and none is forgotten."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    alone, study = make_study(storage, "alone"), make_study(storage, "s")
    alone.sweep(5, n_workers=0)
    adopt, away = storage.sessions.adopt, []

    def adopt_and_break(trial: Trial, settings: dict[str, object], **more: object) -> None:
        if away or is_told:
            adopt(trial, settings, **more)
        if not away:
            away.append(trial.number)
            raise StorageUnreachable("the connection broke")

    monkeypatch.setattr(storage.sessions, "adopt", adopt_and_break)

    result = study.sweep(5, n_workers=0, on_progress=asking_once(storage, "state = 'RUNNING' and epoch > 0"))

    assert (result.progress.n_complete, result.progress.n_babysat) == (4, 1)
    assert [session.number for session in storage.sessions.all("s")] == away
    for number in {*range(5)} - {*away}:
        assert bits(storage, storage.get_trial("s", number)) == bits(storage, storage.get_trial("alone", number))
    with study.panda(away[0]) as panda:
        assert [report.epoch for report in panda][-1] == EPOCHS
    assert bits(storage, panda.trial) == bits(storage, storage.get_trial("alone", away[0]))


def test_while_it_is_not_known_who_has_a_trial_none_of_the_next_generation_begins(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that prunes ends the same trials at the same epochs, however long the database is away."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    alone, study = (
        caviar.create_study(name, data="iris", seed=3, epochs=EPOCHS, prune=True, storage=storage) for name in "as"
    )
    alone.sweep(40, n_workers=0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)
    get, asked, away = storage.sessions.get, [], []

    def adopt_in_vain(*_: object, **__: object) -> None:
        storage.sessions.withdraw(asked[0])
        raise StorageUnreachable("the connection broke")

    def get_later(name: str, number: int) -> object:
        away.append(sum(trial.state.is_finished for trial in storage.trials("s")))
        if sum(n_ended >= 15 for n_ended in away) < 4:  # all others of the first generation
            raise StorageUnreachable("the connection broke")
        return get(name, number)

    def ask_once(progress: SweepProgress) -> None:
        if not asked:
            wait_until(lambda: bool(storage.trials("s", where="state = 'WAITING'")))
            asked.append(ask(storage, storage.trials("s", where="state = 'WAITING'")[-1].name))

    monkeypatch.setattr(storage.sessions, "adopt", adopt_in_vain)
    monkeypatch.setattr(storage.sessions, "get", get_later)

    study.sweep(40, n_workers=0, on_progress=ask_once)

    assert away[-1] == 15
    assert [bits(storage, trial) for trial in study.trials()] == [bits(storage, trial) for trial in alone.trials()]


@pytest.mark.usefixtures("long_trials")
def test_an_answer_that_cannot_be_given_is_given_later(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away for a moment ends no sweep."""
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    study = make_study(storage, "s")
    study.sweep(2, n_workers=0)
    answer, n_tries = storage.sessions.answer, []

    def answer_the_second_time(intervention: Intervention, owner: str | None) -> None:
        n_tries.append(intervention.token)
        if len(n_tries) == 1:
            raise StorageUnreachable("the connection broke")
        answer(intervention, owner)

    monkeypatch.setattr(storage.sessions, "answer", answer_the_second_time)

    study.sweep(5, n_workers=0, on_progress=asking_once(storage, "state = 'COMPLETE'"))

    (told,) = storage.sessions.interventions("s", 0)
    assert (told.status, told.message) == (Status.REJECTED, "this sweep does not train it")
    assert study.summary().counts == {TrialState.COMPLETE: 5}


def test_a_sweep_leaves_babysat_trials_alone(storage: Storage) -> None:
    """A panda that nobody trains now is not trained by the next sweep, and its number is not used again."""
    study = make_study(storage, "s")
    study.sweep(3, n_workers=0)
    with study.panda(1, more_epochs=5) as panda:
        next(panda)

    study.sweep(6, n_workers=0)

    assert [trial.number for trial in study.trials()] == list(range(6))
    assert study.trials()[3] == panda.trial
    assert study.summary().counts == {TrialState.COMPLETE: 5, TrialState.RUNNING: 1}


def test_a_panda_born_during_a_sweep_takes_a_number_behind_it(storage: Storage) -> None:
    """The sweep's trials keep the numbers, and so the params, that they would have had."""
    whole, study = make_study(storage, "whole"), make_study(storage, "s")
    whole.sweep(8, n_workers=0)
    study.sweep(2, n_workers=0)
    born: list[int] = []

    def on_progress(progress: SweepProgress) -> None:
        if not born:
            with study.panda(params={"layers": 1}, epochs=1) as panda:
                born.append(panda.trial.number)

    study.sweep(8, n_workers=0, on_progress=on_progress)

    assert born == [8]
    assert [bits(storage, t) for t in study.trials()[:8]] == [bits(storage, t) for t in whole.trials()]


def waiting_study(storage: Storage) -> Study:
    """Return a study with a trial that waits for the sweep of another process."""
    study = make_study(storage, "s")
    params = {"learning_rate": 0.01, "hidden_units": 8}
    storage.add_trials("s", [Trial(study="s", number=0, state=TrialState.WAITING, params=params)])
    storage.acquire_lease("s", "another sweep", 60)
    return study


@pytest.mark.parametrize("wish", [{"params": {"foo": 1}}, {"epochs": 0}, {"params": {"epochs": 3}, "epochs": 4}])
def test_a_wish_that_is_not_valid_takes_nothing(storage: Storage, wish: dict[str, object]) -> None:
    """It is refused before the sweep is asked, which keeps the trial."""
    study = waiting_study(storage)

    with pytest.raises(RequestRejected):
        study.panda(0, **wish)

    assert storage.sessions.interventions("s", 0) == []


def test_who_stops_waiting_withdraws_the_request(storage: Storage) -> None:
    """Interrupted while the sweep has not answered, a panda leaves no request behind, and says so."""
    study, said = waiting_study(storage), []

    with pytest.raises(KeyboardInterrupt):
        study.panda(0, is_interrupted=lambda: True, on_event=said.append)

    (asked,) = storage.sessions.interventions("s", 0)
    assert (asked.status, asked.message) == (Status.REJECTED, "withdrawn")
    assert "withdrawn" in said[-1]
    with pytest.raises(PandaBusy, match="withdrawn"):  # a sweep that hands over at this very moment
        storage.sessions.adopt(storage.get_trial("s", 0), {}, answer=asked)
    assert storage.sessions.get("s", 0) is None


def test_a_sweep_gives_nothing_to_the_dead(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of a process that has been killed is refused, and the sweep trains all its trials."""
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)  # a trial a slice
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    study = make_study(storage, "s")
    code = "from caviar.storage.holder import new_holder; print(new_holder())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    asked: list[Intervention] = []

    def ask_of_the_dead(progress: SweepProgress) -> None:
        if not asked:
            wait_until(lambda: bool(storage.trials("s", where="state = 'WAITING'")))
            name = storage.trials("s", where="state = 'WAITING'")[-1].name
            asked.append(
                storage.sessions.ask(Intervention(trial=name, token="t", kind="take", arguments={"holder": dead}))
            )

    study.sweep(8, n_workers=0, on_progress=ask_of_the_dead)

    assert study.summary().counts == {TrialState.COMPLETE: 8}
    answer = storage.sessions.intervention("s", int(asked[0].trial.rpartition("/")[2]), "t")
    assert answer is not None
    assert (answer.status, answer.message) == (Status.REJECTED, "whoever asked for it has ended")


def test_an_imported_study_with_a_branch_goes_on_as_the_original(storage: Storage, tmp_path: Path) -> None:
    """Numbers that panda mode took stay taken, and what it steered is no trial of the space."""
    study = make_study(storage, "s")
    study.sweep(4, n_workers=0)
    with study.panda(0, more_epochs=1) as child:
        list(child)
    with study.panda(params={"layers": 1}, epochs=1) as fresh:
        list(fresh)
    export_study(storage, "s", tmp_path / "s.jsonl")
    import_study(storage, tmp_path / "s.jsonl", name="copy")
    copy = caviar.load_study("copy", storage=storage)

    for one in (study, copy):
        one.sweep(8, n_workers=0)
        one.retest(1, 1, n_workers=0)

    assert [trial.number for trial in study.trials()] == list(range(9))
    assert [bits(storage, trial) for trial in copy.trials()] == [bits(storage, trial) for trial in study.trials()]
