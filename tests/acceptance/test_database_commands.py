"""The commands of the trial database, as a user types them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from caviar.errors import QueryError
from caviar.records import Reports, TrialResult, TrialState
from caviar.storage import open_storage, readonly, run_sql
from caviar.testing.storage import AWKWARD_TEXTS, make_result, make_spec, make_trial

CAVIAR = Path(sys.executable).with_name("caviar")
TIMEOUT_S = 120

#: Rows without end.
NUMBERS = "with recursive a(x) as (select 1 union all select x + 1 from a)"


class Command:
    """Runs `caviar` on one database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def run(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be `status`."""
        environment = os.environ | {"CAVIAR_STORAGE": self.url, "COLUMNS": "200"}
        done = subprocess.run(
            [CAVIAR, *words], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if status == 1:
            assert re.fullmatch(r"caviar: error: .*\n", done.stderr), "one line says what went wrong"
        return done

    def json(self, *words: str) -> Any:
        """Run a command and return the JSON that it prints."""
        return json.loads(self.run(*words).stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.fixture
def caviar(tmp_path: Path, database_url: str) -> Command:
    """The command on a database, of each kind in turn, with a study `digits` of ten trials."""
    return _filled(tmp_path, database_url)


@pytest.fixture
def on_sqlite(tmp_path: Path, sqlite_url: str) -> Command:
    """The same on SQLite alone."""
    return _filled(tmp_path, sqlite_url)


def _filled(folder: Path, url: str) -> Command:
    storage = open_storage(url)
    storage.create_study(make_spec())
    trials = [make_result(number, value=number / 10) for number in range(8)]
    trials.append(TrialResult(trial=make_trial(8, state=TrialState.FAIL, reason="error", error="ValueError: it's bad")))
    trials.append(TrialResult(trial=make_trial(9)))
    storage.add_trials("digits", [result.trial for result in trials])
    storage.write("digits", trials)
    storage.close()
    return Command(folder, url)


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
def test_sql_prints_numbers_of_postgres_exactly(postgres_url: str, tmp_path: Path) -> None:
    """A numeric has more digits than a float, in each format."""
    caviar = _filled(tmp_path, postgres_url)
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
    command = [CAVIAR, "sql", statement, "--format", "parquet", "--storage", postgres_url]
    table = pq.read_table(
        io.BytesIO(subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True).stdout)
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
def test_nothing_that_a_statement_did_stays(postgres_url: str, tmp_path: Path) -> None:
    """A function may write what a transaction that only reads allows: it is taken back."""
    caviar = _filled(tmp_path, postgres_url)

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


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_study_goes_to_a_file_and_back(caviar: Command, suffix: str) -> None:
    """Under another name it answers as the first does."""
    caviar.run("export", "digits", "--to", f"study.{suffix}")
    done = caviar.run("import", f"study.{suffix}", "--name", "copy")

    assert "10 trials" in done.stderr and "'copy'" in done.stderr
    before, after = (caviar.json("query", name, "--format", "json") for name in ("digits", "copy"))
    assert [row | {"study": "digits"} for row in after] == before
    assert "exists already" in caviar.run("import", f"study.{suffix}", status=1).stderr


def test_studies_are_tagged_noted_renamed_and_deleted(on_sqlite: Command) -> None:
    """Each shows in `caviar studies`."""
    caviar = on_sqlite
    assert caviar.run("tag", "digits", "good", "first").stdout == "first\ngood\n"
    assert caviar.run("tag", "digits", "--remove", "first").stdout == "good\n"
    caviar.run("note", "digits", "it's\nfine")
    caviar.run("rename", "digits", "mine")

    (row,) = caviar.json("studies", "--tag", "good", "--format", "json")
    assert (row["study"], row["tags"], row["note"]) == ("mine", ["good"], "it's\nfine")
    assert caviar.run("note", "mine").stdout == "it's\nfine\n"
    assert caviar.json("studies", "--tag", "other", "--format", "json") == []
    assert "give --yes" in caviar.run("delete", "mine", status=1).stderr
    caviar.run("delete", "mine", "--yes")
    assert caviar.json("studies", "--format", "json") == []


def test_a_study_that_is_swept_is_not_deleted(caviar: Command) -> None:
    """Nor renamed; the message says who sweeps it."""
    storage = open_storage(caviar.url)
    storage.acquire_lease("digits", "somebody", 60)
    storage.close()

    for words in (("delete", "digits", "--yes"), ("rename", "digits", "other")):
        assert "is being swept by 'somebody'" in caviar.run(*words, status=1).stderr


def test_awkward_texts_are_printed(on_sqlite: Command) -> None:
    """In every format, with what would act on a terminal escaped in tables, and numbers that JSON lacks as null."""
    caviar = on_sqlite
    storage = open_storage(caviar.url)
    storage.create_study(make_spec("odd"))
    params = {f"p{index}": text for index, text in enumerate(AWKWARD_TEXTS)}
    trials = [
        make_trial(0, study="odd", state=TrialState.FAIL, params=params, error="\x1b[2J\ud800"),
        make_trial(1, study="odd", params={"p0": math.inf}, metrics={"val_loss": math.nan}, traceback="a\nb\x00\ud800"),
    ]
    storage.add_trials("odd", trials)
    storage.write("odd", [TrialResult(trial=trials[1], reports=Reports(1, ("m",), np.array([[math.nan]])))])
    storage.close()

    rows = caviar.json("query", "odd", "--format", "json")
    assert rows[0]["params"] == params
    assert (rows[1]["params"], rows[1]["metrics"]) == ({"p0": None}, {"val_loss": None})
    assert "\x1b" not in caviar.run("query", "odd").stdout
    caviar.run("query", "odd", "--format", "csv")
    caviar.run("show", "odd/0")
    shown = caviar.run("show", "odd/1").stdout
    assert "\\x00" in shown and "val_loss             nan" in shown
    assert caviar.json("show", "odd/1", "--json")["reports"] == [{"epoch": 1, "m": None}]


@pytest.mark.parametrize("text", ["a\rb", "\r", "a\r\nb", "a\nb", 'a"\r,b', "a,b", ""])
def test_every_text_comes_back_from_csv(on_sqlite: Command, text: str) -> None:
    """As Python's own reader reads it, also where lines end inside of it, in a value and in a name."""
    storage = open_storage(on_sqlite.url)
    storage.create_study(make_spec("odd"))
    trials = [make_trial(number, study="odd", params={"p": text, f"name {text}": 1}) for number in range(2)]
    storage.add_trials("odd", trials)
    storage.close()
    command = [CAVIAR, "query", "odd", "--format", "csv", "--storage", on_sqlite.url]

    printed = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True).stdout.decode()

    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert [(row["number"], row["params.p"], row[f"params.name {text}"]) for row in rows] == [
        ("0", text, "1"),
        ("1", text, "1"),
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ("query", "digits", "--format", "json"),
        ("query", "digits", "--format", "csv"),
        ("query", "digits", "--format", "parquet"),
        ("query", "digits"),
        ("sql", f"{NUMBERS} select x from a", "--limit", "100000"),
        ("sql", f"{NUMBERS} select x from a", "--limit", "100000", "--format", "parquet"),
        ("show", "digits/0"),
        ("studies", "--format", "json"),
        ("tag", "digits", "good"),
        ("--help",),
        ("--version",),
    ],
)
def test_output_that_cannot_be_written_ends_in_one_line(
    on_sqlite: Command, words: tuple[str, ...], unbuffered: str
) -> None:
    """However much there is of it."""
    environment = os.environ | {"CAVIAR_STORAGE": on_sqlite.url, "PYTHONUNBUFFERED": unbuffered}

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [CAVIAR, *words], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S
        )

    assert done.returncode == 1
    found = [line for line in done.stderr.splitlines() if not line.startswith("caviar: note:")]
    assert found == ["caviar: error: cannot write the output: No space left on device; send it to another place"]


