"""Models of the user's own in both modes: the promises of the built-in network, to the bit."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from caviar.bootstrap import checkpoint_folder
from caviar.errors import RequestRejected, SettingsError, StudyMismatch, SweepBroken, TrainableError
from caviar.execution import planner
from caviar.opening import create_study, load_study
from caviar.panda.asking import ask
from caviar.panda.resting import branch_at_rest
from caviar.records import Intervention, Reason, Status, SweepProgress, Trial, TrialState
from caviar.space import Categorical, Float, SearchSpace
from caviar.storage import Storage
from caviar.study import Study
from caviar.testing.digest import study_digest as digest
from caviar.testing.panda import babysit_elsewhere, end, files, wait

SPACE = SearchSpace(learning_rate=Float(1e-3, 0.3, scale="log"), kind=Categorical("sgd", "momentum"), scale=1.0)
CODE = """
import time
import numpy as np

class Softmax:
    '''Softmax regression, with what a person may change and what not.'''

    def __init__(self, task):
        self.data, self.rate, self.kind = task.data, task.params["learning_rate"], task.params["kind"]
        self.w = task.params["scale"] * np.random.normal(size=(self.data.n_classes, self.data.n_features))
        self.velocity = np.zeros_like(self.w)

    def train_epoch(self, epoch):
        time.sleep(PAUSE)  # of the tests that have to meet it on its way
        x, y = self.data.train.x, self.data.train.y
        for batch in np.array_split(np.random.permutation(len(x)), 4):
            error = self.chances(x[batch])
            error[np.arange(len(batch)), y[batch]] -= 1
            kept = 0.9 * self.velocity if self.kind == "momentum" else 0
            self.velocity = kept - self.rate * error.T @ x[batch] / len(batch)
            self.w = self.w + self.velocity
        part = self.data.validation
        chances = self.chances(part.x)
        loss = -np.log(chances[np.arange(len(part.y)), part.y] + 1e-12).mean()
        return {"nll": loss if self.rate < 100 else np.nan, "top-1": (chances.argmax(1) == part.y).mean()}

    def chances(self, x):
        z = np.exp(np.clip(x @ self.w.T, -30, 30))
        return z / z.sum(1, keepdims=True)

    def set_params(self, learning_rate):
        if learning_rate < 0:
            raise ValueError("a learning rate is at least 0")
        self.rate = learning_rate

    def state_dict(self):
        return {"w": self.w, "velocity": self.velocity, "rate": self.rate}

    def load_state_dict(self, state):
        self.w, self.velocity, self.rate = state["w"], state["velocity"], state["rate"]
"""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "mine.py")


def write(path: Path, pause_s: float = 0.0) -> Path:
    path.write_text(CODE.replace("PAUSE", str(pause_s)))
    return path


def make_study(storage: Storage, file: Path, name: str = "s", **given: Any) -> Study:
    settings: dict[str, Any] = {"space": SPACE, "metric": "nll", "direction": "minimize", "data": "iris", "epochs": 6}
    return create_study(name, trainable=f"{file}:Softmax", storage=storage, seed=5, **(settings | given))


def run(study: Study, trial: Trial | int | None, **options: Any) -> Trial:
    """Babysit a trial to its end; return what became of it."""
    with study.panda(trial, **options) as panda:
        for _ in panda:
            pass
    return study.trials(where=f"number = {panda.trial.number}")[0]


def is_as_far(study: Study, epoch: int) -> bool:
    """Return whether the trial that is babysat has as many epochs."""
    return study.storage.get_trial(study.name, 1).epoch >= epoch


def begun_trials(study: Study) -> list[Trial]:
    """Return the trials that a sweep trains in slices, once the database knows of one."""
    deadline = time.monotonic() + 60
    while not (found := study.trials(where="state = 'RUNNING' and epoch > 0")):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)  # which leaves the database to the sweep
    return found


def curve(study: Study, trial: Trial | int) -> bytes:
    reports = study.reports(trial)
    assert reports.metrics == ("nll", "top-1")
    return reports.values.tobytes()


def test_a_sweep_is_the_same_in_one_go_and_in_slices(
    storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one worker or two, in this process or on Ray: what a slice ends with, the next goes on from."""
    whole = make_study(storage, file, "whole")
    whole.sweep(8, n_workers=0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)
    cut = make_study(storage, file, "cut")
    begun: list[Trial] = []
    cut.sweep(8, n_workers=0, on_progress=lambda progress: begun.extend(begun or begun_trials(cut)))
    on_ray = make_study(storage, file, "on ray")
    on_ray.sweep(8, n_workers=2)

    assert {digest(storage, name) for name in ("whole", "cut", "on ray")} == {digest(storage, "whole")}
    assert begun and 0 < begun[0].epoch < 6  # the curve of a trial is there while it is trained
    best = whole.best_trial
    assert best is not None and best.value is not None and best.value < 0.5


