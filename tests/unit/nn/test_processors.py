"""The compiled kernel gives the same bits on each processor: this one runs what is compiled for others."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from caviar.nn.initial import epoch_order, initial_parameters
from caviar.nn.kernel import Update, choose_kernel
from caviar.nn.network import Network

#: Layers, mini-batch, optimizer and dtype: rows and columns that fill vectors and that do not, more than fit into one.
TRAININGS = [
    ((64, 64, 64, 10), 64, "adam", "float32"),
    ((13, 37, 10, 3), 31, "rmsprop", "float32"),
    ((64, 90, 33, 23), 50, "momentum", "float32"),
    ((900, 20, 2), 32, "sgd", "float32"),
    ((30, 10), 20, "adam", "float32"),
    ((20, 33, 17, 5), 29, "adam", "float64"),
]
#: The parameters of the first training, as SHA-256: bits that neither a compiler nor a machine may change.
EXPECTED = "713a22547edb"


def train(sizes: tuple[int, ...], M: int, optimizer: str, dtype: str) -> tuple[np.ndarray, ...]:
    """Train seven mini-batches and a bit, and evaluate; return all that comes of it."""
    network, kernel, key = Network(sizes), choose_kernel("compiled"), (3, 1)
    rng, n = np.random.default_rng(0), 7 * M + 5
    x, y = rng.standard_normal((n, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], n)
    parameters = initial_parameters(network, key, dtype)
    n_moments = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2}[optimizer]
    moments, running = np.zeros((n_moments, len(parameters)), dtype), np.zeros((2, network.n_units), dtype)
    update = Update(optimizer, 0.01, 0.9, 0.001)
    told = kernel.train(network, parameters, moments, running, 0, x, y, epoch_order(key, 0, n), M, update)
    return (
        parameters,
        moments,
        running,
        np.array(told),
        np.array(kernel.evaluate(network, parameters, running, 8, x, y)),
    )


def digest(*arrays: np.ndarray) -> str:
    """Return a hash of all bits."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def digests() -> str:
    """Return a line for each training."""
    return "\n".join(digest(*train(*training)) for training in TRAININGS)


def features(without: tuple[str, ...]) -> str:
    """Return this processor's features without some, as Numba takes them."""
    from llvmlite import binding

    found = binding.get_host_cpu_features()
    return ",".join(f"{'+' if has and not name.startswith(without) else '-'}{name}" for name, has in found.items())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for kinds of x86-64")
@pytest.mark.parametrize(
    ("name", "without", "expected_width"),
    [
        ("znver3", ("avx512", "avx10", "amx"), "32"),
        ("x86-64", ("avx", "amx", "fma", "f16c", "xop", "vaes", "vpclmul"), "16"),
    ],
    ids=["vectors of 32 bytes", "vectors of 16 bytes, no fused products"],
)
def test_the_bits_are_those_of_other_processors(name: str, without: tuple[str, ...], expected_width: str) -> None:
    """Narrower vectors, another order of instructions, and products that are fused in software change none."""
    pytest.importorskip("numba", reason="install numba")
    there = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features(without)}

    done = subprocess.run(
        [sys.executable, __file__], env=there, check=True, capture_output=True, text=True, timeout=300
    )

    width, *found = done.stdout.split()
    assert width == expected_width
    assert found == digests().split()


def test_the_bits_stay_what_they_were() -> None:
    """A change of the code, or of a library, that changes them is seen here: it makes old trials unrepeatable."""
    pytest.importorskip("numba", reason="install numba")

    assert digest(train(*TRAININGS[0])[0])[:12] == EXPECTED


if __name__ == "__main__":
    from caviar.nn.compiled_vectors import VECTOR

    print(VECTOR)
    print(digests())
