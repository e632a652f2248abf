"""Models of trials: what they say of examples, held against what training measured and against scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import caviar
from caviar import Categorical, Float, SearchSpace
from caviar.data import load_prepared, resolve
from caviar.data.raw import RawData
from caviar.data.sources import read_source
from caviar.errors import CheckpointError, DataError, SettingsError, TrialNotFound
from caviar.nn.kernel import choose_kernel
from caviar.opening import create_study
from caviar.panda.shelf import Policy
from caviar.records import Intervention, Reports, Status, Trial, TrialResult, TrialState
from caviar.storage import Storage, open_storage
from caviar.study import Study
from caviar.training.checkpoint import read_arrays, write_arrays

N_TRIALS = 6


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A database with a swept study of a table with text, and one that diverges."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    n = 400
    width, colour = rng.normal(50.0, 20.0, n), rng.choice(["red", "green", ""], n)
    ripe = (width > 50.0) ^ (colour == "red")
    frame = pd.DataFrame({"width": width, "colour": colour, "ripe": np.where(ripe, "yes", "no")})
    frame.to_csv(folder / "fruit.csv", index=False)
    storage = open_storage(f"sqlite:///{folder / 'caviar.db'}")
    space = SearchSpace(learning_rate=Float(1e-3, 0.1, scale="log"), hidden_units=Categorical("24-8", "16-16"))
    study = create_study("fruit", space, data=folder / "fruit.csv", target="ripe", epochs=30, storage=storage)
    study.sweep(N_TRIALS, n_workers=0)
    wild = SearchSpace(learning_rate=1e30, optimizer="sgd")
    create_study("wild", wild, data="iris", epochs=2, storage=storage).sweep(2, n_workers=0)
    create_study("empty", data="iris", storage=storage)
    yield storage
    storage.close()


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def fruit(swept: Storage) -> Study:
    """The study of the table."""
    return caviar.load_study("fruit", storage=swept)


def tmp_path_of(study: Study) -> Path:
    """Return the folder of a study's data."""
    return Path(study.spec.data.source).parent


def raw_and_rows(study: Study) -> tuple[RawData, dict[str, np.ndarray]]:
    """Return the data as read, and for validation and test the rows that they are; no two have the same width."""
    raw = read_source(study.spec.data)
    data, preparation = load_prepared(study.spec.data, study.spec.dtype)
    scaled = preparation.scaling.apply(raw.x, None, raw.features, study.spec.dtype)
    row_of = {value: row for row, value in enumerate(scaled[:, 0].tolist())}
    assert len(row_of) == len(scaled)
    parts = {"validation": data.validation, "test": data.test}
    return raw, {name: np.array([row_of[value] for value in part.x[:, 0].tolist()]) for name, part in parts.items()}


