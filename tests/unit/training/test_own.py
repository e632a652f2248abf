"""A class of models: each epoch is a function of the state before it, whatever else the class does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import ParamsError, TrainableError
from caviar.training.source import is_class_of_models, is_function, settable, trainable_spec
from caviar.training.state import OwnState
from caviar.training.task import Assignment
from caviar.training.trainable import model_in
from caviar.training.trainable import train as train_own

CODE = """
import random
import numpy as np

class Walk:
    made = []

    def __init__(self, task):
        self.rate, self.hidden = task.params["rate"], 0.0
        self.w = np.random.normal(size=3)
        self.told = []
        Walk.made.append(task)

    def train_epoch(self, epoch):
        self.hidden += random.random()
        self.w = self.w + self.rate * np.random.normal(size=3)
        return {"loss": float(np.sum(self.w ** 2)), "epoch": epoch, "hidden": self.hidden, "rate": self.rate}

    def set_params(self, rate):
        self.rate = rate

    def state_dict(self):
        return {"w": self.w, "rate": self.rate}

    def load_state_dict(self, state):
        self.w, self.rate = state["w"], state["rate"]
"""


def given(tmp_path: Path, code: str = CODE, name: str = "Walk", **changed: Any) -> Assignment:
    """Return trial 3 of the study of seed 7, trained by a class."""
    file = tmp_path / "mine.py"
    file.write_text(code)
    usual: dict[str, Any] = {"study": "s", "metric": "loss", "epochs": 6, "number": 3, "key": (7, 3), "data": None}
    return Assignment(spec=trainable_spec(f"{file}:{name}"), **({"params": {"rate": 0.5}} | usual | changed))


def train(given: Assignment, until: int, state: OwnState | None = None) -> tuple[list[dict[str, float]], OwnState]:
    """Return the reports up to an epoch, and the state there."""
    kept: list[OwnState] = []
    reports = list(train_own(given, until, state, kept.append))
    return reports, kept[0]


def test_in_one_go_and_in_parts_are_the_same_bits(tmp_path: Path) -> None:
    """Also of a class that keeps something outside of its state: no epoch sees what another left there."""
    whole, end = train(given(tmp_path), 6)
    parts: list[dict[str, float]] = []
    state: OwnState | None = None
    for until in (0, 1, 2, 5, 6):
        more, state = train(given(tmp_path), until, state)
        parts += more

    assert parts == whole
    assert state is not None and not state.differing(end) and state.point == end.point == (6, 0)
    assert [report["epoch"] for report in whole] == [1, 2, 3, 4, 5, 6]
    assert len({report["hidden"] for report in whole}) == 6  # other random numbers in each epoch
    assert max(report["hidden"] for report in whole) < 1
    assert [*train_own(given(tmp_path), 6)] == whole  # where nobody asks for the state


def test_a_trial_depends_on_its_key(tmp_path: Path) -> None:
    """A branch has the key of its parent, and another number."""
    reports, state = train(given(tmp_path), 2)

    assert train(given(tmp_path, key=(7, 4), number=4), 2)[0] != reports
    assert train(given(tmp_path, number=9), 3, state)[0] == train(given(tmp_path), 3, state)[0]


def test_params_are_told_when_they_change(tmp_path: Path) -> None:
    """Once, after the state was loaded, which would bring the old ones back; and they stay."""
    _, state = train(given(tmp_path), 2)

    reports, changed = train(given(tmp_path, params={"rate": 0.1}), 4, state)
    assert [report["rate"] for report in reports] == [0.1, 0.1]
    assert changed.params == {"rate": 0.1}
    assert [report["rate"] for report in train(given(tmp_path, params={"rate": 0.1}), 5, changed)[0]] == [0.1]
    _, tried = train(given(tmp_path, params={"rate": 0.1}), 2, state)
    assert tried.params == {"rate": 0.1} and tried.differing(state) == ["numbers and texts"]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("", "mine.py:Walk has no set_params, so that rate cannot be changed while it is trained"),
        ("def set_params(self, *, momentum, beta): pass", "rate cannot be changed while mine.py:Walk is trained; its"),
        ("def set_params(self): pass", "its set_params takes none"),
    ],
)
def test_what_a_class_does_not_take_cannot_be_changed(tmp_path: Path, method: str, words: str) -> None:
    """Rather than be changed in the record alone."""
    code = CODE.replace("def set_params(self, rate):\n        self.rate = rate", method)
    _, state = train(given(tmp_path, code), 1)

    with pytest.raises(ParamsError, match=words):
        train(given(tmp_path, code, params={"rate": 0.1}), 1, state)


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("**told", {"other": 2}),
        ("rate=None, other=None", {"rate": None, "other": 2}),
        ("rate, other=None", {"rate": 0.5, "other": 2}),
        ("other", {"other": 2}),
        ("*, other, rate=3, none=4", {"rate": 3, "other": 2, "none": 4}),
    ],
)
def test_a_class_is_told_what_has_changed(tmp_path: Path, signature: str, told: dict[str, Any]) -> None:
    """And what it cannot be called without, as it is: a schedule of its own is not set back."""
    names = "told" if signature == "**told" else "dict(" + ", ".join(f"{name}={name}" for name in told) + ")"
    code = CODE.replace(
        "def set_params(self, rate):\n        self.rate = rate",
        f"def set_params(self, {signature}):\n        self.told = {names}",
    )
    before, after = (given(tmp_path, code, params={"rate": 0.5, "other": other}) for other in (1, 2))
    _, state = train(before, 1)

    assert model_in(after, state).told == told
    assert model_in(before, state).told == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"loss": float(np.sum(self.w ** 2))', '"loss": self.hidden', "found loss "),  # which is in no state
        ("self.w, self.rate = state", 'self.w, self.rate = state["w"].round(), state["rate"]; state', "found loss "),
        ("self.w = self.w + ", 'self.k = getattr(self, "k", 0) + 1; self.w = self.w + self.k * ', "found loss "),
        (
            '"rate": self.rate}\n\n    def l',
            '"rate": self.rate, "h": np.array(self.hidden)}\n\n    def l',
            "found another 'h'",
        ),
    ],
)
def test_a_state_that_is_not_whole_is_found_out(tmp_path: Path, old: str, new: str, words: str) -> None:
    """In the first trials of a study: what is left out of it is lost with each epoch."""
    code = CODE.replace(old, new)

    with pytest.raises(TrainableError, match=f"mine.py:Walk to go on from its state_dict as without it, {words}"):
        train(given(tmp_path, code), 2)
    train(given(tmp_path, code, key=(7, 10), number=10), 2)


@pytest.mark.parametrize("now", ["hidden", "loss", "state"])
def test_a_time_is_no_sign_of_what_was_left_out(tmp_path: Path, now: str) -> None:
    """Among the metrics, as the study's own, or in a state: it differs each time."""
    time, old = "__import__('time').perf_counter()", {"hidden": "self.hidden,", "loss": "float(np.sum(self.w ** 2))"}
    code = CODE.replace('"rate": self.rate}\n\n    def l', f'"rate": self.rate, "t": {time}}}\n\n    def l')
    if now != "state":
        code = CODE.replace(f'"{now}": {old[now].rstrip(",")}', f'"{now}": {time}')

    assert len(train(given(tmp_path, code), 3)[0]) == 3


