"""What every :class:`caviar.storage.Storage` does with trials, their reports and the best of them.

Bind it beside :class:`caviar.testing.storage.StorageContract`, to the same fixture.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from caviar.errors import StorageError, TrialNotFound
from caviar.records import EPOCH_METRICS, Direction, Reason, Reports, TrialResult, TrialState
from caviar.storage.base import Storage
from caviar.testing.storage import AWKWARD_FLOATS, AWKWARD_TEXTS, fill, make_result, make_spec, make_trial, same


class StorageTrialContract:
    """The suite; needs a fixture `storage`."""

    def test_a_trial_comes_back_as_it_was_stored(self, storage: Storage) -> None:
        """Every field of a trial survives both ways of writing it."""
        storage.create_study(make_spec())
        moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
        trial = make_trial(
            7,
            state=TrialState.PRUNED,
            params={"a": 1, "b": 1.0, "c": "1", "big": 2**70, "negative": -3},
            value=-1.5,
            metrics={"val_loss": 0.25, "val_accuracy": 1.0, "other": -3.0},
            epoch=4,
            seconds=1.25,
            started_at=moment,
            finished_at=moment + timedelta(microseconds=1),
            parent="elsewhere/3",
            parent_epoch=2,
            reason=Reason.STOPPED,
            error="ValueError: x",
            traceback="Traceback\n  ...",
            worker="host-1",
        )

        storage.add_trials("digits", [trial, make_trial(8)])
        storage.write("digits", [TrialResult(trial=replace(trial, number=8))])

        assert storage.get_trial("digits", 7) == trial
        assert storage.get_trial("digits", 8) == replace(trial, number=8)
        assert type(storage.get_trial("digits", 7).params["b"]) is float

    @pytest.mark.parametrize("text", AWKWARD_TEXTS, ids=lambda text: repr(text[:12]))
    def test_any_text_comes_back_exactly(self, storage: Storage, text: str) -> None:
        """Quotes, NUL, lone surrogates, long texts and every plane of Unicode survive in each text of a trial."""
        storage.create_study(make_spec())
        trial = make_trial(params={"x": text}, error=text, traceback=text, worker=text, reason=text, parent=text)

        storage.add_trials("digits", [trial])

        assert storage.get_trial("digits", 0) == trial

    def test_any_float_comes_back_exactly(self, storage: Storage) -> None:
        """NaN, infinities, negative zero, subnormal and huge floats survive in params, metrics and reports."""
        storage.create_study(make_spec())
        named = {f"x{i}": value for i, value in enumerate(AWKWARD_FLOATS)}
        values = np.array([AWKWARD_FLOATS, AWKWARD_FLOATS[::-1]])
        trial = make_trial(params=named, metrics=named)

        storage.add_trials("digits", [trial])
        storage.write("digits", [TrialResult(trial=trial, reports=Reports(1, tuple(named), values))])

        found = storage.get_trial("digits", 0)
        assert all(same(found.params[name], value) for name, value in named.items())
        assert all(same(found.metrics[name], value) for name, value in named.items())
        assert storage.reports("digits", 0).metrics == tuple(named)
        assert storage.reports("digits", 0).values.tobytes() == values.tobytes()

    def test_numpy_numbers_are_taken_for_numbers(self, storage: Storage) -> None:
        """NumPy scalars come back as Python's numbers."""
        storage.create_study(make_spec())
        params: Any = {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(0.1)}

        storage.add_trials("digits", [make_trial(params=params, metrics={"m": np.float32(0.5)}, epoch=np.int64(2))])

        trial = storage.get_trial("digits", 0)
        assert trial.params == {"a": 0.5, "b": 3, "c": 0.1}
        assert [type(trial.params[name]) for name in "abc"] == [float, int, float]
        assert (trial.metrics["m"], trial.epoch) == (0.5, 2)

    @pytest.mark.parametrize(
        "changes",
        [
            {"value": math.nan},
            {"params": {"x": [1]}},
            {"params": {"a\x00": 1}},
            {"metrics": {"m": "high"}},
            {"metrics": {"\ud800": 1.0}},
            {"state": "DONE"},
            {"started_at": datetime(2026, 1, 1)},
            {"number": -1},
            {"number": 2**32},
            {"number": 1.5},
            {"epoch": 0.5},
        ],
        ids=str,
    )
    def test_what_cannot_be_stored_is_refused(self, storage: Storage, changes: dict[str, Any]) -> None:
        """The message names the trial, and nothing of the batch is stored."""
        storage.create_study(make_spec())

        with pytest.raises(StorageError, match="cannot be stored"):
            storage.add_trials("digits", [make_trial(5), make_trial(**changes)])

        assert storage.trials("digits") == []

    def test_a_number_is_added_once(self, storage: Storage) -> None:
        """Adding a number that is taken adds none of the batch."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(1)])

        with pytest.raises(StorageError, match="is taken"):
            storage.add_trials("digits", [make_trial(0), make_trial(1)])
        with pytest.raises(StorageError, match="twice"):
            storage.add_trials("digits", [make_trial(3), make_trial(3)])

        assert [trial.number for trial in storage.trials("digits")] == [1]
        assert storage.summary("digits").n_trials == 1

    def test_a_trial_of_another_study_is_refused(self, storage: Storage) -> None:
        """A trial is written to its own study."""
        storage.create_study(make_spec())

        with pytest.raises(StorageError, match="own study"):
            storage.add_trials("digits", [make_trial(study="iris")])

    def test_writing_a_missing_trial_writes_nothing(self, storage: Storage) -> None:
        """A batch with a trial that was never added happens not at all."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])

        with pytest.raises(TrialNotFound, match="add them first"):
            storage.write("digits", [make_result(0), make_result(1)])

        assert storage.get_trial("digits", 0) == make_trial(0)
        assert len(storage.reports("digits", 0)) == 0

    def test_empty_batches_do_nothing(self, storage: Storage) -> None:
        """Nothing to add or write is no error."""
        storage.create_study(make_spec())

        storage.add_trials("digits", [])
        storage.write("digits", [])

        assert storage.trials("digits") == []

    def test_reports_come_back_in_order(self, storage: Storage) -> None:
        """Reports of several writes join into one array of float64, exactly."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])
        values = np.random.default_rng(0).random((5, 3))

        storage.write("digits", [TrialResult(trial=make_trial(0), reports=Reports(3, EPOCH_METRICS, values[2:]))])
        storage.write("digits", [TrialResult(trial=make_trial(0), reports=Reports(1, EPOCH_METRICS, values[:2]))])

        reports = storage.reports("digits", 0)
        assert (reports.first_epoch, reports.metrics) == (1, EPOCH_METRICS)
        assert reports.values.dtype == np.float64
        assert np.array_equal(reports.values, values)

    def test_reports_of_many_trials_come_at_once(self, storage: Storage) -> None:
        """They are those of each trial; what has no reports, is not there or belongs to another study is left out."""
        for study in ("before", "digits", "after"):
            storage.create_study(make_spec(study))
            storage.add_trials(study, [make_trial(n, study=study) for n in range(5)])
            storage.write(study, [make_result(n, study=study, epochs=n) for n in range(5)])

        found = storage.reports_between("digits", -3, 3)

        assert list(found) == [1, 2, 3]
        for number, reports in found.items():
            alone = storage.reports("digits", number)
            assert (reports.first_epoch, reports.metrics) == (alone.first_epoch, alone.metrics) == (1, EPOCH_METRICS)
            assert reports.values.tobytes() == alone.values.tobytes()
        assert list(storage.reports_between("digits", 4, 2**40)) == [4]
        assert storage.reports_between("digits", 3, 2) == {}

    def test_writing_twice_is_writing_once(self, storage: Storage) -> None:
        """A report of an epoch that is there already replaces it."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])
        first, second = np.random.default_rng(0).random((2, 4, 3))

        for start, values in ((1, first), (1, first), (3, second)):
            reports = Reports(start, EPOCH_METRICS, values)
            storage.write("digits", [TrialResult(trial=make_trial(0), reports=reports)])

        assert np.array_equal(storage.reports("digits", 0).values, np.concatenate([first[:2], second]))

    def test_a_metric_that_comes_later_is_nan_before(self, storage: Storage) -> None:
        """Epochs that lack a metric, or a report, hold NaN there."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])

        for reports in (Reports(1, ("a",), np.array([[1.0]])), Reports(3, ("a", "b"), np.array([[2.0, 3.0]]))):
            storage.write("digits", [TrialResult(trial=make_trial(0), reports=reports)])

        found = storage.reports("digits", 0)
        assert found.metrics == ("a", "b")
        assert np.array_equal(found.values, [[1.0, np.nan], [np.nan, np.nan], [2.0, 3.0]], equal_nan=True)

    def test_reports_of_another_shape_are_refused(self, storage: Storage) -> None:
        """Values have one column for each name."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])

        with pytest.raises(StorageError, match="columns"):
            storage.write("digits", [TrialResult(trial=make_trial(0), reports=Reports(1, ("a",), np.ones((2, 2))))])

    def test_a_trial_without_reports_has_none(self, storage: Storage) -> None:
        """An empty `Reports` for a trial that has reported nothing; an error for one that is not there."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])

        assert len(storage.reports("digits", 0)) == 0
        with pytest.raises(TrialNotFound, match=r"no trial 1 .it has 0 to 0."):
            storage.reports("digits", 1)

    def test_a_missing_trial_is_named(self, storage: Storage) -> None:
        """The message says which numbers there are."""
        storage.create_study(make_spec())

        with pytest.raises(TrialNotFound, match=r"no trial 0 .it has none yet."):
            storage.get_trial("digits", 0)
        storage.add_trials("digits", [make_trial(0), make_trial(1)])
        for number in (2, -1, 2**40):
            with pytest.raises(TrialNotFound, match="it has 0 to 1"):
                storage.get_trial("digits", number)

    @pytest.mark.parametrize(("direction", "best"), [(Direction.MAXIMIZE, 2), (Direction.MINIMIZE, 1)])
    def test_the_best_trial_follows_the_direction(self, storage: Storage, direction: Direction, best: int) -> None:
        """Only COMPLETE trials with a value compete."""
        storage.create_study(make_spec(direction=direction))
        storage.add_trials("digits", [make_trial(number) for number in range(6)])
        storage.write(
            "digits",
            [
                make_result(0, value=0.5),
                make_result(1, value=-0.1),
                make_result(2, value=0.9),
                make_result(3, value=None),
                make_result(4, value=1.0, state=TrialState.PRUNED),
                make_result(5, value=-1.0, state=TrialState.RUNNING),
            ],
        )

        found = storage.best_trial("digits")

        assert found is not None
        assert found.number == best
        assert storage.summary("digits").best == found

    def test_infinite_values_compete_as_numbers(self, storage: Storage) -> None:
        """Infinity is the largest value."""
        fill(storage, [make_result(0, value=0.5), make_result(1, value=math.inf), make_result(2, value=-math.inf)])

        best = storage.best_trial("digits")

        assert best is not None
        assert (best.number, best.value) == (1, math.inf)

    def test_ties_of_the_best_are_broken(self, storage: Storage) -> None:
        """The smaller `val_loss` wins, one that is NaN or missing comes last, then the smaller number wins."""
        losses = [math.nan, 0.3, 0.2, 0.2, None]
        metrics = [{} if loss is None else {"val_loss": loss} for loss in losses]
        fill(storage, [make_result(n, value=0.9, metrics=m) for n, m in enumerate(metrics)])

        best = storage.best_trial("digits")

        assert best is not None
        assert best.number == 2

    def test_there_is_no_best_trial_before_one_completes(self, storage: Storage) -> None:
        """None where no trial is COMPLETE."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])

        assert storage.best_trial("digits") is None

    def test_trials_come_in_order_of_number(self, storage: Storage) -> None:
        """Without a sort, whatever the order they were added in; `limit` cuts."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(number) for number in (4, 0, 2)])

        assert [trial.number for trial in storage.trials("digits")] == [0, 2, 4]
        assert [trial.number for trial in storage.trials("digits", limit=2)] == [0, 2]
        assert storage.trials("digits", limit=0) == []
