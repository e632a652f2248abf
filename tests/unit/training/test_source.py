"""The code of a user's function is found and compared without being run."""

from __future__ import annotations

from pathlib import Path

import pytest

from caviar.errors import TrainableError
from caviar.training.source import check_unchanged, is_same_code, trainable_spec

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
        ("mine.txt:train", "expected FILE.py:FUNCTION, found 'mine.txt:train'"),
        ("absent.py:train", "expected a Python file at .*absent.py', found nothing there"),
        ("mine.py:trian", "expected a function 'trian' in .*, found Net, other, train; did you mean 'train'"),
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
        with pytest.raises(TrainableError, match="expected a function at the top of"):
            trainable_spec(given)
    with pytest.raises(TrainableError, match="in a Python file"):
        trainable_spec(len)
    with pytest.raises(TrainableError, match=r"expected a function, or FILE.py:FUNCTION, found 3"):
        trainable_spec(3)  # type: ignore[arg-type]


def test_comments_and_layout_do_not_make_other_code(file: Path) -> None:
    """What does something else does."""
    spec = trainable_spec(str(file))

    file.write_text(CODE.replace("return 0.0", "return (\n        0.0  # nothing\n    )"))
    assert is_same_code(trainable_spec(str(file)), spec)
    check_unchanged(spec, "s")

    file.write_text(CODE.replace("return 0.0", "return 0.5"))
    with pytest.raises(TrainableError, match=r"mine.py' has changed since study 's' was made.*caviar delete s"):
        check_unchanged(spec, "s")

    file.unlink()
    with pytest.raises(TrainableError, match=r"where nothing is now; say where it went: --trainable FILE.py:train"):
        check_unchanged(spec, "s")
