"""Which way imports point, read from the source text, lazy imports included, and held to docs/structure.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("caviar/**/*.py"), *ROOT.glob("workers/**/*.py")])

#: The only places where a heavy library may be imported.
HOMES = {
    "ray": ("workers",),
    "optuna": ("caviar/search", "caviar/storage"),
    "optuna_dashboard": ("caviar/storage",),
    "sqlalchemy": ("caviar/storage",),
    "alembic": ("caviar/storage",),
    "psycopg": ("caviar/storage",),
    "sklearn": ("caviar/data",),
    "pandas": ("caviar/data", "caviar/storage", "caviar/study.py"),  # there as the type of what is returned
    "pyarrow": ("caviar/data", "caviar/storage", "caviar/cli/formats.py"),
    "llvmlite": ("caviar/nn",),
    "numba": ("caviar/nn",),
    "rich": ("caviar/cli",),
    "cyclopts": ("caviar/cli",),
}

#: What each part may import of caviar, besides itself; parts that are not listed may import anything.
RECORDS = {"errors", "records", "wording", "checks"}
MATHS = {*RECORDS, "nn"}
SWEEPING = {"ledger", "recorder", "numbering", "pruning", "outcomes", "handing_over"}
MAY_IMPORT = {
    "errors": set(),
    "records": set(),
    "wording": set(),
    "checks": {"errors"},
    "replacing": set(),
    "space": {"errors", "wording"},
    "nn": {"errors"},
    "training": {*MATHS, "replacing"},
    "data": {*MATHS, "training"},
    "execution": {*MATHS, "training"},
    "model": {*MATHS, "training", "data"},
    "search": {*RECORDS, "space"},
    "storage": {*RECORDS, "space", "replacing"},
    "recorder": {*RECORDS, "storage"},
    "repeats": {*RECORDS, "storage"},
    "refining": {*MATHS, "training", "storage", "search", "space", "repeats"},
    "advising": {*MATHS, "training", "storage", "search", "space", "repeats", "refining"},
    "numbering": {"storage"},
    "outcomes": {*RECORDS, "execution"},
    "handing_over": {*RECORDS, "recorder", "storage", "training"},
    "pruning": {*RECORDS, "execution", "storage", "repeats", "numbering"},
    "ledger": {*MATHS, "training", "execution", "storage", "space"},
    "sweep": {*MATHS, "training", "execution", "storage", "search", "space", *SWEEPING},
    "panda": {*MATHS, "training", "execution", "storage", "space"},
    "workers": {*MATHS, "training", "execution"},
}


def _order() -> dict[str, int]:
    """Return the line of the map on which each part stands."""
    rows = re.findall(r"^\| (`[^|]*`) \|", (ROOT / "docs/structure.md").read_text(), re.MULTILINE)
    names = ((row, name) for row, cell in enumerate(rows) for name in re.findall(r"`([^`]*)`", cell))
    return {name.removeprefix("caviar/").removesuffix(".py").rstrip("/"): row for row, name in names}


ORDER = _order()


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_heavy_library_is_imported_in_its_own_folder_only(path: Path) -> None:
    """Ray stays in workers/, Optuna in search, SQLAlchemy in storage, and so on."""
    place = path.relative_to(ROOT).as_posix()

    strays = {
        name for name in imported(path) if (homes := HOMES.get(name.split(".")[0])) and not place.startswith(homes)
    }

    assert strays == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """A part imports only parts below it on the map, and of those that are held to fewer only these."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    part = parts[0] if parts[0] == "workers" else parts[1]
    if part == "__init__":
        return
    names = imported(path)
    below = {name.split(".")[1] for name in names if name.startswith("caviar.")} - {part, "__version__"}
    below |= {"workers"} if part != "workers" and any(name.startswith("workers") for name in names) else set()

    assert {other for other in below if ORDER[other] < ORDER[part]} == set()
    assert below - MAY_IMPORT.get(part, below) == set()


def test_sources_are_found() -> None:
    """The rules above look at the whole source."""
    assert len(SOURCES) > 40
