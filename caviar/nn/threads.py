"""How many threads the BLAS of this process uses."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_thread(kernel: str) -> AbstractContextManager[object]:
    """Give the BLAS one thread meanwhile: more change the last bits, and two workers would fight over the cores.

    Args:
        kernel: name of the kernel that is used, which has been chosen before.
    """
    # NumPy and SciPy bring a BLAS each; a kernel has loaded its own once it is chosen
    limit: AbstractContextManager[object] = _threadpools(kernel).limit(limits=1)
    return limit


def blas_threads() -> int:
    """Return how many threads the BLAS of this process would use."""
    return max((library.num_threads for library in ThreadpoolController().lib_controllers), default=1)


@cache
def _threadpools(kernel: str) -> ThreadpoolController:
    return ThreadpoolController()
