"""`caviar advise`: what to do next with a study, and why."""

from __future__ import annotations

from typing import Any

from caviar.advising import Advice, Importance, Point
from caviar.cli.arguments import Json, Storage
from caviar.cli.formats import print_json
from caviar.cli.tables import print_table, shown
from caviar.opening import load_study
from caviar.space import Categorical, SearchSpace
from caviar.wording import command, counted, plain

_BAR_WIDTH = 12


def advise(study: str, /, *, json: Json = False, storage: Storage = None) -> int:
    """Say what the trials of STUDY tell: which params matter, and what to do next, with the command for it.

    Nothing is changed. Babysat trials are left out.

    Parameters
    ----------
    study
        Name of the study.
    """
    opened = load_study(study, storage=storage)
    try:
        found = opened.advise()
        metric = opened.spec.metric
    finally:
        opened.storage.close()
    if json:
        print_json(_row(found, storage))
        return 0
    best = found.best
    how = "no trial is COMPLETE" if best is None else f"the best is {best.name}, {metric} {best.value:.4f}"
    print(f"{study}: {counted(found.n_trials, 'trial')}, {how}")
    print_table([_param(param) for param in found.params], "")
    for point in found.points:
        print(f"- {shown(point.text)}")
        if point.words is not None:
            print(f"    {command(*point.words, storage=storage)}")
    return 0


def _param(param: Importance) -> dict[str, Any]:
    bar = "#" * round(_BAR_WIDTH * param.share)
    return {
        "param": param.name,
        "importance": f"{param.share:.2f} {bar}".rstrip(),
        "best trials": str(param.best)
        if isinstance(param.best, Categorical)
        else f"{plain(param.best.low)} to {plain(param.best.high)}",
        "chance": param.chance,
    }


def _row(found: Advice, storage: str | None) -> dict[str, Any]:
    return {
        "study": found.study,
        "trials": found.n_trials,
        "best": None if found.best is None else found.best.name,
        "params": [
            {
                "param": param.name,
                "importance": param.share,
                "chance": param.chance,
                "best": SearchSpace(x=param.best).to_dict()["x"],
            }
            for param in found.params
        ],
        "advice": [_advice(point, storage) for point in found.points],
    }


def _advice(point: Point, storage: str | None) -> dict[str, Any]:
    words = None if point.words is None else command(*point.words, storage=storage)
    return {"about": point.about, "text": point.text, "command": words}