@pytest.mark.parametrize("format", ["table", "json", "csv", "parquet"])
def test_a_closed_stdout_is_no_error(on_sqlite: Command, format: str) -> None:
    """Whoever closed it wants no output."""
    script = 'exec "$0" query digits --format "$1" --storage "$2" >&-'

    done = subprocess.run(
        ["sh", "-c", script, CAVIAR, format, on_sqlite.url], stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_arguments_may_begin_with_a_minus(on_sqlite: Command) -> None:
    """Where a text, an expression or a statement is expected; what looks like an option stays one."""
    caviar = on_sqlite
    assert caviar.run("note", "digits", "-5 degrees").stdout == "-5 degrees\n"
    assert caviar.run("note", "digits", "--storage", caviar.url).stdout == "-5 degrees\n"
    assert len(caviar.json("query", "digits", "--where", "-1 < learning_rate", "--format", "json")) == 10
    assert caviar.json("sql", "-- comment\nselect 1 as a", "--format", "json") == [{"a": 1}]
    assert caviar.json("sql", "--format", "json", "-- comment\nselect 1 as a") == [{"a": 1}]

    for words in (
        ("note", "digits", "--storag"),
        ("note", "digits", "-x"),
        ("note", "digits", "--storag=x"),
        ("sql", "--limt"),
        ("sql", "--limt=3", "select 1"),
        ("query", "digits", "--where", "--sort", "number"),
        ("query", "digits", "--where", "--format=json"),
    ):
        assert "usage" in caviar.run(*words, status=2).stderr
    assert caviar.run("note", "digits").stdout == "-5 degrees\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import",), "give either a FILE"),
        (("import", "x.csv", "--from-optuna", "sqlite:///x.db"), "give either a FILE"),
        (("import", "x.csv"), "there is no file 'x.csv'"),
        (("import", "x.xlsx"), "must end in .csv, .parquet, .jsonl"),
        (("import", "--from-optuna", "sqlite:///none.db"), "no database 'none.db'"),
        (("import", "--from-optuna", "mysql://x/y"), "unknown database 'mysql'"),
        (("export", "other", "--to", "x.csv"), "there is no study 'other'"),
        (("export", "digits", "--to", "no/x.csv"), "cannot write 'no/x.csv'"),
        (("tag", "digits", "a b"), "a tag must be a word"),
        (("rename", "digits", "a/b"), "must not hold '/'"),
        (("delete", "other", "--yes"), "there is no study 'other'"),
        (("dashboard", "--port", "70000"), "port must be 0 to 65535"),
        (("query", "digits", "--where", "val_accuracy >"), "at column 15: expected a name or a value"),
        (("query", "digits", "--where", "valacc > 1"), "unknown name 'valacc' .*did you mean 'val_accuracy'"),
        (("query", "digits", "--sort", "x"), "unknown name 'x'"),
        (("query", "digits", "--limit", "-1"), "limit must be at least 0"),
    ],
)
def test_what_cannot_be_done_says_why(on_sqlite: Command, words: tuple[str, ...], message: str) -> None:
    """One line, exit 1."""
    assert re.search(message, on_sqlite.run(*words, status=1).stderr)


