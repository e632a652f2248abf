"""How the compiled kernel is compiled, and where its code is kept: a machine compiles once, and not each process."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

#: The compiler rounds as is written, so that each processor gives the same bits (docs/decisions/0011). Division follows
#: NumPy: without a check for zero, loops are vectorised.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}

_HERE = Path(__file__).parent


def compiled(function: Callable[..., Any]) -> Any:
    """Compile as a part of what calls it.

    Inlined without exception: as a function of its own it would be there twice, once optimised for the call and once by
    itself, and a process that compiles would call the other one than a process that reads what was kept.
    """
    return njit(forceinline=True, **OPTIONS)(function)


def compiled_apart(function: Callable[..., Any]) -> Any:
    """Compile as a function of its own."""
    return njit(**OPTIONS)(function)


def cached(function: Callable[..., Any]) -> Any:
    """Compile, and keep the code: beside the source, else in the user's cache folder, else in a private temporary one.

    Where none of them can be written to, each process compiles for itself. Numba looks whether the file of a function
    has changed, but not those of what it calls: so code is kept by the content of all files of the compiled kernel.
    """
    folder, before = _folder(), config.CACHE_DIR
    if folder is None:
        return njit(**OPTIONS)(function)
    config.CACHE_DIR = str(folder)
    try:
        return njit(cache=True, **OPTIONS)(function)
    finally:
        config.CACHE_DIR = before


def is_kept() -> bool:
    """Return whether the code of this version has been compiled, and kept, before."""
    folder = _folder()
    return folder is not None and any(folder.rglob("*.nbi"))


def _folder() -> Path | None:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_HERE.glob("compiled_*.py"))))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - which raises without a home
    for folder, make in (
        (_HERE / "__pycache__", _made),
        (Path(home) / "caviar", _made),
        (Path(tempfile.gettempdir()) / f"caviar-kernel-{getattr(os, 'getuid', int)()}", _private),
    ):
        if make(folder) and _made(folder / f"kernel-{digest.hexdigest()[:16]}"):
            return folder / f"kernel-{digest.hexdigest()[:16]}"
    return None


def _made(folder: Path) -> bool:
    """Make a folder where it is missing; return whether it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private(folder: Path) -> bool:
    """Make a folder that only this user can write to: code is read from it, so nobody else may put any there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    is_ours = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return stat.S_ISDIR(found.st_mode) and is_ours
