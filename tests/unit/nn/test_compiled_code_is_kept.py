"""Where the machine code of the compiled kernel is kept, so that each machine compiles once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import caviar

SCRIPT = """
import numpy as np
from caviar.nn.compiled_loops import evaluate
from caviar.nn.kernel import choose_kernel
from caviar.nn.network import Network

network, x = Network((2, 2)), np.ones((3, 2), np.float32)
parameters, running = np.zeros(network.n_parameters, np.float32), np.zeros((2, 0), np.float32)
print(choose_kernel("compiled").evaluate(network, parameters, running, 0, x, np.zeros(3, np.int64)))
print(sum(evaluate.stats.cache_hits.values()))
"""


TRAINING_SCRIPT = """
import hashlib
import numpy as np
from caviar.nn.compiled_loops import train
from caviar.nn.initial import initial_parameters
from caviar.nn.kernel import Update, choose_kernel
from caviar.nn.network import Network

network, rng = Network((20, 30, 10, 4)), np.random.default_rng(1)
x, y = rng.normal(size=(300, 20)).astype(np.float32), rng.integers(0, 4, 300)
parameters = initial_parameters(network, (1, 2), np.dtype(np.float32)).copy()
moments, running = np.zeros((2, network.n_parameters), np.float32), np.zeros((2, network.n_units), np.float32)
update = Update("adam", 0.01, 0.9, 0.01)
choose_kernel("compiled").train(network, parameters, moments, running, 0, x, y, rng.permutation(300), 64, update)
print(hashlib.sha256(parameters.tobytes() + moments.tobytes() + running.tobytes()).hexdigest())
print(sum(train.stats.cache_hits.values()))
"""


ASKING_SCRIPT = "from caviar.nn.kernel import is_compiling; print(is_compiling('compiled')); print(0)"


def run(package: Path, environment: dict[str, str], script: str = SCRIPT) -> tuple[str, int]:
    """Run a script in a process; return what came out and how often compiled code was found on disk."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=package, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result, hits = done.stdout.splitlines()
    return result, int(hits)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of caviar, in whose folders nothing can be kept, whoever runs the tests."""
    source = Path(caviar.__file__).parent
    shutil.copytree(source, tmp_path / "site" / "caviar", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "site" / "caviar" / "nn" / "__pycache__").touch()  # a file: no folder of this name can be made
    return tmp_path / "site"


@pytest.mark.slow
def test_code_is_kept_where_the_package_cannot_be_written_to(package: Path, tmp_path: Path) -> None:
    """It goes to the user's cache folder, and the second process finds it there; whoever asks can tell."""
    environment = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    before, _ = run(package, environment, ASKING_SCRIPT)
    first, second = run(package, environment), run(package, environment)
    after, _ = run(package, environment, ASKING_SCRIPT)

    assert (first[1], second) == (0, (first[0], 1))
    assert (before, after) == ("True", "False")
    assert list((tmp_path / "cache").rglob("*.nbc"))


@pytest.mark.slow
def test_code_is_kept_where_the_user_has_no_folder(package: Path, tmp_path: Path) -> None:
    """It goes to a temporary folder that only the user can write to; where others can, it is kept nowhere."""
    nowhere = package / "caviar" / "nn" / "__pycache__"
    environment = {"HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere), "TMPDIR": str(tmp_path)}

    first, second = run(package, environment), run(package, environment)
    (folder,) = tmp_path.glob("caviar-kernel-*")
    mode = folder.stat().st_mode
    folder.chmod(0o777)
    distrusted = run(package, environment)

    assert (first[1], second, mode & 0o777) == (0, (first[0], 1), 0o700)
    assert distrusted == (first[0], 0)


@pytest.mark.slow
def test_kept_code_gives_the_bits_of_the_process_that_compiled_it(package: Path, tmp_path: Path) -> None:
    """A run that goes on in a second process, on a machine that had never compiled, goes on as it would have."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}

    first, second = (run(package, environment, TRAINING_SCRIPT) for _ in range(2))

    assert (first[1], second) == (0, (first[0], 1))
