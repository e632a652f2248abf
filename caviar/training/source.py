"""The code of a user's function: found, checked without running it, and compared with what a study was made with."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caviar.errors import TrainableError
from caviar.records import TrainableSpec
from caviar.wording import command

#: The function of a file that is meant where none is named.
DEFAULT_FUNCTION = "train"
#: Files whose code is being run in this process to find a function in them.
_being_loaded: list[str] = []


def trainable_spec(given: str | Path | Callable[..., Any]) -> TrainableSpec:
    """Return where a function is, and the code of its file; nothing of it is run.

    Args:
        given: `FILE.py:FUNCTION`, `FILE.py` for its function `train`, or the function itself, of a file.

    Raises:
        TrainableError: there is no such file, it is not Python, or the function is not one of its own names.
    """
    file, function = _named(str(given)) if isinstance(given, str | Path) else _place(given)
    path = Path(file).expanduser().absolute()
    source = _read(path)
    names = _names(_parsed(source, path).body)
    if names.get(function, False):
        raise TrainableError(f"expected {function!r} in {str(path)!r} to be no coroutine; write it with def, not async")
    if function not in names:
        near = difflib.get_close_matches(function, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TrainableError(
            f"expected a function {function!r} in {str(path)!r}, found {', '.join(sorted(names)) or 'none'}{hint}"
        )
    return TrainableSpec(file=str(path), function=function, source=source)


def is_same_code(one: TrainableSpec, other: TrainableSpec) -> bool:
    """Return whether two files do the same under one name.

    Comments, blank lines, layout, and what stands below `if __name__ == "__main__":` do not count.
    """
    if one.function != other.function:
        return False
    if one.source == other.source:
        return True
    try:
        return _told(one.source) == _told(other.source)
    except (SyntaxError, ValueError, RecursionError):
        return False


def _told(source: str) -> str:
    """Return what a module does when it is imported, without layout, and without what it does as a script."""
    module = ast.parse(source)
    module.body = [node for node in module.body if not _is_main_guard(node)]
    return ast.dump(module)


def _is_main_guard(node: ast.stmt) -> bool:
    """Return whether it is `if __name__ == "__main__":` without an else."""
    return isinstance(node, ast.If) and not node.orelse and ast.unparse(node.test) == "__name__ == '__main__'"


def unchanged(spec: TrainableSpec, study: str) -> TrainableSpec:
    """Return the file of a function as it is now; refuse one that is not there, or does not do what it did.

    What a study keeps of the code is never run: it may have come from another machine.

    Raises:
        TrainableError: it is so.
    """
    if not Path(spec.file).is_file():
        raise TrainableError(
            f"study {study!r} is trained by {spec.file!r}, where nothing is now; say where it went: "
            f"--trainable FILE.py:{spec.function}"
        )
    found = trainable_spec(f"{spec.file}:{spec.function}")
    if not is_same_code(found, spec):
        raise TrainableError(
            f"{spec.file!r} has changed since study {study!r} was made, so that its trials could not be compared; take "
            f"another study name, or bring the file back to what it was, or begin anew: {command('delete', study)}"
        )
    return found


@contextmanager
def loading(file: str) -> Iterator[None]:
    """Note meanwhile that the code of a file is being run to find a function in it."""
    _being_loaded.append(file)
    try:
        yield
    finally:
        _being_loaded.remove(file)


def refuse_loading(study: str) -> None:
    """Refuse to sweep because a file of a function is being loaded, which starts a sweep itself when it is run.

    Raises:
        TrainableError: one is.
    """
    if _being_loaded:
        raise TrainableError(
            f"{_being_loaded[-1]!r} sweeps {study!r} whenever it is loaded, as workers do; put that below "
            'if __name__ == "__main__":'
        )


def _named(text: str) -> tuple[str, str]:
    """Return file and function of what was typed."""
    file, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier():
        file, function = text, DEFAULT_FUNCTION
    if not file.endswith(".py"):
        raise TrainableError(f"expected FILE.py:FUNCTION, found {text!r}")
    return file, function


def _place(function: Any) -> tuple[str, str]:
    """Return file and name of a function."""
    if not callable(function):
        raise TrainableError(f"expected a function, or FILE.py:FUNCTION, found {function!r:.60}")
    shown = getattr(function, "__qualname__", None) or type(function).__name__
    # of what a decorator made, these are those of what was decorated
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        raise TrainableError(f"expected {shown!r} in a Python file, which workers can load; write it to one")
    names = [name for name, value in vars(module).items() if value is function]
    if not names:
        raise TrainableError(
            f"expected a function at the top of {file!r}, which workers find by name, found {shown!r}; move it there"
        )
    return file, shown if shown in names else names[0]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise TrainableError(f"expected a Python file at {str(path)!r}, found nothing there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainableError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _parsed(source: str, path: Path) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        at = getattr(error, "lineno", None)
        line = "" if at is None else f", line {at}"
        raise TrainableError(f"{str(path)!r} is not valid Python{line}: {getattr(error, 'msg', error)}") from error


def _names(body: Sequence[ast.stmt]) -> dict[str, bool]:
    """Return the names that a file gives to what may be called, each with whether it is a coroutine."""
    names: dict[str, bool] = {}
    for node in body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names[node.name] = False
            case ast.AsyncFunctionDef():
                names[node.name] = True
            case ast.ImportFrom():
                names |= {alias.asname or alias.name: False for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
                names |= {name.id: False for name in found}
            case ast.If() | ast.Try() | ast.With():
                inner = [*node.body, *getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
                inner += [each for handler in getattr(node, "handlers", ()) for each in handler.body]
                names |= _names(inner)
    return names
