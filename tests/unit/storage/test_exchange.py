"""Studies to files and back."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas
import pyarrow.parquet as pq
import pytest
from sqlalchemy import event, inspect
from sqlalchemy.engine import Engine

from caviar.errors import CaviarError, DataError, DataNotFound, StorageError, StudyMismatch, StudyNotFound
from caviar.records import Intervention, Reports, Status, TrialResult, TrialState
from caviar.storage import Storage, open_storage, optuna_storage
from caviar.storage.database import opened
from caviar.storage.exchange import export_study, import_study
from caviar.storage.optuna_import import import_from_optuna
from caviar.testing.storage import AWKWARD_FLOATS, AWKWARD_TEXTS, fill, make_result, make_spec, make_trial, same

#: What stands in a cell as some other value would.
ODD = {"yes": True, "no": False, "none": None, "a": "true", "b": "false", "c": "null", "d": "True", "e": ""}


def _fill(storage: Storage) -> None:
    storage.create_study(make_spec(seed=5))
    storage.add_space("digits", {"layers": 2})
    texts = {f"t{i}": text for i, text in enumerate(AWKWARD_TEXTS)}
    floats = {f"f{i}": value for i, value in enumerate(AWKWARD_FLOATS)}
    awkward = make_trial(
        1, params={**texts, **floats, "n": 1, "s": "1", "x": "1e5", "inf": "inf", **ODD}, metrics=floats
    )
    trials = [make_result(0), TrialResult(trial=awkward, reports=Reports(2, ("m",), np.array([[math.nan], [0.1]])))]
    child = make_trial(98, parent="digits/0", parent_epoch=2, space_version=2, value=math.inf)
    trials += [TrialResult(trial=child), TrialResult(trial=make_trial(99, parent="gone/3"))]
    trials += [TrialResult(trial=make_trial(n, error=text, traceback=text)) for n, text in enumerate(AWKWARD_TEXTS, 2)]
    storage.add_trials("digits", [result.trial for result in trials])
    storage.write("digits", trials)
    storage.annotate("digits", note="it's\n\U0001f980", add_tags=["b", "a"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_study_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    """Spec, notes, params, metrics and texts, in each form; reports too, but in CSV."""
    here, there = open_storage("sqlite://"), open_storage("sqlite://")
    _fill(here)

    n = export_study(here, "digits", tmp_path / f"x{suffix}")
    spec = import_study(there, tmp_path / f"x{suffix}")

    before, after = here.trials("digits"), there.trials("digits")
    assert n == len(before) == len(after)
    assert spec == here.get_study("digits")
    assert there.spaces("digits") == here.spaces("digits")
    assert there.notes("digits") == here.notes("digits")
    for a, b in zip(before, after, strict=True):
        assert replace(a, params={}, metrics={}) == replace(b, params={}, metrics={})
        assert a.params.keys() == b.params.keys()
        assert all(same(value, b.params[name]) for name, value in a.params.items())
        assert all(same(value, b.metrics[name]) for name, value in a.metrics.items())
        if suffix != ".csv":
            reports = [storage.reports("digits", a.number) for storage in (here, there)]
            assert reports[0].first_epoch == reports[1].first_epoch
            assert reports[0].values.tobytes() == reports[1].values.tobytes()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_how_a_trial_was_babysat_comes_back(tmp_path: Path, suffix: str) -> None:
    """Its params at the start, settings, and all that was asked, but for what asks the coordinator of a sweep."""
    here, there = open_storage("sqlite://"), open_storage("sqlite://")
    _fill(here)
    born = here.sessions.create(make_trial(params={"learning_rate": 0.1, "text": 'a"\n\u2028'}), {"epochs": None})
    for n, text in enumerate(AWKWARD_TEXTS):
        asked = here.sessions.ask(Intervention(trial=born.name, token=f"t{n}", kind="set", note=text))
        told = {
            "message": text,
            "after": {"x": AWKWARD_FLOATS[n % len(AWKWARD_FLOATS)]},
            "metrics_before": {"m": AWKWARD_FLOATS[n % len(AWKWARD_FLOATS)]},
        }
        here.sessions.answer(replace(asked, status=Status.APPLIED, sequence=n + 1, **told), None)
    here.sessions.ask(Intervention(trial=born.name, token="waits", kind="set", arguments={"l2": 0.1}))
    here.sessions.ask(Intervention(trial=born.name, token="no", kind="take"))

    export_study(here, "digits", tmp_path / f"x{suffix}")
    import_study(there, tmp_path / f"x{suffix}")

    assert repr(there.sessions.all()) == repr(here.sessions.all())
    done = here.sessions.interventions("digits", born.number)[:-1]
    assert len(done) == len(AWKWARD_TEXTS) + 1
    assert repr(there.sessions.interventions("digits", born.number)) == repr(done)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_file_of_the_first_version_is_read(tmp_path: Path, suffix: str) -> None:
    """It says nothing of how trials were babysat."""
    storage = open_storage("sqlite://")
    fill(storage, [make_result(number) for number in range(3)])
    path = tmp_path / f"x{suffix}"
    export_study(storage, "digits", path)
    if suffix == ".csv":
        pandas.read_csv(path, dtype=str).drop(columns="panda").to_csv(path, index=False)
        _spoil_csv(path, version="1")
    elif suffix == ".jsonl":
        header, *lines = path.read_text().splitlines()
        old = [json.dumps({k: v for k, v in json.loads(line).items() if k != "panda"}) for line in lines]
        path.write_text("\n".join([header.replace('"caviar_export": 2', '"caviar_export": 1'), *old, ""]))
    else:
        table = pq.read_table(path).drop_columns("panda")
        mark = {k: v.replace(b'"caviar_export": 2', b'"caviar_export": 1') for k, v in table.schema.metadata.items()}
        pq.write_table(table.replace_schema_metadata(mark), path)

    import_study(storage, path, name="again")

    assert storage.trials("again") == [replace(trial, study="again") for trial in storage.trials("digits")]
    assert storage.sessions.all("again") == []


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_reports_are_not_read_trial_by_trial(tmp_path: Path, suffix: str) -> None:
    """An export asks the database a number of times that does not grow with each trial."""
    storage = open_storage(f"sqlite:///{tmp_path / 'caviar.db'}")
    fill(storage, [make_result(number) for number in range(150)])
    n_asked = 0

    def count(*_: object) -> None:
        nonlocal n_asked
        n_asked += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        export_study(storage, "digits", tmp_path / f"x{suffix}")
    finally:
        event.remove(Engine, "before_cursor_execute", count)

    assert 0 < n_asked < 100


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_an_empty_study_comes_back(tmp_path: Path, suffix: str) -> None:
    """A study without trials, under another name."""
    storage = open_storage("sqlite://")
    storage.create_study(make_spec())
    export_study(storage, "digits", tmp_path / f"x{suffix}")

    import_study(storage, tmp_path / f"x{suffix}", name="copy")

    assert storage.trials("copy") == []


def test_a_copy_is_its_own_parent(tmp_path: Path) -> None:
    """A trial that goes on from another of its study goes on, in the copy, from the copy of that."""
    storage = open_storage("sqlite://")
    _fill(storage)
    export_study(storage, "digits", tmp_path / "x.jsonl")

    import_study(storage, tmp_path / "x.jsonl", name="copy")

    assert [storage.get_trial("copy", number).parent for number in (0, 98, 99)] == [None, "copy/0", "gone/3"]


def test_jsonl_is_strict_json(tmp_path: Path) -> None:
    """Other programs read it: no NaN and no Infinity."""
    storage = open_storage("sqlite://")
    _fill(storage)
    export_study(storage, "digits", tmp_path / "x.jsonl")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "x.jsonl").read_text(encoding="ascii")
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]

    assert lines[1]["metrics"]["val_accuracy"] == 0.9


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    """The study there stays as it is."""
    storage = open_storage("sqlite://")
    storage.create_study(make_spec())
    export_study(storage, "digits", tmp_path / "x.jsonl")

    with pytest.raises(StudyMismatch):
        import_study(storage, tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"epoch": 3', '"epoch": 9999999999999999999'),
        ('"first_epoch":1', '"first_epoch":Infinity'),
        ('"value": 0.9', f'"value": 1{"0" * 400}'),
        ('"started_at": null', '"started_at": "0001-01-01T00:00:00+05:00"'),
        ('"params": {', f'"params": {{"deep": {"[" * 100_000}{"]" * 100_000}, '),
        ('"seed": 5', '"seed": 7.0'),
        ('"dtype": "float32"', '"dtype": null'),
        ('"spaces": [', '"spaces": [{"a": {"bogus": 1}}, '),
    ],
)
def test_a_damaged_value_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    """Whatever stands in a file, it is refused with a message, and nothing of it is kept."""
    storage, other = open_storage("sqlite://"), open_storage("sqlite://")
    _fill(storage)
    path = tmp_path / "x.jsonl"
    export_study(storage, "digits", path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))

    with pytest.raises(CaviarError) as raised:
        import_study(other, path)

    assert "\n" not in str(raised.value) and "exists" not in str(raised.value)
    assert other.studies() == []


def test_a_study_of_optuna_is_not_exported(tmp_path: Path) -> None:
    """Its distributions, attributes and objectives would be lost: the message says what to do instead."""
    url = f"sqlite:///{tmp_path}/o.db"
    optuna.create_study(storage=optuna_storage(url), study_name="o", directions=["minimize", "maximize"])

    with pytest.raises(DataError, match=r"made through Optuna.*caviar query o --format csv"):
        export_study(open_storage(url), "o", tmp_path / "o.jsonl")

    assert not (tmp_path / "o.jsonl").exists()


def test_a_broken_file_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file that ends in the middle imports no study."""
    storage, other = open_storage("sqlite://"), open_storage("sqlite://")
    _fill(storage)
    path = tmp_path / "x.jsonl"
    export_study(storage, "digits", path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match="cannot read"):
        import_study(other, path)

    assert other.studies() == []


