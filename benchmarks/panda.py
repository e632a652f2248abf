"""Panda mode: what babysitting costs an epoch, how soon a request is applied, and what checkpoints cost.

The epoch is one of 784-128-64-10 on 10,000 examples in mini-batches of 128, babysat with a checkpoint each, against the
same epochs trained by `advance` alone. Requests come from a second process.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD, Results, arguments, at_most, in_turn

os.environ.update(ONE_THREAD)

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from caviar.execution.inline import InlineExecutor
from caviar.nn.kernel import choose_kernel, kernel_name
from caviar.panda.session import PandaSession
from caviar.panda.start import Horizon, Nursery
from caviar.records import DataSpec, StudySpec
from caviar.space import SearchSpace
from caviar.storage import open_storage, schema
from caviar.training.advance import advance, initial_state
from caviar.training.checkpoint import save_checkpoint
from caviar.training.dataset import Dataset, Examples

PARAMS = {"learning_rate": 1e-3, "hidden_units": "128-64", "batch_size": 128, "optimizer": "adam"}
EPOCHS = 10
N_REQUESTS = 30
N_CHECKPOINTS = 10_000

ASKING = """
import sys, time, uuid
from caviar.records import Intervention, Status
from caviar.storage import open_storage

storage = open_storage(sys.argv[1])
sessions = storage.sessions
study, number = sys.argv[2].split("/")
print("ready", flush=True)
for line in sys.stdin:
    rate = 1e-3 + int(line) * 1e-9
    start = time.perf_counter()
    asked = sessions.ask(
        Intervention(trial=sys.argv[2], token=uuid.uuid4().hex, kind="set", arguments={"learning_rate": rate})
    )
    while sessions.intervention(study, int(number), asked.token).status is Status.ASKED:
        time.sleep(0.001)
    print(time.perf_counter() - start, flush=True)
"""


def make_data() -> Dataset:
    """Return 10,000 examples of 784 features in 10 classes, and 2,000 to validate on."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 784))

    def examples(n: int) -> Examples:
        y = rng.integers(0, 10, n)
        return Examples((centres[y] + 3 * rng.normal(size=(n, 784))).astype(np.float32), y.astype(np.int64))

    parts = [examples(n) for n in (10_000, 2_000, 100)]
    names = tuple(f"f{index}" for index in range(784))
    return Dataset("made", *parts, tuple("0123456789"), names, "f" * 64)


class Bench:
    """A study, its data, and models babysat one after the other."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkpoints"
        self.url = f"sqlite:///{folder}/caviar.db"
        self.storage = open_storage(self.url)
        self.data = make_data()
        spec = StudySpec(
            name="bench",
            data=DataSpec(source="made", fingerprint="f" * 64),
            space=SearchSpace(**PARAMS).to_dict(),
            epochs=EPOCHS,
            kernel=kernel_name(),
        )
        self.spec = self.storage.create_study(spec)

    def start(self, epochs: int | None) -> PandaSession:
        """Return a fresh model, not trained yet."""
        executor = InlineExecutor()
        executor.load(self.data)
        nursery = Nursery(storage=self.storage, spec=self.spec, data=self.data, executor=executor, root=self.root)
        return nursery.fresh({}, Horizon(epochs=epochs, until_stopped=epochs is None))


def epochs_in_turn(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return seconds per epoch, round by round: babysat, and untended."""
    kernel = choose_kernel(bench.spec.kernel)
    seconds: dict[str, list[float]] = {"babysat": [], "untended": []}
    for number in range(rounds + 1):
        state = initial_state((0, number), PARAMS, bench.data)
        start = time.perf_counter()
        advance(state, PARAMS, bench.data, EPOCHS, kernel=kernel)
        untended = time.perf_counter() - start
        with bench.start(EPOCHS) as panda:
            start = time.perf_counter()
            for _ in panda:
                pass
            babysat = time.perf_counter() - start
        if number:  # the first round warms up
            seconds["untended"].append(untended / EPOCHS)
            seconds["babysat"].append(babysat / EPOCHS)
    return seconds


