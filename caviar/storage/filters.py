"""From the names of an expression to SQL that means the same on SQLite and Postgres.

Values are bound, never pasted. A trial that lacks a name, or has NaN or a value of another type there, matches
neither a comparison nor its negation; only `!=` matches a value of another type. Texts compare by code point.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import Double, Numeric, Text, and_, bindparam, case, cast, func, literal_column, not_, null, or_, select
from sqlalchemy.sql.elements import ColumnElement

from caviar.errors import QueryError
from caviar.records import EPOCH_METRICS, TrialState
from caviar.storage import codec, schema, where
from caviar.storage.where import Name, Value

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

_trials = schema.trials.c
#: The names that every trial has, and the kind of each.
COLUMNS: dict[str, str] = {
    "number": "number",
    "state": "text",
    "value": "number",
    "epoch": "number",
    "seconds": "number",
    "reason": "text",
    "parent": "text",
    "parent_epoch": "number",
    "started_at": "time",
    "finished_at": "time",
    "worker": "text",
    "error": "text",
    "traceback": "text",
    "space_version": "number",
}

Sql = ColumnElement[Any]
_NEVER: Sql = literal_column("(1 = 0)")
_ALWAYS: Sql = literal_column("(1 = 1)")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Known:
    """The names of a study that an expression may use."""

    #: The study's metric, whose last value has a column of its own.
    metric: str
    params: Sequence[str]
    metrics: Sequence[str]


def known_metrics(metric: str, seen: Sequence[str], *, is_network: bool) -> list[str]:
    """Return the metrics that a study has or will have; those of the built-in network are known before any is seen."""
    usual = (*EPOCH_METRICS, "test_accuracy") if is_network else ()
    return list(dict.fromkeys((metric, *seen, *usual)))


class Field(NamedTuple):
    """What a name means in SQL."""

    #: `number`, `text`, `time`, or `any` for a param, which may be a number in one trial and a text in another.
    kind: str
    #: The value where it is a number (or a time), else null.
    number: Sql
    #: The value where it is a text, else null.
    text: Sql
    #: Whether there is none; NaN counts as none.
    is_null: Sql
    #: Whether it is NaN.
    is_nan: Sql
    #: Whether the number is read out of JSON.
    from_json: bool


class Filters:
    """Compiles expressions over the trials of one study.

    Args:
        known: the names that may be used.
        dialect: `sqlite` or `postgresql`.
    """

    def __init__(self, known: Known, dialect: str) -> None:
        self._known = known
        self._is_sqlite = dialect == "sqlite"
        self._expression = ""

    def condition(self, expression: str) -> Sql:
        """Return the condition of an expression.

        Raises:
            QueryError: it is not valid, or uses an unknown name; the message points at the place.
        """
        self._expression = expression
        return self._compile(where.parse(expression))

    def states_of(self, expression: str) -> frozenset[str] | None:
        """Return the states that trials which match can have, where the expression says so."""
        return _states_of(where.parse(expression))

    def sort_keys(self, sort: str) -> tuple[list[Sql], bool]:
        """Return what to sort by, most important first, and whether descending.

        Raises:
            QueryError: the name is not known.
        """
        if not isinstance(sort, str):
            raise QueryError(f"a name to sort by is a text, as '-val_accuracy', found {sort!r:.60}")
        descending = sort.startswith("-")
        self._expression = sort.removeprefix("-")
        field = self._field(where.parse_name(self._expression))
        if field.kind == "any":
            return [field.number, field.text], descending
        return [field.text if field.kind == "text" else field.number], descending

    def _compile(self, test: where.Test) -> Sql:
        match test:
            case where.Both(tests):
                return and_(*map(self._compile, tests))
            case where.Either(tests):
                return or_(*map(self._compile, tests))
            case where.Not(inner):
                return not_(self._compile(inner))
            case where.Is(name, what):
                field = self._field(name)
                return field.is_nan if what == "nan" else field.is_null
            case where.Like(name, pattern):
                return self._like(self._field(name), name, pattern)
            case where.In(name, values):
                return self._in(self._field(name), name, values)
            case where.Compare(left, op, right):
                if isinstance(left, Value):
                    assert isinstance(right, Name)
                    return self._against_value(right, _MIRRORED[op], left)
                if isinstance(right, Value):
                    return self._against_value(left, op, right)
                return self._against_name(left, op, right)
        raise AssertionError(test)

    def _against_value(self, name: Name, op: str, value: Value) -> Sql:
        field = self._field(name)
        of_kind, bound = self._bind(field, name, value)
        compared: Sql = _OPERATORS[op](of_kind, bound)
        if field.kind == "any" and op == "!=":
            other = field.number if isinstance(value.value, str) else field.text
            return or_(compared, other.is_not(None))  # a value of another type differs
        return compared

    def _against_name(self, left: Name, op: str, right: Name) -> Sql:
        a, b = self._field(left), self._field(right)
        kinds = {a.kind, b.kind} - {"any"}
        if len(kinds) > 1:
            self._complain(right.position, f"{str(left)!r} is a {a.kind}, {str(right)!r} is a {b.kind}")
        compare: Callable[[Sql, Sql], Sql] = _OPERATORS[op]
        if "any" not in (a.kind, b.kind):
            return compare(a.text, b.text) if a.kind == "text" else compare(a.number, b.number)
        parts = [(a.number, b.number)] if "text" not in (a.kind, b.kind) else []
        if {a.kind, b.kind} <= {"text", "any"}:
            parts.append((a.text, b.text))
        tests = [(and_(one.is_not(None), other.is_not(None)), compare(one, other)) for one, other in parts]
        if op == "!=":
            tests.append((and_(not_(a.is_null), not_(b.is_null)), _ALWAYS))  # a value of another type differs
        return case(*tests)

    def _in(self, field: Field, name: Name, values: Sequence[Value]) -> Sql:
        lists: dict[int, tuple[Sql, list[Sql]]] = {}
        for value in values:
            of_kind, bound = self._bind(field, name, value)
            lists.setdefault(id(of_kind), (of_kind, []))[1].append(bound)
        tests = [(of_kind.is_not(None), of_kind.in_(bounds)) for of_kind, bounds in lists.values()]
        # by the kind of the trial's value: the other kind is null there, and `or` would make null of false
        return tests[0][1] if len(tests) == 1 else case(*tests)

    def _like(self, field: Field, name: Name, pattern: Value) -> Sql:
        if field.kind not in ("text", "any"):
            self._complain(name.position, f"'like' is for texts, {str(name)!r} is a {field.kind}")
        assert isinstance(pattern.value, str)
        self._check_text(pattern)
        if self._is_sqlite:  # its LIKE ignores case, its GLOB does not
            glob = "".join({"%": "*", "_": "?"}.get(c, f"[{c}]" if c in "*?[" else c) for c in pattern.value)
            return field.text.op("GLOB", is_comparison=True)(bindparam(None, glob))
        return field.text.like(bindparam(None, pattern.value), escape="")

    def _bind(self, field: Field, name: Name, value: Value) -> tuple[Sql, Sql]:
        """Return the part of a field that can equal this value, and the value as a parameter."""
        plain = value.value
        if field.kind == "time":
            return field.number, bindparam(None, self._moment(name, value), type_=_trials.started_at.type)
        if isinstance(plain, str):
            if field.kind == "number":
                self._complain(value.position, f"{str(name)!r} is a number, it cannot be compared with a text")
            self._check_text(value)
            if name.word == "state" and field.kind == "text" and str(name) == "state":
                plain = self._state(value)
            return field.text, bindparam(None, plain, type_=Text())
        if field.kind == "text":
            self._complain(value.position, f"{str(name)!r} is a text, it cannot be compared with a number")
        exact = repr(plain)
        if isinstance(plain, int) and plain not in _INT64:
            try:
                plain = float(plain)
            except OverflowError:
                self._complain(value.position, "this number is too large")
        if field.kind == "any" and not self._is_sqlite:
            return field.number, cast(bindparam(None, exact, type_=Text()), Numeric)
        if self._is_sqlite and field.from_json and isinstance(plain, float) and math.isfinite(plain):
            # SQLite reads numbers in JSON less exactly than Python: let it read this one in the same way.
            return field.number, cast(bindparam(None, repr(plain), type_=Text()), Double)
        if isinstance(plain, int):
            return field.number, bindparam(None, plain, type_=_trials.number.type)
        return field.number, bindparam(None, plain, type_=Double())

    def _moment(self, name: Name, value: Value) -> datetime:
        try:
            if not isinstance(value.value, str):
                raise ValueError(value.value)
            moment = datetime.fromisoformat(value.value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):  # the latter where UTC is in another age than the text
            self._complain(value.position, f"{str(name)!r} is a time, expected '2026-01-31' or '2026-01-31 13:00'")

    def _state(self, value: Value) -> str:
        word = str(value.value).upper()
        if word not in TrialState.__members__:
            self._complain(value.position, f"there is no such state (known: {', '.join(TrialState)})")
        return word

    def _check_text(self, value: Value) -> None:
        if not codec.is_storable(str(value.value)):
            self._complain(value.position, "a text here must not hold NUL or lone surrogates")

    def _field(self, name: Name) -> Field:
        in_params, in_metrics = name.word in self._known.params, name.word in self._known.metrics
        if name.scope == "params" and in_params:
            return self._param(name.word)
        if name.scope == "metrics" and in_metrics:
            return self._metric(name.word)
        if name.scope is None:
            if name.word in COLUMNS:
                return self._column(name.word)
            if in_params and in_metrics:
                self._complain(name.position, f"a param and a metric: write params.{name.word} or metrics.{name.word}")
            if in_params:
                return self._param(name.word)
            if in_metrics:
                return self._metric(name.word)
        raise self._unknown(name)

    def _unknown(self, name: Name) -> QueryError:
        scopes = {"params": self._known.params, "metrics": self._known.metrics}
        if name.scope is not None and name.scope not in scopes:
            problem = f"unknown {name.scope!r} before the point (known: params, metrics)"
            return where.error_at(self._expression, name.position, problem)
        if name.scope is not None:
            names = list(scopes[name.scope])
            listed = f"{name.scope}: {', '.join(names) or 'none'}"
        else:
            names = [*self._known.params, *self._known.metrics, *COLUMNS]
            listed = "; ".join(
                f"{kind}: {', '.join(some) or 'none'}" for kind, some in {**scopes, "columns": COLUMNS}.items()
            )
        close = get_close_matches(name.word, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return where.error_at(self._expression, name.position, f"unknown name {name.word!r} ({listed}){hint}")

    def _complain(self, position: int, problem: str) -> NoReturn:
        raise where.error_at(self._expression, position, problem)

    def _column(self, word: str) -> Field:
        kind, column = COLUMNS[word], _trials[word]
        if kind != "text":
            return Field(kind, column, null(), column.is_(None), _NEVER, False)
        # The words of states sort alike by any rule, and with a rule their index could not be used.
        text: Sql = column if word == "state" else self._by_code_point(column)
        return Field(kind, null(), text, column.is_(None), _NEVER, False)

    def _by_code_point(self, text: Sql) -> Sql:
        return text if self._is_sqlite else text.collate("C")

    def _json(self, column: Sql, word: str) -> tuple[Sql, Sql]:
        """Return the value and its type in JSON."""
        if not self._is_sqlite:
            value = column.op("->")(bindparam(None, word, type_=Text()))
            return value, func.jsonb_typeof(value)
        if '"' in word or "\\" in word or not word.isprintable():
            # A path cannot hold such a name.
            each = func.json_each(column).table_valued("key", "value", "type")
            named = each.c.key == bindparam(None, word)
            return (
                select(each.c.value).where(named).scalar_subquery(),
                select(each.c.type).where(named).scalar_subquery(),
            )
        path: Sql = bindparam(None, f'$."{word}"')
        return func.json_extract(column, path), func.json_type(column, path)

    def _metric(self, word: str) -> Field:
        value, kind = self._json(_trials.metrics, word)
        if self._is_sqlite:
            number: Sql = case((kind.in_(["real", "integer"]), value), else_=_special(value))
            is_nan = value == "NaN"
        else:
            text = _trials.metrics.op("->>")(bindparam(None, word, type_=Text()))
            number = _without_nan(cast(text, Double))
            is_nan = text == "NaN"
        is_nan = func.coalesce(is_nan, _NEVER)
        if word in (self._known.metric, "val_loss"):  # these have columns of their own, and indexes
            column = _trials.score if word == self._known.metric else _trials.tie
            return Field("number", column, null(), column.is_(None), is_nan, False)
        return Field("number", number, null(), number.is_(None), is_nan, True)

    def _param(self, word: str) -> Field:
        value, kind = self._json(_trials.params, word)
        if self._is_sqlite:
            exact: Sql = func.json_extract(value, f'$."{codec.EXACT}"')
            number: Sql = case(
                (kind.in_(["real", "integer", "true", "false"]), value), (kind == "object", _special(exact))
            )
            text: Sql = case((kind == "text", value))
        else:
            exact = value.op("->>")(bindparam(None, codec.EXACT, type_=Text()))
            plain = value.op("#>>")(literal_column("'{}'"))
            # To floats, neighbours above 2**53 would be one, and a longer number an error.
            number = case(
                (kind == "number", cast(value, Numeric)),
                (kind == "boolean", case((plain == "true", literal_column("1")), else_=literal_column("0"))),
                (and_(kind == "object", exact.not_like('"%')), _without_nan(cast(exact, Numeric))),
            )
            text = self._by_code_point(case((kind == "string", plain)))
        is_nan = case((kind == "object", exact == "NaN"), else_=_NEVER)
        is_null = or_(kind.is_(None), kind == "null", is_nan)
        return Field("any", number, text, is_null, is_nan, True)


def _states_of(test: where.Test) -> frozenset[str] | None:
    match test:
        case where.Compare(Name(None, "state"), "=", Value(str(state))):
            return frozenset((state.upper(),))
        case where.In(Name(None, "state"), values):
            return frozenset(str(value.value).upper() for value in values)
        case where.Both(tests):
            return next((states for states in map(_states_of, tests) if states is not None), None)
        case where.Either(tests):
            parts = [_states_of(part) for part in tests]
            known = [part for part in parts if part is not None]
            return frozenset().union(*known) if len(known) == len(parts) else None
    return None


def _without_nan(number: Sql) -> Sql:
    # To Postgres NaN is a number, the largest; to SQLite it is null.
    return func.nullif(number, literal_column("'NaN'"))


def _special(text: Sql) -> Sql:
    """Return the number that a text of `codec` stands for, on SQLite; null for NaN and other texts."""
    return case(
        (text == "Infinity", literal_column("9e999")),
        (text == "-Infinity", literal_column("-9e999")),
        (text == "NaN", null()),
        (text.op("GLOB")("[-0-9]*"), cast(text, Double)),
    )
