"""`caviar sql`, as a user types it: what it prints, what it refuses, where it ends."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from caviar.errors import QueryError
from caviar.storage import open_storage, readonly, run_sql
from caviar.testing.storage import NUMBERS

if TYPE_CHECKING:
    from tests.acceptance.database.conftest import Command


def test_sql_prints_rows_in_each_format(caviar: Command) -> None:
    """The same rows; numbers are numbers."""
    words = ("sql", "select number, value, count(*) over () as n from v_trials where value >= 0.6 order by number")

    assert caviar.json(*words, "--format", "json") == [
        {"number": 6, "value": 0.6, "n": 2},
        {"number": 7, "value": 0.7, "n": 2},
    ]
    rows = list(csv.DictReader(io.StringIO(caviar.run(*words, "--format", "csv").stdout)))
    assert [(row["number"], row["value"]) for row in rows] == [("6", "0.6"), ("7", "0.7")]
    assert caviar.run(*words).stdout.split()[:3] == ["number", "value", "n"]


@pytest.mark.postgres
def test_sql_prints_numbers_of_postgres_exactly(on_postgres: Command) -> None:
    """A numeric has more digits than a float, in each format."""
    caviar = on_postgres
    words = (
        "sql",
        "select 12345678901234567890::numeric a, 0.12345678901234567890 b, 'NaN'::numeric c, 1e50::numeric d",
    )

    printed = caviar.run(*words, "--format", "json").stdout
    (row,) = csv.DictReader(io.StringIO(caviar.run(*words, "--format", "csv").stdout))

    assert json.loads(printed, parse_float=str, parse_int=str) == [
        {"a": "12345678901234567890", "b": "0.12345678901234567890", "c": None, "d": f"1{50 * '0'}"}
    ]
    assert (row["a"], row["b"], row["c"]) == ("12345678901234567890", "0.12345678901234567890", "nan")
    assert caviar.run(*words).stdout.split()[4:] == [
        "12345678901234567890",
        "0.12345678901234567890",
        "nan",
        f"1{50 * '0'}",
    ]
    statement = "select 12345678901234567890::numeric a, x from (values (0.5), (2e70)) t(x)"
    command = [caviar.program, "sql", statement, "--format", "parquet", "--storage", caviar.url]
    table = pq.read_table(
        io.BytesIO(subprocess.run(command, capture_output=True, timeout=caviar.timeout_s, check=True).stdout)
    )
    assert table["a"].to_pylist() == [Decimal(12345678901234567890)] * 2
    assert table["x"].to_pylist() == [Decimal("0.5"), Decimal("2e70")]


def test_sql_says_where_it_was_cut(caviar: Command) -> None:
    """A limit of rows, and one of time."""
    cut = caviar.run("sql", "select number from v_trials", "--limit", "3", "--format", "csv")

    assert len(cut.stdout.splitlines()) == 1 + 3
    assert "there are more rows than --limit 3" in cut.stderr
    endless = "with recursive a(x) as (select 1 union all select x + 1 from a) select count(*) from a"
    assert "took longer than 0.3 s" in caviar.run("sql", endless, "--timeout", "0.3", status=1).stderr


@pytest.mark.parametrize("limit", [2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30])
def test_a_huge_limit_of_rows_is_none(caviar: Command, limit: int) -> None:
    """Also one that no database can count to."""
    found = run_sql(caviar.url, "select number from v_trials", limit=limit)

    assert (len(found.rows), found.is_cut) == (10, False)


@pytest.mark.parametrize(
    "statement",
    [
        "select(1)",
        "select*from v_best",
        "/* c */ select 1",
        "-- c\nselect 1",
        "explain select 1",
        "select 1;-- c",
        "select 1; ;",
        "SELECT 1",
        "values (1)",
        "with a as (select 1) select * from a",
        "select ';--', '100%'",
    ],
)
def test_sql_that_reads_is_run(caviar: Command, statement: str) -> None:
    """However it is written, on both databases."""
    assert run_sql(caviar.url, statement).rows


@pytest.mark.postgres
def test_nothing_that_a_statement_did_stays(on_postgres: Command) -> None:
    """A function may write what a transaction that only reads allows: it is taken back."""
    caviar = on_postgres

    run_sql(caviar.url, "select pg_advisory_lock(7), set_config('caviar.x', '1', false)")
    with contextlib.suppress(QueryError):  # a newer Postgres refuses it
        run_sql(caviar.url, "select lo_from_bytea(0, 'x')")

    assert run_sql(caviar.url, "select count(*) from pg_largeobject_metadata").rows == [(0,)]


@pytest.mark.postgres
def test_a_huge_answer_of_postgres_is_given_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends in one line, long before all of it has come; with a lower limit of rows the connection is fine."""
    open_storage(postgres_url).close()
    monkeypatch.setattr(readonly, "_LARGEST_ANSWER", 5_000_000)
    statement = "select n, repeat('x', 1000000) from generate_series(1, 10000000) n"

    with pytest.raises(QueryError, match="the answer is larger than 5,000,000 bytes; select less"):
        run_sql(postgres_url, statement, limit=10_000_000)

    found = run_sql(postgres_url, statement, limit=2)
    assert ([row[0] for row in found.rows], found.is_cut) == ([1, 2], True)
    assert run_sql(postgres_url, "select 1 as a, 2 as b where false").columns == ("a", "b")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select zeroblob(1000000000)", "more than 100,000,000 bytes"),
        ("select hex(zeroblob(60000000))", "more than 100,000,000 bytes"),
        (f"{NUMBERS} select zeroblob(99000000) from a", "the answer is larger|took longer than 1 s"),
        (f"{NUMBERS} select sum(length(hex(zeroblob(9000000)))) from a", "took longer than 1 s"),
        (f"{NUMBERS} select zeroblob(99000000) from a where x > 1000", "took longer than 1 s"),
    ],
)
def test_sql_of_large_values_ends_in_time(on_sqlite: Command, statement: str, message: str) -> None:
    """A value has a largest size, and so has an answer; a function over a large value does not stop the clock."""
    start = time.monotonic()

    with pytest.raises(QueryError, match=message):
        run_sql(on_sqlite.url, statement, timeout_s=1)

    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "statement",
    [
        "delete from trials",
        "/* c */ delete from trials",
        "(delete from trials)",
        "select 1 as a into other",
        "explain analyze delete from trials",
        "select 1 where false; commit",
        "explain select 1; commit",
        "copy (select 1) to program 'true'",
        "do $$ begin end $$",
        "-- c",
        "DROP TABLE trials",
        "update studies set name = 'x'",
        "insert into study_tags values (1, 'x')",
        "select 1; delete from trials",
        "with gone as (delete from trials returning 1) select * from gone",
        "pragma user_version = 7",
        "attach 'other.db' as other",
        "create table x (y int)",
        "vacuum",
        "begin",
        "commit",
        "copy trials to '/tmp/x'",
        "select pg_terminate_backend(1), nosuch",
        "selct 1",
        "",
        "select * frm trials",
    ],
)
def test_sql_that_writes_or_is_not_valid_is_refused(caviar: Command, statement: str) -> None:
    """The database stays as it was."""
    with pytest.raises(QueryError) as caught:
        run_sql(caviar.url, statement)

    assert "\n" not in str(caught.value)
    assert run_sql(caviar.url, "select count(*) from trials").rows == [(10,)]
    assert not (caviar.folder / "other.db").exists()
