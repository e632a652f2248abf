"""A sweep that writes as fast as it can, alone and with 32 processes that ask once a second and an open dashboard.

Windows alone and windows in company take turns on one study. Every answer is checked, and every error counts.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD, Results, arguments, at_most

os.environ.update(ONE_THREAD)

import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import databases

from caviar.recorder import GROUP_TRIALS, Recorder
from caviar.records import TrialState
from caviar.storage import open_storage
from caviar.storage.holder import new_holder
from caviar.storage.spool import Spool

_N_READERS = 32


def ask(url: str, is_open: Any, is_over: Any, answers: Any) -> None:
    """Ask for the top 20 once a second while the doors are open; put what went wrong, or None, into `answers`."""
    storage = open_storage(url, create=False)
    while not is_over.wait(1.0):
        if not is_open.is_set():
            continue
        try:
            top = storage.trials("bench", sort="-val_accuracy", limit=20)
            values = [trial.metrics["val_accuracy"] for trial in top]
            is_whole = len(top) == 20 and values == sorted(values, reverse=True)
            answers.put(None if is_whole and all(len(t.params) == databases.N_PARAMS for t in top) else "not whole")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is counted
            answers.put(repr(error))
    storage.close()


@contextmanager
def dashboard(url: str, is_open: Any, answers: Any) -> Iterator[None]:
    """Run the dashboard, and ask it as an open page does: for the trials that are new, every other second."""
    command = [str(Path(sys.executable).with_name("caviar")), "dashboard", "--port", "0", "--storage", url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
    assert found is not None, "the dashboard did not start: pip install 'caviar[dashboard]'"
    is_over = threading.Event()

    def look() -> None:
        n_seen = 0
        while not is_over.wait(2.0):
            if not is_open.is_set():
                continue
            try:
                with urllib.request.urlopen(f"{found.group()}/api/studies/1?after={n_seen}", timeout=120) as answer:
                    n_seen += len(json.load(answer)["trials"])
                answers.put(None)
            except Exception as error:  # noqa: BLE001 - as above
                answers.put(repr(error))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        is_over.set()
        looking.join()
        process.send_signal(2)
        process.communicate(timeout=60)


class Writer:
    """Records trials of 7 params and 20 reports for a while."""

    def __init__(self, url: str, folder: Path) -> None:
        self._storage = open_storage(url)
        spec = self._storage.create_study(databases.spec())
        self._recorder = Recorder(self._storage, spec.name, new_holder(), Spool(spec, folder))
        self._block = databases.results(databases.waiting(range(GROUP_TRIALS)))
        self._next = 0

    def write(self, seconds: float) -> float:
        """Write for so long; return trials per second, counted when all is durable."""
        start, first = time.perf_counter(), self._next
        while time.perf_counter() - start < seconds:
            told = [replace(r, trial=replace(r.trial, number=self._next + i)) for i, r in enumerate(self._block)]
            self._recorder.add([replace(result.trial, state=TrialState.WAITING) for result in told])
            for result in told:
                self._recorder.record(result)
            self._recorder.flush()
            self._next += len(told)
        return (self._next - first) / (time.perf_counter() - start)

    def close(self) -> None:
        """End it."""
        self._recorder.close()
        self._storage.close()


def crowd(results: Results, kind: str, url: str, folder: Path, rounds: int, seconds: float) -> None:
    """Compare windows alone with windows in company."""
    writer = Writer(url, folder)
    writer.write(2.0)
    context = multiprocessing.get_context("spawn")
    is_open, is_over, answers = context.Event(), context.Event(), context.Queue()
    readers = [context.Process(target=ask, args=(url, is_open, is_over, answers)) for _ in range(_N_READERS)]
    for reader in readers:
        reader.start()
    with dashboard(url, is_open, answers):
        is_open.set()
        for _ in range(_N_READERS):
            answers.get(timeout=240)  # all have begun
        rates: dict[str, list[float]] = {"in company": [], "alone": []}
        for _ in range(rounds):
            is_open.set()
            rates["in company"].append(writer.write(seconds / rounds))
            is_open.clear()
            rates["alone"].append(writer.write(seconds / rounds))
        is_over.set()
    told = []
    while any(reader.is_alive() for reader in readers) or not answers.empty():
        if not answers.empty():
            told.append(answers.get())
    for reader in readers:
        reader.join()
    writer.close()
    wrong = [answer for answer in told if answer is not None]
    results.compare(
        f"{kind}: writing", rates, ours="in company", unit="trials/s", aims={"alone": at_most(1.25)},
        higher_is_better=True,
    )  # fmt: skip
    results.figure(f"{kind}: answers that were wrong or errors, of {len(told)}", [len(wrong)], "", at_most(0))
    for answer in sorted(set(wrong))[:5]:
        print(f"    {answer}")


def main() -> None:
    """Run it."""
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="in company, and as long alone (%(default)s)")
    options = parser.parse_args()
    results = Results(options)
    with databases.databases() as makers, tempfile.TemporaryDirectory() as folder:
        for kind, make in makers.items():
            crowd(results, kind, make()[0], Path(folder), options.rounds, options.seconds)
    results.finish()


if __name__ == "__main__":
    main()
