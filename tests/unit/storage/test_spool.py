"""The file where results wait for a database."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caviar.errors import StorageError
from caviar.records import TrialResult
from caviar.storage.spool import Spool
from caviar.testing.storage import AWKWARD_FLOATS, AWKWARD_TEXTS, make_result, make_spec, make_trial, same

SPEC = make_spec(created_at=datetime(2026, 11, 24, 1, 2, 3, 4, tzinfo=UTC))


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    """In order, exactly, also in another process's hands; cleared, there is no file."""
    awkward = {
        **{f"t{i}": t for i, t in enumerate(AWKWARD_TEXTS)},
        **{f"f{i}": x for i, x in enumerate(AWKWARD_FLOATS)},
    }
    results = [make_result(0), TrialResult(trial=make_trial(1, params=awkward, error="a\nb\x00")), make_result(2)]
    Spool(SPEC, tmp_path / "new").append(results[:2])
    Spool(SPEC, tmp_path / "new").append(results[2:])

    spool = Spool(SPEC, tmp_path / "new")
    groups = list(spool.groups(2))

    assert [len(group) for group in groups] == [2, 1] and spool.n_waiting == 3
    back = [result for group in groups for result in group]
    assert [r.trial.number for r in back] == [0, 1, 2]
    assert replace(back[1].trial, params={}) == replace(results[1].trial, params={})
    assert all(same(value, back[1].trial.params[name]) for name, value in awkward.items())
    assert back[2].reports is not None and results[2].reports is not None
    assert back[2].reports.values.tobytes() == results[2].reports.values.tobytes()
    spool.clear()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """A process that died while it wrote: what came before counts, and more can follow."""
    spool = Spool(SPEC, tmp_path)
    spool.append([make_result(0), make_result(1)])
    os.truncate(spool.path, spool.path.stat().st_size - 20)

    spool = Spool(SPEC, tmp_path)
    spool.append([make_result(2)])

    assert [r.trial.number for group in spool.groups(10) for r in group] == [0, 2]


def test_a_study_made_anew_has_a_spool_of_its_own(tmp_path: Path) -> None:
    """What waits for a deleted study is not written to another of its name."""
    Spool(SPEC, tmp_path).append([make_result(0)])

    again = Spool(replace(SPEC, created_at=datetime.now(UTC)), tmp_path)

    assert again.n_waiting == 0


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """It is named, and left alone."""
    spool = Spool(SPEC, tmp_path)
    for text in ("hello\n", '{"caviar_spool": 2}\n'):
        spool.path.write_text(text)

        with pytest.raises(StorageError, match=r"cannot read .*digits-.*; move the file away"):
            Spool(SPEC, tmp_path)

        assert spool.path.read_text() == text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The path of the spool is a file, say."""
    (tmp_path / "taken").touch()

    with pytest.raises(StorageError, match=r"results cannot wait in .*taken"):
        Spool(SPEC, tmp_path / "taken").append([make_result(0)])


def test_it_is_full_from_its_limit_on(tmp_path: Path) -> None:
    """A bound on what is on the disk."""
    spool = Spool(SPEC, tmp_path, limit_bytes=500)
    was_full = spool.is_full

    spool.append([make_result(0), make_result(1)])

    assert (was_full, spool.is_full) == (False, True)
