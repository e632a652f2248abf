"""The search space: what it accepts, what it refuses and why, and the space file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caviar.errors import CaviarError, SpaceError
from caviar.space import Categorical, Domain, Float, Int, SearchSpace, Value, default_space

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
TIERS = st.integers(1, 3)


@st.composite
def floats(draw: st.DrawFn) -> Float:
    scale = draw(st.sampled_from(["linear", "log", "one-minus-log"]))
    bound = {
        "linear": NUMBERS,
        "log": st.floats(0, exclude_min=True, allow_infinity=False),
        "one-minus-log": st.floats(0, 1, exclude_min=True, exclude_max=True),
    }[scale]
    low, high = sorted((draw(bound), draw(bound)))
    return Float(low, high, scale=scale, tier=draw(TIERS))


@st.composite
def ints(draw: st.DrawFn) -> Int:
    scale = draw(st.sampled_from(["linear", "log"]))
    bound = st.integers(1 if scale == "log" else -(2**62), 2**62)
    low, high = sorted((draw(bound), draw(bound)))
    return Int(low, high, scale=scale, tier=draw(TIERS))


@st.composite
def categoricals(draw: st.DrawFn) -> Categorical:
    choices = draw(st.lists(st.one_of(st.integers(-(2**62), 2**62), NUMBERS, WORDS), min_size=1, unique=True))
    return Categorical(*choices, tier=draw(TIERS))


SPACES = st.dictionaries(
    NAMES | WORDS, st.one_of(floats(), ints(), categoricals(), st.integers(-(2**62), 2**62), NUMBERS, WORDS)
)


@given(tables=SPACES)
def test_a_space_survives_plain_data(tables: dict[str, Domain | Value]) -> None:
    """`from_dict` gives back the space that `to_dict` wrote, types of numbers included."""
    space = SearchSpace(**tables)

    again = SearchSpace.from_dict(space.to_dict())

    assert again == space
    assert hash(again) == hash(space)
    assert repr(again) == repr(SearchSpace(**dict(sorted(tables.items()))))


@given(tables=SPACES.filter(bool))
def test_a_space_survives_a_space_file(tables: dict[str, Domain | Value], tmp_path_factory: Any) -> None:
    """A space written as TOML is read back as it was."""
    space = SearchSpace(**tables)
    path = tmp_path_factory.getbasetemp() / "space.toml"
    path.write_text(space.to_toml(), encoding="utf-8")

    again = SearchSpace.from_toml(path)

    assert again == space
    path.write_text(space.to_toml(), encoding="utf-8-sig")  # as some editors do
    assert SearchSpace.from_toml(path) == space


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    """Defaults are: type float, scale linear, tier 2; a plain value is fixed."""
    path = tmp_path / "space.toml"
    path.write_text(
        """
        optimizer = "adam"
        l2 = 1

        [learning_rate]
        low = 1e-4
        high = 1
        scale = "log"
        tier = 1

        [momentum]
        low = 0.9
        high = 0.999
        scale = "one-minus-log"

        [hidden_units]
        low = 16
        high = 128
        type = "int"

        [batch_size]
        choices = [32, 64]

        [layers]
        value = 2
        tier = 3
        """
    )

    space = SearchSpace.from_toml(path)

    assert space == SearchSpace(
        optimizer="adam",
        l2=1,
        learning_rate=Float(1e-4, 1.0, scale="log", tier=1),
        momentum=Float(0.9, 0.999, scale="one-minus-log"),
        hidden_units=Int(16, 128),
        batch_size=Categorical(32, 64),
        layers=2,
    )
    assert list(space.domains) == ["batch_size", "hidden_units", "learning_rate", "momentum"]
    assert space.fixed == {"optimizer": "adam", "l2": 1, "layers": 2}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(1.0, 0.1), "low must not be above high, found low = 1.0 and high = 0.1"),
        (lambda: Float(float("nan"), 1), "low must be a finite float, found nan"),
        (lambda: Float(0, float("inf")), "high must be a finite float, found inf"),
        (lambda: Float("0", 1), "low must be a finite float, found '0'"),
        (lambda: Float(0, None), "high must be a finite float, found None"),
        (lambda: Float(False, True), "low must be a finite float, found False"),
        (lambda: Float(0, 10**400), f"high must be a finite float, found {10**400}"),
        (lambda: Float(0, 1, scale="log"), "scale 'log' needs low > 0, found low = 0"),
        (lambda: Float(0.0, 1, scale="exp"), "unknown scale 'exp' (known: linear, log, one-minus-log)"),
        (lambda: Float(0.1, 1, scale=["log"]), "unknown scale ['log'] (known: linear, log, one-minus-log)"),
        (
            lambda: Float(0.9, 1.0, scale="one-minus-log"),
            "scale 'one-minus-log' needs bounds inside (0, 1), found low = 0.9 and high = 1.0",
        ),
        (
            lambda: Float(0, 0.5, scale="one-minus-log"),
            "scale 'one-minus-log' needs bounds inside (0, 1), found low = 0 and high = 0.5",
        ),
        (lambda: Float(0, 1, tier=4), "tier must be 1, 2 or 3, found 4"),
        (lambda: Float(0, 1, tier=True), "tier must be 1, 2 or 3, found True"),
        (lambda: Float(0, 1, tier="1"), "tier must be 1, 2 or 3, found '1'"),
        (lambda: Int(1.0, 2), "low must be a finite int, found 1.0"),
        (lambda: Int(2, 1), "low must not be above high, found low = 2 and high = 1"),
        (lambda: Int(0, 8, scale="log"), "scale 'log' needs low > 0, found low = 0"),
        (
            lambda: Int(1, 8, scale="one-minus-log"),
            "scale 'one-minus-log' is for real numbers in (0, 1), not for type 'int'; use 'linear' or 'log'",
        ),
        (lambda: Int(1, 8, tier=0), "tier must be 1, 2 or 3, found 0"),
        (Categorical, "choices must hold at least one value, found none"),
        (lambda: Categorical(1, 2, 1), "choices must differ from each other, found 1 twice"),
        (lambda: Categorical(1, 1.0), "choices must differ from each other, found 1.0 twice"),
        (lambda: Categorical("a", None), "a choice must be a finite number or a string, found None"),
        (lambda: Categorical(True), "a choice must be a finite number or a string, found True"),
        (lambda: Categorical([1]), "a choice must be a finite number or a string, found [1]"),
        (lambda: Categorical(float("nan")), "a choice must be a finite number or a string, found nan"),
        (lambda: Categorical(1, tier=9), "tier must be 1, 2 or 3, found 9"),
        (
            lambda: SearchSpace(l2=[0.1, 0.2]),
            "param 'l2' must be a Float, Int, Categorical, finite number or string, found [0.1, 0.2]",
        ),
        (
            lambda: SearchSpace(l2=float("inf")),
            "param 'l2' must be a Float, Int, Categorical, finite number or string, found inf",
        ),
    ],
)
def test_a_bad_domain_is_refused(make: Any, message: str) -> None:
    """The error is one line that says what was expected and what was found."""
    with pytest.raises(SpaceError, match=f"^{re.escape(message)}$") as caught:
        make()

    assert isinstance(caught.value, CaviarError | ValueError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it needs a table such as [learning_rate]"),
        ("# nothing", "is empty; it needs a table such as [learning_rate]"),
        ("[l2", "is not valid TOML: "),
        ("[l2]\nlow = 0\nlow = 1", "is not valid TOML: "),
        ("[l2]\nlow = 0", "param 'l2': high missing: give low and high, or choices, or value"),
        ("[l2]", "param 'l2': low and high missing: give low and high, or choices, or value"),
        ("[l2]\nlow = 1\nhigh = 0", "param 'l2': low must not be above high, found low = 1 and high = 0"),
        ("[l2]\nlow = 0\nhigh = nan", "param 'l2': high must be a finite float, found nan"),
        (
            "[l2]\nlow = 0\nhihg = 1",
            "'hihg' (known: low, high, scale, type, choices, value, tier); did you mean 'high'?",
        ),
        ("[l2]\nlow = 0\nhigh = 1\ntype = 'real'", "param 'l2': type must be 'int' or 'float', found 'real'"),
        ("[l2]\nlow = 0\nhigh = 1\ntype = ['int']", "param 'l2': type must be 'int' or 'float', found ['int']"),
        ("[l2]\nlow = 0.5\nhigh = 1\ntype = 'int'", "param 'l2': low must be a finite int, found 0.5"),
        ("[l2]\nlow = 0\nhigh = 1\nscale = 'log'", "param 'l2': scale 'log' needs low > 0, found low = 0"),
        ("[l2]\nchoices = [1]\nlow = 0", "param 'l2': 'low' cannot stand beside 'choices'; remove one of them"),
        ("[l2]\nchoices = 'abc'", "param 'l2': choices must be a list, found 'abc'"),
        ("[l2]\nchoices = []", "param 'l2': choices must hold at least one value, found none"),
        ("[l2]\nchoices = [[1]]", "param 'l2': a choice must be a finite number or a string, found [1]"),
        ("[l2]\nvalue = 1\nscale = 'log'", "param 'l2': 'scale' cannot stand beside 'value'; remove one of them"),
        ("[l2]\nvalue = 1\ntier = 7", "param 'l2': tier must be 1, 2 or 3, found 7"),
        ("l2 = true", "param 'l2': expected a table, a finite number or a string, found True"),
        ("l2 = [1, 2]", "param 'l2': expected a table, a finite number or a string, found [1, 2]"),
        ("l2 = 2026-01-01", "param 'l2': expected a table, a finite number or a string, found datetime.date("),
        ("[[l2]]\nlow = 0", "param 'l2': expected a table, a finite number or a string, found [{'low': 0}]"),
    ],
)
def test_a_bad_space_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """The error is one line with the file, the param, and what is wrong with it."""
    path = tmp_path / "space.toml"
    path.write_text(text)

    with pytest.raises(SpaceError, match=re.escape(message)) as caught:
        SearchSpace.from_toml(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are not text are each named with the reason."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SpaceError, match=r"^cannot read the space file '.*none.toml': No such file or directory$"):
        SearchSpace.from_toml(tmp_path / "none.toml")
    with pytest.raises(SpaceError, match=r"^cannot read the space file '.*': Is a directory$"):
        SearchSpace.from_toml(tmp_path)
    with pytest.raises(SpaceError, match=r"^the space file '.*binary.toml' is not valid TOML: "):
        SearchSpace.from_toml(binary)


def test_a_param_may_have_any_name() -> None:
    """A name that Python gives a meaning, such as `self`, is a name like others."""
    space = SearchSpace.from_dict({"self": 1, "cls": {"low": 0, "high": 1}})

    assert space == SearchSpace(self=1, cls=Float(0, 1))


def test_spaces_are_equal_whatever_the_order() -> None:
    """Two spaces with the same names and domains are equal and hash alike; another tier makes another space."""
    space = SearchSpace(l2=Float(0, 1), layers=2)

    assert space == SearchSpace(layers=2, l2=Float(0.0, 1.0))
    assert hash(space) == hash(SearchSpace(layers=2, l2=Float(0.0, 1.0)))
    assert space != SearchSpace(layers=2, l2=Float(0, 1, tier=1))


def test_a_representation_makes_the_space_again() -> None:
    """`eval(repr(space))` is the space."""
    space = default_space()

    assert eval(repr(space)) == space


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        (Float(0, 1), "0 to 1"),
        (Float(1e-4, 0.5, scale="log"), "0.0001 to 0.5 (log)"),
        (Float(0.9, 0.9999999, scale="one-minus-log"), "0.9 to 0.9999999 (one-minus-log)"),
        (Int(1, 1234567), "1 to 1234567"),
        (Categorical(32, 2.0, "32", "a, b"), "32, 2, '32', 'a, b'"),
    ],
)
def test_a_domain_is_shown_with_all_its_digits(domain: Domain, words: str) -> None:
    """A bound that is rounded would be another one; a text is told from a number."""
    assert str(domain) == words


def test_wide_linear_ranges_get_advice() -> None:
    """There is one sentence for each param that should be on another scale, and none for those that are."""
    space = SearchSpace(
        learning_rate=Float(1e-4, 1.0),
        momentum=Float(0.9, 0.9999),
        l2=Float(1e-4, 1.0, scale="log"),
        learning_rate_decay=Float(0.0, 0.2),
        hidden_units=Int(1, 1000),
        layers=2,
    )

    rate, momentum = space.advice()

    assert rate.startswith("learning_rate goes from 0.0001 to 1 on a linear scale")
    assert rate.endswith("consider scale = 'log'")
    assert momentum.startswith("momentum approaches 1") and momentum.endswith("consider scale = 'one-minus-log'")
    assert default_space().advice() == []


def test_numbers_of_numpy_are_plain_numbers() -> None:
    """As fixed values and choices, too: a space file is made of them."""
    space = SearchSpace(
        l2=np.float64(0.1), layers=np.int64(2), momentum=Categorical(np.float32(0.5), 0.9, np.str_("a"))
    )

    assert dict(space) == {"l2": 0.1, "layers": 2, "momentum": Categorical(0.5, 0.9, "a")}
    assert SearchSpace.from_dict(tomllib.loads(space.to_toml())) == space
    assert [type(value) for value in space["momentum"].choices] == [float, float, str]  # type: ignore[union-attr]
    with pytest.raises(SpaceError, match=r"found np\.True_"):
        SearchSpace(layers=np.True_)
