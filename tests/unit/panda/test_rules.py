"""When the rules act, when they do not, and what rules files may say."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caviar.errors import SettingsError
from caviar.panda.rules import DEFAULT_RULES, Diverged, Plateau, make_rules, read_rules
from caviar.panda.watch import Watch, actions_at_epoch
from caviar.records import DataSpec, Direction, Intervention, Status, StudySpec, TrainableSpec

#: In force.
PARAMS = {"learning_rate": 0.1}
SPEC = StudySpec(name="s", data=DataSpec(source="digits"), space={})


def history(*losses: float, metric: str = "val_loss", first: int = 1) -> dict[int, dict[str, float]]:
    """Return metrics by epoch."""
    return {epoch: {metric: loss} for epoch, loss in enumerate(losses, first)}


def past(kind: str, epoch: int, author: str | None = None, target: int = 0, **after: Any) -> Intervention:
    """Return an intervention that was applied at the end of an epoch."""
    if kind == "rollback":
        after |= {"epoch": target, "batch": 0}
    return Intervention(
        trial="s/0", token="t", kind=kind, author=author, epoch=epoch, batch=0, after=after, status=Status.APPLIED
    )


def asked(rules: dict[str, Any], *losses: float, pasts: tuple[Intervention, ...] = (), **more: Any) -> list[Any]:
    """Return kind and arguments of what rules ask for at the last of some epochs."""
    found = actions_at_epoch(make_rules(rules, SPEC), history(*losses, **more), list(pasts), PARAMS)
    return [(name, action.kind, dict(action.arguments)) for name, action in found]


BACK = [("diverged", "rollback", {"to": "best", "learning_rate": 0.05})]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 3.1), BACK),
        ((1.0, 3.0), []),
        ((1.0, 0.5, 1.4), []),
        ((1.0, 0.5, 1.6), BACK),
        ((9.0,), []),
        ((9.0, 8.0, 7.0), []),
        ((0.0, 5.0), []),
    ],
)
def test_a_loss_over_so_many_times_its_best_goes_back(losses: tuple[float, ...], expected: list[Any]) -> None:
    """To the best epoch, at a lower learning rate; the first epoch has nothing to be compared with."""
    assert asked({"diverged": {"factor": 3.0}}, *losses) == expected


def test_an_accuracy_falls_instead() -> None:
    """Of accuracy more is better."""
    rules = {"diverged": {"factor": 2.0, "metric": "val_accuracy"}}

    assert asked(rules, 0.9, 0.5, metric="val_accuracy") == []
    assert asked(rules, 0.9, 0.4, metric="val_accuracy") == BACK


def test_going_back_has_a_limit() -> None:
    """A person's rollbacks do not count."""
    rule = {"diverged": {"limit": 2}}
    ours = past("rollback", 5, "rule:diverged")

    assert asked(rule, 1.0, 9.0, pasts=(ours, past("rollback", 5, "anna"))) == BACK
    assert asked(rule, 1.0, 9.0, pasts=(ours, ours)) == []


def test_a_jump_is_told_once() -> None:
    """Not again each epoch that the loss stays high."""
    rule = {"diverged": {"action": "warn"}}

    assert [name for name, kind, _ in asked(rule, 1.0, 9.0)] == ["diverged"]
    assert asked(rule, 1.0, 9.0, 9.0) == []


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_jump_may_pause_or_stop(action: str) -> None:
    """As the rule says."""
    assert asked({"diverged": {"action": action}}, 1.0, 9.0) == [("diverged", action, {})]


def test_on_nan_only_a_rollback_helps() -> None:
    """It is asked for at once, up to the limit; no other action is."""

    def kinds(settings: dict[str, Any], n_before: int = 0) -> list[str]:
        before = [past("rollback", 3, "rule:diverged")] * n_before
        return [
            action.kind for _, action in Watch(make_rules(settings, SPEC), {}).actions_on_divergence(before, PARAMS, 4)
        ]

    assert kinds({"diverged": {}}) == ["rollback"]
    assert kinds({"diverged": {"limit": 1}}, n_before=1) == []
    assert kinds({"diverged": {"action": "warn"}}) == kinds({"patience": {}}) == kinds({}) == []


SLOWER = [("plateau", "set", {"learning_rate": 0.05})]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 1.0, 1.0), []),
        ((1.0, 1.0, 1.0, 1.0), SLOWER),
        ((1.0, 1.2, 1.1, 1.3), SLOWER),
        ((1.0, 0.9995, 0.9995, 0.9995), SLOWER),
        ((1.0, 0.998, 0.998, 0.998), []),
        ((2.0, 1.0, 1.0, 1.0, 1.0), SLOWER),
        ((4.0, 3.0, 2.0, 1.0), []),
    ],
)
def test_on_a_plateau_the_learning_rate_is_divided(losses: tuple[float, ...], expected: list[Any]) -> None:
    """A plateau is so many epochs without an improvement worth the name."""
    assert asked({"plateau": {"epochs": 3, "improvement": 1e-3}}, *losses) == expected