def test_what_is_kept_and_not_taken_back_is_found_out(tmp_path: Path) -> None:
    """Numbers, too, as the count of a schedule."""
    code = CODE.replace("self.told = []", "self.n = 0").replace("self.hidden += ", "self.n += 1; self.hidden += ")
    code = code.replace('"rate": self.rate}\n\n    def l', '"rate": self.rate, "n": self.n}\n\n    def l')

    with pytest.raises(TrainableError, match="found other numbers or texts in epoch 2"):
        train(given(tmp_path, code), 2)


def test_the_first_epoch_stays_where_the_second_raises(tmp_path: Path) -> None:
    """In the first trials as in the others, though these train it twice to see whether their state is whole."""
    code = CODE.replace("self.hidden += ", "assert epoch < 2; self.hidden += ")

    for number in (3, 12):
        reports = train_own(given(tmp_path, code, key=(7, number), number=number), 4)
        assert next(reports)["epoch"] == 1
        with pytest.raises(AssertionError):
            next(reports)


def test_a_class_that_does_not_train_is_told(tmp_path: Path) -> None:
    """With what it has, and what may be meant."""
    code = CODE.replace("train_epoch", "train_epochs")

    with pytest.raises(TrainableError, match=r"found made, train_epochs, set_params.*; is 'train_epochs' meant to be"):
        train(given(tmp_path, code), 1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def state_dict", "def states", "mine.py:Walk, which has train_epoch, to have state_dict, too"),
        ("def load_state_dict", "def load", "to have load_state_dict, too"),
        ('return {"loss": float(np.sum(self.w ** 2))', 'return {"cost": 1', "expected metric 'loss' among what"),
        ('"epoch": epoch', '"epoch" if epoch < 3 else "e": epoch', "the same metrics in each epoch, loss, epoch, hid"),
        ('return {"w": self.w', 'return {"w": {self.rate}', "state_dict of mine.py:Walk to give tensors.* set at 'w'"),
        ('return {"loss"', 'yield {"loss"', "to report numbers by name, as {'loss': 0.3}, found <generator object"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    """One line: what was expected, and what was found."""
    code = CODE.replace(old, new)

    with pytest.raises(TrainableError, match=words):
        train(given(tmp_path, code), 2)
        train(given(tmp_path, code), 3, train(given(tmp_path, code), 2)[1])


def test_metrics_stay_the_same_from_one_slice_to_the_next(tmp_path: Path) -> None:
    """Their names are in the state."""
    _, state = train(given(tmp_path), 2)
    other = given(tmp_path, CODE.replace('"hidden"', '"other"'))

    with pytest.raises(TrainableError, match="the same metrics in each epoch, loss, epoch, hidden, rate, found"):
        train(other, 3, state)


def test_a_function_has_no_state(tmp_path: Path) -> None:
    """It is not even called: it would train for nothing."""
    code = "def train(task): raise AssertionError\n"

    with pytest.raises(TrainableError, match="to be a class with train_epoch, state_dict and load_state_dict, found"):
        train(given(tmp_path, code, "train"), 2)


def test_a_model_is_had_in_a_state(tmp_path: Path) -> None:
    """To be used: an object of the class."""
    reports, state = train(given(tmp_path), 4)
    model = model_in(given(tmp_path), state)

    assert type(model).__name__ == "Walk"
    assert float(np.sum(model.w**2)) == reports[-1]["loss"]


@pytest.mark.parametrize(
    ("code", "knows", "is_one"),
    [
        ("def train_epoch(self): 0\n    def set_params(self, a, *, b=1): 0", ("a", "b"), True),
        ("def train_epoch(self): 0\n    def set_params(self, a, **rest): 0", None, True),
        ("def train_epoch(self): 0", (), True),
        ("pass", (), False),
        ("def train_epoch(self): 0\n    def set_params(self, a, /, b): 0", ("b",), True),
        ("def train_epoch(self): 0\n    set_params = print", None, True),
    ],
)
def test_the_file_tells_of_a_class_without_being_run(
    tmp_path: Path, code: str, knows: tuple[str, ...] | None, is_one: bool
) -> None:
    """What may be changed, and whether a trial is cut into slices."""
    file = tmp_path / "mine.py"
    file.write_text(f"raise SystemExit\nclass Net:\n    {code}\ndef train(): pass\nclass Child(Net): pass\n")
    spec = trainable_spec(f"{file}:Net")

    assert (settable(spec), is_class_of_models(spec), is_function(spec)) == (knows, is_one, False)
    child, function = trainable_spec(f"{file}:Child"), trainable_spec(f"{file}:train")
    assert (settable(child), is_class_of_models(child), is_function(child)) == (None, False, False)
    assert (settable(function), is_class_of_models(function), is_function(function)) == (None, False, True)
    file.write_text(file.read_text() + "Net = print(Net)\n")
    assert not is_class_of_models(trainable_spec(f"{file}:Net"))
