"""What a user's function is given, what it may report, and that trials do not depend on one another."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import TrainableError
from caviar.records import TrainableSpec
from caviar.training.dataset import Dataset, Examples
from caviar.training.source import trainable_spec
from caviar.training.task import Assignment
from caviar.training.trainable import train

Run = Callable[..., list[dict[str, float]]]


def task_of(spec: TrainableSpec, **given: Any) -> Assignment:
    """Return what is given to trial 3 of the study of seed 7."""
    usual = {"study": "s", "metric": "loss", "epochs": 1, "number": 3, "key": (7, 3), "params": {}, "data": None}
    return Assignment(spec=spec, **(usual | given))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what writes a function to a file, and runs it as trial 3 of the study of seed 7."""

    def run(
        code: str,
        *,
        epochs: int = 3,
        metric: str = "loss",
        number: int = 3,
        data: Dataset | None = None,
        **params: Any,
    ) -> list[dict[str, float]]:
        file = tmp_path / "mine.py"
        file.write_text(code)
        given = {"metric": metric, "epochs": epochs, "number": number, "key": (7, number), "params": params}
        return list(train(task_of(trainable_spec(str(file)), data=data, **given), epochs))

    return run


def test_a_generator_reports_after_each_epoch(run: Run) -> None:
    """The lectures' example: J(w) = w^2 - 10 w + 25 is least at w = 5."""
    code = """
def train(task):
    w = 0.0
    for _ in range(task.epochs):
        w -= task.params["rate"] * (2 * w - 10)
        yield {"loss": w * w - 10 * w + 25, "w": w}
"""
    reports = run(code, epochs=50, rate=0.1)

    w = 5 - 5 * 0.8 ** np.arange(1, 51)  # the closed form: the distance to 5 shrinks by 1 - 2 * rate
    np.testing.assert_allclose([report["w"] for report in reports], w)
    np.testing.assert_allclose([report["loss"] for report in reports], (w - 5) ** 2, atol=1e-12)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 0.5", [{"loss": 0.5}]),
        ("return {'loss': 1, 'accuracy': True}", [{"loss": 1.0, "accuracy": 1.0}]),
        ("import numpy; return numpy.float32(0.5)", [{"loss": 0.5}]),
        ("import numpy; return numpy.array(0.5)", [{"loss": 0.5}]),
        ("return [{'loss': 2}, {'loss': 1}]", [{"loss": 2.0}, {"loss": 1.0}]),
        ("yield 2; yield 1", [{"loss": 2.0}, {"loss": 1.0}]),
        ("yield {'a': 1, 'loss': 2}; yield {'loss': 4, 'a': 3}", [{"a": 1.0, "loss": 2.0}, {"a": 3.0, "loss": 4.0}]),
        ("for i in range(9): yield i", [{"loss": 0.0}, {"loss": 1.0}, {"loss": 2.0}]),
    ],
)
def test_numbers_come_in_many_ways(run: Run, body: str, expected: list[dict[str, float]]) -> None:
    """One number is the study's metric; more epochs than there are to be are left out."""
    assert run(f"def train(task):\n    {body}\n") == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "to report numbers by name, as {'loss': 0.3}, found None"),
        ("return '123'", "to report numbers by name"),
        ("yield {'loss': '0.5'}", "to report numbers by name"),
        ("yield {'loss': 1, 'a\\0b': 2}", "to report numbers by name"),
        ("yield {'los': 1}", "expected metric 'loss' among what mine.py:train reports, found los"),
        ("yield {}", "expected metric 'loss' among what mine.py:train reports, found nothing"),
        ("yield {3: 1}", "numbers by name"),
        ("return; yield", "found that it reported nothing"),
        (
            "yield {'loss': 1, 'a': 2}; yield {'loss': 1}",
            "the same metrics in each epoch, loss, a, found loss in epoch 2",
        ),
    ],
)
def test_what_is_no_report_is_refused(run: Run, body: str, message: str) -> None:
    with pytest.raises(TrainableError, match=message):
        run(f"def train(task):\n    {body}\n")


def test_what_is_no_function_is_refused(run: Run) -> None:
    with pytest.raises(TrainableError, match=r"expected a function or class 'train' in .*, found 3"):
        run("train = 3\n")
    with pytest.raises(TrainableError, match=r"expected a function or class 'train' in .*, found None"):
        run("if False:\n    def train(task): return 1\n")


def test_a_function_goes_to_its_own_end(run: Run, tmp_path: Path) -> None:
    """What stands behind the last epoch is done; one that has more epochs is closed."""
    done, closed = tmp_path / "done", tmp_path / "closed"
    touch = "from pathlib import Path\ndef touch(name): Path(__file__).with_name(name).touch()\n"
    run(f"{touch}def train(task):\n    for _ in range(task.epochs): yield 1\n    touch('done')\n")
    run(f"{touch}def train(task):\n    try:\n        while True: yield 1\n    finally: touch('closed')\n")

    assert done.exists()
    assert closed.exists()


RANDOM = """
import random
import numpy as np

def train(task):
    yield {"loss": random.random(), "numpy": np.random.random(), "seed": task.seed}
"""


def test_random_numbers_are_those_of_the_trial(run: Run) -> None:
    """Whatever was trained before it in the process, whose own generators are left as they were."""
    random.seed(1)
    np.random.seed(1)
    first = run(RANDOM)
    other = run(RANDOM, number=4)
    again = run(RANDOM)

    assert first == again
    assert all(first[0][name] != other[0][name] for name in first[0])
    assert 0 <= first[0]["seed"] < 2**31
    expected = random.Random(1).random(), np.random.RandomState(1).random_sample()
    assert (random.random(), np.random.random()) == expected


