"""`caviar predict`, and models in files."""

from __future__ import annotations

import csv
import io
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from caviar.training.checkpoint import write_arrays

if TYPE_CHECKING:
    from tests.acceptance.conftest import Caviar

ROWS = [(i % 20, ("red", "green")[i % 3 == 0], "yes" if i % 20 < 10 else "no") for i in range(120)]
NEW = "colour,size\nred,1\ngreen,18\nred,19\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_caviar: type[Caviar]) -> Path:
    """A folder with a swept study of a table, and examples without labels."""
    folder = tmp_path_factory.mktemp("predict")
    lines = ["size,colour,ripe", *(",".join(map(str, row)) for row in ROWS)]
    (folder / "fruit.csv").write_text("\n".join([*lines, ""]))
    (folder / "new.csv").write_text(NEW)
    words = ["--data", "fruit.csv", "--target", "ripe", "--trials", "8", "--epochs", "30", "--workers", "0"]
    make_caviar(folder).run("sweep", "fruit", *words)
    return folder


@pytest.fixture
def fruit(folder: Path, make_caviar: type[Caviar]) -> Caviar:
    """The command in that folder."""
    return make_caviar(folder)


def test_the_best_model_classifies_new_examples(fruit: Caviar) -> None:
    """In their order, by the best trial, which is named on stderr."""
    best = fruit.json("show", "fruit", "--json")["best"]["number"]

    done = fruit.run("predict", "fruit", "new.csv")

    header, *lines = [line.split() for line in done.stdout.splitlines()]
    assert header == ["example", "predicted", "probability"]
    assert [line[:2] for line in lines] == [["1", "yes"], ["2", "no"], ["3", "no"]]
    assert f"the model is that of fruit/{best}: " in done.stderr and "val_accuracy" in done.stderr


def test_labels_that_are_there_are_counted(fruit: Caviar) -> None:
    """On stderr, with the examples that have one; where there are none, nothing is said of them."""
    lines = NEW.splitlines()
    labelled = [lines[0] + ",ripe", lines[1] + ",yes", lines[2] + ",yes", lines[3] + ","]
    (fruit.folder / "labelled.csv").write_text("\n".join([*labelled, ""]))

    done = fruit.run("predict", "fruit", "labelled.csv")

    assert done.stdout == fruit.run("predict", "fruit", "new.csv").stdout
    assert done.stderr.endswith("caviar: accuracy 0.5000: 1 of 2 examples with a label\n")
    assert "accuracy 0." not in fruit.run("predict", "fruit", "new.csv").stderr.splitlines()[-1].split("val_")[0]


def test_of_the_training_data_it_is_said_so(fruit: Caviar) -> None:
    """Wherever it is named from: what is right there is no test."""
    study = fruit.json("studies", "--format", "json")[0]

    said = fruit.run("predict", "fruit", study["data"]).stderr.splitlines()[-1]

    assert re.search(r"of (\d+) examples with a label; it was trained on \d+ of them$", said)


def test_each_format_says_the_same(fruit: Caviar, tmp_path: Path) -> None:
    """JSON, CSV and Parquet, with the probability of each class where that is asked for."""
    words = ("predict", "fruit/0", "new.csv", "--probabilities", "--format")
    found = fruit.json(*words, "json")
    lines = list(csv.DictReader(io.StringIO(fruit.run(*words, "csv").stdout)))
    with (tmp_path / "out.parquet").open("wb") as file:
        subprocess.run([fruit.command, *words, "parquet"], cwd=fruit.folder, stdout=file, check=True)

    names = ["example", "predicted", "probability", "probability of no", "probability of yes"]
    assert [list(row) for row in found] == [names] * 3
    for row, line in zip(found, lines, strict=True):
        assert {name: str(value) for name, value in row.items()} == line
        assert row["probability"] == max(row["probability of no"], row["probability of yes"])
        assert row["predicted"] == ("no" if row["probability of no"] > row["probability of yes"] else "yes")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == found


