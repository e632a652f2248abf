"""What every :class:`caviar.storage.Storage` finds: the meaning of `where` and `sort`.

Bind it beside :class:`caviar.testing.storage.StorageContract`, to the same fixture.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from caviar.errors import QueryError
from caviar.records import TrialResult, TrialState
from caviar.storage.base import Storage
from caviar.testing.storage import fill, make_result, make_spec, make_trial


def _study(storage: Storage) -> None:
    """Make a study whose trials differ in every way that a query can ask about."""
    day = datetime(2026, 1, 1, 12, tzinfo=UTC)
    adam = {"learning_rate": 0.1, "units": 16, "optimizer": "adam"}
    sgd = {"learning_rate": 0.001, "units": 32, "optimizer": "sgd"}
    results = [
        make_result(0, value=0.9, params=adam, started_at=day, seconds=1.5, worker="node-1"),
        make_result(1, value=0.8, params=sgd, started_at=day.replace(day=2), worker="node-2"),
        make_result(2, value=0.8, params={**sgd, "optimizer": "Adam", "units": 64}, parent="digits/0", parent_epoch=1),
        make_result(
            3,
            value=None,
            state=TrialState.FAIL,
            reason="diverged",
            params={"learning_rate": 1e-05, "units": 8},
            metrics={"val_loss": math.nan, "val_accuracy": math.nan, "train_loss": math.inf},
            error='it\'s 100% "bad"',
        ),
        make_result(4, value=None, state=TrialState.WAITING, params={"learning_rate": "auto", "units": 8}, metrics={}),
        make_result(
            5,
            value=0.7,
            params={"learning_rate": math.inf, "units": 1e22, "optimizer": 3, 'it\'s "odd"': 1, "val_loss": 5},
            metrics={"val_loss": -0.0, "val_accuracy": 0.7, "train_loss": -math.inf},
        ),
    ]
    keep = [
        replace(r, trial=replace(r.trial, metrics={"val_loss": r.trial.number / 10, **r.trial.metrics}))
        for r in results[:3]
    ]
    keep = [
        replace(r, trial=replace(r.trial, metrics={**r.trial.metrics, "val_loss": r.trial.number / 10})) for r in keep
    ]
    fill(storage, [*keep, *results[3:]])


#: An expression and the numbers of the trials that match it.
EXPRESSIONS = [
    ("val_accuracy > 0.75", [0, 1, 2]),
    ("val_accuracy >= 0.8 and val_accuracy < .9", [1, 2]),
    ("0.8 <= val_accuracy < 0.9", [1, 2]),
    ("0.85 < val_accuracy", [0]),
    ("val_accuracy between 0.7 and 0.8", [1, 2, 5]),
    ("val_accuracy not between 0.7 and 0.8", [0]),
    ("val_accuracy = 0.8", [1, 2]),
    ("metrics.val_accuracy == 8e-1", [1, 2]),
    ("value = 0.8", [1, 2]),
    ("val_accuracy > 0.75 and learning_rate < 0.01 and optimizer = 'sgd'", [1]),
    ("optimizer = 'adam'", [0]),
    ('optimizer = "adam"', [0]),
    ("optimizer == 'adam' or optimizer <> 'sgd'", [0, 2, 5]),
    ("optimizer != 'adam'", [1, 2, 5]),
    ("optimizer != 3", [0, 1, 2]),
    ("optimizer = 3", [5]),
    ("not optimizer = 'adam'", [1, 2]),
    ("optimizer > 'b'", [1]),
    ("optimizer < 'a'", [2]),
    ("optimizer in ('adam', 'sgd')", [0, 1]),
    ("optimizer in ('adam', 3)", [0, 5]),
    ("optimizer not in ('adam', 'sgd')", [2]),
    ("optimizer not in ('adam', 3)", [1, 2]),
    ("not (learning_rate = units)", [0, 1, 2, 3, 5]),
    ("learning_rate != units", [0, 1, 2, 3, 4, 5]),
    ("optimizer != learning_rate", [0, 1, 2, 5]),
    ("learning_rate > value", [5]),
    ("learning_rate < 1e400", [0, 1, 2, 3]),
    ("learning_rate = 1e400", [5]),
    ("train_loss = 1e400", [3]),
    ("train_loss <= -1e400", [5]),
    ("optimizer like 'a%'", [0]),
    ("optimizer like '_dam'", [0, 2]),
    ("optimizer not like '%dam'", [1]),
    ("worker like 'node-%'", [0, 1]),
    ("worker like 'NODE-%'", []),
    ("error like '%100_ %'", [3]),
    ("error like '%[1]00%' or error like '%\\%%'", []),
    ("error = 'it''s 100% \"bad\"'", [3]),
    ('error = "it\'s 100% ""bad"""', [3]),
    ("error = 'x'' or 1 = 1 --'", []),
    ("learning_rate = 0.1", [0]),
    ("learning_rate = 1e-05", [3]),
    ("learning_rate < 0.01", [1, 2, 3]),
    ("learning_rate > 1", [5]),
    ("learning_rate = 'auto'", [4]),
    ("learning_rate is null", []),
    ("optimizer is null", [3, 4]),
    ("optimizer is not null", [0, 1, 2, 5]),
    ("units = 16", [0]),
    ("units = 16.0", [0]),
    ("units in (16, 32.0)", [0, 1]),
    ("units = 1e22", [5]),
    ("units > 99999999999999999999", [5]),
    ("units > -3 and units < +20", [0, 3, 4]),
    ("params.val_loss = 5", [5]),
    ("metrics.val_loss = 0", [0, 5]),
    ("metrics.val_loss is nan", [3]),
    ("metrics.val_loss is not nan", [0, 1, 2, 4, 5]),
    ("metrics.val_loss is null", [3, 4]),
    ("metrics.val_loss > 0.05", [1, 2]),
    ("not metrics.val_loss > 0.05", [0, 5]),
    ("val_accuracy is nan", [3]),
    ("val_accuracy is null", [3, 4]),
    ("train_loss > 1e300", [3]),
    ("train_loss < -1e300", [5]),
    ("metrics.val_loss > val_accuracy", []),
    ("metrics.val_loss < val_accuracy", [0, 1, 2, 5]),
    ('params.`it\'s "odd"` = 1', [5]),
    ('`it\'s "odd"` = 1', [5]),
    ("state = 'FAIL'", [3]),
    ("state = 'fail'", [3]),
    ("state = 'waiting'", [4]),
    ("state in ('FAIL', 'WAITING')", [3, 4]),
    ("state != 'COMPLETE'", [3, 4]),
    ("reason = 'diverged'", [3]),
    ("reason is null", [0, 1, 2, 4, 5]),
    ("parent = 'digits/0'", [2]),
    ("parent is not null and parent_epoch = 1", [2]),
    ("number >= 4", [4, 5]),
    ("number in (0, 5, 1000000000000000000000)", [0, 5]),
    ("epoch = 3", [0, 1, 2, 3, 4, 5]),
    ("seconds > 1", [0]),
    ("started_at < '2026-01-02'", [0]),
    ("started_at >= '2026-01-02T12:00:00Z'", [1]),
    ("started_at = '2026-01-02 14:00+02:00'", [1]),
    ("started_at is null", [2, 3, 4, 5]),
    ("finished_at > started_at", []),
    ("not (not (number = 1))", [1]),
    ("number = 1 or number = 2 and number = 3", [1]),
    ("(number = 1 or number = 2) and number = 2", [2]),
    ("NOT number < 5 AND number IS NOT NULL", [5]),
    ("true = optimizer or number=1", [1]),
    (" \n number\t=\n1 ", [1]),
]

