"""Optuna over caviar's tables: its samplers run there, and its plots and importances read a finished sweep."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator

import optuna
import pytest

from caviar.opening import create_study
from caviar.storage import open_storage, optuna_storage
from caviar.study import Study

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

PLOTS = (
    "plot_contour",
    "plot_edf",
    "plot_intermediate_values",
    "plot_optimization_history",
    "plot_parallel_coordinate",
    "plot_param_importances",
    "plot_rank",
    "plot_slice",
    "plot_timeline",
)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Study]]:
    """The URL of a database with a finished sweep of the lectures' space, and its study. Only read from it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('swept') / 'caviar.db'}"
    study = create_study("iris", epochs=5, storage=url)
    study.sweep(40, n_workers=0)
    yield url, study
    study.storage.close()


@pytest.fixture
def loaded(swept: tuple[str, Study]) -> Iterator[optuna.Study]:
    """The same study as Optuna loads it."""
    storage = optuna_storage(swept[0])
    yield optuna.load_study(study_name="iris", storage=storage)
    storage.close()


def test_a_sweep_is_a_study_of_optuna(swept: tuple[str, Study], loaded: optuna.Study) -> None:
    """Numbers, values, curves and the best trial are the same; momentum is there as 1-momentum on a log scale."""
    trials = swept[1].trials()
    best = swept[1].best_trial

    assert best is not None
    assert loaded.best_trial.number == best.number and loaded.best_value == best.value
    assert [(t.number, t.value) for t in loaded.trials] == [(t.number, t.value) for t in trials]
    assert [len(t.intermediate_values) for t in loaded.trials] == [t.epoch for t in trials]
    first = loaded.trials[0]
    assert first.params["1-momentum"] == 1.0 - trials[0].params["momentum"]
    distribution = first.distributions["1-momentum"]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert (distribution.log, distribution.low) == (True, pytest.approx(0.001))
    assert first.user_attrs["val_loss"] == trials[0].metrics["val_loss"]


def test_importances_are_those_of_the_params(loaded: optuna.Study) -> None:
    """They sum to one, over the names that were sampled."""
    found = optuna.importance.get_param_importances(
        loaded, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )

    assert "learning_rate" in found and "1-momentum" in found
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", PLOTS)
def test_each_plot_is_drawn(loaded: optuna.Study, name: str) -> None:
    """With data in it."""
    pytest.importorskip("plotly", reason="install plotly")
    plot = getattr(optuna.visualization, name)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # plotly's own
        figure = plot([loaded]) if name == "plot_edf" else plot(loaded)

    assert len(figure.data) > 0


@pytest.mark.parametrize("name", ["TPESampler", "CmaEsSampler"])
def test_samplers_learn_on_it(database_url: str, name: str) -> None:
    """What they suggest comes nearer to the minimum than what they began with; caviar reads all of it."""
    if name == "CmaEsSampler":
        pytest.importorskip("cmaes", reason="install cmaes")
    storage = optuna_storage(database_url)
    sampler = getattr(optuna.samplers, name)(seed=3)
    study = optuna.create_study(study_name="quadratic", storage=storage, sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", -10, 10), trial.suggest_float("y", -10, 10)
        trial.report(x, 1)
        return (x - 2) ** 2 + (y + 3) ** 2

    study.optimize(objective, n_trials=60)

    values = [trial.value or 0.0 for trial in study.trials]
    assert min(values[30:]) < min(values[:10])
    opened = open_storage(database_url)
    trials = opened.trials("quadratic", where="x > -100", sort="value", limit=1)
    assert trials[0].value == study.best_value
    assert opened.summary("quadratic").n_trials == 60
    opened.close()
    storage.close()


def test_several_threads_share_a_storage(database_url: str) -> None:
    """Each trial has its number, and none is lost."""
    storage = optuna_storage(database_url)
    study = optuna.create_study(study_name="shared", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    lock = threading.Lock()
    seen = []

    def objective(trial: optuna.Trial) -> float:
        with lock:
            seen.append(trial.number)
        return trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=24, n_jobs=4)

    assert sorted(seen) == [trial.number for trial in study.trials] == list(range(24))
    storage.close()


def test_the_storage_is_made_again_and_again(sqlite_url: str) -> None:
    """The function stays what it is once the module behind it is imported."""
    import caviar.storage

    for _ in range(2):
        caviar.storage.optuna_storage(sqlite_url).close()
