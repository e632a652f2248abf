"""What a user's function is given, what it may report, and that trials do not depend on one another."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import TrainableError
from caviar.training.function import loaded, reported
from caviar.training.source import trainable_spec

Run = Callable[..., list[dict[str, float]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what writes a function to a file, and runs it as trial 3 of the study of seed 7."""

    def run(
        code: str, *, epochs: int = 3, metric: str = "loss", number: int = 3, **params: Any
    ) -> list[dict[str, float]]:
        file = tmp_path / "mine.py"
        file.write_text(code)
        return list(reported(trainable_spec(str(file)), (7, number), params, epochs, None, metric))

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
        ("return None", "to report numbers by name, as {'loss': 0.3}, found {'loss': None}"),
        ("return 'good'", "to report numbers by name"),
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


def test_a_coroutine_and_what_is_no_function_are_refused(run: Run) -> None:
    with pytest.raises(TrainableError, match="to be no coroutine"):
        run("def train(task):\n    async def later(): return 1\n    return later()\n")
    with pytest.raises(TrainableError, match=r"expected a function 'train' in .*, found 3"):
        run("train = 3\n")


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


def test_what_lies_beside_a_file_can_be_imported(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Python itself runs it; the file is loaded once, and knows where it is."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "lies_beside.py").write_text("LOSS = 0.25\n")
    code = "import lies_beside, os\nfrom pathlib import Path\ndef train(task):\n    return lies_beside.LOSS\n"

    assert run(code) == [{"loss": 0.25}]
    spec = trainable_spec(str(tmp_path / "mine.py"))
    assert loaded(spec) is loaded(spec)
    assert loaded(spec).__globals__["__file__"] == str(tmp_path / "mine.py")  # type: ignore[attr-defined]


def test_pytorch_is_seeded_and_has_one_thread(run: Run) -> None:
    """Also where it is imported by the function itself, so that the first trial of a process is like the others."""
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