@pytest.mark.parametrize("kind", ["set", "rollback"])
def test_a_new_learning_rate_gets_epochs_of_its_own(kind: str) -> None:
    """Whoever set it; other settings do not count."""
    flat = (1.0,) * 6
    rule = {"plateau": {"epochs": 3}}

    assert asked(rule, *flat, pasts=(past("set", 4, learning_rate=0.1),)) == []
    assert asked(rule, *flat, pasts=(past("set", 3, learning_rate=0.1),)) == SLOWER
    assert asked(rule, *flat, pasts=(past("set", 5, l2=0.1),)) == SLOWER
    assert asked(rule, *flat, pasts=(past("rollback", 9, target=4, learning_rate=0.1),)) == []


def test_what_was_set_before_a_rollback_counts_from_its_target() -> None:
    """Epochs that were gone back behind did not happen."""
    rule = {"plateau": {"epochs": 3}}
    pasts = (past("set", 40, learning_rate=0.1), past("rollback", 50, target=2))

    assert asked(rule, *(1.0,) * 4, pasts=pasts) == []
    assert asked(rule, *(1.0,) * 5, pasts=pasts) == SLOWER
    assert asked(rule, *(1.0,) * 5, pasts=(past("rollback", 50, target=2, learning_rate=0.1),)) == SLOWER


def test_the_learning_rate_is_not_divided_below_its_lowest() -> None:
    """It stops there, and there nothing is asked for any more."""
    flat = (1.0,) * 6

    assert asked({"plateau": {"epochs": 3, "lowest_learning_rate": 0.08}}, *flat) == [
        ("plateau", "set", {"learning_rate": 0.08})
    ]
    assert asked({"plateau": {"epochs": 3, "lowest_learning_rate": 0.1}}, *flat) == []


def test_a_plateau_is_told_each_so_many_epochs() -> None:
    """Where the rule only warns."""
    rule = {"plateau": {"epochs": 3, "action": "warn"}}

    assert [len(asked(rule, *(1.0,) * n)) for n in range(1, 9)] == [0, 0, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(("action", "told"), [("stop", [0, 0, 0, 1, 1]), ("pause", [0, 0, 0, 1, 0])])
def test_patience_ends(action: str, told: list[int]) -> None:
    """After so many epochs without improvement."""
    rule = {"patience": {"epochs": 3, "action": action}}

    assert [len(asked(rule, *(1.0,) * n)) for n in range(1, 6)] == told
    assert asked(rule, 5.0, 4.0, 3.0, 2.0, 1.0) == []


def test_after_a_rollback_or_a_stop_no_other_rule_is_asked() -> None:
    """What it saw is no longer there."""
    rules = {"patience": {"epochs": 2}, "plateau": {"epochs": 2}, "diverged": {"factor": 2.0}}

    assert [name for name, *_ in asked(rules, 1.0, 1.0, 9.0)] == ["patience"]
    assert [name for name, *_ in asked(dict(reversed(rules.items())), 1.0, 1.0, 9.0)] == ["diverged"]
    assert [name for name, *_ in asked({"plateau": {"epochs": 2}, "patience": {"epochs": 2}}, 1.0, 1.0, 1.0)] == [
        "plateau",
        "patience",
    ]


def test_by_default_people_are_only_told() -> None:
    """Nothing is done to a model that nobody asked for."""
    assert {kind for _, kind, _ in asked(dict(DEFAULT_RULES), *(1.0,) * 11, 9.0)} == {"warn"}


def test_rules_change_nothing_that_they_look_at() -> None:
    """They depend on their arguments alone."""
    rules = make_rules({"plateau": {"epochs": 2}, "diverged": {}, "patience": {"epochs": 2, "action": "warn"}}, SPEC)
    seen, done = history(1.0, 1.0, 1.0), [past("set", 1, learning_rate=0.1)]
    before = copy.deepcopy((seen, done, rules))

    first = actions_at_epoch(rules, seen, done, PARAMS)

    assert (seen, done, rules) == before
    assert actions_at_epoch(rules, dict(reversed(seen.items())), done, PARAMS) == first


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_rules_file_is_read(tmp_path: Path, encoding: str) -> None:
    """Plain data, from which the same rules are made again; some editors begin a file with a byte order mark."""
    (tmp_path / "rules.toml").write_text("[plateau]\nepochs = 4\n\n[diverged]\nfactor = 2\n", encoding)

    rules = read_rules(tmp_path / "rules.toml")

    assert list(rules) == ["plateau", "diverged"]
    assert make_rules(rules, SPEC) == {"plateau": Plateau(epochs=4), "diverged": Diverged(factor=2.0)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[plateu]", "unknown rule 'plateu' .known: diverged, plateau, patience"),
        ("plateau = 3", "rule 'plateau' must be a table, as in .plateau., found 3"),
        ("[plateau]\nepoch = 3", "rule 'plateau' has no 'epoch' .known: epochs, action"),
        ("[plateau]\nepochs = 0", "epochs of rule 'plateau' must be a whole number of at least 1, found 0"),
        ("[plateau]\nepochs = 2.5", "whole number"),
        ("[plateau]\nepochs = true", "whole number"),
        ("[plateau]\naction = 'stop'", "action of rule 'plateau' must be one of warn, set, found 'stop'"),
        ("[patience]\naction = ['stop']", "one of warn, pause, stop"),
        ("[patience]\nmetric = 3", "metric of rule 'patience' must be the name of a metric, as 'val_loss', found 3"),
        ("[diverged]\nfactor = 1", "factor of rule 'diverged' must be a number above 1, found 1"),
        ("[diverged]\nfactor = nan", "number above 1"),
        (f"[diverged]\nfactor = {10**400}", "number above 1"),
        ("[diverged]\nfactor = inf", "number above 1"),
        ("[diverged]\nfactor = '3'", "number above 1"),
        ("[diverged]\ndivide_learning_rate = 0.5", "number above 1"),
        ("[plateau]\nimprovement = -0.1", "number of at least 0"),
        ("[plateau", "are not TOML"),
    ],
)
def test_a_wrong_rules_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    """One line: what was expected, and what was found."""
    (tmp_path / "rules.toml").write_text(text)

    with pytest.raises(SettingsError, match=words):
        read_rules(tmp_path / "rules.toml")