@pytest.mark.parametrize("n_cut", [8, 30, 60])
def test_a_spreadsheet_that_ends_in_the_middle_is_refused(tmp_path: Path, n_cut: int) -> None:
    """Half a number would be another number."""
    storage = open_storage("sqlite://")
    fill(storage, [make_result(number) for number in range(3)])
    path = tmp_path / "x.csv"
    export_study(storage, "digits", path)
    path.write_bytes(path.read_bytes()[:-n_cut])

    with pytest.raises(DataError, match="too few cells in line 4: it ends in the middle"):
        import_study(storage, path, name="again")

    assert [summary.spec.name for summary in storage.studies()] == ["digits"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_that_ends_with_a_line_but_too_early_is_refused(tmp_path: Path, suffix: str) -> None:
    """Its beginning says how many trials there should be; a file of before, which does not, is read."""
    storage = open_storage("sqlite://")
    fill(storage, [make_result(number) for number in range(3)])
    path = tmp_path / f"x.{suffix}"
    export_study(storage, "digits", path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))

    with pytest.raises(DataError, match="was cut: it holds 2 of 3 trials"):
        import_study(storage, path, name="again")

    assert [summary.spec.name for summary in storage.studies()] == ["digits"]
    quoted = b'""trials"": 3' if suffix == "csv" else b'"trials": 3'
    assert quoted in lines[0] + lines[1]
    path.write_bytes(b"".join(lines[:-1]).replace(b", " + quoted, b""))
    assert storage.summary(import_study(storage, path, name="again").name).n_trials == 2


