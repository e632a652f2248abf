"""Which kernel is used: the argument, else the environment, else the fastest there is."""

from __future__ import annotations

import pytest

from caviar.errors import SettingsError
from caviar.nn.kernel import KERNELS, choose_kernel, kernel_name


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
