"""Which kernel is used: the argument, else the environment, else the fastest there is."""

from __future__ import annotations

import sys

import pytest

from caviar.errors import SettingsError
from caviar.nn.kernel import KERNELS, Kernel, choose_kernel, kernel_name


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_bears_the_name_it_is_chosen_by(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By argument and by CAVIAR_KERNEL alike."""
    assert choose_kernel(name).name == name

    monkeypatch.setenv("CAVIAR_KERNEL", name)
    assert choose_kernel().name == name


def test_without_a_wish_it_is_the_last_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty CAVIAR_KERNEL is no wish."""
    assert kernel_name() == KERNELS[-1]

    monkeypatch.setenv("CAVIAR_KERNEL", "")
    assert kernel_name() == KERNELS[-1]


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong CAVIAR_KERNEL is not looked at where a name is given."""
    monkeypatch.setenv("CAVIAR_KERNEL", "abacus")

    assert kernel_name("numpy") == "numpy"
    with pytest.raises(SettingsError, match=r"unknown kernel 'abacus' \(known: numpy.*\); set CAVIAR_KERNEL"):
        kernel_name()


def test_without_numba_the_compiled_kernel_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy alone is enough; who asks for the compiled kernel learns what to install."""
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed

    assert kernel_name() == choose_kernel().name == "numpy"
    with pytest.raises(SettingsError, match=r"needs Numba, .*pip install numba, or set CAVIAR_KERNEL=numpy"):
        kernel_name("compiled")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_can_be_prepared(kernel: Kernel, dtype: str) -> None:
    """The first model then waits for no compiler: all that the compiled kernel compiles is there."""
    kernel.prepare(dtype)

    if kernel.name == "compiled":
        from caviar.nn.compiled_loops import evaluate, train

        assert any(f"{dtype}, " in str(signature) for signature in train.signatures)
        assert any(f"{dtype}, " in str(signature) for signature in evaluate.signatures)