def test_what_is_printed_is_talk(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for data."""
    run("print('loaded')\ndef train(task):\n    print('trained')\n    yield 1\n")

    assert capsys.readouterr() == ("", "loaded\ntrained\n")


def test_what_lies_beside_a_file_can_be_imported(tmp_path: Path) -> None:
    """As where Python itself runs it; files of the same names beside two functions are not mixed up."""
    specs = []
    for value in (0.25, 0.5):
        folder = tmp_path / str(value)
        (folder / "pack").mkdir(parents=True)
        (folder / "lies_beside.py").write_text(f"LOSS = {value}\n")
        (folder / "pack" / "__init__.py").touch()
        (folder / "pack" / "late.py").write_text(f"LOSS = {value}\n")
        file = folder / "mine.py"
        file.write_text(
            "import lies_beside\n"
            "def train(task):\n"
            "    from pack import late\n"
            "    return {'loss': lies_beside.LOSS, 'late': late.LOSS}\n"
        )
        specs.append(trainable_spec(str(file)))
    path, modules = sys.path[:], set(sys.modules)

    for _ in range(2):
        for value, spec in zip((0.25, 0.5), specs, strict=True):
            assert list(train(task_of(spec), 1)) == [{"loss": value, "late": value}]

    assert sys.path == path
    assert not {"lies_beside", "pack", "pack.late", "mine"} & (set(sys.modules) - modules)


def test_a_file_is_run_once_and_as_python_does(run: Run, tmp_path: Path) -> None:
    """It knows where it is, its annotations are what they are, and two functions of it share its variables."""
    code = (
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "with Path(__file__).with_name('log').open('a') as log: log.write('loaded ')\n"
        "@dataclass\n"
        "class Config:\n"
        "    rate: float\n"
        "def train(task):\n"
        "    assert Config.__annotations__ == {'rate': float}\n"
        "    return Config(**task.params).rate\n"
    )
    assert run(code, rate=0.5) == run(code, rate=0.5) == [{"loss": 0.5}]
    assert (tmp_path / "log").read_text() == "loaded "


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_what_a_file_defines_can_be_sent_to_other_processes(run: Run, method: str) -> None:
    """They import the file by its name."""
    code = (
        "from multiprocessing import get_context\n"
        "def square(value): return value * value\n"
        "def train(task):\n"
        f"    with get_context({method!r}).Pool(1) as pool:\n"
        "        return sum(pool.map(square, range(4)))\n"
    )
    assert run(code) == [{"loss": 14.0}]


def test_a_module_of_whoever_sweeps_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a script has imported the file itself, or another of its name."""
    (tmp_path / "json.py").write_text("def train(task):\n    return __name__ == 'json'\n")
    (tmp_path / "imported.py").write_text("def train(task):\n    return __name__ == 'imported'\n")
    monkeypatch.syspath_prepend(tmp_path)
    import imported  # type: ignore[import-not-found]

    for name, is_own in (("imported", 1.0), ("json", 0.0)):
        before = sys.modules[name]
        spec = trainable_spec(str(tmp_path / f"{name}.py"))
        assert list(train(task_of(spec), 1)) == [{"loss": is_own}]
        assert sys.modules[name] is before
    assert imported is sys.modules["imported"]


def test_data_is_a_copy_for_each_trial(run: Run) -> None:
    """What one trial writes into it is no other's."""
    part = Examples(np.ones((4, 2), np.float32), np.zeros(4, np.int64))
    data = Dataset("made", part, part, part, ("a", "b"), ("f", "g"), "f" * 64)
    code = "def train(task):\n    task.data.train.x[:] += task.number\n    return task.data.train.x.sum()\n"

    assert run(code, data=data, number=1) == [{"loss": 16.0}]
    assert run(code, data=data, number=2) == [{"loss": 24.0}]
    assert data.train.x.sum() == 8


def test_stdout_may_be_closed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """It is standard error under another name, which others need."""
    assert run("import sys\ndef train(task):\n    sys.stdout.close()\n    print('more')\n    return 1\n") == [
        {"loss": 1}
    ]
    print("talk", file=sys.stderr)
    assert capsys.readouterr().err == "more\ntalk\n"


def test_pytorch_is_seeded_and_has_one_thread(run: Run) -> None:
    """And is left as it was."""
    torch = pytest.importorskip("torch")
    code = (
        "def train(task):\n    import torch\n    return {'loss': torch.rand(()), 'threads': torch.get_num_threads()}\n"
    )
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)

    first = run(code)

    assert torch.rand(()) == expected
    assert first == run(code)
    assert first[0]["threads"] == 1
    assert first != run(code, number=4)


def test_pytorch_is_seeded_wherever_it_is_imported(tmp_path: Path) -> None:
    """In a process that has not imported it before, by another file than the function's own."""
    pytest.importorskip("torch")
    (tmp_path / "helps.py").write_text(
        "import torch\ndef draw(): return float(torch.rand(1)), torch.get_num_threads()\n"
    )
    (tmp_path / "mine.py").write_text(
        "def train(task):\n    from helps import draw\n    drawn, threads = draw()\n"
        "    return {'loss': drawn, 'threads': threads}\n"
    )
    script = (
        "from caviar.training.trainable import train\n"
        "from caviar.training.source import trainable_spec\n"
        "from caviar.training.task import Assignment\n"
        f"spec = trainable_spec({str(tmp_path / 'mine.py')!r})\n"
        "given = dict(spec=spec, study='s', metric='loss', epochs=1, params={}, data=None)\n"
        "for n in NUMBERS: print(n, *train(Assignment(**given, number=n, key=(7, n)), 1))\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script.replace("NUMBERS", numbers)], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for numbers in ("(1, 2)", "(2, 1)")
    ]
    assert told[0] == told[1][::-1]
    assert all(line.endswith("'threads': 1.0}") for line in told[0])
