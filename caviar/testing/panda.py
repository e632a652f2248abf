"""What the tests of panda mode share: a process to babysit in, and a plain way to tell what a run comes to."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from caviar.bootstrap import checkpoint_folder
from caviar.nn.kernel import choose_kernel
from caviar.opening import create_study, load_study
from caviar.panda.session import PandaSession
from caviar.records import Intervention, Params, Status, StoredCheckpoint
from caviar.space import SearchSpace
from caviar.storage.sql_storage import SqlStorage
from caviar.study import Study
from caviar.training.advance import advance, initial_state
from caviar.training.checkpoint import load_checkpoint
from caviar.training.state import Point, TrainState

_PROCESSES = get_context("forkserver")
# what each process would import on its way, pandas above all to read its table, is imported once
_PROCESSES.set_forkserver_preload(
    ["caviar.testing.panda", "caviar.panda.start", "caviar.execution.inline", "caviar.data.tables", "pandas", "pyarrow"]
)

#: Of whatever another process is waited for to do.
DEADLINE_S = 120.0


def babysit_elsewhere(study: Study, number: int, **options: Any) -> BaseProcess:
    """Babysit a trial in a process of its own until it ends.

    Args:
        study: in a file or on a server.
        number: of the trial.
        options: of `Study.panda`.
    """
    assert isinstance(study.storage, SqlStorage)  # whose URL another process can open
    url = study.storage.database.url.render_as_string(hide_password=False)
    root = str(checkpoint_folder(study.storage).resolve())
    arguments = (url, study.name, number, root, options)
    # a daemon, so that a test that fails does not wait for it
    process = _PROCESSES.Process(target=_babysit, args=arguments, daemon=True)
    process.start()
    return process


def _babysit(url: str, name: str, number: int, root: str, options: Mapping[str, Any]) -> None:
    os.environ["CAVIAR_CHECKPOINTS"] = root
    study = load_study(name, storage=url)
    with study.panda(number, **options) as panda:
        for _ in panda:
            pass
    study.storage.close()


def wait(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Return once a condition holds; fail where it does not in time, or where the process has ended badly."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        process.join(0.005)  # which leaves it the processor meanwhile
        assert process.exitcode in (None, 0), f"the process ended with {process.exitcode}"


def end(process: BaseProcess) -> None:
    """Wait for a process, which must end well."""
    process.join(DEADLINE_S)
    assert process.exitcode == 0


def train_to(panda: PandaSession, epoch: int) -> None:
    """Train until an epoch is done."""
    while panda.epoch < epoch:
        next(panda)


def train_within(panda: PandaSession, batch: int) -> None:
    """Train some mini-batches of the epoch under way, as the session itself does between two looks at its requests."""
    advanced = panda._trainer.advance(panda.state, panda.course.params, (panda.epoch, panda.state.batch + batch))
    assert advanced.state is not None
    panda.state = advanced.state


@dataclass
class Retold:
    """A run told anew from its record, by `advance` alone."""

    state: TrainState
    params: Params
    #: Metrics by epoch.
    history: dict[int, dict[str, float]] = field(default_factory=dict)


def retell(study: Study, number: int, until: Point, start: TrainState | None = None) -> Retold:
    """Train a babysat trial again with the interventions on its record, without anything of panda mode.

    Args:
        study: of the trial.
        number: of the trial.
        until: where to end.
        start: the state that it began with; None for a fresh model.
    """
    session = study.storage.sessions.get(study.name, number)
    assert session is not None
    data, kernel = study.data, choose_kernel(study.spec.kernel)
    params, pending = dict(session.start_params), dict[str, Any]()
    state = start or initial_state((study.spec.seed, number), params, data)
    ends, history = {state.epoch: state}, dict[int, dict[str, float]]()

    def go(point: Point) -> None:
        nonlocal state
        while state.point < point:
            progress = advance(state, params, data, min(point, (state.epoch + 1, 0)), kernel=kernel)
            assert progress.diverged_at is None
            state = progress.state
            if not state.batch:
                params.update(pending)
                pending.clear()
                ends[state.epoch] = state
                history[state.epoch] = progress.reports.last

    for past in study.storage.sessions.interventions(study.name, number):
        if past.status is not Status.APPLIED or past.kind not in ("set", "rollback"):
            continue
        assert past.epoch is not None and past.batch is not None and past.after is not None
        go((past.epoch, past.batch))
        if past.kind == "rollback":
            state = ends[past.after["epoch"]]
            for epoch in [epoch for epoch in history if epoch > state.epoch]:
                del history[epoch]
            params.update(pending)
            pending.clear()
        changes = {name: past.arguments[name] for name in past.arguments if name not in ("to", "at", "epochs")}
        if state.batch and "batch_size" in changes:
            pending["batch_size"] = changes.pop("batch_size")
        params.update(changes)
    go(until)
    return Retold(state, params, history)


def last_checkpoint(study: Study, number: int) -> StoredCheckpoint:
    """Return the checkpoint in which a trial stands: the furthest one on its timeline."""
    found = [c for c in study.storage.sessions.checkpoints(study.name, number) if not c.abandoned]
    return max(found, key=lambda c: (c.epoch, c.batch, c.sequence))


def epoch_of(study: Study) -> int:
    """Return the epochs that the trial has, as the database knows."""
    return study.storage.get_trial("s", 0).epoch


def request(kind: str, **arguments: Any) -> Intervention:
    """Return a request to the trial."""
    return Intervention(trial="s/0", token=uuid.uuid4().hex, kind=kind, arguments=arguments, author="tester")


def intervention(study: Study, token: str) -> Intervention:
    """Return what has become of a request to the trial."""
    found = study.storage.sessions.intervention("s", 0, token)
    assert found is not None
    return found


def files(study: Study) -> list[str]:
    """Return all files in the checkpoint folder."""
    return sorted(str(path) for path in checkpoint_folder(study.storage).rglob("*.*"))


def stored_state(study: Study, checkpoint: StoredCheckpoint) -> TrainState:
    """Return the state of a checkpoint."""
    state = load_checkpoint(checkpoint_folder(study.storage) / checkpoint.path).state
    assert isinstance(state, TrainState)
    return state


def assert_same_state(found: TrainState, expected: TrainState) -> None:
    """Hold two states against each other, to the bit."""
    assert (found.key, found.epoch, found.batch, found.position) == (
        expected.key,
        expected.epoch,
        expected.batch,
        expected.position,
    )
    assert (found.step, found.loss_sum, found.n_examples) == (expected.step, expected.loss_sum, expected.n_examples)
    for name in ("parameters", "moments", "running"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), f"{name} differ"


def assert_as_retold(study: Study, number: int, start: TrainState | None = None) -> None:
    """Hold a trial's last checkpoint and all its reports against its record."""
    found = stored_state(study, last_checkpoint(study, number))
    expected = retell(study, number, found.point, start)
    assert_same_state(found, expected.state)
    reports = study.reports(number)
    rows = {
        reports.first_epoch + index: dict(zip(reports.metrics, row, strict=True))
        for index, row in enumerate(reports.values.tolist())
    }
    assert rows == expected.history


def write_table(path: Path, n: int = 150) -> Path:
    """Write a CSV file of `n` examples of 5 features in 3 classes that overlap a little; return its path."""
    rng = np.random.default_rng(11)
    lines = ["a,b,c,d,e,label"]
    for index in range(n):
        x = rng.normal(size=5)
        x[0] += 1.5 * (index % 3)
        lines.append(",".join([*(f"{value:.6f}" for value in x), "xyz"[index % 3]]))
    path.write_text("\n".join(lines) + "\n")
    return path


def make_study(url: str, table: Path, *, epochs: int = 6, **params: Any) -> Study:
    """Create a study `s` of small networks, 12 mini-batches an epoch; `table` is what `write_table` wrote."""
    fixed = {"learning_rate": 0.02, "hidden_units": 6, "layers": 1, "batch_size": 8, "optimizer": "adam", **params}
    return create_study("s", SearchSpace(**fixed), data=table, target="label", seed=3, epochs=epochs, storage=url)


def tiny_state() -> TrainState:
    """Return a state of a network of a few parameters."""
    ones = np.ones(6, np.float32)
    return TrainState(key=(0, 0), parameters=ones, moments=np.zeros((2, 6), np.float32), running=np.zeros((2, 2)))
