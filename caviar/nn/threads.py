"""How many threads the BLAS of this process uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

#: What libraries ask for the number of their threads when they are loaded.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_thread(kernel: str) -> AbstractContextManager[object]:
    """Give the BLAS one thread meanwhile: more change the last bits, and two workers would fight over the cores.

    Args:
        kernel: name of the kernel that is used, which has been chosen before.
    """
    # NumPy and SciPy bring a BLAS each; a kernel has loaded its own once it is chosen
    limit: AbstractContextManager[object] = _threadpools(kernel).limit(limits=1)
    return limit


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Give each library of this process one thread meanwhile, those that are loaded meanwhile, too."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        with _threadpools(f"with {len(sys.modules)} modules").limit(limits=1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)  # what runs meanwhile may have taken it away
            else:
                os.environ[name] = value


def blas_threads() -> int:
    """Return how many threads the BLAS of this process would use."""
    return max((library.num_threads for library in ThreadpoolController().lib_controllers), default=1)


@lru_cache(maxsize=32)
def _threadpools(loaded: str) -> ThreadpoolController:
    return ThreadpoolController()
