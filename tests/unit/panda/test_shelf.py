"""Which checkpoints are kept, and which one a request means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from caviar.errors import RequestRejected, SettingsError
from caviar.panda.shelf import Policy, Shelf, best_epoch, pinned
from caviar.panda.verbs import choose_checkpoints
from caviar.records import Direction, StoredCheckpoint
from caviar.testing.storage import make_spec


def checkpoint(epoch: int, batch: int = 0, **changes: Any) -> StoredCheckpoint:
    """Return a checkpoint."""
    return StoredCheckpoint(
        path=f"e{epoch}-{batch}-{changes.get('segment', 0)}", epoch=epoch, batch=batch, step=0, **changes
    )


def epochs(checkpoints: list[StoredCheckpoint]) -> list[int]:
    """Return the epochs of checkpoints."""
    return [c.epoch for c in checkpoints]


@pytest.mark.parametrize(
    ("keep", "best", "superfluous"),
    [(3, None, [1, 2, 3]), (3, 2, [1, 3]), (3, 5, [1, 2, 3]), (1, 6, [1, 2, 3, 4, 5]), (0, None, []), (99, 1, [])],
)
def test_the_last_and_the_best_are_kept(keep: int, best: int | None, superfluous: list[int]) -> None:
    """0 keeps all."""
    found = Policy(keep=keep).superfluous([checkpoint(epoch) for epoch in range(1, 7)], best)

    assert epochs(found) == superfluous


def test_what_is_pinned_is_kept_and_does_not_count() -> None:
    """The last so many are those that nothing else keeps."""
    shelf = [checkpoint(0, pins=("start",)), *map(checkpoint, (1, 2)), checkpoint(3, pins=("branch",)), checkpoint(4)]

    assert epochs(Policy(keep=2).superfluous(shelf, None)) == [1]


def test_what_was_gone_back_behind_is_not_kept() -> None:
    """But for what is pinned; the best of another timeline is not the best."""
    shelf = [checkpoint(1), checkpoint(2, abandoned=True), checkpoint(3, abandoned=True, pins=("branch",))]

    assert epochs(Policy(keep=0).superfluous(shelf, 2)) == [2]


def test_a_place_within_the_best_epoch_is_not_the_best() -> None:
    """The best is where that epoch ended."""
    shelf = [checkpoint(2), checkpoint(2, 5), checkpoint(3), checkpoint(4)]

    assert [(c.epoch, c.batch) for c in Policy(keep=1).superfluous(shelf, 2)] == [(2, 5), (3, 0)]


def test_a_checkpoint_is_due_every_so_many_epochs() -> None:
    """Counted from the trial's beginning."""
    assert [epoch for epoch in range(1, 10) if Policy(every=3).is_due(epoch)] == [3, 6, 9]


@pytest.mark.parametrize("settings", [{"every": 0}, {"every": -1}, {"keep": -1}])
def test_a_policy_that_is_none_is_refused(settings: dict[str, int]) -> None:
    """The message says what was found."""
    with pytest.raises(SettingsError, match=f"found {next(iter(settings.values()))}"):
        Policy(**settings)


def test_a_pin_is_set_once() -> None:
    """Others stay."""
    once = pinned(checkpoint(1, pins=("start",)), "branch")

    assert once.pins == ("start", "branch")
    assert pinned(once, "branch") is once


def test_the_best_epoch_follows_the_direction() -> None:
    """Ties go to the smaller loss, then to the earlier epoch."""
    history = {
        1: {"val_accuracy": 0.5, "val_loss": 2.0},
        2: {"val_accuracy": 0.9, "val_loss": 1.0},
        3: {"val_accuracy": 0.9, "val_loss": 0.5},
        4: {"val_accuracy": 0.9, "val_loss": 0.5},
        5: {"val_accuracy": 0.4, "val_loss": 0.1},
    }

    assert best_epoch(history, make_spec(metric="val_accuracy", direction=Direction.MAXIMIZE)) == 3
    assert best_epoch(history, make_spec(metric="val_loss", direction=Direction.MINIMIZE)) == 5
    assert best_epoch({}, make_spec()) is None


