"""The code of a user's function is found and compared without being run."""

from __future__ import annotations

from pathlib import Path

import pytest

from caviar.errors import TrainableError
from caviar.training.source import is_same_code, trainable_spec, unchanged

CODE = """
raise RuntimeError("this file was run")

def train(task):
    return 0.0

class Net:
    pass

other = train
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def test_a_function_is_named_with_its_file(file: Path) -> None:
    """`train` is meant where none is named; classes and other names of the file will do, too."""
    assert trainable_spec(str(file)).function == "train"
    for name in ("train", "Net", "other"):
        found = trainable_spec(f"{file}:{name}")
        assert (found.file, found.function, found.source, found.name) == (str(file), name, CODE, f"mine.py:{name}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mine.txt:train", "expected FILE.py:NAME, of a function or a class, found 'mine.txt:train'"),
        ("absent.py:train", "expected a Python file at .*absent.py', found nothing there"),
        ("mine.py:trian", "expected a function or class 'trian' in .*, found Net, other, train; did you mean 'train'"),
        ("broken.py", "broken.py' is not valid Python, line 2"),
        ("folder.py", "cannot read .*folder.py'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    file: Path, word: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    Path("broken.py").write_text("x = 1\ndef train(:\n")
    Path("folder.py").mkdir()

    with pytest.raises(TrainableError, match=message) as caught:
        trainable_spec(word)
    assert "\n" not in str(caught.value)


def test_a_function_itself_has_to_lie_at_the_top_of_a_file() -> None:
    """Workers load the file, and find the function by its name."""

    def within(task: object) -> float:
        return 0.0

    found = trainable_spec(test_a_function_itself_has_to_lie_at_the_top_of_a_file)
    assert (Path(found.file), found.function) == (
        Path(__file__),
        "test_a_function_itself_has_to_lie_at_the_top_of_a_file",
    )
    for given in (within, lambda task: 0.0):
        with pytest.raises(TrainableError, match="expected a function or class at the top of"):
            trainable_spec(given)
    with pytest.raises(TrainableError, match="in a Python file"):
        trainable_spec(len)
    with pytest.raises(TrainableError, match=r"expected a function or a class, or FILE.py:NAME of one, found 3"):
        trainable_spec(3)  # type: ignore[arg-type]


def test_comments_and_layout_do_not_make_other_code(file: Path) -> None:
    """What does something else does."""
    spec = trainable_spec(str(file))

    file.write_text(CODE.replace("return 0.0", "return (\n        0.0  # nothing\n    )"))
    assert is_same_code(trainable_spec(str(file)), spec)
    unchanged(spec, "s")

    file.write_text(CODE.replace("return 0.0", "return 0.5"))
    with pytest.raises(TrainableError, match=r"mine.py' has changed since study 's' was made.*caviar delete s"):
        unchanged(spec, "s")

    file.unlink()
    with pytest.raises(TrainableError, match=r"where nothing is now; say where it went: --trainable FILE.py:train"):
        unchanged(spec, "s")


def test_a_decorated_function_is_the_one_of_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of the same name beside the decorator; what a partial or a class makes is named as it is called there."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "decorating.py").write_text(
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def g(task): return f(task)\n    return g\n"
        "def train(task): return -1.0\n"
    )
    (tmp_path / "decorated.py").write_text(
        "from decorating import deco\n@deco\ndef train(task): return 42.0\nsmall = lambda task: 1.0\n"
        "class Net:\n    def __call__(self, task): return 2.0\nnet = Net()\n"
    )
    import decorated  # type: ignore[import-not-found]

    for name in ("train", "small", "net"):
        found = trainable_spec(getattr(decorated, name))
        assert (Path(found.file).name, found.function) == ("decorated.py", name)


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    import absent\nexcept ImportError:\n    def train(task): return 1\n",
        "if True:\n    pass\nelse:\n    def train(task): return 1\n",
        "from typing import Any\ntrain: Any = lambda task: 1\n",
        "train, other = (lambda task: 1), 2\n",
    ],
)
def test_a_name_is_found_wherever_a_file_gives_it(tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    assert trainable_spec(str(tmp_path / "mine.py")).function == "train"


def test_a_coroutine_and_what_nobody_can_parse_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for code, message in (
        ("async def train(task): return 1\n", "to be no coroutine; write it with def, not async"),
        ("x = " + "+".join(["1"] * 20_000) + "\ndef train(task): return 1\n", "is not valid Python: .*recursion"),
        ("def train(task): return '\0'\n", "is not valid Python: source code string cannot contain null bytes"),
    ):
        file.write_text(code)
        with pytest.raises(TrainableError, match=message):
            trainable_spec(str(file))


def test_what_a_script_does_is_not_what_its_function_is(file: Path) -> None:
    """How many trials it asks for below its main guard may change."""
    guard = "\nif __name__ == '__main__':\n    sweep(n_trials={})\n"
    file.write_text(CODE + guard.format(2))
    spec = trainable_spec(str(file))

    file.write_text(CODE + guard.format(4))
    unchanged(spec, "s")
    file.write_text(CODE + guard.format(4) + "else:\n    def train(task): return 2.0\n")
    assert not is_same_code(trainable_spec(str(file)), spec)
