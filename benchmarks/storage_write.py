"""Writing trials of 7 params and 20 reports: the coordinator's path, and Optuna's interface, against Optuna's storages.

The coordinator's path is caviar's recorder: new trials, their results, in grouped transactions, until all is durable.
Optuna's storages are written in the only way there is: ask, seven suggestions by a random sampler, 20 reports, tell.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD, Results, arguments, at_least, at_most

os.environ.update(ONE_THREAD)

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import databases
import optuna

from caviar.recorder import Recorder
from caviar.records import TrialResult
from caviar.storage import open_storage, optuna_storage
from caviar.storage.holder import new_holder
from caviar.storage.spool import Spool

#: Trials of one sample: enough to take a while on the fastest side, and to end on the slowest.
_N_OURS, _N_OUR_OPTUNA, _N_RDB, _N_JOURNAL, _N_RUSTUNA = 3000, 30, 3, 20, 100


class Coordinator:
    """A study that is written as a sweep writes it."""

    def __init__(self, url: str, folder: Path) -> None:
        self._storage = open_storage(url)
        spec = self._storage.create_study(databases.spec())
        self._recorder = Recorder(self._storage, spec.name, new_holder(), Spool(spec, folder))
        self._next = 0

    def prepare(self, n: int) -> list[TrialResult]:
        """Return so many trials that are still to be written."""
        numbers = range(self._next, self._next + n)
        self._next = numbers.stop
        return databases.results(databases.waiting(numbers))

    def write(self, results: list[TrialResult]) -> float:
        """Add trials, record their results, wait until all is durable; return the seconds."""
        new = [databases.Trial(study=r.trial.study, number=r.trial.number, state=databases.TrialState.WAITING,
                               params=r.trial.params) for r in results]  # fmt: skip
        start = time.perf_counter()
        for at in range(0, len(new), 1024):
            self._recorder.add(new[at : at + 1024])
            for result in results[at : at + 1024]:
                self._recorder.record(result)
        self._recorder.flush()
        return time.perf_counter() - start

    def close(self) -> None:
        """End it."""
        self._recorder.close()
        self._storage.close()


def _sampler() -> optuna.samplers.BaseSampler:
    """Return one that looks at no other trial: it is the storage that is measured."""
    return optuna.samplers.RandomSampler(seed=0)


def rate(n: int, run: Callable[[], object]) -> float:
    """Return trials per second."""
    start = time.perf_counter()
    run()
    return n / (time.perf_counter() - start)


def peers(kind: str, url: str, folder: Path) -> dict[str, tuple[Any, int]]:
    """Return studies on the storages of others, and how many trials a sample of each makes."""
    made = {
        "Optuna RDB": (
            optuna.create_study(
                storage=optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:")),
                study_name="bench",
            ),
            _N_RDB,
        ),
    }
    if kind == "SQLite":
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
        journal = optuna.storages.JournalStorage(backend)
        made["Optuna journal"] = (
            optuna.create_study(storage=journal, study_name="bench", sampler=_sampler()),
            _N_JOURNAL,
        )
        try:
            import rustuna
        except ImportError:
            return made
        storage = rustuna.storages.SQLite3Storage(str(folder / "rustuna.db"))
        made["rustuna, no reports"] = (
            rustuna.create_study(storage=storage, study_name="bench", sampler=rustuna.samplers.RandomSampler()),
            _N_RUSTUNA,
        )
    return made


def compare(results: Results, kind: str, make: databases.Maker, folder: Path, rounds: int) -> None:
    """Time all sides of one kind of database in turn."""
    coordinator = Coordinator(make()[0], folder)
    interface = optuna.create_study(storage=optuna_storage(make()[0]), study_name="bench", sampler=_sampler())
    others = peers(kind, make()[0], folder)
    rates: dict[str, list[float]] = {name: [] for name in ("coordinator", "interface", *others)}
    for index in range(rounds + 1):
        batch = coordinator.prepare(_N_OURS)
        rates["coordinator"].append(_N_OURS / coordinator.write(batch))
        rates["interface"].append(rate(_N_OUR_OPTUNA, lambda: databases.ask_report_tell(interface, _N_OUR_OPTUNA)))
        for name, (study, n) in others.items():
            rates[name].append(rate(n, lambda study=study, n=n: databases.ask_report_tell(study, n)))
        if index == 0:  # the first is not counted: connections, compiled statements, imports
            rates = {name: [] for name in rates}
    coordinator.close()
    for ours, title, aim in (
        ("coordinator", f"{kind}: the coordinator's path", 300),
        ("interface", f"{kind}: Optuna's interface", 5),
    ):
        results.compare(
            title,
            {name: rates[name] for name in (ours, *others)},
            ours=ours,
            unit="trials/s",
            aims={"Optuna RDB": at_least(aim)},
            higher_is_better=True,
        )


def stay_as_fast(results: Results, kind: str, make: databases.Maker, folder: Path, n: int, rounds: int) -> None:
    """Compare thousands at the beginning of a study with thousands after n trials."""
    small, large = Coordinator(make()[0], folder), Coordinator(make()[0], folder)
    for _ in range(n // 1000):
        large.write(large.prepare(1000))
    seconds: dict[str, list[float]] = {"late": [], "early": []}
    for index in range(rounds + 1):
        for name, side in (("late", large), ("early", small)):
            took = side.write(side.prepare(1000))
            if index:
                seconds[name].append(took)
    small.close()
    large.close()
    named = {f"after {n} trials": seconds["late"], "at the beginning": seconds["early"]}
    results.compare(
        f"{kind}: a thousand trials", named, ours=f"after {n} trials", aims={"at the beginning": at_most(1.1)}
    )


def main() -> None:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--late", type=int, default=100_000, help="trials that a study holds late (%(default)s)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = Results(options)
    with databases.databases() as makers, tempfile.TemporaryDirectory() as folder:
        for kind, make in makers.items():
            compare(results, kind, make, Path(folder), options.rounds)
        for kind, make in makers.items():
            stay_as_fast(results, kind, make, Path(folder), options.late, options.rounds)
    results.finish()


if __name__ == "__main__":
    main()
