"""The language of `--where`: from text to a tree. What the names mean is :mod:`caviar.storage.filters`' business.

    val_accuracy > 0.95 and learning_rate < 1e-2 and optimizer = 'adam'
    state in ('FAIL', 'PRUNED') or not (0.1 <= params.momentum < 0.9)
    parent is null and val_loss is not nan and worker like 'node-%'

Grammar, loosest first (words in any case)::

    either     = both { "or" both }
    both       = denied { "and" denied }
    denied     = "not" denied | "(" either ")" | test
    test       = operand ( { comparison operand } | ["not"] "in" "(" literal { "," literal } ")"
                 | ["not"] "between" literal "and" literal | ["not"] "like" text | "is" ["not"] ("null" | "nan") )
    comparison = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    operand    = name | literal
    name       = word [ "." word ], where a word may stand in backticks
    literal    = number | text in single or double quotes (doubled inside) | "true" | "false"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from caviar.errors import QueryError

Literal = int | float | str


@dataclass(frozen=True, slots=True)
class Name:
    """A name as written, and where."""

    scope: str | None
    word: str
    position: int

    def __str__(self) -> str:
        return self.word if self.scope is None else f"{self.scope}.{self.word}"


@dataclass(frozen=True, slots=True)
class Value:
    """A literal, and where it was written; `true` and `false` are 1 and 0."""

    value: Literal
    position: int


Operand = Name | Value


@dataclass(frozen=True, slots=True)
class Compare:
    """`left op right`, where op is one of `= != < <= > >=`."""

    left: Operand
    op: str
    right: Operand


@dataclass(frozen=True, slots=True)
class In:
    """`name in (...)`."""

    name: Name
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """`name like 'pattern'`: `%` stands for any text, `_` for one character; case matters."""

    name: Name
    pattern: Value


@dataclass(frozen=True, slots=True)
class Is:
    """`name is null` or `name is nan`."""

    name: Name
    what: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    test: Test


@dataclass(frozen=True, slots=True)
class Both:
    """All of some tests."""

    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of some tests."""

    tests: tuple[Test, ...]