def test_pruned_trials_are_the_same_in_slices(storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are behind end where they would have."""
    make_study(storage, file, "whole", prune=True).sweep(30, n_workers=0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)
    make_study(storage, file, "cut", prune=True).sweep(30, n_workers=0)

    assert digest(storage, "whole") == digest(storage, "cut")
    assert storage.trials("cut", where="state = 'PRUNED'")


def test_a_trial_of_a_sweep_is_babysat(storage: Storage, file: Path) -> None:
    """It goes on to the bits that it would have come to in a longer sweep; steered, replayed and compared."""
    make_study(storage, file, "long", epochs=12).sweep(3, n_workers=0)
    study = make_study(storage, file)
    study.sweep(3, n_workers=0)

    child = run(study, 2, more_epochs=6)
    assert (child.state, child.epoch, child.parent) == (TrialState.COMPLETE, 12, "s/2")
    longer = load_study("long", storage=storage)
    assert curve(longer, 2) == curve(study, 2) + curve(study, child)

    told: list[str] = []
    with study.panda(2, until_stopped=True, on_event=told.append) as panda:
        for report in panda:
            if report.epoch == 9:
                panda.set(learning_rate=0.5)
            elif report.epoch == 12 and len(panda.interventions) == 1:
                panda.rollback(epoch=10, learning_rate=0.01)
            elif report.epoch == 14:
                made = panda.branch(epoch=11, learning_rate=0.2)
                panda.stop()
    steered = panda.trial.number
    assert study.replay(steered).is_identical
    assert study.replay(steered).n_checkpoints > 3
    comparisons = study.compare(steered)
    assert [c.has_helped(study.spec) for c in comparisons] != [None, None]
    assert comparisons[0].n_examples is None  # nobody knows what it is judged by
    assert run(study, made, more_epochs=2).params["learning_rate"] == 0.2
    assert any("learning_rate" in line and "-> 0.5" in line for line in told)


def test_what_may_be_changed_is_what_the_class_takes(storage: Storage, file: Path) -> None:
    """It refuses values itself; what is refused leaves all as it was."""
    study = make_study(storage, file)
    study.sweep(1, n_workers=0)

    with study.panda(0, more_epochs=2) as panda:
        for settings, words in (
            ({"kind": "sgd"}, "'kind' cannot be changed while a model is trained; learning_rate, epochs can"),
            ({"learning_rate": "fast"}, "learning_rate must be a number, found 'fast'"),
            ({"learning_rate": -1}, "ValueError: a learning rate is at least 0"),
            ({"batch_size": 3}, "'batch_size' cannot be changed"),
        ):
            with pytest.raises(RequestRejected, match=words):
                panda.set(**settings)
            with pytest.raises(RequestRejected, match=words):
                panda.branch(epoch=6, **settings)
        list(panda)
    assert [i.status for i in storage.sessions.interventions("s", panda.trial.number)] == [Status.REJECTED] * 8
    with pytest.raises(RequestRejected, match="a learning rate is at least 0"):
        study.panda(0, params={"learning_rate": -1})
    assert len(study.trials()) == 2
    assert study.replay(panda.trial.number).is_identical


def test_a_fresh_model_needs_its_params(storage: Storage, file: Path) -> None:
    """There are no defaults but what the space fixes."""
    study = make_study(storage, file)

    with pytest.raises(RequestRejected, match=r"a fresh model of mine.py:Softmax needs kind"):
        study.panda(params={"learning_rate": 1})
    with pytest.raises(RequestRejected, match=r"unknown param 'momentum' .known: kind, learning_rate, scale"):
        study.panda(params={"momentum": 1})
    trial = run(study, None, params={"learning_rate": 1, "kind": "sgd"})
    assert trial.params == {"learning_rate": 1.0, "kind": "sgd", "scale": 1.0}
    assert (trial.state, trial.epoch, type(trial.params["learning_rate"])) == (TrialState.COMPLETE, 6, float)


def test_a_running_trial_is_taken_from_its_sweep(storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the state that it has reached; the sweep goes on without it, and all come to the same."""
    make_study(storage, file, "plain").sweep(4, n_workers=0)
    monkeypatch.setattr(planner, "SLICE_S", 1e-9)
    study = make_study(storage, file)
    monkeypatch.setattr("caviar.handing_over._LOOK_S", 0.0)
    asked: list[Intervention] = []

    def take(progress: SweepProgress) -> None:
        if not asked:
            asked.append(Intervention(trial=begun_trials(study)[0].name, token="t", kind="take"))
            storage.sessions.ask(asked[0])

    study.sweep(4, n_workers=0, on_progress=take)
    (request,) = asked
    taken = storage.get_trial("s", request.number)
    assert taken.state is TrialState.RUNNING and 0 < taken.epoch < 6
    run(study, request.number)
    assert digest(storage, "s") == digest(storage, "plain")
    assert study.replay(request.number).is_identical


def test_a_run_that_is_killed_goes_on_to_the_same_bits(storage: Storage, tmp_path: Path) -> None:
    """With what was done to it: kill -9, twice, at any moment."""
    slow = write(tmp_path / "mine.py", 0.03)
    whole, killed = (make_study(storage, slow, name) for name in ("whole", "killed"))
    for study in (whole, killed):
        study.sweep(1, n_workers=0)

    with whole.panda(0, more_epochs=30) as panda:
        for report in panda:
            if report.epoch == 10:
                panda.set(learning_rate=0.4)

    elsewhere = babysit_elsewhere(killed, 0, more_epochs=30)
    wait(lambda: any(t.epoch >= 7 for t in killed.trials(where="number = 1")), elsewhere)
    asked = Intervention(trial="killed/1", token="set", kind="set", arguments={"learning_rate": 0.4})
    at = ask(storage, asked, timeout_s=60).epoch
    for _ in range(2):
        elsewhere.kill()
        elsewhere.join()
        further = storage.get_trial("killed", 1).epoch + 4
        elsewhere = babysit_elsewhere(killed, 1)
        wait(partial(is_as_far, killed, further), elsewhere)
    end(elsewhere)

    assert storage.get_trial("killed", 1).epoch == 36
    assert killed.replay(1).is_identical
    if at == 10:  # both were steered at the same epoch
        assert curve(killed, 1) == curve(whole, 1)
    assert at is not None
    with load_study("whole", storage=storage).panda(0, more_epochs=30) as again:
        for report in again:
            if report.epoch == at:
                again.set(learning_rate=0.4)
    assert curve(whole, 2) == curve(killed, 1)


def test_rules_babysit_by_the_metric_of_the_study(storage: Storage, file: Path) -> None:
    """They divide a learning rate where there is one to divide."""
    study = make_study(storage, file)
    study.sweep(1, n_workers=0)
    rules = {"diverged": {"action": "rollback", "factor": 1.5}, "plateau": {"epochs": 2}}

    with study.panda(0, more_epochs=20, rules=rules) as panda:
        for report in panda:
            if report.epoch == 8:
                panda.set(learning_rate=90.0)
    done = [(i.kind, i.author) for i in panda.interventions]
    assert ("rollback", "rule:diverged") in done or ("set", "rule:plateau") in done
    assert study.replay(panda.trial.number).is_identical
    with pytest.raises(SettingsError, match="metric of rule 'plateau' must be 'nll', or a loss or an accuracy"):
        study.panda(0, rules={"plateau": {"metric": "top-1"}})
    fixed = file.with_name("fixed.py")
    fixed.write_text(file.read_text().replace("def set_params", "def other"))
    with pytest.raises(
        SettingsError, match=r"rule 'diverged' divides 'learning_rate', which is no number that can be changed"
    ):
        make_study(storage, fixed, "t").panda(params={"learning_rate": 1, "kind": "sgd"}, rules=rules)


def test_a_run_that_diverges_ends_with_what_it_had(storage: Storage, file: Path) -> None:
    """By the study's metric, which became NaN."""
    study = make_study(storage, file)
    study.sweep(1, n_workers=0)

    with study.panda(0, more_epochs=5) as panda:
        next(panda)
        panda.set(learning_rate=1000.0)
        assert not list(panda)
    assert (panda.trial.state, panda.trial.reason, panda.trial.epoch) == (TrialState.FAIL, Reason.DIVERGED, 7)


def test_a_model_is_had_as_an_object_of_its_class(storage: Storage, file: Path) -> None:
    """Of a trial of a sweep or a babysat one, at its end or at an epoch on the way."""
    study = make_study(storage, file)
    study.sweep(3, n_workers=0)
    child = run(study, 1, more_epochs=3)

    best = study.best_trial
    assert best is not None
    asked: list[tuple[Trial | int, int | str | None]] = [
        (best, None),
        (1, 4),
        (child, None),
        (child, 8),
        (child, "best"),
    ]
    for trial, epoch in asked:
        model = study.own_model(trial, epoch=epoch)
        part = study.data.validation
        accuracy = (model.chances(part.x).argmax(1) == part.y).mean()
        reports = study.reports(trial)
        assert accuracy in reports.values[:, 1]
        assert type(model).__name__ == "Softmax"


def test_a_file_that_was_changed_is_not_gone_on_with(storage: Storage, file: Path) -> None:
    """Nor is a checkpoint folder that is lost the end of a run: it is trained again."""
    study = make_study(storage, file)
    study.sweep(1, n_workers=0)
    with study.panda(0, more_epochs=6) as panda:
        next(panda)
        panda.set(learning_rate=0.25)
        next(panda)
    before = curve(study, 1)
    for path in files(study):
        Path(path).unlink()
    told: list[str] = []
    run(study, 1, on_event=told.append)
    assert curve(study, 1)[: len(before)] == before
    assert any("it is trained again" in line for line in told)
    assert any(checkpoint_folder(storage).rglob("*.safetensors"))

    file.write_text(file.read_text().replace("0.9", "0.8"))
    for call in (lambda: study.panda(0), lambda: study.replay(1), study.own_model):
        with pytest.raises(TrainableError, match="has changed since study 's' was made"):
            call()


def test_other_metrics_may_be_what_they_are(storage: Storage, file: Path) -> None:
    """NaN, or a time: a trial is known again by the study's metric."""
    text = '"top-1": (chances.argmax(1) == part.y).mean(), "none": np.nan, "at": time.time()}'
    file.write_text(file.read_text().replace('"top-1": (chances.argmax(1) == part.y).mean()}', text))
    study = make_study(storage, file)
    study.sweep(2, n_workers=0)
    told: list[str] = []

    child = run(study, 1, more_epochs=2, on_event=told.append)
    assert study.replay(child).is_identical
    assert not any("WARNING" in line for line in told)
    assert type(study.own_model(0)).__name__ == "Softmax"


def test_a_param_may_have_any_name_and_kind(storage: Storage, file: Path) -> None:
    """A learning rate that is a text, choices of several kinds; what requests have a meaning for is refused."""
    names = "learning_rate, batch=None, rate=None"
    file.write_text(file.read_text().replace("def set_params(self, learning_rate)", f"def set_params(self, {names})"))
    text = file.read_text().replace('task.params["learning_rate"]', 'task.params["rate"]').replace("< 0", "== 0")
    file.write_text(text.replace("self.rate = learning_rate", "self.rate = rate or self.rate"))
    space = SearchSpace(
        learning_rate="constant", rate=Categorical(0, 0.1, 1), batch=Categorical(8, 16), scale=1.0, kind="sgd"
    )
    study = make_study(storage, file, space=space)
    study.sweep(3, n_workers=0)

    with study.panda(0, more_epochs=3) as panda:
        panda.set(rate=0.5)
        next(panda)
        panda.set(rate=1)
        with pytest.raises(RequestRejected, match=r"a rollback has batch of its own; set that once it has gone back"):
            panda.rollback(epoch=6, batch=16)
        with pytest.raises(RequestRejected, match=r"batch must be a whole number, found 8.5"):
            panda.set(batch=8.5)
        for value in (float("nan"), float("inf"), 10**400):
            with pytest.raises(RequestRejected, match="rate must be a number, found"):
                panda.set(rate=value)
        list(panda)
    assert study.replay(panda.trial.number).is_identical
    with pytest.raises(SettingsError, match=r"'epochs' is not the name of a param of fixed.py:Softmax"):
        make_study(storage, write(file.with_name("fixed.py")), "t", space=SearchSpace(epochs=Categorical(1, 2)))


def test_a_branch_at_rest_asks_the_model(storage: Storage, file: Path) -> None:
    """As one of a running trial does."""
    study = make_study(storage, file)
    study.sweep(1, n_workers=0)
    child = run(study, 0, more_epochs=2)

    for value, status in ((-1.0, Status.REJECTED), (0.5, Status.APPLIED)):
        arguments = {"to": "best", "learning_rate": value}
        asked = Intervention(trial=child.name, token=f"t{value}", kind="branch", arguments=arguments)
        root = checkpoint_folder(storage)
        answered = branch_at_rest(
            storage, study.spec, root, child, asked, lambda state, params: study.try_params(child, state, params)
        )
        assert answered.status is status
    (refused,) = (i for i in storage.sessions.interventions("s", 1) if i.status is Status.REJECTED)
    assert "a learning rate is at least 0" in (refused.message or "")
    assert len(study.trials()) == 3


def test_an_intervention_that_mended_a_run_is_compared(storage: Storage, file: Path) -> None:
    """Without it the run cannot be made, which is said in its place."""
    file.write_text(
        file.read_text().replace("        x, y =", "        assert epoch < 8 or self.rate > 1\n        x, y =")
    )
    study = make_study(storage, file)
    study.sweep(1, n_workers=0)

    with study.panda(0, more_epochs=3) as panda:
        next(panda)
        panda.set(learning_rate=1.5)
        list(panda)
    (comparison,) = study.compare(panda.trial.number)
    assert comparison.trouble == "training failed: AssertionError: "


def test_what_is_no_class_is_not_taken_from_its_sweep(storage: Storage, tmp_path: Path) -> None:
    """Also where the file does not tell: the trial stays where it can be trained."""
    (tmp_path / "lib.py").write_text("def train(task):\n    return {'nll': task.params['learning_rate']}\n")
    (tmp_path / "mine.py").write_text("from lib import train as Softmax\n")
    study = make_study(storage, tmp_path / "mine.py")
    study.sweep(2, n_workers=0)
    storage.add_trials("s", [replace(study.trials()[0], number=2, state=TrialState.WAITING, value=None, metrics={})])

    with pytest.raises(TrainableError, match=r"expected mine.py:Softmax to be a class with train_epoch"):
        study.panda(2)
    assert storage.sessions.get("s", 2) is None


def test_a_script_that_babysits_when_it_is_loaded_is_told(storage: Storage, tmp_path: Path, sqlite_url: str) -> None:
    """As one that sweeps: both belong below a main guard."""
    file = write(tmp_path / "mine.py")
    make_study(storage, file).sweep(1, n_workers=0)
    study = make_study(storage, file)
    file.write_text(file.read_text() + f"\nimport caviar\ncaviar.load_study('s', storage={sqlite_url!r}).panda(0)\n")

    with pytest.raises(StudyMismatch):
        make_study(storage, file)
    study = create_study("t", SPACE, trainable=f"{file}:Softmax", metric="nll", direction="minimize", storage=storage)
    with pytest.raises((TrainableError, SweepBroken), match=r"trains 's' whenever it is loaded|has changed since"):
        study.sweep(1, n_workers=0)


def test_mended_code_goes_on_where_nothing_came_of_it(storage: Storage, file: Path) -> None:
    """No trial says anything that later ones would be compared with; once one does, it is too late."""
    good = file.read_text()
    file.write_text(good.replace("np.zeros_like", "np.zeros_lik"))
    study = make_study(storage, file)
    with pytest.raises(SweepBroken):
        study.sweep(20, n_workers=0)
    n_failed = len(study.trials(where="state = 'FAIL'"))

    file.write_text(good)
    study = make_study(storage, file)
    study.sweep(20, n_workers=0)
    assert len(study.trials(where="state = 'COMPLETE'")) == 20 - n_failed
    file.write_text(good.replace("0.9", "0.8"))
    with pytest.raises(StudyMismatch, match="as it was before it was changed"):
        make_study(storage, file)


def test_code_that_is_no_model_ends_a_sweep_at_once(storage: Storage, file: Path) -> None:
    """It fails in each trial alike."""
    file.write_text(file.read_text().replace("def state_dict", "def states"))
    study = make_study(storage, file)

    with pytest.raises(
        SweepBroken, match=r"the first trial failed \(TrainableError: expected mine.py:Softmax, which has"
    ):
        study.sweep(20, n_workers=0)
    assert len(study.trials(where="state = 'FAIL'")) == 1
