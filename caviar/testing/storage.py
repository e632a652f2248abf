"""What every :class:`caviar.storage.Storage` does.

Bind it in a test module: `class TestMine(StorageContract)`, with a fixture `storage` that yields a fresh one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from caviar.errors import SettingsError, StorageError, StudyBusy, StudyMismatch, StudyNotFound, TrialNotFound
from caviar.records import (
    EPOCH_METRICS,
    DataSpec,
    Direction,
    Reason,
    Reports,
    StudySpec,
    Trial,
    TrialResult,
    TrialState,
)
from caviar.storage.base import Storage

#: Texts that databases, JSON and SQL are known to stumble over.
AWKWARD_TEXTS = (
    "",
    "'",
    '"; DROP TABLE trials; --',
    "%s %(x)s ? :x $1 \\ \\n \\x00",
    "tab\tnewline\nreturn\r",
    "naïve 漢字 \U0001f980 \U000e0041 \U0010ffff \ufffe \u202e",
    "NaN",
    "null",
    '{"$json": "1"}',
    "\\json:x",
    "NUL \x00 inside",
    "lone surrogate \ud800",
    "x" * 10_000,
)

#: Floats that JSON cannot hold, or that databases are known to change.
AWKWARD_FLOATS = (
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    0.0,
    0.1 + 0.2,
    1e16,
    1e22,
    -1e300,
    1.7976931348623157e308,
    2.2250738585072014e-308,
    5e-324,
    1 - 2**-53,
    123456789012345680.0,
)


def make_spec(name: str = "digits", **changes: Any) -> StudySpec:
    """Return a small spec."""
    spec = StudySpec(
        name=name,
        data=DataSpec(source="digits", fingerprint="abc"),
        space={"learning_rate": {"type": "float", "low": 1e-4, "high": 1.0, "scale": "log", "tier": 1}},
        caviar_version="0.1.0",
    )
    return replace(spec, **changes)


def make_trial(number: int = 0, *, study: str = "digits", **changes: Any) -> Trial:
    """Return a WAITING trial."""
    trial = Trial(
        study=study,
        number=number,
        state=TrialState.WAITING,
        params={"learning_rate": 0.01 * (number + 1), "hidden_units": 32, "optimizer": "adam"},
    )
    return replace(trial, **changes)


def make_result(number: int = 0, *, value: float | None = 0.9, epochs: int = 3, **changes: Any) -> TrialResult:
    """Return a COMPLETE trial with reports."""
    values = np.random.default_rng(number).random((epochs, len(EPOCH_METRICS)))
    reports = Reports(1, EPOCH_METRICS, values)
    metrics = dict(reports.last)
    if value is not None:
        metrics["val_accuracy"] = value
    finished = {"state": TrialState.COMPLETE, "value": value, "metrics": metrics, "epoch": epochs, **changes}
    return TrialResult(trial=make_trial(number, **finished), reports=reports)


def fill(storage: Storage, results: Sequence[TrialResult], study: str = "digits") -> None:
    """Make a study of these results."""
    storage.create_study(make_spec(study))
    storage.add_trials(study, [make_trial(result.trial.number, study=study) for result in results])
    storage.write(study, results)


def same(a: Any, b: Any) -> bool:
    """Return whether two plain values are the same to the last bit: NaN is NaN, -0.0 is not 0.0, 1 is not 1.0."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and bool(a == b)


