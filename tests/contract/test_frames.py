"""Trials as pandas frames, on both databases: the same as the records, value by value."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from caviar.errors import QueryError
from caviar.records import Trial, TrialState
from caviar.storage import Storage, open_storage
from caviar.testing.storage import AWKWARD_FLOATS, AWKWARD_TEXTS, make_spec, make_trial

_MOMENT = datetime(2026, 1, 31, 13, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    """A storage with an empty study."""
    opened = open_storage(database_url)
    opened.create_study(make_spec())
    yield opened
    opened.close()


def done(number: int, **changes: Any) -> Trial:
    """Return a trial that is COMPLETE."""
    return make_trial(number, state=TrialState.COMPLETE, started_at=_MOMENT, finished_at=_MOMENT, **changes)


def bits(value: float) -> bytes:
    """Return a float as its bits, all NaNs alike."""
    return struct.pack("d", math.nan if value != value else value)


def test_a_frame_holds_what_the_records_hold(storage: Storage) -> None:
    """Plain columns, then a column for each param and each metric; numbers have types of numbers."""
    trials = [
        done(
            n,
            params={"learning_rate": 10.0**-n, "layers": n, "optimizer": "adam" if n % 2 else "sgd"},
            metrics={"val_loss": 1 / (n + 3), "val_accuracy": n / 7},
            value=n / 7,
            epoch=20,
            seconds=0.25,
            worker="node:1",
        )
        for n in range(5)
    ]
    storage.add_trials("digits", [*trials, make_trial(5)])

    frame = storage.frame("digits")

    assert list(frame["number"]) == list(range(6))
    for trial, (_, row) in zip(trials, frame.iterrows(), strict=False):
        assert (row["state"], row["worker"], row["started_at"]) == ("COMPLETE", "node:1", pd.Timestamp(_MOMENT))
        assert {name: row[name] for name in trial.params} == trial.params
        assert {name: row[name] for name in trial.metrics} == trial.metrics
        assert (row["value"], row["epoch"], row["seconds"]) == (trial.value, 20, 0.25)
    assert frame.loc[5, "state"] == "WAITING"
    assert frame.loc[5, ["value", "val_loss", "seconds"]].isna().all()
    assert {str(frame[name].dtype) for name in ("val_loss", "val_accuracy", "value")} == {"float64"}
    assert str(frame["started_at"].dtype).endswith("UTC]")


def test_a_frame_is_filtered_sorted_and_cut_as_trials_are(storage: Storage) -> None:
    """The same expressions mean the same trials in the same order."""
    storage.add_trials("digits", [done(n, params={"a": n % 3}, metrics={"val_loss": (n * 7) % 5}) for n in range(20)])

    frame = storage.frame("digits", where="a != 1", sort="-val_loss", limit=6)

    records = storage.trials("digits", where="a != 1", sort="-val_loss", limit=6)
    assert list(frame["number"]) == [trial.number for trial in records]
    with pytest.raises(QueryError, match="must not be negative"):
        storage.frame("digits", limit=-1)


@pytest.mark.parametrize("is_awkward", [False, True], ids=["plain", "awkward"])
def test_floats_keep_their_bits(storage: Storage, is_awkward: bool) -> None:
    """Also where JSON cannot hold some of them."""
    drawn = np.random.default_rng(0).integers(0, 2**63, 500).view(np.float64)
    values = [*drawn[np.isfinite(drawn)].tolist(), *(AWKWARD_FLOATS if is_awkward else ())]
    storage.add_trials("digits", [done(n, params={"p": v}, metrics={"m": v}) for n, v in enumerate(values)])

    frame = storage.frame("digits")

    assert [bits(value) for value in frame["m"]] == [bits(value) for value in values]
    assert [bits(value) for value in frame["p"]] == [bits(value) for value in values]


def test_params_keep_their_types_and_texts(storage: Storage) -> None:
    """A column of several types is one of objects; none of them is changed for the sake of another."""
    values = [1, 2.5, "adam", 2**53 + 1, -(2**63), *AWKWARD_TEXTS]
    trials = [done(n, params={"mixed": value, "whole": 2**60 + n}) for n, value in enumerate(values)]
    storage.add_trials("digits", [*trials, done(len(values), params={"whole": 1})])

    frame = storage.frame("digits")

    assert [(type(value), value) for value in frame["mixed"][:-1]] == [(type(value), value) for value in values]
    assert frame["mixed"].iloc[-1] is None
    assert frame["whole"].dtype == np.int64
    assert frame["whole"].tolist() == [*(2**60 + n for n in range(len(values))), 1]


def test_names_that_clash_are_told_apart(storage: Storage) -> None:
    """By where they come from; others are as they are."""
    storage.add_trials("digits", [done(0, params={"x": 1, "epoch": 2, "y": 3}, metrics={"x": 4.0, 'q"\\\n': 5.0})])

    row = storage.frame("digits").iloc[0]

    assert (row["params.x"], row["metrics.x"], row["params.epoch"], row["y"], row['q"\\\n']) == (1, 4.0, 2, 3, 5.0)


def test_pages_are_the_frame_in_parts(storage: Storage) -> None:
    """Each of the size that was asked for, the last what is left; with the same columns."""
    storage.add_trials("digits", [done(n, params={"a": n}, metrics={"m": n / 3}) for n in range(25)])

    pages = list(storage.frame_pages("digits", where="a >= 3", size=10))

    assert [len(page) for page in pages] == [10, 10, 2]
    whole = storage.frame("digits", where="a >= 3")
    pd.testing.assert_frame_equal(pd.concat(pages, ignore_index=True), whole)


def test_a_study_without_trials_is_an_empty_frame(storage: Storage) -> None:
    """With the columns that every study has, and no page."""
    frame = storage.frame("digits")

    assert len(frame) == 0
    assert {"number", "state", "value"} <= set(frame)
    assert list(storage.frame_pages("digits")) == []