def test_two_writers_of_one_trial_never_write_one_file(tmp_path: Path) -> None:
    """Whoever has lost the lease and does not know it leaves the other's checkpoints alone."""
    from caviar.testing.panda import tiny_state

    first, second = (Shelf(tmp_path, make_spec(), 0, "1") for _ in range(2))
    kept = [shelf.save(tiny_state(), {"learning_rate": 0.1}, segment=0, sequence=0) for shelf in (first, second)]

    assert kept[0].path != kept[1].path
    assert first.folder == second.folder
    assert len(list(first.folder.iterdir())) == 2


def test_only_what_was_left_half_written_is_swept_out(tmp_path: Path) -> None:
    """A whole file may be of a process that has not yet told of it; one half written just now, a living process's."""
    from caviar.testing.panda import tiny_state

    shelf = Shelf(tmp_path, make_spec(), 0, "1")
    whole = shelf.save(tiny_state(), {"learning_rate": 0.1}, segment=0, sequence=0)
    for name in ("old.part", "new.part"):
        (shelf.folder / name).touch()
    os.utime(shelf.folder / "old.part", (1e9, 1e9))
    os.utime(tmp_path / whole.path, (1e9, 1e9))

    shelf.sweep_out()

    assert {file.name for file in shelf.folder.iterdir()} == {Path(whole.path).name, "new.part"}


SHELF = [checkpoint(0), checkpoint(1), checkpoint(2), checkpoint(2, 7), checkpoint(3)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"to": "epoch", "at": 2}, [2]),
        ({"to": "epoch", "at": 0}, [0]),
        ({"to": "back", "at": 0}, [3, 2, 1, 0]),
        ({"to": "back", "at": 1}, [2, 1, 0]),
        ({"to": "back", "at": 3}, [0]),
        ({"to": "best"}, [2, 1, 0]),
    ],
)
def test_a_request_means_a_checkpoint_and_those_before(arguments: dict[str, Any], expected: list[int]) -> None:
    """An epoch that is named is meant alone."""
    found = choose_checkpoints(SHELF, arguments, 3, 2)

    assert epochs(found) == expected
    assert not any(c.batch for c in found)


def test_before_the_first_epoch_the_start_is_the_best() -> None:
    """There is no other."""
    assert epochs(choose_checkpoints([checkpoint(0)], {"to": "best"}, 0, None)) == [0]


def test_of_two_checkpoints_of_an_epoch_the_newer_is_meant() -> None:
    """The older one is from before a rollback that was cut short."""
    older, newer = checkpoint(2), checkpoint(2, segment=1)

    assert choose_checkpoints([older, newer], {"to": "epoch", "at": 2}, 3, None)[0] is newer


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"to": "epoch", "at": 5}, r"no checkpoint of epoch 5 \(there are: 0, 1, 2, 3\)"),
        ({"to": "back", "at": 4}, "no checkpoint of 4 epochs ago: 3 are completed"),
        ({"to": "epoch", "at": -1}, "whole numbers from 0, found -1"),
        ({"to": "epoch", "at": 1.0}, "whole numbers from 0, found 1.0"),
        ({"to": "epoch", "at": True}, "whole numbers"),
        ({"to": "epoch"}, "whole numbers from 0, found None"),
        ({"to": "yesterday"}, "name one checkpoint"),
        ({}, "name one checkpoint"),
    ],
)
def test_a_request_that_means_none_is_rejected(arguments: dict[str, Any], words: str) -> None:
    """The message lists those there are."""
    with pytest.raises(RequestRejected, match=words):
        choose_checkpoints(SHELF, arguments, 3, 2)


def test_a_long_list_is_shortened() -> None:
    """A terminal has only so many columns."""
    with pytest.raises(RequestRejected, match=r"there are: 0, 1, 2, \.\.\., 491, .*, 499\)"):
        choose_checkpoints([checkpoint(epoch) for epoch in range(500)], {"to": "epoch", "at": 999}, 499, None)
