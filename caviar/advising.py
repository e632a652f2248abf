"""What to do next with a study, and why: read from its trials, each with the command that follows it."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caviar.errors import SettingsError
from caviar.records import Reason, Reports, StudySpec, Trial, TrialState
from caviar.refining import drawn_trials, refinement_of
from caviar.repeats import repeats_of, untended_trials
from caviar.search.importance import importances
from caviar.search.refine import LEAST_TRIALS, Refinement
from caviar.space import Categorical, Domain, Int, SearchSpace
from caviar.storage.base import Storage
from caviar.training.source import is_function
from caviar.wording import counted, plain

#: Curves that are looked at: those of the best trials.
_CURVES = 5
#: Epochs that a curve needs to tell whether it still rises.
_LEAST_EPOCHS = 8
#: The end of a curve: its last quarter.
_END = 0.25
#: What a quarter of the epochs brings matters from this share of all that training brought.
_TELLING_GAIN = 0.03
#: What more trials may bring matters from this share of what lies between the best and the median.
_TELLING_SHARE = 0.01
#: Where so many of the trials diverged, the others are chance.
_NEARLY_ALL = 0.9
#: Trials that diverged, from which on it is asked where.
_LEAST_DIVERGED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One piece of advice."""

    #: `failures`, `divergence`, `trials`, `epochs`, `overfitting`, `space`, `luck` or `panda`.
    about: str
    #: What was found, and what it means.
    text: str
    #: The command that follows it, as words after `caviar`; None where there is none.
    words: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much one param matters, as far as the trials tell."""

    name: str
    #: A share of 1.
    share: float
    #: How likely the best trials lie as close together by chance.
    chance: float
    #: Where the best trials lie; the whole domain where that tells nothing.
    best: Domain


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What the trials of a study say."""

    study: str
    n_trials: int
    best: Trial | None
    #: Those that matter most first; empty where there are too few trials to tell.
    params: tuple[Importance, ...]
    #: What is most urgent first.
    points: tuple[Point, ...]


def advise(storage: Storage, spec: StudySpec, n_validation: int | None) -> Advice:
    """Return what to do next with a study.

    Args:
        storage: the trial database.
        spec: of the study.
        n_validation: examples by which the accuracy is told; None where that is not known.

    Raises:
        SettingsError: the study has no space of its own.
    """
    if not spec.space:
        raise SettingsError(f"study {spec.name!r} was made through Optuna, and has no space of its own to advise on")
    summary = storage.summary(spec.name)
    untended = untended_trials(storage, spec.name)
    drawn = drawn_trials(storage, spec, untended)
    complete = [trial for trial in drawn if trial.state is TrialState.COMPLETE]
    space = SearchSpace.from_dict(spec.space)
    tells = len(complete) >= LEAST_TRIALS and bool(space.domains) and complete[0].value != complete[-1].value
    found = refinement_of(spec, drawn) if tells else None
    points = [
        _failures(storage, spec, summary.counts.get(TrialState.FAIL, 0)),
        _too_few(spec, space, len(complete), summary.n_trials),
        _divergence(space, drawn, complete),
        _curves(storage, spec, complete),
        *_space(spec, found),
        _luck(spec, complete, untended, n_validation),
        _more(spec, complete, summary.n_trials, n_validation),
    ]
    shares = importances(space, [trial.params for trial in drawn]) if found else {}
    chances = {param.name: param for param in found.params} if found else {}
    return Advice(
        study=spec.name,
        n_trials=summary.n_trials,
        best=complete[0] if complete else storage.best_trial(spec.name),
        params=tuple(
            Importance(name=name, share=share, chance=chances[name].chance, best=chances[name].after)
            for name, share in shares.items()
        ),
        points=tuple(point for point in points if point is not None),
    )