def _spoil_csv(path: Path, column: str | None = None, version: str | None = None) -> None:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if column is not None:
        rows = [[*row, column if i == 0 else ""] for i, row in enumerate(rows)]
    if version is not None:
        at = rows[0].index("caviar_export")
        rows = [[version if i and j == at else cell for j, cell in enumerate(row)] for i, row in enumerate(rows)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"column": "colour"}, "unknown columns 'colour' .known: number, state"),
        ({"version": "3"}, "export of version 3, this caviar reads up to 2"),
    ],
)
def test_an_unknown_column_or_version_is_refused(tmp_path: Path, spoil: dict[str, str], message: str) -> None:
    """The message names it."""
    storage = open_storage("sqlite://")
    storage.create_study(make_spec())
    export_study(storage, "digits", tmp_path / "x.csv")
    _spoil_csv(tmp_path / "x.csv", **spoil)

    with pytest.raises(DataError, match=message):
        import_study(storage, tmp_path / "x.csv", name="copy")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b"a,b\n1,2\n"),
        ("x.csv", b""),
        ("x.csv", b"\xff\xfe\x00"),
        ("x.jsonl", b""),
        ("x.jsonl", b"{}\n"),
        ("x.jsonl", b"[1]\n"),
        ("x.jsonl", b"nonsense"),
        ("x.jsonl", b'{"caviar_export": 1}\n'),
        ("x.parquet", b"PAR1"),
        ("x.parquet", b""),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """One line says that it is no export."""
    storage = open_storage("sqlite://")
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError) as caught:
        import_study(storage, tmp_path / name)

    assert "\n" not in str(caught.value)
    assert storage.studies() == []


