"""What the unit tests share: each kernel in turn."""

from __future__ import annotations

import pytest

from caviar.nn.kernel import KERNELS, Kernel, choose_kernel


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each kernel in turn; all pass the same tests."""
    return choose_kernel(request.param)
