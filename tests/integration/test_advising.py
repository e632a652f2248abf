"""What is said of a study is so: each piece of advice where it holds, and not where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caviar.advising import Advice
from caviar.opening import create_study
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import Storage
from caviar.storage.exchange import export_study, import_study
from caviar.study import Study

SPACE = SearchSpace(rate=Float(1e-3, 1.0, scale="log"), other=Float(0, 1), units=Int(1, 9))
CODE = """
import math, random

def rising(task):
    for epoch in range(task.epochs):
        yield {"accuracy": (1 - math.exp(-0.05 * epoch)) * task.params["rate"]}

def settled(task):
    for epoch in range(task.epochs):
        yield {"accuracy": (1 - math.exp(-2.0 * epoch)) * (1 - abs(math.log10(task.params["rate"]) + 1.5) / 2)}

def falling(task):
    for epoch in range(task.epochs):
        yield {"accuracy": 1 - abs(epoch - 5) / 40 - 0.1 * random.random()}

def diverging(task):
    for epoch in range(task.epochs):
        yield {"accuracy": math.nan if task.params["rate"] > 0.3 else random.random()}

def failing(task):
    if task.number % 3 == 1:
        raise ValueError(f"no room for {task.number}")
    return task.params["other"]
"""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def swept(storage: Storage, file: Path, function: str, n_trials: int = 40, **given: Any) -> Study:
    settings: dict[str, Any] = {"space": SPACE, "metric": "accuracy", "epochs": 12} | given
    study = create_study("s", trainable=f"{file}:{function}", storage=storage, **settings)
    study.sweep(n_trials, n_workers=0)
    return study


def said(advice: Advice, about: str) -> list[tuple[str, tuple[str, ...] | None]]:
    return [(point.text, point.words) for point in advice.points if point.about == about]


def test_curves_that_still_rise_are_told(storage: Storage, file: Path) -> None:
    """Of a function, which cannot go on, without a command."""
    advice = swept(storage, file, "rising").advise()

    ((text, words),) = said(advice, "epochs")
    assert text.startswith("the best 5 trials still got better when they ended: in the last quarter of 12 epochs by")
    assert words is None
    assert advice.params[0].name == "rate"
    assert advice.params[0].share > 0.5 > advice.params[1].share
    ends = [text for text, _ in said(advice, "space") if text.startswith("the best trials reach rate = 1,")]
    assert len(ends) == 1 and "above" in ends[0]


def test_what_has_settled_needs_no_more(storage: Storage, file: Path) -> None:
    """Neither epochs nor another space: only fewer of it."""
    advice = swept(storage, file, "settled", 200).advise()

    assert not said(advice, "epochs") and not said(advice, "overfitting")
    ((text, words),) = said(advice, "space")
    assert text == "the best 14 of 200 trials lie close together in rate: narrow the space, and sweep on"
    assert words == ("refine", "s")
    best = advice.params[0].best
    assert isinstance(best, Float) and best.low < 10**-1.5 < best.high < 0.3


def test_curves_that_were_better_before_are_told(storage: Storage, file: Path) -> None:
    """With the epoch to stop at."""
    ((text, _),) = said(swept(storage, file, "falling").advise(), "epochs")

    assert "had their best at epoch" in text and text.endswith("train shorter, or use the model of then")
    assert abs(int(text.partition("best at epoch ")[2].partition(" ")[0]) - 6) <= 3


def test_it_is_told_where_trials_diverge(storage: Storage, file: Path) -> None:
    """By the param that tells it best."""
    study = swept(storage, file, "diverging", 60)

    ((text, _),) = said(study.advise(), "divergence")
    gone = [trial.params["rate"] for trial in study.trials(where="state = 'FAIL'")]
    assert text == (
        f"{len(gone)} of 60 trials diverged: {len(gone)} of the {len(gone)} with rate above {min(gone):.3g}; "
        "no trial need be spent there"
    )
    assert not said(swept_again(storage, file), "divergence")


def swept_again(storage: Storage, file: Path) -> Advice:
    study = create_study("t", SPACE, trainable=f"{file}:settled", metric="accuracy", epochs=12, storage=storage)
    study.sweep(30, n_workers=0)
    return study.advise()


def test_failures_come_first(storage: Storage, file: Path) -> None:
    """With the one to look at; and few trials tell nothing else."""
    advice = swept(storage, file, "failing", 9).advise()

    assert advice.params == ()
    assert [point.about for point in advice.points] == ["failures", "trials"]
    assert advice.points[0].text.startswith("3 trials failed, 1 of them with 'ValueError: no room for ")
    assert advice.points[0].words is not None and advice.points[0].words[0] == "show"
    assert advice.points[1].words == ("sweep", "s", "--trials", "23")


def test_luck_is_asked_about_until_it_was_tested(storage: Storage) -> None:
    """As far as the examples of the validation part tell."""
    space = SearchSpace(learning_rate=Float(1e-2, 1.0, scale="log"), hidden_units=Int(4, 16), layers=1)
    study = create_study("s", space, data="iris", epochs=8, storage=storage)
    assert [point.about for point in study.advise().points] == ["trials"]
    study.sweep(30, n_workers=0)

    ((text, words),) = said(study.advise(), "luck")
    assert "trials are as good as s/" in text and "as far as 30 examples tell (val_accuracy within" in text
    assert words == ("retest", "s")
    study.retest(1, 3, n_workers=0)
    ((text, words),) = said(study.advise(), "luck")
    assert text.startswith("trained again 3 times, the params of s/") and words is None


def test_a_network_that_overfits_is_told(storage: Storage) -> None:
    """Its validation loss rises while its training loss falls."""
    space = SearchSpace(learning_rate=Float(0.01, 0.3, scale="log"), hidden_units=64, layers=2, optimizer="adam")
    study = create_study("s", space, data="digits", metric="val_loss", epochs=60, storage=storage)
    study.sweep(24, n_workers=0)

    ((text, words),) = said(study.advise(), "overfitting")
    assert "while their training loss went on to fall: they overfit; put l2 into the space" in text
    best = study.best_trial
    assert best is not None
    assert words == ("export", best.name, "--to", "best.safetensors", "--epoch", "best")


def test_a_study_without_curves_is_advised_on(storage: Storage, file: Path, tmp_path: Path) -> None:
    """As one that was imported from a table."""
    study = swept(storage, file, "rising")
    export_study(storage, "s", tmp_path / "s.csv")
    import_study(storage, tmp_path / "s.csv", name="t")
    advice = create_study("t", storage=storage).advise()

    assert advice.params == study.advise().params
    assert not said(advice, "epochs")


def test_of_few_combinations_no_more_are_asked_for(storage: Storage, file: Path) -> None:
    """There are none."""
    advice = swept(
        storage, file, "settled", 30, space=SearchSpace(rate=Categorical(0.01, 0.1), units=Int(1, 3))
    ).advise()

    ((text, words),) = said(advice, "trials")
    assert text.startswith("the space has 6 combinations, too few to tell what matters") and words == ("retest", "s")


def test_where_nothing_ended_well_no_more_is_asked_for(storage: Storage, file: Path) -> None:
    """Another space is."""
    advice = swept(storage, file, "diverging", 9, space=SearchSpace(rate=Float(0.5, 1.0))).advise()

    assert [(point.about, point.text) for point in advice.points] == [
        ("divergence", "all of 9 trials diverged: take another space")
    ]


def test_of_what_is_the_same_everywhere_nothing_matters(storage: Storage, file: Path) -> None:
    """No param, no luck, and no more trials."""
    file.write_text(CODE + "\ndef constant(task):\n    return -3.0\n")
    advice = swept(storage, file, "constant").advise()

    assert advice.params == ()
    assert [(point.about, point.words) for point in advice.points] == [("trials", None)]


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_no_reason_to_train_longer(storage: Storage, file: Path, seed: int) -> None:
    """Nor shorter: the best were chosen by their last epoch."""
    code = "\ndef noisy(task):\n    for e in range(task.epochs): yield -math.exp(-3 * e) + random.gauss(0, 0.05)\n"
    file.write_text(CODE + code)
    advice = swept(storage, file, "noisy", 64, seed=seed).advise()

    assert not said(advice, "epochs")