def test_a_rules_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing, a folder, or not a text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    for name in ("missing.toml", "."):
        with pytest.raises(SettingsError, match="could not read the rules"):
            read_rules(tmp_path / name)
    with pytest.raises(SettingsError, match="are not TOML"):
        read_rules(tmp_path / "binary")


def test_rules_look_at_what_the_network_reports() -> None:
    """Metrics of its own each model has, which are not known before the study is."""
    with pytest.raises(SettingsError, match="one of train_loss, val_loss, val_accuracy, found 'loss'"):
        make_rules({"patience": {"metric": "loss"}}, SPEC)


def test_a_rule_divides_what_it_is_told_to() -> None:
    """A model of the user's own may call its learning rate otherwise; what cannot be changed is refused at once."""
    code = "class Net:\n    def train_epoch(self, epoch): ...\n    def set_params(self, lr): ...\n"
    space = {"lr": {"low": 0.01, "high": 1.0}, "kind": {"choices": ["a", "b"]}}
    own = replace(SPEC, trainable=TrainableSpec(file="/m.py", function="Net", source=code), space=space, metric="loss")
    rules = make_rules({"plateau": {"epochs": 2, "param": "lr"}}, own)

    asked = actions_at_epoch(rules, history(1.0, 1.0, 1.0, metric="loss"), [], {"lr": 1, "kind": "a"})
    assert [(name, action.kind, action.arguments) for name, action in asked] == [("plateau", "set", {"lr": 0.5})]
    for param in ("learning_rate", "kind"):
        words = rf"rule 'plateau' divides '{param}', which is no number .* give param = 'lr', or another action: warn"
        with pytest.raises(SettingsError, match=words):
            make_rules({"plateau": {"param": param}}, own)
    assert make_rules({"plateau": {"action": "warn"}}, own)
    with pytest.raises(
        SettingsError, match="'batch_size', which is no number that can be changed here; give param = 'l"
    ):
        make_rules({"plateau": {"param": "batch_size"}}, SPEC)
    # a trial of an earlier space need not have it
    (told,) = actions_at_epoch(rules, history(1.0, 1.0, 1.0, metric="loss"), [], {"other": 1})
    assert told[1].kind == "warn"


def test_what_lies_below_nothing_is_no_jump() -> None:
    """A metric of which more is better may be negative, as a reward is: no factor tells there."""
    rule = Diverged(factor=3.0, metric="reward")
    watch = Watch({"diverged": rule}, history(-5.0, -4.0, -3.0, metric="reward"), lambda metric: Direction.MAXIMIZE)

    assert watch.actions([], PARAMS) == []