@pytest.mark.parametrize("kernel", ["numpy", "compiled"])
def test_it_says_what_training_measured(
    fruit: Study, storage: Storage, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and accuracy of its probabilities are those of the trial, as scikit-learn counts them."""
    from sklearn.metrics import accuracy_score, log_loss

    monkeypatch.setenv("CAVIAR_KERNEL", kernel)
    source = fruit.spec.data.source
    study = create_study("again", data=source, target="ripe", epochs=5, storage=storage)
    study.sweep(3, n_workers=0)
    raw, rows = raw_and_rows(study)

    model = study.model()

    best = study.best_trial
    assert best is not None and model.name == best.name and model.classes == ("no", "yes")
    probabilities, names = model.predict_proba(source), model.predict(source)
    assert probabilities.shape == (400, 2) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    for part, prefix in (("validation", "val"), ("test", "test")):
        y = raw.y[rows[part]]
        found = probabilities[rows[part]].astype(np.float64)
        loss = log_loss(y, found / found.sum(axis=1, keepdims=True), labels=[0, 1])
        assert loss == pytest.approx(best.metrics[f"{prefix}_loss"], rel=1e-4)
        right = accuracy_score(np.array(raw.classes)[y], names[rows[part]])
        assert right == pytest.approx(best.metrics[f"{prefix}_accuracy"])


def test_its_score_is_that_of_scikit_learn(fruit: Study, tmp_path: Path) -> None:
    """From a file, a frame and a model in a file; of the examples that have a label, in words or numbers."""
    from sklearn.metrics import accuracy_score

    model = fruit.model()
    frame = pd.read_csv(fruit.spec.data.source, keep_default_na=False)
    expected = accuracy_score(frame["ripe"], model.predict(frame))
    assert 0.5 < expected < 1

    model.save(tmp_path / "m.safetensors")
    for found in (model, caviar.load_model(tmp_path / "m.safetensors")):
        assert found.score(fruit.spec.data.source) == found.score(frame) == expected
    some = frame.assign(ripe=[None, "maybe", *frame["ripe"][2:]])
    is_right = model.predict(frame) == frame["ripe"].to_numpy()
    assert model.score(some) == pytest.approx(is_right[2:].sum() / 399)
    assert model.score(some.rename(columns={"ripe": " ripe "})) == model.score(some)


@pytest.mark.parametrize("name", ["digits", "iris"])
def test_the_score_of_a_named_set_and_of_arrays(storage: Storage, tmp_path: Path, name: str) -> None:
    """These have labels of their own: y in an archive."""
    raw = read_source(resolve(name))
    np.savez(tmp_path / "data.npz", X=raw.x, y=raw.y)
    np.savez(tmp_path / "bare.npz", X=raw.x)
    study = create_study("s", SearchSpace(hidden_units=8), data=tmp_path / "data.npz", epochs=3, storage=storage)
    study.sweep(1, n_workers=0)
    model = study.model()

    expected = np.mean(model.predict(raw.x) == raw.y)

    assert model.score(tmp_path / "data.npz") == model.score(raw.x, raw.y) == expected
    with pytest.raises(DataError, match=r"^expected examples with labels, found none; predict\(\) needs none$"):
        model.score(tmp_path / "bare.npz")
    named = create_study("n", SearchSpace(hidden_units=8), data=name, epochs=3, storage=storage)
    named.sweep(1, n_workers=0)
    model = named.model()
    assert (
        model.score(name)
        == model.score(raw.x, model.labels[raw.y])
        == np.mean(model.predict(name) == model.labels[raw.y])
    )


@pytest.mark.parametrize(
    "labels",
    [
        [-1, 0, 10],
        [True, False],
        ["no", "yes"],
        ["1", "x"],
        ["1", "2"],
        ["True", "False"],
        [1.0, 2.0],
        [np.uint8(3), np.uint8(7)],
        [np.uint64(2**63 + 1), np.uint64(5)],
        [10**18, -(10**18)],
    ],
)
def test_labels_come_back_as_they_were(storage: Storage, tmp_path: Path, labels: list[Any]) -> None:
    """Numbers as numbers, so that they equal those that were given; a score takes them, too, with gaps."""
    generator = np.random.default_rng(0)
    y = np.array(labels)[generator.integers(len(labels), size=90)]
    frame = pd.DataFrame({"a": generator.normal(size=90), "b": generator.normal(size=90), "kind": y})
    frame.to_parquet(tmp_path / "x.parquet")
    study = create_study("s", SearchSpace(hidden_units=8), data=tmp_path / "x.parquet", target="kind", storage=storage)
    study.sweep(1, n_workers=0)
    study.model().save(tmp_path / "m.safetensors")

    for model in (study.model(), caviar.load_model(tmp_path / "m.safetensors")):
        predicted = model.predict(frame)
        assert set(predicted.tolist()) <= set(labels)
        assert predicted.dtype.kind == ("i" if y.dtype.kind == "f" else y.dtype.kind) or y.dtype.kind == "u"
        assert model.score(frame) == model.score(frame, y) == model.score(frame, [*y]) == np.mean(predicted == y)
        gaps = [None, *y[1:].tolist()]
        assert model.score(frame, gaps) == np.mean(predicted[1:] == y[1:])
        with pytest.raises(DataError, match=r"a label for each of 90 examples, shape \(90,\), found \(3,\)"):
            model.score(frame, y[:3])
        with pytest.raises(DataError, match=r"found \(90, 1\)"):
            model.score(frame, y[:, None])
        with pytest.raises(DataError, match=r"expected labels among the classes .*, found 'zzz'"):
            model.score(frame, (word for word in ["zzz"] * 90))


@pytest.mark.parametrize("labels", [None, [None] * 3, [0.5, 1.5, 2.5], [b"a", b"b", b"c"], ["", " ", None]])
def test_labels_that_are_none_are_left_alone(fruit: Study, labels: list[object] | None) -> None:
    """Missing, empty or fractions: the classes are predicted all the same, and there is no score."""
    model = fruit.model()
    frame = pd.DataFrame({"colour": ["red", "green", ""], "width": [20.0, 80.0, 15.0]})
    if labels is not None:
        frame["ripe"] = labels

    assert model.predict(frame).tolist() == ["yes", "yes", "no"]
    with pytest.raises(DataError, match=r"^expected examples with labels in column 'ripe', found none"):
        model.score(frame)


def test_it_learned_something(fruit: Study) -> None:
    """New fruit that anyone could tell is told right."""
    frame = pd.DataFrame({"colour": ["red", "green", "", "red"], "width": [20.0, 80.0, 15.0, 95.0]})

    assert fruit.model().predict(frame).tolist() == ["yes", "yes", "no", "no"]


@pytest.mark.parametrize(("layers", "dtype"), [(0, "float64"), (3, "float32")])
def test_many_examples_are_classified_as_each_alone(storage: Storage, layers: int, dtype: str) -> None:
    """In whatever blocks they are computed, of a softmax regression and of a deep network."""
    space = SearchSpace(hidden_units=12, layers=layers)
    study = create_study("digits", space, epochs=2, dtype=dtype, storage=storage)
    study.sweep(1, n_workers=0)
    model, x = study.model(), read_source(study.spec.data).x

    probabilities = model.predict_proba(x)

    assert probabilities.shape == (1797, 10) and probabilities.dtype == dtype
    alone = np.concatenate([model.predict_proba(x[row : row + 1]) for row in range(0, 1797, 97)])
    np.testing.assert_allclose(probabilities[::97], alone, rtol=1e-4, atol=1e-6)
    assert np.array_equal(model.predict("digits"), model.predict(x))


def test_an_example_that_no_float_can_classify_is_named(fruit: Study) -> None:
    """Instead of a class that was made of NaN."""
    frame = pd.DataFrame({"colour": ["red", "red"], "width": [20.0, 1e39]})
    model = fruit.model()
    large = replace(model, parameters=model.parameters * np.float32(1e3))

    with pytest.raises(DataError, match="values of example 2 so far out"):
        large.predict(frame)


def test_each_trial_has_its_own(fruit: Study) -> None:
    """By number or as a record, twice to the same bits, and different from another's."""
    frame = pd.DataFrame({"colour": ["red"], "width": [20.0]})
    trial = fruit.trials()[3]

    first, again, other = fruit.model(3), fruit.model(trial), fruit.model(4)

    assert np.array_equal(first.parameters, again.parameters)
    assert np.array_equal(first.predict_proba(frame), again.predict_proba(frame))
    assert first.name == "fruit/3" and first.params == trial.params
    assert not np.array_equal(first.predict_proba(frame), other.predict_proba(frame))


def test_a_file_of_it_needs_nothing_else(fruit: Study, tmp_path: Path) -> None:
    """It comes back to the same bits, without database and data."""
    model, path = fruit.model(), tmp_path / "fruit.safetensors"
    frame = pd.DataFrame({"colour": ["red", ""], "width": [20.0, 51.0]})

    model.save(path)
    found = caviar.load_model(path)

    assert np.array_equal(found.predict_proba(frame), model.predict_proba(frame))
    assert (found.name, found.params, found.classes) == (model.name, model.params, model.classes)
    assert found.metrics == model.metrics and found.fingerprint == fruit.spec.data.fingerprint
    with safe_open(path, "np") as file:  # what other programs find in it
        assert set(file.keys()) == {"parameters", "running", "scale", "mean", "std"}


def test_a_damaged_file_is_refused(fruit: Study, tmp_path: Path) -> None:
    """Cut anywhere, altered, or something else altogether."""
    path = tmp_path / "fruit.safetensors"
    fruit.model().save(path)
    whole = path.read_bytes()
    damaged = [whole[:n] for n in (0, 7, len(whole) // 2, len(whole) - 1)]
    damaged.append(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])

    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model|altered"):
            caviar.load_model(path)
    with pytest.raises(CheckpointError, match="there is no model"):
        caviar.load_model(tmp_path / "none.safetensors")


def test_a_file_of_another_kind_is_refused(fruit: Study, tmp_path: Path) -> None:
    """A checkpoint, a model of a later caviar, and one whose parts do not fit together."""
    path = tmp_path / "fruit.safetensors"
    fruit.model().save(path)
    arrays, metadata = read_arrays(path)
    with fruit.panda(1, more_epochs=1) as panda:
        list(panda)
    checkpoint = next(tmp_path_of(fruit).rglob(f"{panda.trial.number}/*.safetensors"))

    with pytest.raises(CheckpointError, match="is a checkpoint, and no model; write that of its trial"):
        caviar.load_model(checkpoint)
    write_arrays(path, arrays, {**metadata, "caviar_model": "2"})
    with pytest.raises(CheckpointError, match="in model format 1, found '2'"):
        caviar.load_model(path)
    for name, array in arrays.items():
        for damaged in (array[:1], array.astype(np.int64), array * array.dtype.type(np.nan), -1 - abs(array)):
            write_arrays(path, {**arrays, name: damaged}, metadata)
            if (
                name in ("parameters", "mean")
                and damaged.dtype.kind == "f"
                and (damaged < 0).all()
                and len(damaged) > 1
            ):
                continue  # numbers like any others
            with pytest.raises(CheckpointError, match="does not hold together as a model"):
                caviar.load_model(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"params": None},
        {"params": {"layers": "many"}},
        {"metrics": {"val_loss": None}},
        {"step": -1},
        {"step": 10**400},
        {"step": 1.5},
        {"epoch": True},
        {"dtype": "float16"},
        {"dtype": ["float32"]},
        {"classes": ["a", "a"]},
        {"classes": "ab"},
        {"classes": [["a"], "b"]},
        {"columns": [{"name": ["a"], "categories": None}]},
        {"columns": [{"name": "a"}]},
        {"columns": [{"name": "a", "categories": "bc"}]},
        {"columns": [None]},
        {"name": None},
        {"fingerprint": 3},
    ],
    ids=str,
)
def test_a_file_that_says_what_cannot_be_is_refused(fruit: Study, tmp_path: Path, changed: dict[str, object]) -> None:
    """When it is read, and not when it is used."""
    path = tmp_path / "fruit.safetensors"
    fruit.model().save(path)
    arrays, metadata = read_arrays(path)

    for about in (json.dumps(json.loads(metadata["about"]) | changed), "[]", "{", "null"):
        write_arrays(path, arrays, {**metadata, "about": about})
        with pytest.raises(CheckpointError, match="does not hold together as a model"):
            caviar.load_model(path)