#: An expression and what is said of it.
MISTAKES = [
    ("", "is empty"),
    ("   ", "is empty"),
    ("val_accuracy >", r"column 15: expected a name or a value: val_accuracy > >>>\(end\)<<<"),
    ("val_accuracy > and number = 1", "column 16: expected a name or a value here"),
    ("val_accuracy", "column 13: expected a comparison such as 'val_accuracy' > 0.5"),
    ("number = 1 number = 2", "column 12: expected 'and', 'or' or the end: number = 1 >>>number<<< = 2"),
    ("(number = 1", "column 12: expected '\\)'"),
    ("number = 1)", "column 11: expected 'and', 'or' or the end"),
    ("number = 'x", "column 10: this ' is never closed"),
    ("number = 1; drop table trials", "column 11: this is neither"),
    ("number = 1 -- x", "column 12: this is neither"),
    ("1 = 1", "column 3: expected a name on one side"),
    ("number in ()", "column 12: expected a name or a value"),
    ("number in 1", "column 11: expected '\\('"),
    ("number in (1, units)", "column 15: expected a number or a text in quotes"),
    ("number is 3", "column 11: expected 'null' or 'nan'"),
    ("number like 3", "column 13: expected a text"),
    ("number like 'x'", "'like' is for texts, 'number' is a number"),
    ("number = 'x'", "column 10: 'number' is a number, it cannot be compared with a text"),
    ("worker = 3", "column 10: 'worker' is a text, it cannot be compared with a number"),
    ("worker = number", "'worker' is a text, 'number' is a number"),
    ("started_at > 'soon'", "column 14: 'started_at' is a time, expected '2026-01-31'"),
    ("started_at > 3", "is a time"),
    ("started_at > '0001-01-01 00:00+05:00'", "is a time"),
    ("started_at < '9999-12-31 23:59-05:00'", "is a time"),
    ("state = 'DONE'", "column 9: there is no such state .known: WAITING, RUNNING, COMPLETE, PRUNED, FAIL"),
    ("val_acuracy > 0.5", "column 1: unknown name 'val_acuracy' .params: learning_rate, .*did you mean 'val_accuracy'"),
    ("params.momentun = 1", "unknown name 'momentun' .params: learning_rate"),
    ("metrics.units = 1", "unknown name 'units' .metrics: val_accuracy"),
    ("trial.x = 1", "unknown 'trial' before the point .known: params, metrics"),
    ("params. = 1", "column 9: expected a name after the point"),
    ("val_loss = 1", "a param and a metric: write params.val_loss or metrics.val_loss"),
    ("worker = '\x00'", "must not hold NUL"),
    ("number = 1e999 and number = 1e99999999", None),
    ("number = " + "9" * 400, "too large"),
    ("number = 1 or " * 400 + "number = 1", "more than 300 comparisons"),
    ("(" * 2000 + "number = 1" + ")" * 2000, "levels of parentheses"),
    ("not " * 2000 + "number = 1", "levels of parentheses"),
    ("number = 1.2.3", "this is neither"),
    ("number = 12abc", "this is neither"),
    ("x" * 100_001, "at most 100000 are read"),
]


