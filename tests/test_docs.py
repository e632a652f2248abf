"""The README is true: its commands run, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from caviar.space import SearchSpace

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CAVIAR = Path(sys.executable).with_name("caviar")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.ray
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    """Typed one after the other in an empty folder, each `caviar` command exits 0."""
    commands = [line for block in blocks("console") for line in block.splitlines() if line.startswith("caviar ")]

    for command in commands:
        done = subprocess.run(
            [CAVIAR, *shlex.split(command)[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout, command
    assert len(commands) >= 7


@pytest.mark.slow
@pytest.mark.ray
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """Saved as a file and run, the Python example prints the best trial's params."""
    (block,) = blocks("python")
    (tmp_path / "example.py").write_text(block)

    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout


def test_make_targets_of_the_readme_exist() -> None:
    """`make NAME` in the README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {name for block in blocks("console") for name in re.findall(r"^make (\w+)", block, re.MULTILINE)} <= targets


def test_the_space_file_of_the_readme_is_valid() -> None:
    """The TOML example describes a search space."""
    (block,) = blocks("toml")

    space = SearchSpace.from_dict(tomllib.loads(block))

    assert "learning_rate" in space.domains


@pytest.mark.parametrize("path", sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")]), ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    """A link to a file of the repository names one that is there."""
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []
