"""What every :class:`caviar.storage.Storage` does with studies and their leases.

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

from caviar.errors import SettingsError, StudyBusy, StudyMismatch, StudyNotFound
from caviar.records import (
    EPOCH_METRICS,
    DataSpec,
    Direction,
    Reports,
    StudySpec,
    TrainableSpec,
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

#: What a statement of SQL begins with that has rows without end: it goes on with `select x from a`.
NUMBERS = "with recursive a(x) as (select 1 union all select x + 1 from a)"


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

    def test_who_holds_the_lease_may_give_another_name(self, storage: Storage) -> None:
        """And take tags away with it, so that nobody sees the one without the other; nobody else may."""
        storage.create_study(make_spec("a"))
        storage.annotate("a", add_tags=["new", "old"])
        storage.acquire_lease("a", "me", 60)

        with pytest.raises(StudyBusy):
            storage.rename_study("a", "b")
        with pytest.raises(StudyBusy):
            storage.rename_study("a", "b", owner="somebody", remove_tags=["old"])
        assert storage.notes("a").tags == ("new", "old")
        storage.rename_study("a", "b", owner="me", remove_tags=["old"])

        assert [(summary.spec.name, summary.tags) for summary in storage.studies()] == [("b", ("new",))]
        with pytest.raises(StudyBusy):
            storage.acquire_lease("b", "somebody", 60)

    def test_the_function_that_trains_a_study_comes_back(self, storage: Storage) -> None:
        """With its code, whatever is in that; where its file is may change."""
        trainable = TrainableSpec(
            file="/there/mine.py", function="train", source='# é\u2028\ndef train(task): "\\x00"\n'
        )
        made = storage.create_study(make_spec(trainable=trainable, data=DataSpec(source=""), kernel="", metric="a b"))
        assert made.trainable == storage.get_study("digits").trainable == trainable

        storage.move_trainable("digits", replace(trainable, file="/elsewhere/yours.py"))

        moved = storage.get_study("digits")
        assert moved.trainable == replace(trainable, file="/elsewhere/yours.py")
        assert moved == replace(made, trainable=moved.trainable)
        with pytest.raises(StudyNotFound):
            storage.move_trainable("absent", trainable)

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