def test_a_babysat_trial_is_taken_from_where_it_ended(fruit: Study) -> None:
    """What was done to it by hand is in its model, which its params alone would not give."""
    with fruit.panda(2, more_epochs=4) as panda:
        for report in panda:
            if report.epoch == 31:
                panda.set(learning_rate=0.5)
    trial = fruit.storage.get_trial("fruit", panda.trial.number)
    raw, rows = raw_and_rows(fruit)

    model = fruit.model(trial)

    right = (
        model.predict(fruit.spec.data.source)[rows["validation"]] == np.array(raw.classes)[raw.y[rows["validation"]]]
    )
    assert trial.state is TrialState.COMPLETE and model.epoch == 34
    assert right.mean() == pytest.approx(trial.metrics["val_accuracy"])
    checkpoint = fruit.storage.sessions.checkpoints("fruit", trial.number)[-1]
    assert checkpoint.epoch == 34


def test_what_has_no_model_is_refused(swept: Storage, fruit: Study) -> None:
    """Trials that failed or are not there, and studies without trials."""
    wild, empty = (caviar.load_study(name, storage=swept) for name in ("wild", "empty"))

    with pytest.raises(SettingsError, match="only a COMPLETE trial has a model to use, found wild/0 FAIL"):
        wild.model(0)
    for study in (wild, empty):
        with pytest.raises(TrialNotFound, match="has no COMPLETE trial"):
            study.model()
    with pytest.raises(TrialNotFound, match="no trial 77"):
        fruit.model(77)


