"""Training by a function of the user's, in any framework: it is given a task, and reports metrics epoch by epoch."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import linecache
import random
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from caviar.errors import TrainableError
from caviar.nn.initial import Key, function_seed
from caviar.records import Params, TrainableSpec
from caviar.training.dataset import Dataset
from caviar.training.source import loading


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a function is given: one trial to train."""

    #: Of the trial, as the space gives them.
    params: Params
    #: 0 to 2**31 - 1, of this trial alone: for all that is random. Python's, NumPy's and PyTorch's own generators are
    #: seeded with it.
    seed: int
    #: To train; a function that reports more is ended there, and it may end earlier by itself.
    epochs: int
    #: Of the trial.
    number: int
    #: The study's data, split and standardised: `data.train.x` (N, D) and `data.train.y` (N,), `data.validation`,
    #: `data.test`; None where it has none. Read-only.
    data: Dataset | None


def reported(
    spec: TrainableSpec, key: Key, params: Params, epochs: int, data: Dataset | None, metric: str
) -> Generator[dict[str, float], None, None]:
    """Call a function, and yield the metrics of each epoch that it reports, at most so many.

    A function yields metrics after each epoch, or returns them at the end, which is one epoch: a dict of numbers by
    name, or one number, which is the study's metric. After its last epoch it may go on to its own end.

    Args:
        spec: the function.
        key: (study seed, trial number).
        params: of the trial.
        epochs: to train.
        data: of the study.
        metric: that has to be among what is reported.

    Raises:
        TrainableError: the function cannot be found, or reports something else.
        Exception: whatever the function raises.
    """
    function = loaded(spec)
    task = Task(params=dict(params), seed=function_seed(key), epochs=epochs, number=key[1], data=data)
    with _on_its_own(task.seed):
        found = function(task)
        if not isinstance(found, Mapping) and hasattr(found, "__iter__") and not hasattr(found, "__array__"):
            yield from _checked(iter(found), epochs, metric, spec.name)
        elif inspect.iscoroutine(found):
            found.close()
            raise TrainableError(f"expected {spec.name} to be no coroutine; write it with def, without async")
        else:
            yield from _checked(iter([found]), 1, metric, spec.name)


def _checked(found: Iterator[Any], epochs: int, metric: str, name: str) -> Iterator[dict[str, float]]:
    """Yield reports as plain numbers; all of a trial have the same names."""
    names: list[str] | None = None
    try:
        for epoch, report in enumerate(found, start=1):
            if epoch > epochs:
                return
            metrics = _numbers(report if isinstance(report, Mapping) else {metric: report}, name)
            if metric not in metrics:
                listed = ", ".join(metrics) or "nothing"
                raise TrainableError(f"expected metric {metric!r} among what {name} reports, found {listed}")
            if names is not None and names != list(metrics):
                if sorted(names) != sorted(metrics):
                    raise TrainableError(
                        f"expected {name} to report the same metrics in each epoch, {', '.join(names)}, found "
                        f"{', '.join(metrics)} in epoch {epoch}"
                    )
                metrics = {each: metrics[each] for each in names}
            names = list(metrics)
            yield metrics
    finally:
        if hasattr(found, "close"):
            found.close()
    if names is None:
        raise TrainableError(f"expected {name} to report {metric!r} after each epoch, found that it reported nothing")


def _numbers(report: Mapping[Any, Any], name: str) -> dict[str, float]:
    try:
        metrics = {metric: float(value) for metric, value in report.items()}
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        metrics = {"": 0.0}
    if not all(isinstance(metric, str) and metric for metric in metrics):
        raise TrainableError(f"expected {name} to report numbers by name, as {{'loss': 0.3}}, found {report!r:.80}")
    return metrics


@lru_cache(maxsize=8)
def loaded(spec: TrainableSpec) -> Callable[[Task], Any]:
    """Run the code of a file as a module of its own, once in a process, and return its function.

    Raises:
        TrainableError: what has its name cannot be called.
        Exception: whatever the file raises.
    """
    name = f"caviar_trainable_{hashlib.sha256(spec.source.encode()).hexdigest()[:12]}"
    tree = ast.parse(spec.source)
    _import_torch(tree)
    module = ModuleType(name)
    module.__file__ = spec.file
    folder = str(Path(spec.file).parent)
    if folder not in sys.path and Path(folder).is_dir():
        sys.path.insert(0, folder)  # for what lies beside it, as where Python itself runs a file
    # where the file is not on this machine, tracebacks have their lines all the same
    linecache.cache[spec.file] = (len(spec.source), None, spec.source.splitlines(keepends=True), spec.file)
    sys.modules[name] = module  # so that what it defines can be pickled
    try:
        with contextlib.redirect_stdout(sys.stderr), loading(spec.file):
            exec(compile(tree, spec.file, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    function = getattr(module, spec.function)
    if not callable(function):
        raise TrainableError(f"expected a function {spec.function!r} in {spec.file!r}, found {function!r:.60}")
    return function  # type: ignore[no-any-return]  # of the user's


def _import_torch(tree: ast.Module) -> None:
    """Import PyTorch if a file does so anywhere: it is seeded before a trial, also before the one that imports it."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    named = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    if any(name.partition(".")[0] == "torch" for name in named):
        with contextlib.suppress(ImportError):  # whoever needs it is told where it is used
            import_module("torch")


@contextlib.contextmanager
def _on_its_own(seed: int) -> Iterator[None]:
    """Give the generators of this process a trial's seed meanwhile, and PyTorch one thread; what is printed is talk.

    What a trial gives must not depend on those before it, on how many cores there are, or on who calls.
    """
    pythons, numpys = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    torchs = None if torch is None else (torch.get_rng_state(), torch.get_num_threads())
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)
        if torch is not None and torchs is not None:
            torch.set_rng_state(torchs[0])
            torch.set_num_threads(torchs[1])
