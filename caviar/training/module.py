"""The file of a user's code as a module: run once in a process, at home among the files beside it."""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from caviar.errors import TrainableError
from caviar.records import TrainableSpec
from caviar.training.seeded import talking
from caviar.training.source import loading

#: Modules that were imported from the folder of a file, by that folder and their name.
_beside: dict[str, dict[str, ModuleType]] = {}


@contextlib.contextmanager
def at_home(file: str) -> Iterator[None]:
    """Let what lies beside a file be imported meanwhile, as where Python itself runs the file.

    Other files of the same names, of other studies, are out of the way meanwhile, and come back.
    """
    folder = str(Path(file).parent)
    mine, others = _beside.setdefault(folder, {}), dict(sys.modules)
    sys.modules.update(mine)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
        for name, module in list(sys.modules.items()):
            if others.get(name) is not module and _lies_in(name, module, folder):
                mine[name] = module
        for name in mine:
            if name in others:
                sys.modules[name] = others[name]
            else:
                sys.modules.pop(name, None)


def _lies_in(name: str, module: ModuleType, folder: str) -> bool:
    """Return whether a module is of a file or package right in a folder."""
    top = name.partition(".")[0]
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or top in ("caviar", "workers"):
        return False
    return file == f"{folder}/{top}.py" or file.startswith(f"{folder}/{top}/")


def load(spec: TrainableSpec) -> Callable[[Any], Any]:
    """Return a function or class of a file, which is run if it was not yet in this process; within `at_home`.

    Raises:
        TrainableError: what has its name is not there, or cannot be called.
        Exception: whatever the file raises.
    """
    function = getattr(_module(spec.file, spec.source), spec.function, None)
    if not callable(function):
        raise TrainableError(f"expected a function or class {spec.function!r} in {spec.file!r}, found {function!r:.60}")
    return function  # type: ignore[no-any-return]  # of the user's


@lru_cache(maxsize=8)
def _module(file: str, source: str) -> ModuleType:
    """Run the code of a file as a module."""
    path = Path(file)
    # by its own name: other processes can import it then, which unpickle what it defines
    other = sys.modules.get(path.stem)
    is_free = other is None or getattr(other, "__file__", None) == file
    name = path.stem if is_free else f"{path.stem} of {path.parent}"
    module = ModuleType(name)
    module.__file__ = file
    # where the file is not on this machine, tracebacks have their lines all the same
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    mine = _beside.setdefault(str(path.parent), {})
    mine[name] = sys.modules[name] = module
    try:
        with talking(), loading(file):
            exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del mine[name], sys.modules[name]
        raise
    return module
