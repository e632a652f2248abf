"""The code of a user's function or class: found, checked without running it, and compared with a study's."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from caviar.errors import TrainableError
from caviar.records import TrainableSpec
from caviar.wording import command

#: What is meant of a file where nothing is named.
DEFAULT_FUNCTION = "train"
#: Files whose code is being run in this process to find a function in them.
_being_loaded: list[str] = []


def trainable_spec(given: str | Path | Callable[..., Any]) -> TrainableSpec:
    """Return where a function or class is, and the code of its file; nothing of it is run.

    Args:
        given: `FILE.py:NAME`, `FILE.py` for its function `train`, or the function or class itself, of a file.

    Raises:
        TrainableError: there is no such file, it is not Python, or has no such name.
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
            f"expected a function or class {function!r} in {str(path)!r}, found {', '.join(sorted(names)) or 'none'}"
            f"{hint}"
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
    """Return the file of a trainable as it is now; refuse one that is not there, or does not do what it did.

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
            f"another study name, or bring the file back to what it was, or begin anew: {command('delete', study)}; "
            f"where no trial has come to anything, name it again: --trainable FILE.py:{spec.function}"
        )
    return found


def is_class_of_models(spec: TrainableSpec) -> bool:
    """Return whether the file itself says that its models have states: a class with a `train_epoch` of its own.

    Nothing is run: one that inherits it, or that a function or a decorator makes, is not known for one.
    """
    found = _class(spec)
    return found is not None and not found.decorator_list and "train_epoch" in _methods(found)


def is_function(spec: TrainableSpec) -> bool:
    """Return whether the file itself says that a function trains, in one go."""
    return isinstance(_bound(spec), ast.FunctionDef)


def settable(spec: TrainableSpec) -> tuple[str, ...] | None:
    """Return the params that a model lets be changed: those that its `set_params` names; None where that is not told.

    Nothing is run: a class that inherits its `set_params`, or is made by a function, is not looked into.
    """
    found = _class(spec)
    if found is None:
        return None
    method = _methods(found).get("set_params")
    if method is None:
        return None if found.bases or found.decorator_list or "set_params" in _names(found.body) else ()
    taken = method.args
    named = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs][1:]
    return None if taken.kwarg else tuple(each.arg for each in named if each not in taken.posonlyargs)


def _class(spec: TrainableSpec) -> ast.ClassDef | None:
    """Return the class that makes the models, where the file itself says that it is one."""
    found = _bound(spec)
    return found if isinstance(found, ast.ClassDef) else None


@lru_cache(maxsize=8)
def _bound(spec: TrainableSpec) -> ast.stmt | None:
    """Return what gives a trainable its name in its file; None where several do."""
    bound = [node for node in ast.parse(spec.source).body if spec.function in _names([node])]
    return bound[0] if len(bound) == 1 else None


def _methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


@contextmanager
def loading(file: str) -> Iterator[None]:
    """Note meanwhile that the code of a file is being run to find a function or a class in it."""
    _being_loaded.append(file)
    try:
        yield
    finally:
        _being_loaded.remove(file)


def refuse_loading(study: str) -> None:
    """Refuse to train because a file of the user's code is being loaded, which trains itself when it is run.

    Raises:
        TrainableError: one is.
    """
    if _being_loaded:
        raise TrainableError(
            f"{_being_loaded[-1]!r} trains {study!r} whenever it is loaded, as workers do; put that below "
            'if __name__ == "__main__":'
        )


def _named(text: str) -> tuple[str, str]:
    """Return file and name of what was typed."""
    file, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier():
        file, function = text, DEFAULT_FUNCTION
    if not file.endswith(".py"):
        raise TrainableError(f"expected FILE.py:NAME, of a function or a class, found {text!r}")
    return file, function


def _place(function: Any) -> tuple[str, str]:
    """Return file and name of a function or class."""
    if not callable(function):
        raise TrainableError(f"expected a function or a class, or FILE.py:NAME of one, found {function!r:.60}")
    shown = getattr(function, "__qualname__", None) or type(function).__name__
    # of what a decorator made, these are those of what was decorated
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        raise TrainableError(f"expected {shown!r} in a Python file, which workers can load; write it to one")
    names = [name for name, value in vars(module).items() if value is function]
    if not names:
        raise TrainableError(
            f"expected a function or class at the top of {file!r}, which workers find by name, found {shown!r}; move "
            "it there"
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