def test_a_file_that_cannot_be_imported_makes_no_database(tmp_path: Path) -> None:
    """A mistyped name leaves the folder as it was."""
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    command = Command(tmp_path, "sqlite:///caviar.db")

    said = [command.run("import", name, status=1).stderr for name in ("none.jsonl", "other.csv")]

    assert "there is no file" in said[0]
    assert "no export of caviar" in said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "must be a URL such as sqlite:///caviar.db"),
        ("mysql://localhost/x", "unknown database 'mysql'"),
        ("sqlite:////no/such/folder/x.db", "there is no database"),
        ("postgresql://me:secret@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path, url: str, message: str) -> None:
    """By each command, without its password."""
    for words in (("studies",), ("sql", "select 1"), ("export", "x", "--to", "x.csv"), ("note", "x")):
        error = Command(tmp_path, url).run(*words, status=1).stderr
        assert message in error
        assert "secret" not in error


@pytest.mark.parametrize("words", [("query", "x"), ("studies", "--tag", "x", "--limit"), ("show",), ()])
def test_a_url_in_the_wrong_place_is_quoted_without_its_password(on_sqlite: Command, words: tuple[str, ...]) -> None:
    """A slip of the pen is no reason to show it."""
    command = [CAVIAR, *words, "postgresql://me:SECRET@host/x?password=SECRET"]

    done = subprocess.run(command, cwd=on_sqlite.folder, capture_output=True, text=True, timeout=TIMEOUT_S)

    assert done.returncode in (1, 2)
    assert "SECRET" not in done.stderr and "Traceback" not in done.stderr


def test_a_query_imports_nothing_heavy(caviar: Command) -> None:
    """Neither Ray nor Optuna, Numba, scikit-learn, SciPy, pandas, PyArrow or Alembic."""
    code = (
        "import sys; sys.argv = ['caviar', 'query', 'digits', '--where', 'val_accuracy > 0.5']\n"
        "from caviar.cli.main import main\n"
        "try: main()\n"
        "finally:\n"
        "  heavy = 'ray optuna numba sklearn scipy pandas pyarrow alembic torch'.split()\n"
        "  print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"CAVIAR_STORAGE": caviar.url}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.fixture
def dashboard(caviar: Command) -> Iterator[str]:
    """The address of a dashboard that runs on the database."""
    pytest.importorskip("optuna_dashboard", reason="install caviar[dashboard]")
    process = subprocess.Popen(
        [CAVIAR, "dashboard", "--port", "0", "--storage", caviar.url], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process:
        told = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert found is not None, told
        yield found.group()
        process.send_signal(2)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, "Ctrl-C is how it ends"


def get(address: str, **headers: str) -> Any:
    """Return what a page of the dashboard answers."""
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_dashboard_shows_a_study_while_a_sweep_writes(caviar: Command, dashboard: str) -> None:
    """It answers whole, before and while trials come, and the sweep ends well."""
    (study,) = get(f"{dashboard}/api/studies")["study_summaries"]
    assert study["study_name"] == "digits"
    assert len(get(f"{dashboard}/api/studies/{study['study_id']}")["trials"]) == 10

    sweep = subprocess.Popen(
        [CAVIAR, "sweep", "iris", "--workers", "0", "--trials", "300", "--storage", caviar.url],
        cwd=caviar.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    with sweep:
        while sweep.poll() is None:
            for one in get(f"{dashboard}/api/studies")["study_summaries"]:
                seen.append(len(get(f"{dashboard}/api/studies/{one['study_id']}")["trials"]))
        assert sweep.stderr is not None
        assert sweep.returncode == 0, sweep.stderr.read()

    assert len(seen) > 1
    assert caviar.json("show", "iris", "--json")["states"] == {"COMPLETE": 300}


def test_the_dashboard_answers_this_machine_only(dashboard: str) -> None:
    """A page of another site, or one that has another name point here, is refused."""
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(f"{dashboard}/api/studies", **headers)