class StorageContract:
    """The suite; needs a fixture `storage`."""

    def test_a_study_comes_back_as_it_was_stored(self, storage: Storage) -> None:
        """Every field of a spec survives, also those that few set."""
        spec = make_spec(
            seed=-(2**63),
            metric="f1 'macro'",
            direction=Direction.MINIMIZE,
            epochs=7,
            dtype="float64",
            kernel="compiled",
            data=DataSpec(source="/data/ü.csv", target="a \x00 b", split_seed=5, fingerprint="f" * 64),
            space={"b": 1, "a": {"choices": ["x", 2, 1e22]}},
            created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5))),
        )

        stored = storage.create_study(spec)

        assert stored == spec
        assert storage.get_study("digits") == spec

    def test_a_study_gets_its_time_of_creation(self, storage: Storage) -> None:
        """`created_at` is set where the caller gave none, in UTC."""
        before = datetime.now(UTC)

        created = storage.create_study(make_spec()).created_at

        assert created is not None
        assert before <= created <= datetime.now(UTC)
        assert created.utcoffset() == timedelta(0)

    def test_a_second_study_of_the_same_name_is_refused(self, storage: Storage) -> None:
        """Names are unique; the first study stays as it is."""
        storage.create_study(make_spec(seed=1))

        with pytest.raises(StudyMismatch, match="'digits' exists already"):
            storage.create_study(make_spec(seed=2))

        assert storage.get_study("digits").seed == 1

    @pytest.mark.parametrize("name", ["", "  ", "a/b", "x" * 201, "a\x00b", "a\nb", "\ud800", " a", "-a"])
    def test_a_name_that_cannot_be_typed_is_refused(self, storage: Storage, name: str) -> None:
        """A study's name is not empty, holds no slash or control character, and is not too long."""
        with pytest.raises(SettingsError, match="name of a study"):
            storage.create_study(make_spec(name))

    @pytest.mark.parametrize("name", ["a", "Über 漢字 \U0001f980", 'it\'s "so"', "%s", "x" * 200, "DIGITS"])
    def test_any_other_name_is_taken_as_it_is(self, storage: Storage, name: str) -> None:
        """Names keep case, quotes and every plane of Unicode."""
        storage.create_study(make_spec())

        storage.create_study(make_spec(name))

        assert [summary.spec.name for summary in storage.studies()] == ["digits", name]

    def test_an_unknown_study_is_named_with_those_there_are(self, storage: Storage) -> None:
        """The message lists the studies and the closest name."""
        storage.create_study(make_spec("digits"))

        with pytest.raises(StudyNotFound, match=r"no study 'digit'.*'digits'.*did you mean 'digits'"):
            storage.get_study("digit")

    def test_every_operation_names_an_unknown_study(self, storage: Storage) -> None:
        """No operation invents a study."""
        operations: list[Callable[[], object]] = [
            lambda: storage.summary("x"),
            lambda: storage.add_trials("x", [make_trial(study="x")]),
            lambda: storage.write("x", [make_result(study="x")]),
            lambda: storage.get_trial("x", 0),
            lambda: storage.trials("x"),
            lambda: storage.best_trial("x"),
            lambda: storage.reports("x", 0),
            lambda: storage.reports_between("x", 0, 1),
            lambda: storage.acquire_lease("x", "me", 1.0),
            lambda: storage.prolong_lease("x", "me", 1.0),
        ]

        for operation in operations:
            with pytest.raises(StudyNotFound):
                operation()

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

    def test_a_summary_counts_each_state(self, storage: Storage) -> None:
        """Counts follow every change of state; states that do not occur are left out."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(number) for number in range(6)])
        storage.write("digits", [make_result(0), make_result(1, state=TrialState.FAIL, value=None)])
        storage.write("digits", [make_result(0), TrialResult(trial=make_trial(2, state=TrialState.RUNNING))])

        summary = storage.summary("digits")

        expected = Counter(trial.state for trial in storage.trials("digits"))
        assert summary.counts == expected == {"WAITING": 3, "RUNNING": 1, "COMPLETE": 1, "FAIL": 1}
        assert summary.n_trials == 6
        assert summary == storage.studies()[0]

    def test_two_studies_do_not_mix(self, storage: Storage) -> None:
        """Numbers, counts, reports and the best trial belong to one study."""
        fill(storage, [make_result(0, value=0.5)], "digits")
        fill(storage, [make_result(0, value=0.7, study="iris"), make_result(1, value=0.6, study="iris")], "iris")

        assert [trial.study for trial in storage.trials("iris")] == ["iris", "iris"]
        assert [summary.n_trials for summary in storage.studies()] == [1, 2]
        assert storage.best_trial("digits") == storage.get_trial("digits", 0)

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

    def test_a_lease_keeps_others_out(self, storage: Storage) -> None:
        """Another owner is told who, since when, and until when."""
        storage.create_study(make_spec())
        storage.acquire_lease("digits", "host-1:17", 60.0)

        with pytest.raises(StudyBusy, match=r"'host-1:17' since 20\d\d-.* UTC; .* expires at 20\d\d-.* UTC"):
            storage.acquire_lease("digits", "host-2:18", 60.0)

    def test_a_lease_is_prolonged_by_its_owner(self, storage: Storage) -> None:
        """Acquiring again moves the expiry."""
        storage.create_study(make_spec())
        storage.acquire_lease("digits", "a", 1e-6)
        storage.acquire_lease("digits", "a", 60.0)

        with pytest.raises(StudyBusy):
            storage.acquire_lease("digits", "b", 60.0)

    def test_an_expired_lease_is_taken_over(self, storage: Storage) -> None:
        """The first owner finds the second then."""
        storage.create_study(make_spec())
        storage.acquire_lease("digits", "a", 1e-6)

        storage.acquire_lease("digits", "b", 60.0)

        with pytest.raises(StudyBusy, match="'b'"):
            storage.acquire_lease("digits", "a", 60.0)

    def test_a_released_lease_is_free(self, storage: Storage) -> None:
        """Only its owner releases it, and releasing twice is no error."""
        storage.create_study(make_spec())
        storage.acquire_lease("digits", "a", 60.0)
        storage.release_lease("digits", "b")

        with pytest.raises(StudyBusy):
            storage.acquire_lease("digits", "b", 60.0)
        storage.release_lease("digits", "a")
        storage.release_lease("digits", "a")
        storage.acquire_lease("digits", "b", 60.0)

    def test_a_lease_is_prolonged_while_it_is_held(self, storage: Storage) -> None:
        """Also when it has expired; not once another has had it, even if that one has given it up."""
        storage.create_study(make_spec())
        storage.acquire_lease("digits", "a", 1e-6)

        storage.prolong_lease("digits", "a", 1e-6)
        storage.acquire_lease("digits", "b", 60.0)
        with pytest.raises(StudyBusy, match="lease of study 'digits' was lost, 'b' holds it now"):
            storage.prolong_lease("digits", "a", 60.0)
        storage.release_lease("digits", "b")
        with pytest.raises(StudyBusy, match="lease of study 'digits' was lost, nobody holds it now"):
            storage.prolong_lease("digits", "a", 60.0)

    @pytest.mark.parametrize("ttl_s", [0.0, -1.0, math.nan, math.inf])
    def test_a_lease_lasts_a_while(self, storage: Storage, ttl_s: float) -> None:
        """A duration is positive and finite."""
        storage.create_study(make_spec())

        with pytest.raises(SettingsError, match="ttl_s"):
            storage.acquire_lease("digits", "a", ttl_s)