class StorageQueryContract:
    """The suite; needs a fixture `storage`."""

    def test_expressions_find_what_they_say(self, storage: Storage) -> None:
        """Every form of the language, over numbers, texts, times, NaN, infinities and what is not there."""
        _study(storage)

        found = {
            expression: [trial.number for trial in storage.trials("digits", where=expression)]
            for expression, _ in EXPRESSIONS
        }

        assert found == dict(EXPRESSIONS)

    def test_mistakes_are_pointed_at(self, storage: Storage) -> None:
        """Each message is one line, names the column and what was expected there."""
        _study(storage)

        for expression, message in MISTAKES:
            if message is None:
                storage.trials("digits", where=expression)
                continue
            with pytest.raises(QueryError, match=message) as caught:
                storage.trials("digits", where=expression)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 700

    def test_a_new_study_knows_its_names(self, storage: Storage) -> None:
        """The params of its space and the usual metrics can be asked for before a trial has them."""
        storage.create_study(make_spec())

        assert storage.trials("digits", where="learning_rate < 1 and val_loss < 1 and test_accuracy > 0") == []

    @pytest.mark.parametrize(
        ("sort", "numbers"),
        [
            ("number", [0, 1, 2, 3, 4, 5]),
            ("-number", [5, 4, 3, 2, 1, 0]),
            ("val_accuracy", [5, 1, 2, 0, 3, 4]),
            ("-val_accuracy", [0, 1, 2, 5, 3, 4]),
            ("value", [5, 1, 2, 0, 3, 4]),
            ("-value", [0, 1, 2, 5, 3, 4]),
            ("-metrics.val_loss", [2, 1, 0, 5, 3, 4]),
            ("learning_rate", [3, 1, 2, 0, 5, 4]),
            ("-learning_rate", [5, 0, 1, 2, 3, 4]),
            ("optimizer", [5, 2, 0, 1, 3, 4]),
            ("-optimizer", [5, 1, 0, 2, 3, 4]),
            ("train_loss", None),
            ("worker", [0, 1, 2, 3, 4, 5]),
            ("-started_at", [1, 0, 2, 3, 4, 5]),
            ("state", [0, 1, 2, 5, 3, 4]),
            ('params.`it\'s "odd"`', [5, 0, 1, 2, 3, 4]),
        ],
    )
    def test_trials_are_sorted(self, storage: Storage, sort: str, numbers: list[int] | None) -> None:
        """By any name; those without a value, or with NaN, come last in both directions; ties go by number."""
        _study(storage)

        whole = [trial.number for trial in storage.trials("digits", sort=sort)]

        assert numbers is None or whole == numbers
        for limit in range(8):
            assert [trial.number for trial in storage.trials("digits", sort=sort, limit=limit)] == whole[:limit]

    def test_filter_sort_and_limit_work_together(self, storage: Storage) -> None:
        """The limit is of those that match."""
        _study(storage)

        found = storage.trials("digits", where="units >= 8", sort="-val_accuracy", limit=2)

        assert [trial.number for trial in found] == [0, 1]

    @pytest.mark.parametrize("sort", ["", "-", "--value", "nothing", "value, number", "0.5", "value desc", "params.x"])
    def test_a_sort_by_nothing_known_is_refused(self, storage: Storage, sort: str) -> None:
        """The message says what can be sorted by."""
        _study(storage)

        with pytest.raises(QueryError):
            storage.trials("digits", sort=sort)

    @pytest.mark.parametrize("limit", [2**31, 2**63 - 1, 2**63, 10**30])
    @pytest.mark.parametrize("sort", [None, "-val_accuracy"])
    def test_a_huge_limit_is_none(self, storage: Storage, limit: int, sort: str | None) -> None:
        """Also one that no database can count to."""
        _study(storage)

        found = [trial.number for trial in storage.trials("digits", sort=sort, limit=limit)]

        assert found == [trial.number for trial in storage.trials("digits", sort=sort)]

    def test_a_negative_limit_is_refused(self, storage: Storage) -> None:
        """A limit counts trials."""
        storage.create_study(make_spec())

        with pytest.raises(QueryError, match="limit must not be negative"):
            storage.trials("digits", limit=-1)

    def test_the_exact_float_is_found(self, storage: Storage) -> None:
        """A value copied from a result finds its trial again, to the last bit, in params and metrics."""
        storage.create_study(make_spec())
        values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 123456.78901234567, 2**-1074 * 3]
        trials = [make_trial(n, params={"x": v}, metrics={"m": v, "val_accuracy": v}) for n, v in enumerate(values)]
        storage.add_trials("digits", trials)
        storage.write("digits", [TrialResult(trial=trial) for trial in trials])

        for number, value in enumerate(values):
            for name in ("x", "m", "val_accuracy"):
                found = storage.trials("digits", where=f"{name} = {value!r}")
                assert [trial.number for trial in found] == [number]

    def test_large_whole_numbers_are_compared_exactly(self, storage: Storage) -> None:
        """Beyond 2**53 floats have gaps, and beyond 1e308 they end; a param that is whole has neither."""
        storage.create_study(make_spec())
        values = [2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**400, -(10**400), 2.0**53, math.inf, True]
        storage.add_trials("digits", [make_trial(n, params={"x": value}) for n, value in enumerate(values)])

        found = {
            where: [trial.number for trial in storage.trials("digits", where=where)]
            for where in (
                f"x = {2**53}",
                f"x = {2**53 + 1}",
                f"x > {2**53} and x < {2**63}",
                f"x in ({2**63 - 1}, {-(2**63)}, {2**64 - 1})",
                "x > 1e300",
                "x < -1e300",
                "x = 1",
                "x != value and x = 1",
            )
        }

        assert found == {
            f"x = {2**53}": [0, 7],
            f"x = {2**53 + 1}": [1],
            f"x > {2**53} and x < {2**63}": [1, 2],
            f"x in ({2**63 - 1}, {-(2**63)}, {2**64 - 1})": [2, 3, 4],
            "x > 1e300": [5, 8],
            "x < -1e300": [6],
            "x = 1": [9],
            "x != value and x = 1": [],
        }
        assert [trial.number for trial in storage.trials("digits", sort="x")][2:7] == [9, 0, 7, 1, 2]