def test_paths_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    """A missing file, a missing folder, another ending."""
    storage = open_storage("sqlite://")
    storage.create_study(make_spec())

    with pytest.raises(DataNotFound):
        import_study(storage, tmp_path / "x.csv")
    with pytest.raises(DataError, match="cannot write"):
        export_study(storage, "digits", tmp_path / "no" / "x.csv")
    with pytest.raises(DataError, match="must end in"):
        export_study(storage, "digits", tmp_path / "x.xlsx")
    with pytest.raises(StudyNotFound):
        export_study(storage, "iris", tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []


def _optuna_study(url: str) -> None:
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="theirs", direction="maximize")
    study.set_user_attr("who", "me")
    for number in range(3):
        trial = study.ask()
        x = trial.suggest_float("x", 1e-3, 1.0, log=True)
        trial.suggest_categorical("kind", ["a", None, 3])
        trial.report(x, 1)
        study.tell(trial, state=optuna.trial.TrialState.FAIL) if number == 1 else study.tell(trial, x)
    storage.remove_session()
    storage.engine.dispose()


def test_a_study_of_optuna_is_imported(tmp_path: Path) -> None:
    """Trials are equal to those in Optuna's database, and the best is found by caviar."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    theirs, mine = f"sqlite:///{tmp_path / 'optuna.db'}", f"sqlite:///{tmp_path / 'caviar.db'}"
    _optuna_study(theirs)

    names = import_from_optuna(mine, theirs)

    origin = optuna.storages.RDBStorage(theirs)
    expected = optuna.load_study(study_name="theirs", storage=origin)
    found = optuna.load_study(study_name="theirs", storage=optuna_storage(mine))
    assert names == ["theirs"]
    assert found.user_attrs == {"who": "me"}
    assert [(t.state, t.params, t.values, t.distributions) for t in found.trials] == [
        (t.state, t.params, t.values, t.distributions) for t in expected.trials
    ]
    storage = open_storage(mine)
    best = storage.best_trial("theirs")
    assert best is not None
    assert best.number == expected.best_trial.number
    assert [t.number for t in storage.trials("theirs", where="state = 'FAIL'")] == [1]
    assert storage.trials("theirs")[1].state is TrialState.FAIL
    storage.close()
    origin.engine.dispose()
    with pytest.raises(StudyMismatch):
        import_from_optuna(mine, theirs)
    with pytest.raises(StudyNotFound):
        import_from_optuna(mine, theirs, study="other")


def test_what_is_no_database_of_optuna_is_refused(tmp_path: Path) -> None:
    """A missing file is not made; a database of caviar is none of Optuna."""
    mine = f"sqlite:///{tmp_path / 'caviar.db'}"
    open_storage(mine).close()

    with pytest.raises(StorageError, match="no database"):
        import_from_optuna(mine, f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(StorageError, match="is no database of Optuna"):
        import_from_optuna(mine, mine)


def test_what_is_no_database_of_optuna_stays_as_it_is(database_url: str, tmp_path: Path) -> None:
    """Optuna would make its tables in a database of caviar, in an empty one, and in an empty file."""
    mine, empty = f"sqlite:///{tmp_path / 'mine.db'}", tmp_path / "empty.db"
    empty.touch()
    for source in (database_url, database_url, f"sqlite:///{empty}"):
        before = _tables(source)

        with pytest.raises(StorageError, match="is no database of Optuna") as caught:
            import_from_optuna(mine, source)

        assert "\n" not in str(caught.value)
        assert _tables(source) == before
        if source == database_url:
            open_storage(source).close()
    assert empty.stat().st_size == 0


def _tables(url: str) -> list[str]:
    with opened(url) as database:
        return database.read("list the tables", lambda connection: sorted(inspect(connection).get_table_names()))


def test_a_study_that_cannot_be_imported_leaves_nothing(tmp_path: Path) -> None:
    """A trial in the middle that caviar cannot hold: the study is not there, and comes whole once that is mended."""
    theirs, mine = f"sqlite:///{tmp_path / 'optuna.db'}", f"sqlite:///{tmp_path / 'caviar.db'}"
    _optuna_study(theirs)
    broken = "UPDATE trial_params SET param_name = {} WHERE trial_id = 2 AND param_name = {}"
    with opened(theirs) as database:
        database.write("break it", lambda c: c.exec_driver_sql(broken.format("'a' || char(0)", "'x'")))

    with pytest.raises(CaviarError):
        import_from_optuna(mine, theirs)

    storage = open_storage(mine)
    assert storage.studies() == []
    with opened(theirs) as database:
        database.write("mend it", lambda c: c.exec_driver_sql(broken.format("'x'", "'a' || char(0)")))
    assert import_from_optuna(mine, theirs) == ["theirs"]
    assert len(storage.trials("theirs")) == 3
    storage.close()
