"""What makes a trial that a user's code trains depend on itself alone: seeds, threads, and where it talks to."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import random
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give the generators of this process a trial's seed meanwhile, and PyTorch one thread; what is printed is talk.

    What a trial gives must not depend on those before it, on how many cores there are, or on who calls. PyTorch may be
    imported by the trial itself, or by anything that it imports: then it is seeded there, as if it had been there.
    """
    pythons, numpys = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    torchs = None if torch is None else (torch.get_rng_state(), torch.get_num_threads())
    random.seed(seed)
    np.random.seed(seed)
    waiting = _WaitsForTorch(seed)
    if torch is None:
        sys.meta_path.insert(0, waiting)
    else:
        _seed_torch(torch, seed)
    try:
        with talking():
            yield
    finally:
        if waiting in sys.meta_path:
            sys.meta_path.remove(waiting)
        random.setstate(pythons)
        np.random.set_state(numpys)
        if torch is not None and torchs is not None:
            torch.set_rng_state(torchs[0])
            torch.set_num_threads(torchs[1])


def _seed_torch(torch: Any, seed: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(1)


class _WaitsForTorch(MetaPathFinder, Loader):
    """Seeds PyTorch as soon as it is imported."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._loader: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find PyTorch where it is found without this, and nothing else."""
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        if found is not None and found.loader is not None:
            self._loader, found.loader = found.loader, self
        return found

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module as its own loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and seed it."""
        assert module.__spec__ is not None
        module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _seed_torch(module, self._seed)


class _Talk(io.TextIOBase):
    """Standard error under another name, which a function may close without harm."""

    def write(self, text: str) -> int:
        """Write to standard error."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()

    def fileno(self) -> int:
        """Return the descriptor of standard error."""
        return sys.stderr.fileno()

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """Send what is printed to standard error: standard output is for data."""
    with contextlib.redirect_stdout(_Talk()):
        yield