def _failures(storage: Storage, spec: StudySpec, n_failed: int) -> Point | None:
    """Trials that raised, or whose worker died: what most of them say."""
    if not n_failed:
        return None
    errors = f"state = 'FAIL' and reason in ('{Reason.ERROR}', '{Reason.LOST}')"
    trials = storage.trials(spec.name, where=errors, limit=1000)
    if not trials:
        return None
    counts = Counter(trial.error or "" for trial in trials)
    error, n_alike = counts.most_common(1)[0]
    first = next(trial for trial in trials if (trial.error or "") == error)
    all_of = "all" if n_alike == len(trials) else f"{n_alike} of them"
    return Point(
        about="failures",
        text=f"{counted(len(trials), 'trial')} failed, {all_of} with {error!r:.120}",
        words=("show", first.name),
    )


def _too_few(spec: StudySpec, space: SearchSpace, n_complete: int, n_trials: int) -> Point | None:
    """Fewer trials than tell anything; where none ended well, more of them do not help."""
    if n_complete >= LEAST_TRIALS or not space.domains or (n_trials and not n_complete):
        return None
    n_choices = _choices(space)
    if n_choices is not None and n_choices < LEAST_TRIALS:
        return Point(
            about="trials",
            text=f"the space has {n_choices} combinations, too few to tell what matters: train the best again from "
            "other weights, rather than more of them",
            words=("retest", spec.name),
        )
    return Point(
        about="trials",
        text=f"{counted(n_complete, 'trial')} of the space that ended well are too few to tell what matters: "
        f"{LEAST_TRIALS} are enough to begin with",
        words=("sweep", spec.name, "--trials", str(max(n_trials + LEAST_TRIALS - n_complete, LEAST_TRIALS))),
    )


def _choices(space: SearchSpace) -> int | None:
    """Return how many different trials a space has; None where there is no end of them."""
    sizes = [_size(domain) for domain in space.domains.values()]
    return None if None in sizes else math.prod(size or 1 for size in sizes)


def _size(domain: Domain) -> int | None:
    if isinstance(domain, Categorical):
        return len(domain.choices)
    return int(domain.high - domain.low) + 1 if isinstance(domain, Int) else None


def _divergence(space: SearchSpace, drawn: Sequence[Trial], complete: Sequence[Trial]) -> Point | None:
    """Where the trials that diverged lie, if not everywhere."""
    gone = [trial for trial in drawn if trial.reason == Reason.DIVERGED]
    if len(gone) < _LEAST_DIVERGED:
        return None
    if len(gone) == len(drawn):
        return Point(about="divergence", text=f"all of {counted(len(gone), 'trial')} diverged: take another space")
    text = f"{len(gone)} of {counted(len(drawn), 'trial')} diverged"
    ends = [end for name in space.domains for end in _ends(name, drawn, complete)]
    if ends:
        n_gone, n, where = max(ends)
        return Point(about="divergence", text=f"{text}: {n_gone} of the {n} {where}; no trial need be spent there")
    if len(gone) * 10 < len(drawn):
        return None
    return Point(about="divergence", text=f"{text}, wherever in the space they were drawn from")


def _ends(name: str, drawn: Sequence[Trial], complete: Sequence[Trial]) -> list[tuple[int, int, str]]:
    """Return the ends of a param at which nearly all trials diverged, and none of the best ended well.

    Each with how many diverged, of how many there, in words.
    """
    if not all(isinstance(trial.params[name], int | float) for trial in drawn):
        return []
    n_all = sum(trial.reason == Reason.DIVERGED for trial in drawn)
    best: list[Any] = [trial.params[name] for trial in complete[:_CURVES]]
    found = []
    for sign, side in ((-1, "above"), (1, "below")):
        ranked = sorted(drawn, key=lambda trial: sign * trial.params[name])
        n_gone, reached = 0, (0, 0)
        for n, trial in enumerate(ranked, start=1):
            n_gone += trial.reason == Reason.DIVERGED
            if trial.reason == Reason.DIVERGED and n_gone >= _NEARLY_ALL * n:
                reached = n_gone, n
        n_gone, n = reached
        if n_gone < max(_LEAST_DIVERGED, n_all / 2):
            continue
        limit: Any = ranked[n - 1].params[name]
        if not any(sign * value <= sign * limit for value in best):
            found.append((n_gone, n, f"with {name} {side} {limit:.3g}"))
    return found


