"""Reading a study of a million trials of 5 reports: the best of a filter, counts, frames, the command.

Making the databases takes some minutes; --keep FOLDER keeps them for the next run.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD, Results, arguments, at_most

os.environ.update(ONE_THREAD)

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import databases

from caviar.records import TrialState
from caviar.storage import bulk, open_storage, report_rows, schema
from caviar.storage.sql_storage import SqlStorage

_BLOCK = 10_000
_FILTER = "val_accuracy > 0.95 and learning_rate < 0.01 and optimizer = 'adam'"


def make(url: str, n_trials: int, n_reports: int) -> None:
    """Fill a database, past the coordinator's path, which would write each trial twice."""
    storage = open_storage(url)
    assert isinstance(storage, SqlStorage)
    storage.create_study(databases.spec())
    for first in range(0, n_trials, _BLOCK):
        numbers = range(first, min(first + _BLOCK, n_trials))
        told = databases.results(databases.waiting(numbers), n_reports)
        storage.add_trials("bench", [result.trial for result in told])
        ids = (schema.trial_id(1, number) for number in numbers)
        blocks = [
            report_rows.to_block(trial_id, result.reports)
            for trial_id, result in zip(ids, told, strict=True)
            if result.reports is not None
        ]
        storage.database.write("add reports", lambda connection, blocks=blocks: bulk.put_reports(connection, blocks))
    storage.close()


def seconds(run: Callable[[], object], rounds: int) -> list[float]:
    """Time something, after one run that does not count."""
    run()
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return took


def read(results: Results, kind: str, url: str, n_trials: int, rounds: int) -> None:
    """Ask what users ask."""
    storage = open_storage(url, create=False)
    n_frame = min(100_000, n_trials)

    def ask(where: str | None, sort: str | None) -> None:
        assert len(storage.trials("bench", where=where, sort=sort, limit=20)) == 20

    def count() -> None:
        assert storage.summary("bench").counts[TrialState.COMPLETE] == n_trials - n_trials // 50

    questions: dict[str, tuple[Callable[[], object], float]] = {
        f"top 20 where {_FILTER}": (lambda: ask(_FILTER, "-val_accuracy"), 0.1),
        "top 20 by val_accuracy": (lambda: ask(None, "-val_accuracy"), 0.1),
        "top 20 by val_loss where layers = 1": (lambda: ask("layers = 1", "val_loss"), 0.1),
        "first 20 of state FAIL": (lambda: ask("state = 'FAIL'", None), 0.1),
        "count by state": (count, 0.05),
        "best trial": (lambda: storage.best_trial("bench"), 0.05),
        f"a frame of {n_frame} trials": (lambda: storage.frame("bench", limit=n_frame), 2.0),
        "a frame of the top 1000": (lambda: storage.frame("bench", sort="-val_accuracy", limit=1000), 0.5),
    }
    for question, (run, bound) in questions.items():
        results.figure(f"{kind}: {question}", seconds(run, rounds), "s", at_most(bound))
    storage.close()
    command = [str(Path(sys.executable).with_name("caviar")), "query", "bench", "--where", _FILTER]
    command += ["--sort=-val_accuracy", "--limit", "20", "--format", "json", "--storage", url]

    def query() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    results.figure(f"{kind}: `caviar query`, the whole command", seconds(query, rounds), "s", at_most(0.7))


def main() -> None:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--reports", type=int, default=5, help="of each trial (%(default)s)")
    parser.add_argument("--keep", type=Path, help="make the databases in this folder, or find them there")
    options = parser.parse_args()
    results = Results(options)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="caviar-b-"))
    with databases.databases(folder) as makers:
        for kind, url_of in makers.items():
            name = f"read_{options.trials}x{options.reports}"
            url, is_new = url_of(name)
            if is_new:
                start = time.perf_counter()
                make(url, options.trials, options.reports)
                results.figure(f"{kind}: making {options.trials} trials", [time.perf_counter() - start], "s")
            read(results, kind, url, options.trials, options.rounds)
    if options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    results.finish()


if __name__ == "__main__":
    main()