Test = Compare | In | Like | Is | Not | Both | Either

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<quoted>`[^`]+`)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,|\.)
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_COMPARISONS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_RESERVED = frozenset(("and", "or", "not", "in", "is", "like", "between", "null", "nan", "true", "false"))

# Databases bound the size of an expression; these keep ours below, whatever is in it.
_MOST_CHARACTERS = 100_000
_MOST_TESTS = 300
_MOST_VALUES = 5_000
_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name (in backticks), word, sign, end
    text: str
    position: int


def error_at(expression: str, position: int, problem: str) -> QueryError:
    """Return the error that points at a place of the expression, in one line."""
    rest = expression[position:]
    token = re.match(r"\S+|\s*\Z", rest)
    found = (token.group(0) if token else rest)[:30]
    before = expression[max(0, position - 30) : position]
    after = expression[position + len(found) : position + len(found) + 30]
    mark = f">>>{found}<<<" if found else " >>>(end)<<<"  # apart from what may be a sign
    excerpt = " ".join(
        f"{'...' if position > 30 else ''}{before}{mark}{after}"
        f"{'...' if position + len(found) + 30 < len(expression) else ''}".split()
    )
    return QueryError(f"the expression is not valid at column {position + 1}: {problem}: {excerpt}")


def parse(expression: str) -> Test:
    """Return the tree of an expression.

    Raises:
        QueryError: it is not valid; the message points at the place.
    """
    if not isinstance(expression, str):
        raise QueryError(f"an expression is a text, as 'val_accuracy > 0.9', found {expression!r:.60}")
    if not expression.strip():
        raise QueryError("the expression is empty; write for example val_accuracy > 0.9, or leave it out")
    if len(expression) > _MOST_CHARACTERS:
        raise QueryError(f"the expression has {len(expression)} characters, at most {_MOST_CHARACTERS} are read")
    return _Parser(expression).parse()


def parse_name(text: str) -> Name:
    """Return a name that stands alone, as in `--sort`.

    Raises:
        QueryError: it is not a name.
    """
    if not text.strip():
        raise QueryError("the name to sort by is empty; write for example -val_accuracy")
    return _Parser(text).parse_name()


def _tokens(expression: str) -> list[_Token]:
    tokens = []
    position = 0
    while True:
        match = _TOKEN.match(expression, position)
        if match is None:
            at = position + len(expression[position:]) - len(expression[position:].lstrip())
            if expression[at] in "'\"`":
                raise error_at(expression, at, f"this {expression[at]} is never closed")
            raise error_at(expression, at, "this is neither a name, a number, a text in quotes nor a comparison")
        kind = match.lastgroup
        assert kind is not None
        text = match.group(kind)
        if kind == "text":
            text = text[1:-1].replace(text[0] * 2, text[0])
        elif kind == "quoted":
            kind, text = "name", text[1:-1]
        tokens.append(_Token(kind, text, match.start(match.lastgroup or 0)))
        if kind == "end":
            return tokens
        position = match.end()


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = _tokens(expression)
        self._next = 0
        self._depth = 0
        self._n_tests = 0

    def parse(self) -> Test:
        test = self._either()
        if self._token.kind != "end":
            self._complain("expected 'and', 'or' or the end")
        return test

    def parse_name(self) -> Name:
        name = self._operand()
        if not isinstance(name, Name):
            raise error_at(self._expression, name.position, "expected a name to sort by")
        if self._token.kind != "end":
            self._complain("expected nothing after the name")
        return name

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _complain(self, problem: str) -> NoReturn:
        raise error_at(self._expression, self._token.position, problem)

    def _take(self, *texts: str) -> str | None:
        """Step over a sign or a reserved word, where it is one of these; return it in lower case."""
        token = self._token
        if token.kind in ("word", "sign") and token.text.lower() in texts:
            self._next += 1
            return token.text.lower()
        return None

    def _expect(self, text: str, where: str) -> None:
        if self._take(text) is None:
            self._complain(f"expected {text!r} {where}")

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else Either(tuple(tests))

    def _both(self) -> Test:
        tests = [self._denied()]
        while self._take("and"):
            tests.append(self._denied())
        return tests[0] if len(tests) == 1 else Both(tuple(tests))

    def _denied(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._complain(f"more than {_DEEPEST} levels of parentheses and 'not'")
        test: Test
        if self._take("not"):
            test = Not(self._denied())
        elif self._take("("):
            test = self._either()
            self._expect(")", "to close the parenthesis")
        else:
            test = self._test()
        self._depth -= 1
        return test

    def _test(self) -> Test:
        self._n_tests += 1
        if self._n_tests > _MOST_TESTS:
            self._complain(f"more than {_MOST_TESTS} comparisons; use in (...)")
        left = self._operand()
        if self._token.text in _COMPARISONS and self._token.kind == "sign":
            return self._comparisons(left)
        if not isinstance(left, Name):
            self._complain("expected a comparison such as < after this value")
        denied = self._take("not") is not None
        test: Test
        if self._take("in"):
            test = In(left, self._values())
        elif self._take("between"):
            low = self._literal()
            self._expect("and", "between the bounds")
            test = Both((Compare(left, ">=", low), Compare(left, "<=", self._literal())))
        elif self._take("like"):
            pattern = self._literal()
            if not isinstance(pattern.value, str):
                raise error_at(self._expression, pattern.position, "expected a text in quotes after 'like'")
            test = Like(left, pattern)
        elif not denied and self._take("is"):
            denied = self._take("not") is not None
            what = self._take("null", "nan")
            if what is None:
                self._complain("expected 'null' or 'nan' after 'is'")
            test = Is(left, what)
        else:
            self._complain(f"expected a comparison such as {str(left)!r} > 0.5")
        return Not(test) if denied else test

    def _comparisons(self, left: Operand) -> Test:
        tests: list[Test] = []
        while self._token.kind == "sign" and self._token.text in _COMPARISONS:
            position = self._token.position
            op = _COMPARISONS[self._token.text]
            self._next += 1
            right = self._operand()
            if isinstance(left, Value) and isinstance(right, Value):
                raise error_at(self._expression, position, "expected a name on one side of the comparison")
            tests.append(Compare(left, op, right))
            left = right
        return tests[0] if len(tests) == 1 else Both(tuple(tests))

    def _values(self) -> tuple[Value, ...]:
        self._expect("(", "after 'in'")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
            if len(values) > _MOST_VALUES:
                self._complain(f"more than {_MOST_VALUES} values")
        self._expect(")", "or ',' after a value")
        return tuple(values)

    def _literal(self) -> Value:
        value = self._operand()
        if isinstance(value, Name):
            raise error_at(self._expression, value.position, "expected a number or a text in quotes")
        return value

    def _operand(self) -> Operand:
        token = self._token
        if token.kind == "number":
            self._next += 1
            return Value(_number(token.text), token.position)
        if token.kind == "text":
            self._next += 1
            return Value(token.text, token.position)
        word = self._take("true", "false")
        if word is not None:
            return Value(int(word == "true"), token.position)
        if token.kind == "word" and token.text.lower() in _RESERVED and self._tokens[self._next + 1].text != ".":
            self._complain("expected a name or a value here (put a name like this one in backticks)")
        if token.kind not in ("word", "name"):
            self._complain("expected a name or a value")
        self._next += 1
        if self._take(".") is None:
            return Name(None, token.text, token.position)
        word_token = self._token
        if word_token.kind not in ("word", "name"):
            self._complain("expected a name after the point")
        self._next += 1
        return Name(token.text, word_token.text, token.position)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
