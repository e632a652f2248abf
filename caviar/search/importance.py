"""How much each param of a space matters, from trials that were drawn from it (lecture, "the tuning process")."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator

from caviar.search.refine import on_scale
from caviar.space import Categorical, Float, Int, SearchSpace

#: Trials that are looked at, spread evenly over all from best to worst: more say nothing new, and take long.
_MOST_TRIALS = 5_000
#: The best so many of all are held against the rest.
_SHARE_OF_BEST = 0.1


def importances(space: SearchSpace, trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return a share of 1 for each param that is sampled, those that matter most first.

    It is told by how differently from all trials the best lie along each param alone, on its own scale: what only
    matters together with another param may be missed.

    Args:
        space: that could have drawn all of them.
        trials: the params of each, best first; at least 20.

    References:
        Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces".
    """
    step = math.ceil(len(trials) / _MOST_TRIALS)
    looked_at = trials[::step]
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(range(len(domain.choices)))
        if isinstance(domain, Categorical)
        else FloatDistribution(0.0, 1.0)
        for name, domain in space.domains.items()
    }
    if len(distributions) < 2:
        return dict.fromkeys(distributions, 1.0)
    ranked = [
        optuna.trial.create_trial(
            params={name: _place(domain, trial[name]) for name, domain in space.domains.items()},
            distributions=distributions,
            value=float(rank),
        )
        for rank, trial in enumerate(looked_at)
    ]
    share = max(_SHARE_OF_BEST, math.isqrt(len(looked_at)) / len(looked_at))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
            study.add_trials(ranked)
            evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(before)
    return {name: float(found.get(name, 0.0)) for name in sorted(distributions, key=lambda name: -found.get(name, 0.0))}


def _place(domain: Float | Int | Categorical, value: Any) -> float | int:
    """Return where a value lies between the ends of its range, from 0 to 1, or which of the choices it is."""
    if isinstance(domain, Categorical):
        return next(i for i, choice in enumerate(domain.choices) if choice == value and type(choice) is type(value))
    low, high = on_scale(domain, domain.low), on_scale(domain, domain.high)
    place = (on_scale(domain, value) - low) / (high - low) if high > low else 0.5
    return min(max(place, 0.0), 1.0)  # rounding may leave the range
