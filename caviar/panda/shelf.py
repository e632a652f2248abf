"""The checkpoints of one babysat trial: files in a folder, and which of them are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caviar.checks import whole
from caviar.errors import CheckpointError, SettingsError
from caviar.records import Params, StoredCheckpoint, StudySpec
from caviar.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from caviar.training.state import State

#: Writing a file takes seconds: one that is half written for so long is nobody's.
_STALE_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Which checkpoints are made and kept, besides those that are pinned."""

    #: One is made each so many epochs.
    every: int = 1
    #: The last so many are kept, and the best; 0 keeps all.
    keep: int = 20

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.every < 1:
            raise SettingsError(f"a checkpoint is made every 1 or more epochs, found {self.every}")
        if self.keep < 0:
            raise SettingsError(f"keep must be at least 0 (0 keeps every checkpoint), found {self.keep}")

    def is_due(self, epoch: int) -> bool:
        """Return whether a checkpoint is made at the end of an epoch."""
        return epoch % self.every == 0

    def superfluous(self, checkpoints: Sequence[StoredCheckpoint], best_epoch: int | None) -> list[StoredCheckpoint]:
        """Return those that need not be kept, of all there are, oldest first."""
        free = [c for c in checkpoints if not c.pins]
        current = [c for c in free if not c.abandoned]
        keep = {c.path for c in current[-self.keep :]} if self.keep else {c.path for c in current}
        if best_epoch is not None:  # where none is made of each epoch, the last before it
            keep |= {c.path for c in [c for c in current if c.epoch <= best_epoch and not c.batch][-1:]}
        return [c for c in free if c.path not in keep]


class Shelf:
    """The files of one trial's checkpoints; what one shelf writes, no other overwrites.

    Args:
        root: the checkpoint folder.
        study: the spec of the trial's study.
        number: of the trial.
        database: tells the trial's database from others, see :attr:`caviar.storage.Storage.identity`.
    """

    def __init__(self, root: Path, study: StudySpec, number: int, database: str) -> None:
        self._root, self._study, self._database = root, study, database
        word = re.sub(r"[^A-Za-z0-9._-]+", "-", study.name).strip(".-")[:40] or "study"
        # two studies may have had one name, one after the other: the moment of creation tells them apart; and a copy
        # of a database has the same studies
        mark = hashlib.sha256(f"{study.created_at}{database}".encode()).hexdigest()[:8]
        self._place = f"{word}-{mark}/{number}"
        # of two processes that believe to babysit one trial, the one that lost the lease must not replace a file
        self._writer = secrets.token_hex(3)

    def of(self, number: int) -> Shelf:
        """Return the shelf of another trial of the study."""
        return Shelf(self._root, self._study, number, self._database)

    @property
    def folder(self) -> Path:
        """Where the files of this trial are written."""
        return self._root / self._place

    @property
    def study_folder(self) -> Path:
        """Where those of all trials of its study are."""
        return self.folder.parent

    def save(
        self, state: State, params: Params, *, segment: int, sequence: int, pins: tuple[str, ...] = ()
    ) -> StoredCheckpoint:
        """Write a state to its file; return what the database should know of it.

        Raises:
            CheckpointError: it could not be written.
        """
        within = f"-b{state.batch:06}" if state.batch else ""
        path = f"{self._place}/e{state.epoch:06}{within}-s{segment}-{self._writer}.safetensors"
        file = self._root / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"could not make the folder {str(file.parent)!r}: {error.strerror or error}"
            ) from error
        save_checkpoint(file, state, params)
        return StoredCheckpoint(
            path=path,
            epoch=state.epoch,
            batch=state.batch,
            step=state.step,
            segment=segment,
            sequence=sequence,
            size_bytes=file.stat().st_size,
            pins=pins,
        )

    def try_room(self, state: State, params: Params) -> None:
        """Write a state and remove it again.

        Raises:
            CheckpointError: it could not be written.
        """
        self.remove([self.save(state, params, segment=0, sequence=0)])

    def load(self, checkpoint: StoredCheckpoint) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            CheckpointError: its file is missing, torn or altered, or of another place in training.
        """
        loaded = load_checkpoint(self._root / checkpoint.path)
        found = (loaded.state.epoch, loaded.state.batch, loaded.state.step)
        expected = (checkpoint.epoch, checkpoint.batch, checkpoint.step)
        if found != expected:
            raise CheckpointError(
                f"{checkpoint.path!r} holds another state than it should: expected epoch, mini-batch and step "
                f"{expected}, found {found}; use an earlier checkpoint"
            )
        return loaded

    def remove(self, checkpoints: Sequence[StoredCheckpoint]) -> None:
        """Remove files; what cannot be removed stays, and so does what lies in another folder.

        A database that was copied knows the files of the one that it was copied from, which still needs them.
        """
        for checkpoint in checkpoints:
            if Path(checkpoint.path).parent != Path(self._place):
                continue
            with suppress(OSError):
                (self._root / checkpoint.path).unlink(missing_ok=True)

    def sweep_out(self) -> None:
        """Remove files that a process that died left half written.

        A whole file stays, whether the database knows it or not: it may be that of a process which has not yet told.
        """
        with suppress(OSError):
            for file in self.folder.iterdir():
                if file.name.endswith(".part") and time.time() - file.stat().st_mtime > _STALE_S:
                    file.unlink(missing_ok=True)


def pinned(checkpoint: StoredCheckpoint, pin: str) -> StoredCheckpoint:
    """Return a checkpoint with one more reason to keep it."""
    return checkpoint if pin in checkpoint.pins else replace(checkpoint, pins=(*checkpoint.pins, pin))


def best_epoch(history: Mapping[int, Mapping[str, float]], spec: StudySpec) -> int | None:
    """Return the epoch with the best value of the study's metric (ties: smaller `val_loss`, then earlier), or None."""

    def rank(epoch: int) -> tuple[Any, ...]:
        metrics = history[epoch]
        return spec.direction.sign * metrics[spec.metric], metrics.get("val_loss", float("inf")), epoch

    return min((epoch for epoch in history if spec.metric in history[epoch]), key=rank, default=None)