def test_a_model_in_a_file_needs_neither_database_nor_data(
    fruit: Caviar, tmp_path: Path, make_caviar: type[Caviar]
) -> None:
    """It says the same in a folder without database and data; a file that is there is replaced."""
    expected = fruit.json("predict", "fruit/3", "new.csv", "--format", "json")
    fruit.run("export", "fruit", "--to", "model.safetensors")
    done = fruit.run("export", "fruit/3", "--to", "model.safetensors")
    shutil.move(fruit.folder / "model.safetensors", tmp_path)
    shutil.copy(fruit.folder / "new.csv", tmp_path)
    elsewhere = make_caviar(tmp_path)

    found = elsewhere.json("predict", "model.safetensors", "new.csv", "--format", "json")

    assert found == expected
    assert "it is in 'model.safetensors'" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("caviar")] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "fruit", "none.csv"), "found nothing there; check the path"),
        (("predict", "fruit", "wrong.csv"), "expected one of 'green', 'red' in column 'colour'"),
        (("predict", "fruit/99", "new.csv"), "study 'fruit' has no trial 99"),
        (("predict", "fruit/x", "new.csv"), "a trial is named STUDY/NUMBER, found 'fruit/x'"),
        (("predict", "nobody", "new.csv"), "there is no study 'nobody'"),
        (("predict", "none.safetensors", "new.csv"), "there is no model 'none.safetensors'"),
        (("predict", "deep.safetensors", "new.csv"), "'deep.safetensors' does not hold together as a model"),
        (("predict", "torn.safetensors", "new.csv"), "'torn.safetensors' is not a whole model"),
        (("export", "fruit/3", "--to", "x.csv"), "its model can be written, to FILE.safetensors, found 'x.csv'"),
        (("export", "fruit", "--to", "no/x.safetensors"), "there is no folder 'no' to write 'x.safetensors' to"),
    ],
)
def test_what_cannot_be_done_is_one_line(fruit: Caviar, words: tuple[str, ...], said: str) -> None:
    """Nothing on stdout, and no file left behind."""
    (fruit.folder / "wrong.csv").write_text("colour,size\nblue,1\n")
    (fruit.folder / "torn.safetensors").write_bytes(b"x" * 100)
    write_arrays(fruit.folder / "deep.safetensors", {}, {"caviar_model": "1", "about": "[" * 100_000})

    done = fruit.run(*words, status=1)

    (line,) = [line for line in done.stderr.splitlines() if line.startswith("caviar: error: ")]
    assert said in line and done.stdout == ""
    assert "training" not in done.stderr  # what can be known before is told before
    assert not (fruit.folder / "x.csv").exists()


@pytest.mark.parametrize("epochs", ["1", "12"])
def test_ctrl_c_ends_the_training_of_a_model(tmp_path: Path, make_caviar: type[Caviar], epochs: str) -> None:
    """With exit status 130, without a traceback, and without a file; within an epoch, too."""
    slow = make_caviar(tmp_path)
    (tmp_path / "large.toml").write_text("hidden_units = 512\nlayers = 3\nbatch_size = 16\nlearning_rate = 0.001\n")
    words = ["--space", "large.toml", "--trials", "1", "--epochs", epochs, "--workers", "0"]
    slow.run("sweep", "digits", *words)

    with slow.start("export", "digits/0", "--to", "model.safetensors") as process:
        assert process.stderr is not None
        while "training digits/0 again" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert not (tmp_path / "model.safetensors").exists()


def test_the_model_of_the_best_epoch_is_exported(fruit: Caviar) -> None:
    """`--epoch best`, or a number; the file says which it is, and predicts as the trial does."""
    curve = fruit.json("show", "fruit/0", "--json")["reports"]
    best = min(curve, key=lambda report: (-report["val_accuracy"], report["val_loss"], report["epoch"]))

    done = fruit.run("export", "fruit/0", "--to", "best.safetensors", "--epoch", "best")
    assert f"fruit/0 at epoch {best['epoch']}: val_loss {best['val_loss']:.4g}" in done.stderr
    from_file = fruit.run("predict", "best.safetensors", "new.csv", "--format", "csv").stdout
    from_trial = fruit.run("predict", "fruit/0", "new.csv", "--format", "csv", "--epoch", str(best["epoch"])).stdout
    assert from_file == from_trial

    for words in (
        ("predict", "best.safetensors", "new.csv", "--epoch", "3"),
        ("export", "fruit", "--to", "fruit.csv", "--epoch", "3"),
        ("predict", "fruit/0", "new.csv", "--epoch", "31"),
    ):
        assert "caviar: error: " in fruit.run(*words, status=1).stderr
