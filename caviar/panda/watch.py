"""What the rules see of a run, and what they ask for. Pure: a watch is the sum of the epochs that it was shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caviar.panda.course import STEERING, place_after
from caviar.panda.rules import Diverged, Patience, Plateau, Rule
from caviar.records import Direction, Intervention, Params, clear_direction

#: Metrics by epoch, on the timeline that is in force.
History = Mapping[int, Mapping[str, float]]

#: An epoch, and the value of a metric there.
Reading = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule asks for: a verb with its arguments, or only that people are told."""

    #: `warn`, or a verb of panda mode.
    kind: str
    arguments: Mapping[str, Any]
    why: str


class Watch:
    """Follows the metrics that the rules look at, in constant time for each epoch.

    What it asks for depends on the rules, the epochs that it was shown and the interventions alone, so that a run that
    goes on after a crash decides as it would have without.

    Args:
        rules: by name.
        history: the epochs so far.
        direction_of: which way a metric is better.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        history: History,
        direction_of: Callable[[str], Direction | None] = clear_direction,
    ) -> None:
        self._rules = rules
        self._tracks = {
            name: _Track(rule, more_is_better=direction_of(rule.metric) is Direction.MAXIMIZE)
            for name, rule in rules.items()
        }
        for epoch in sorted(history):
            self.see(epoch, history[epoch])

    def see(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of the epoch after those seen so far."""
        for track in self._tracks.values():
            if track.rule.metric in metrics:
                track.see((epoch, metrics[track.rule.metric]))

    def actions(self, interventions: Sequence[Intervention], params: Params) -> list[tuple[str, Action]]:
        """Return what the rules ask for at the end of the last epoch seen, with the name of each rule.

        Args:
            interventions: what was applied so far.
            params: in force.
        """
        asked: list[tuple[str, Action]] = []
        for name, track in self._tracks.items():
            if track.last is None or track.improved is None:
                continue
            match track.rule:
                case Diverged() as rule:
                    action = _on_spike(rule, name, track, interventions, params)
                case Plateau() as rule:
                    action = _on_plateau(rule, track.last[0], track.improved[0], interventions, params)
                case Patience() as rule:
                    action = _on_patience(rule, track.last[0], track.improved[0])
            if action is not None:
                asked.append((name, action))
                if action.kind in ("rollback", "stop"):
                    break  # what the others saw is no longer there
        return asked

    def actions_on_divergence(
        self, interventions: Sequence[Intervention], params: Params, epoch: int
    ) -> list[tuple[str, Action]]:
        """Return what the rules ask for when the loss has become NaN or infinite in an epoch (counted from 1)."""
        for name, rule in self._rules.items():
            if isinstance(rule, Diverged) and rule.action == "rollback":
                why = f"the loss became NaN or infinite in epoch {epoch}"
                action = _back(rule, name, interventions, params, why)
                return [] if action is None else [(name, action)]
        return []


class _Track:
    """One rule's metric: its last value, its best, and where it last improved."""

    def __init__(self, rule: Rule, *, more_is_better: bool) -> None:
        self.rule = rule
        self._more_is_better = more_is_better
        self.last: Reading | None = None
        self.best: Reading | None = None
        #: The last value that was better than the one before it here, by the rule's share.
        self.improved: Reading | None = None
        #: What is wrong with the last value and with the one before it, where something is.
        self.spike: str | None = None
        self.earlier_spike: str | None = None

    def see(self, point: Reading) -> None:
        self.earlier_spike, self.spike = self.spike, self._spike(point)
        share = 0.0 if isinstance(self.rule, Diverged) else self.rule.improvement
        if self.improved is None or self._gain(point, self.improved) > share * abs(self.improved[1]):
            self.improved = point
        if self.best is None or self._gain(point, self.best) > 0:
            self.best = point
        self.last = point

    def _gain(self, point: Reading, before: Reading) -> float:
        return point[1] - before[1] if self._more_is_better else before[1] - point[1]

    def _spike(self, point: Reading) -> str | None:
        rule = self.rule
        if not isinstance(rule, Diverged) or self.best is None:
            return None
        (best_epoch, best), (epoch, value) = self.best, point
        falls = self._more_is_better
        is_bad = best > 0 and (value < best / rule.factor if falls else value > best * rule.factor)
        if not is_bad:
            return None
        beyond = f"under 1/{rule.factor:g} of" if falls else f"over {rule.factor:g} times"
        return f"{rule.metric} {value:.4g} of epoch {epoch} is {beyond} its best, {best:.4g} of {best_epoch}"


def actions_at_epoch(
    rules: Mapping[str, Rule], history: History, interventions: Sequence[Intervention], params: Params
) -> list[tuple[str, Action]]:
    """Return what the rules ask for at the end of the last epoch of a history; see :meth:`Watch.actions`."""
    return Watch(rules, history).actions(interventions, params)


def _on_spike(
    rule: Diverged, name: str, track: _Track, interventions: Sequence[Intervention], params: Params
) -> Action | None:
    if track.spike is None:
        return None
    if rule.action == "rollback":
        return _back(rule, name, interventions, params, track.spike)
    if rule.action in ("warn", "pause") and track.earlier_spike is not None:
        return None  # that was said an epoch ago
    return Action(rule.action, {}, track.spike)


def _back(rule: Diverged, name: str, interventions: Sequence[Intervention], params: Params, why: str) -> Action | None:
    n_before = sum(i.kind == "rollback" and i.author == f"rule:{name}" for i in interventions)
    if n_before >= rule.limit:
        return None
    now = params.get(rule.param)
    if not isinstance(now, int | float):  # a trial of an earlier space need not have it
        return Action("warn", {}, f"{why}; there is no {rule.param} to divide")
    return Action("rollback", {"to": "best", rule.param: now / rule.divide_learning_rate}, why)


def _on_plateau(
    rule: Plateau, epoch: int, improved: int, interventions: Sequence[Intervention], params: Params
) -> Action | None:
    # each change of the learning rate, whoever made it, gets its own epochs to show what it does
    if epoch - max(improved, _unchanged_since(interventions, rule.param)) < rule.epochs:
        return None
    why = f"{rule.metric} has not improved since epoch {improved}"
    now = params.get(rule.param)
    if rule.action == "warn" or not isinstance(now, int | float):  # a trial of an earlier space need not have it
        # after 1, 2, 4, 8, ... times its epochs: nobody reads the same line for ever
        times, rest = divmod(epoch - improved, rule.epochs)
        return Action("warn", {}, why) if not rest and times & (times - 1) == 0 else None
    slower = max(now / rule.divide_learning_rate, rule.lowest_learning_rate)
    return Action("set", {rule.param: slower}, why) if slower < now else None


def _unchanged_since(interventions: Sequence[Intervention], param: str) -> int:
    """Return the epoch, on the timeline that is in force, since which a param is what it is."""
    since = 0
    for past in interventions:
        if past.kind not in STEERING:
            continue
        epoch = place_after(past)[0]
        since = epoch if param in (past.after or {}) else min(since, epoch)
    return since


def _on_patience(rule: Patience, epoch: int, improved: int) -> Action | None:
    n = epoch - improved
    if n < rule.epochs or (rule.action != "stop" and n % rule.epochs):
        return None
    return Action(rule.action, {}, f"{rule.metric} has not improved since epoch {improved}")