def _curves(storage: Storage, spec: StudySpec, complete: Sequence[Trial]) -> Point | None:
    """Whether the best trials still got better when they ended, or were better before."""
    best = [trial for trial in complete[:_CURVES] if trial.epoch >= _LEAST_EPOCHS]
    curves = [storage.reports(spec.name, trial.number) for trial in best]
    if not best or any(len(curve) < _LEAST_EPOCHS for curve in curves):  # imported from a table, without curves
        return None
    losses = [spec.direction.sign * _column(curve, spec.metric) for curve in curves]  # less is better
    peak = round(statistics.median(int(np.argmin(loss)) + 1 for loss in losses))
    epochs, n = max(trial.epoch for trial in best), counted(len(best), "trial")
    if peak > (1 - _END) * epochs:
        gain = statistics.median(map(_gain_at_end, losses))
        return _longer(spec, best[0], n, epochs, gain) if gain > _TELLING_GAIN else None
    lost = statistics.median((loss[-1] - loss.min() - 2 * _noise_of(loss)) / _spread(loss) for loss in losses)
    if lost <= _TELLING_GAIN:
        return None
    is_network = spec.trainable is None
    overfits = is_network and statistics.median(_fall(_column(c, "train_loss"), peak) for c in curves) > 0
    why = ", while their training loss went on to fall: they overfit" if overfits else ""
    remedy = _remedy(spec) if overfits else "train shorter"
    return Point(
        about="overfitting" if overfits else "epochs",
        text=f"the best {n} had their best at epoch {peak} of {epochs}{why}; {remedy}, or use the model of then",
        words=("export", best[0].name, "--to", "best.safetensors", "--epoch", "best") if is_network else None,
    )


def _longer(spec: StudySpec, best: Trial, n: str, epochs: int, gain: float) -> Point:
    can_go_on = spec.trainable is None or not is_function(spec.trainable)
    return Point(
        about="epochs",
        text=f"the best {n} still got better when they ended: in the last quarter of {epochs} epochs by {gain:.0%} of "
        "all that training brought; train longer",
        words=("panda", "start", best.name, "--epochs", f"+{epochs}") if can_go_on else None,
    )


def _column(curve: Reports, metric: str) -> np.ndarray:
    return curve.values[:, curve.metrics.index(metric)]


def _remedy(spec: StudySpec) -> str:
    return "more l2" if "l2" in spec.space else "put l2 into the space, from 1e-4 to 1 on a log scale"


def _spread(loss: np.ndarray) -> float:
    """Return between what a curve moves, and never 0."""
    return float(max(loss.max() - loss.min(), 1e-12))


def _gain_at_end(loss: np.ndarray) -> float:
    """Return what the last quarter of the epochs brought over the one before, as a share of all that training did."""
    # less what it moves by itself; the last epoch is left out, by which the best were chosen
    n, loss = int(_END * len(loss)), loss[:-1]
    by_chance = 2 * _noise_of(loss) * math.sqrt(2 / n)
    return float(loss[-2 * n : -n].mean() - loss[-n:].mean() - by_chance) / _spread(loss)