def request_seconds(bench: Bench) -> list[float]:
    """Return how long each request of a second process took, from asking until it saw the answer."""
    found: list[float] = []
    with bench.start(None) as panda:
        command = [sys.executable, "-c", ASKING, bench.url, panda.trial.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdin is not None and other.stdout is not None

            def ask() -> None:
                other.stdout.readline()
                for index in range(N_REQUESTS):
                    print(index, file=other.stdin, flush=True)
                    found.append(float(other.stdout.readline()))
                other.stdin.close()

            asking = threading.Thread(target=ask)
            asking.start()
            while asking.is_alive():
                next(panda)
            asking.join()
        panda.stop()
    return found[2:]


def checkpoint_sides(bench: Bench, folder: Path) -> dict[str, Callable[[], object]]:
    """Return how a checkpoint is written, and how its bytes alone are written and brought to the disk."""
    state = initial_state((0, 0), PARAMS, bench.data)
    path, plain = folder / "one.safetensors", folder / "plain"
    save_checkpoint(path, state, PARAMS)
    content = path.read_bytes()

    def write_bytes() -> None:
        with plain.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return {"checkpoint": lambda: save_checkpoint(path, state, PARAMS), "its bytes alone": write_bytes}


def stop_seconds(bench: Bench) -> tuple[list[float], list[float]]:
    """Return for how long handing a state over stopped training, and how long copying it takes, epoch by epoch."""
    stopped, copied = [], []
    with bench.start(EPOCHS * 3) as panda:
        put = panda.scribe.put

        def timed_put(entry: object) -> None:
            start = time.perf_counter()
            put(entry)
            stopped.append(time.perf_counter() - start)
            start = time.perf_counter()
            for array in (panda.state.parameters, panda.state.moments, panda.state.running):
                array.copy()
            copied.append(time.perf_counter() - start)

        panda.scribe.put = timed_put
        for _ in panda:
            pass
        panda.scribe.put = put
    return stopped, copied


def fill_shelf(bench: Bench) -> int:
    """Make the database know 10,000 checkpoints of one trial; return its number."""
    with bench.start(1) as panda:
        number = panda.trial.number
        first = panda.checkpoints[0]
    row = {name: getattr(first, name) for name in ("batch", "step", "segment", "sequence", "size_bytes")}

    def work(connection: object) -> None:
        key = bench.storage.study_key(connection, "bench")
        more = {"trial_id": schema.trial_id(key.id, number), "created_at": datetime.now(UTC)}
        rows = [row | more | {"epoch": epoch, "path": f"e{epoch}"} for epoch in range(N_CHECKPOINTS)]
        connection.execute(insert(schema.checkpoints), rows)

    bench.storage.database.write("fill", work)
    return number


def main() -> None:
    """Print each figure beside its aim."""
    options = arguments(__doc__).parse_args()
    results = Results(options)
    with tempfile.TemporaryDirectory(prefix="caviar-benchmark-") as name:
        folder = Path(name)
        bench = Bench(folder)
        results.compare(
            "an epoch of 784-128-64-10 on 10,000 examples, a checkpoint each",
            epochs_in_turn(bench, options.rounds),
            ours="babysat",
            aims={"untended": at_most(1.05)},
        )
        milliseconds = [1e3 * seconds for seconds in request_seconds(bench)]
        results.figure("from asking to the answer, from a second process", milliseconds, "ms", at_most(100))
        results.compare(
            "writing a checkpoint",
            in_turn(checkpoint_sides(bench, folder), options.rounds),
            ours="checkpoint",
            aims={"its bytes alone": at_most(2)},
        )
        stopped, copied = stop_seconds(bench)
        results.compare(
            "training stops for a checkpoint",
            {"handing over": stopped, "copying the state": copied},
            ours="handing over",
            aims={"copying the state": at_most(1)},
        )
        number = fill_shelf(bench)
        sessions = bench.storage.sessions
        listed = in_turn({"list": lambda: sessions.checkpoints("bench", number)}, options.rounds)["list"]
        results.figure("10,000 checkpoints listed", [1e3 * seconds for seconds in listed], "ms", at_most(100))
        bench.storage.close()
    results.finish()


if __name__ == "__main__":
    main()