def test_data_that_changed_is_not_trained_on_again(storage: Storage, tmp_path: Path) -> None:
    """A model that is silently another would be worse than none."""
    path = tmp_path / "made.csv"
    path.write_text("a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    study = create_study("made", data=path, target="label", epochs=2, storage=storage)
    study.sweep(2, n_workers=0)
    path.write_text("a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(41)))

    with pytest.raises(DataError, match="the data changed"):
        caviar.load_study("made", storage=storage).model()


def test_the_model_of_an_earlier_epoch_is_the_one_that_reported(fruit: Study) -> None:
    """Each epoch's metrics are those of its model, and `best` is where the study's metric was best."""
    trial = fruit.trials(sort="number", limit=1)[0]
    reports = fruit.reports(trial)
    loss, accuracy = (reports.values[:, reports.metrics.index(name)] for name in ("val_loss", "val_accuracy"))
    data = fruit.data
    kernel = choose_kernel(fruit.spec.kernel)

    for epoch in (1, 7, 30):
        model = fruit.model(trial, epoch=epoch)
        assert (model.epoch, model.metrics["val_loss"]) == (epoch, loss[epoch - 1])
        found = kernel.evaluate(
            model.network, model.parameters, model.running, model.step, data.validation.x, data.validation.y
        )
        assert found == (loss[epoch - 1], accuracy[epoch - 1])

    best = fruit.model(trial, epoch="best")
    assert best.epoch == min(range(30), key=lambda epoch: (-accuracy[epoch], loss[epoch])) + 1
    assert fruit.model(trial).epoch == fruit.model(trial, epoch=np.int64(30)).epoch == 30
    for epoch in (0, 31, "last"):
        with pytest.raises(
            SettingsError, match=rf"expected an epoch of fruit/0, or 'best', found '?{epoch}'?: it has 1 to 30"
        ):
            fruit.model(trial, epoch=epoch)
    with pytest.raises(SettingsError, match=r"epoch must be a whole number, found 1.5"):
        fruit.model(trial, epoch=1.5)  # type: ignore[arg-type]


def test_the_model_of_an_earlier_epoch_of_a_babysat_trial(storage: Storage) -> None:
    """From a checkpoint or, where that is gone, from the run retraced: as it was on the timeline that is in force."""
    space = SearchSpace(hidden_units=8, learning_rate=0.01, optimizer="adam")
    study = create_study("s", space, data="iris", epochs=8, storage=storage)
    states: dict[int, float] = {}
    with study.panda(checkpoints=Policy(every=4, keep=2)) as panda:
        for report in panda:
            states[report.epoch] = report.metrics["val_loss"]
            if report.epoch == 6 and len(panda.interventions) < 2:
                panda.rollback(epochs=2)
                panda.set(learning_rate=0.1)
    trial = panda.trial
    reports = study.reports(trial)
    losses = dict(enumerate(reports.values[:, reports.metrics.index("val_loss")].tolist(), reports.first_epoch))
    assert losses == states

    data, kernel = study.data, choose_kernel(study.spec.kernel)
    for epoch in range(1, 9):
        model = study.model(trial, epoch=epoch)
        loss, _ = kernel.evaluate(
            model.network, model.parameters, model.running, model.step, data.validation.x, data.validation.y
        )
        assert loss == states[epoch]
        assert model.params["learning_rate"] == (0.01 if epoch < 5 else 0.1)


def test_the_model_of_an_epoch_before_a_sweep_gave_its_trial_away(storage: Storage) -> None:
    """Babysat from some epoch on, it was a trial like any other until then."""
    space = SearchSpace(hidden_units=8, learning_rate=0.01, optimizer="adam")
    study = create_study("s", space, data="iris", epochs=8, storage=storage)
    study.sweep(1, n_workers=0)
    whole = study.trials()[0]
    other = create_study("t", space, data="iris", epochs=8, storage=storage)
    waiting = Trial(study="t", number=0, state=TrialState.WAITING, params=whole.params)
    storage.add_trials("t", [waiting])
    with study._nursery(None) as nursery:
        states = list(nursery.trainer(0).advance(None, whole.params, 3).metrics.items())
    with other._nursery(None) as nursery:
        state = nursery.trainer(0).advance(None, whole.params, 3).state
    trial = replace(waiting, state=TrialState.RUNNING, epoch=3, metrics=states[-1][1])
    values = np.array([list(metrics.values()) for _, metrics in states])
    storage.write("t", [TrialResult(trial=trial, reports=Reports(1, tuple(states[0][1]), values))])
    asked = storage.sessions.ask(Intervention(trial="t/0", token="take", kind="take"))
    other._hand_over(trial, state, replace(asked, status=Status.APPLIED, message="taken"))
    with other.panda(0) as panda:
        assert [report.epoch for report in panda] == [4, 5, 6, 7, 8]

    for epoch in (1, 2, 3, 5, 8):
        assert other.model(0, epoch=epoch).parameters.tobytes() == study.model(0, epoch=epoch).parameters.tobytes()