def _noise_of(loss: np.ndarray) -> float:
    """Return the standard deviation of a curve around its course, from its second half."""
    steps = np.diff(loss[len(loss) // 2 :], n=2)
    return float(np.sqrt((steps**2).mean() / 6))  # of a - 2 b + c


def _fall(loss: np.ndarray, peak: int) -> float:
    """Return by how much a curve is lower at its end than around an epoch."""
    n = int(_END * len(loss))
    return float(loss[max(peak - n, 0) : peak].mean() - loss[-n:].mean())


def _space(spec: StudySpec, found: Refinement | None) -> list[Point]:
    """Ends of the space that the best trials reach, and what of it may be left out."""
    if found is None:
        return []
    points = [
        Point(
            about="space",
            text=f"the best trials reach {param.name} = {plain(bound)}, where the space ends: there may be better ones "
            f"{'below' if which == 'low' else 'above'}; widen it with --space FILE.toml --new-space",
        )
        for param in found.params
        for which, bound in param.reached.items()
    ]
    if found.is_narrower:
        names = [param.name for param in found.params if param.is_narrower]
        points.append(
            Point(
                about="space",
                text=f"the best {found.n_best} of {counted(found.n_trials, 'trial')} lie close together in "
                f"{', '.join(names)}: narrow the space, and sweep on",
                words=("refine", spec.name),
            )
        )
    return points


def _luck(
    spec: StudySpec, complete: Sequence[Trial], untended: Sequence[Trial], n_validation: int | None
) -> Point | None:
    """Whether the best are better than others, or only luckier."""
    if len(complete) < LEAST_TRIALS or complete[0].value == complete[-1].value:
        return None
    best = complete[0]
    again = [trial.value for trial in repeats_of([best], untended)[best.number] if trial.value is not None]
    if again:
        mean, times = statistics.fmean(again), counted(len(again), "time")
        text = f"trained again {times}, the params of {best.name} came to {spec.metric} {mean:.4g} on average"
        return Point(about="luck", text=f"{text}, not to its {best.value:.4g}")
    noise = _noise(spec, best, n_validation)
    if noise is None:
        text = f"{best.name} is the best of {len(complete)}, and so the luckiest, too"
    else:
        assert best.value is not None
        n = sum(abs(best.value - (trial.value or 0.0)) <= noise for trial in complete)
        if n < 2:
            return None
        text = (
            f"{n} trials are as good as {best.name}, as far as {n_validation} examples tell ({spec.metric} within "
            f"{noise:.3f})"
        )
    return Point(about="luck", text=f"{text}: train the best again from other weights", words=("retest", spec.name))


def _noise(spec: StudySpec, best: Trial, n_validation: int | None) -> float | None:
    """Return two standard errors of the difference of two accuracies; None where the metric is another."""
    if spec.trainable is not None or spec.metric != "val_accuracy" or not n_validation or best.value is None:
        return None
    share = min(best.value, 1 - 0.5 / n_validation)  # none wrong of so many is no proof that none ever is
    return 2 * math.sqrt(2 * share * (1 - share) / n_validation)


def _more(spec: StudySpec, complete: Sequence[Trial], n_trials: int, n_validation: int | None) -> Point | None:
    """What twice as many trials may bring: as much as all of them did over half of them."""
    if len(complete) < LEAST_TRIALS:
        return None
    values = [spec.direction.sign * (trial.value or 0.0) for trial in complete]
    n = len(values)
    # of half of them, picked at random, the best is the i-th best of all with chance C(n-i-1, n/2-1) / C(n, n/2)
    half, left, expected = n // 2, 1.0, 0.0
    for index, value in enumerate(values):
        chance = left * half / (n - index)
        expected += chance * value
        left -= chance
        if left < 1e-12 or index >= n - half:
            break
    gain = expected - values[0]
    noise = _noise(spec, complete[0], n_validation)
    is_hidden = noise is not None and gain < noise / 2
    little = is_hidden or gain <= _TELLING_SHARE * (statistics.median(values) - values[0])
    hope = "next to nothing" if little else f"at most to be better by about {gain:.2g}"
    hope = "less than the validation part can tell" if is_hidden else hope
    text = (
        f"any half of these {n} trials comes to {spec.metric} {spec.direction.sign * expected:.4g} on average, all of "
        f"them to {complete[0].value:.4g}; of as many again expect {hope}"
    )
    words = None if little else ("sweep", spec.name, "--trials", str(2 * n_trials))
    return Point(about="trials", text=text, words=words)
