"""The README is true: its commands run, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from caviar.cli.panda import panda
from caviar.panda.rules import make_rules
from caviar.records import DataSpec, StudySpec
from caviar.space import Float, Int, SearchSpace
from caviar.storage import open_storage, run_sql
from caviar.storage.ddl import VIEWS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
#: Of the networks of PyTorch in the page on trainables.
_NET = SearchSpace(units=Int(8, 32), learning_rate=Float(1e-3, 0.1, scale="log"))
CAVIAR = Path(sys.executable).with_name("caviar")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


#: What commands of the README print, as it shows.
TOLD = dict(zip(("caviar advise digits", "caviar refine digits"), blocks("text"), strict=True))


@pytest.mark.slow
@pytest.mark.ray
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    """Typed one after the other in an empty folder, each exits 0; one that runs until it is stopped has a terminal."""
    commands = [line for block in blocks("console") for line in block.splitlines() if line.startswith("caviar ")]
    for name, text in named_files(README).items():
        (tmp_path / name).write_text(text)

    for command in commands:
        if "--until-stopped" in command:
            started = subprocess.Popen(
                [CAVIAR, *shlex.split(command)[1:]], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            wait_until_one_is_babysat(tmp_path)
            continue
        done = subprocess.run(
            [CAVIAR, *shlex.split(command)[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout or command.startswith("caviar export"), command
        if command in TOLD:
            said, told = done.stdout.splitlines(), TOLD[command]
            assert [line for line in told.splitlines() if line not in (*said, "...")] == []
        if command.startswith("caviar panda stop "):
            out, err = started.communicate(timeout=120)
            assert started.returncode == 0, err
            assert b"COMPLETE" in out
    fenced = "".join(block for block in re.findall(r"```.*?```", README, re.DOTALL) if not block.startswith("```text"))
    assert len(commands) == len(re.findall(r"^\s*\$?\s*caviar ", fenced, re.MULTILINE)) > 20


def named_files(page: str) -> dict[str, str]:
    """Return the fenced blocks whose first line says in which file they are, by its name."""
    found = re.findall(r"```\w+\n(# (\w+\.\w+).*?)```", page, re.DOTALL)
    return {name: text for text, name in found}


def wait_until_one_is_babysat(folder: Path) -> None:
    """Return once a trial of the database in a folder is trained in panda mode, and has a few epochs."""
    deadline = time.monotonic() + 120
    with closing(open_storage(f"sqlite:///{folder / 'caviar.db'}")) as storage:
        while not any(
            s.owner and len(storage.sessions.checkpoints(*split(s.trial))) > 4 for s in storage.sessions.all()
        ):
            assert time.monotonic() < deadline, "nobody babysits"
            time.sleep(0.05)


def split(name: str) -> tuple[str, int]:
    """Return study and number."""
    study, _, number = name.rpartition("/")
    return study, int(number)


@pytest.mark.slow
@pytest.mark.ray
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """Saved as a file and run, the Python example prints the best trial's params."""
    (block,) = set(blocks("python")) - set(named_files(README).values())
    (tmp_path / "example.py").write_text(block)

    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout


def test_make_targets_of_the_readme_exist() -> None:
    """`make NAME` in the README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {
        name for block in blocks("console") for name in re.findall(r"^make ([\w-]+)", block, re.MULTILINE)
    } <= targets


def test_the_space_file_of_the_readme_is_valid() -> None:
    """The TOML examples describe search spaces."""
    for block in blocks("toml"):
        space = SearchSpace.from_dict(tomllib.loads(block))

        assert "learning_rate" in space.domains


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "needs", "space"),
    [
        ("forest", "sklearn", SearchSpace(trees=Int(5, 20), depth=Int(1, 4))),
        ("net", "torch", _NET),
        ("netclass", "torch", _NET),
    ],
)
def test_the_functions_of_the_page_on_trainables_train(
    name: str, needs: str, space: SearchSpace, tmp_path: Path, sqlite_url: str
) -> None:
    """As their first lines say how, to something that is better than guessing."""
    pytest.importorskip(needs, reason=f"install {needs}")
    text = named_files((ROOT / "docs/trainables.md").read_text())[f"{name}.py"]
    (tmp_path / f"{name}.py").write_text(text)
    command = text.splitlines()[0].partition(": ")[2]
    words = shlex.split(f"{command} --trials 3 --epochs 4 --workers 0 --storage {sqlite_url}")
    (tmp_path / words[words.index("--space") + 1]).write_text(space.to_toml())

    done = subprocess.run([CAVIAR, *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    with closing(open_storage(sqlite_url)) as storage:
        best = storage.best_trial(words[2])
    assert best is not None
    assert best.metrics["val_accuracy"] > 0.6


@pytest.mark.slow
def test_a_class_of_the_page_on_trainables_is_babysat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its model is had in Python, as the page says."""
    pytest.importorskip("torch", reason="install torch")
    monkeypatch.setenv("CAVIAR_STORAGE", f"sqlite:///{tmp_path / 'caviar.db'}")
    files = named_files((ROOT / "docs/trainables.md").read_text())
    for name in ("netclass.py", "score.py"):
        (tmp_path / name).write_text(files[name])
    (tmp_path / "net.toml").write_text(_NET.to_toml())
    sweep = files["netclass.py"].splitlines()[0].partition(": ")[2]

    def run(command: str) -> str:
        words = [CAVIAR, *shlex.split(command)[1:]]
        if command.startswith("python"):
            words = [sys.executable, *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(f"{sweep} --trials 2 --epochs 5 --workers 0")
    run("caviar panda start nets/1 --epochs +4 --set learning_rate=0.002")
    run("caviar panda start nets --set learning_rate=0.01 units=32 --epochs 2")
    assert run("caviar panda replay nets/2").startswith("identical")
    assert float(run("python score.py").strip().removeprefix("tensor(").removesuffix(")")) > 0.6


@pytest.mark.parametrize("path", sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")]), ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    """A link to a file of the repository names one that is there."""
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_views_have_the_columns_that_are_documented(sqlite_url: str) -> None:
    """docs/database.md lists each view of the database with all its columns, in order."""
    page = (ROOT / "docs/database.md").read_text()
    documented = {view: columns.split(", ") for view, columns in re.findall(r"\| `(v_\w+)` \|.*\| `(.*)` \|", page)}
    open_storage(sqlite_url).close()

    found = {view: list(run_sql(sqlite_url, f"select * from {view}").columns) for view in VIEWS}

    assert documented == found


def test_each_command_of_panda_mode_is_documented() -> None:
    """docs/panda.md names every command of `caviar panda`, and each of its options."""
    page = (ROOT / "docs/panda.md").read_text()
    commands = [name for name in panda if not name.startswith("-")]

    options = {
        option
        for name in commands
        for argument in panda[name].assemble_argument_collection()
        for option in argument.names
        if option.startswith("--")
    }

    assert [name for name in commands if f"panda {name}" not in page and f"`{name}`" not in page] == []
    assert {option for option in options if f"{option}" not in page} == {"--storage"}


def test_the_rules_of_the_docs_are_the_defaults() -> None:
    """The rules file of docs/panda.md is valid, and writes out what each rule does where nothing is given."""
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/panda.md").read_text(), re.DOTALL)

    rules = tomllib.loads(block)

    spec = StudySpec(name="s", data=DataSpec(source="digits"), space={})
    assert make_rules(rules, spec) == make_rules({name: {} for name in rules}, spec)
    assert set(rules) == {"diverged", "plateau", "patience"}
