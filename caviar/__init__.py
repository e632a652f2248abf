"""caviar trains many neural networks at once, and lets you babysit one.

The names below are loaded when they are first used, so that `import caviar` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caviar.model import Model as Model
    from caviar.model import load_model as load_model
    from caviar.opening import create_study as create_study
    from caviar.opening import load_study as load_study
    from caviar.opening import studies as studies
    from caviar.space import Categorical as Categorical
    from caviar.space import Float as Float
    from caviar.space import Int as Int
    from caviar.space import SearchSpace as SearchSpace
    from caviar.study import Study as Study
    from caviar.training.task import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "Categorical": "caviar.space",
    "Float": "caviar.space",
    "Int": "caviar.space",
    "Model": "caviar.model",
    "SearchSpace": "caviar.space",
    "Study": "caviar.study",
    "Task": "caviar.training.task",
    "create_study": "caviar.opening",
    "load_model": "caviar.model",
    "load_study": "caviar.opening",
    "studies": "caviar.opening",
}

__all__ = [
    "Categorical",
    "Float",
    "Int",
    "Model",
    "SearchSpace",
    "Study",
    "Task",
    "create_study",
    "load_model",
    "load_study",
    "studies",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'caviar' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
