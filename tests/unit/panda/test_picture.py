"""The picture of a live model."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

import caviar
from caviar.cli.panda_display import PandaDisplay
from caviar.cli.plot import Curve, plot


def test_a_picture_tells_the_metrics_of_the_last_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As numbers, which nobody can read off a curve."""
    study = caviar.create_study("iris", data="iris", epochs=2, storage=f"sqlite:///{tmp_path / 'caviar.db'}")
    study.sweep(n_trials=1, n_workers=0)
    display = PandaDisplay()

    with study.panda(study.best_trial, epochs=4) as panda, display.watch(panda, n_examples=90):
        *_, last = panda
        Console(width=80).print(display.picture())

    shown = capsys.readouterr().out.splitlines()[1]
    assert shown.split() == [word for name, value in last.metrics.items() for word in (name, f"{value:.4g}")]


def test_a_plot_is_linear_where_it_is_told_to_be() -> None:
    """An accuracy that once was bad is not drawn by powers of ten."""
    curve = Curve(name="val", points={1: 0.01, 2: 0.99})

    assert "log scale" in plot("loss", [curve], width=60, height=11)[0].plain
    assert "log scale" not in plot("accuracy", [curve], width=60, height=11, may_be_log=False)[0].plain
