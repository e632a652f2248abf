"""A file beside that keeps results while the database is away: one JSON line each, on the disk before `append` returns.

Its first line says which study it belongs to. A last line that was cut off, by a full disk or a power failure, is
dropped when the file is next used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from caviar.errors import StorageError
from caviar.records import StudySpec, TrialResult
from caviar.replacing import sync
from caviar.storage.plain import from_record, to_record

DEFAULT_FOLDER = "caviar-spool"
#: Results of a sweep for hours: about 2 kB for a trial of 20 epochs.
DEFAULT_LIMIT_BYTES = 1 << 30

_VERSION = 1


class Spool:
    """Results of one study that wait for its database.

    Promises that what `append` took survives the process and the machine's power, and comes back exactly, in order.
    There is no file while nothing waits.

    Args:
        spec: the study.
        folder: where the file goes; made when it is needed.
        limit_bytes: `is_full` from this size on.
    """

    def __init__(self, spec: StudySpec, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        created = spec.created_at.isoformat() if spec.created_at else ""
        # A study of the same name that was made at another time, or in another database, is another.
        self._identity = {"caviar_spool": _VERSION, "study": spec.name, "seed": spec.seed, "created_at": created}
        safe = re.sub(r"[^\w.-]+", "_", spec.name)[:60]
        self.path = folder / f"{safe}-{re.sub(r'[^0-9]', '', created)}.jsonl"
        self._study = spec.name
        self._limit_bytes = limit_bytes
        self.n_waiting = self._count()

    def __repr__(self) -> str:
        return f"Spool({str(self.path)!r}, n_waiting={self.n_waiting})"

    @property
    def is_full(self) -> bool:
        """Whether it should take no more."""
        return self._size() >= self._limit_bytes

    def append(self, results: Sequence[TrialResult]) -> None:
        """Keep results.

        Raises:
            StorageError: the file cannot be written.
        """
        lines = [json.dumps(to_record(result.trial, result.reports)) for result in results]
        size = self._size()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in ([] if size else [json.dumps(self._identity)]) + lines)
                file.flush()
                os.fsync(file.fileno())
            if not size:
                sync(self.path.parent)
        except OSError as error:
            self._cut(size)
            raise StorageError(
                f"the database does not answer, and results cannot wait in {str(self.path)!r}: "
                f"{error.strerror or error}; the same command goes on once the database answers"
            ) from error
        self.n_waiting += len(results)

    def groups(self, size: int) -> Iterator[list[TrialResult]]:
        """Return what waits, in order, up to `size` at a time.

        Raises:
            StorageError: the file is another study's, or cannot be read.
        """
        results = self._results()
        while group := list(islice(results, size)):
            yield group

    def clear(self) -> None:
        """Forget what waits: it is in the database."""
        self.path.unlink(missing_ok=True)
        self.n_waiting = 0

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _cut(self, size: int) -> None:
        with suppress(OSError):
            os.truncate(self.path, size)

    def _count(self) -> int:
        if not self._size():
            return 0
        with suppress(OSError), self.path.open("rb") as file:
            end = 0
            for line in file:  # a line at a time: there may be a gigabyte
                end += len(line) if line.endswith(b"\n") else 0
            if end < self._size():  # a process died while it wrote the last line
                self._cut(end)
        return sum(1 for _ in self._results()) if self._size() else 0

    def _results(self) -> Iterator[TrialResult]:
        try:
            with self.path.open(encoding="ascii") as file:
                for position, line in enumerate(file):
                    record: dict[str, Any] = json.loads(line)
                    if position:
                        yield from_record(self._study, record)
                    elif record != self._identity:
                        raise ValueError("its first line names another study or version")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"cannot read {str(self.path)!r}, where results wait for the database: {error}; move the file away "
                "to train those trials again"
            ) from error
