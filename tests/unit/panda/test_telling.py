"""What is told of a record to people."""

from __future__ import annotations

import pytest

from caviar.cli.panda_log import _entry
from caviar.panda.asking import trains_again_to
from caviar.records import Intervention, Session, Status, TrialState
from caviar.testing.storage import make_trial


def applied(kind: str, epoch: int, **changes: object) -> Intervention:
    """Return an intervention that was applied at the end of an epoch."""
    return Intervention(
        trial="digits/0",
        token="t",
        kind=kind,
        status=Status.APPLIED,
        epoch=epoch,
        batch=0,
        step=10 * epoch,
        **changes,
    )


def test_what_users_wrote_stays_in_its_line() -> None:
    """A newline forges no entry of the log, and a control character does nothing to the terminal."""
    lines = _entry(applied("set", 3, author="a\x1b[31m", note="b\n  1  forged", message="c\x07", sequence=1))

    assert all(line.isprintable() for line in lines)
    assert "     note: b\\n  1  forged" in lines


@pytest.mark.parametrize(
    ("record", "epoch", "expected"),
    [
        ([], 5, None),
        ([applied("set", 5)], 5, None),
        ([applied("set", 9)], 5, (9, 90)),
        ([applied("set", 9), applied("pause", 12)], 5, (9, 90)),
        ([applied("stop", 9)], 5, (9, 90)),
        ([applied("rollback", 9, after={"epoch": 4, "batch": 0, "step": 40})], 5, None),
        ([applied("rollback", 9, after={"epoch": 7, "batch": 0, "step": 70})], 5, (7, 70)),
    ],
)
def test_a_run_behind_its_record_trains_again(
    record: list[Intervention], epoch: int, expected: tuple[int, int] | None
) -> None:
    """Until it has met the last one that steered or ended it."""
    trial = make_trial(state=TrialState.RUNNING, epoch=epoch)
    session = Session(trial=trial.name, start_params=trial.params, settings={})

    assert trains_again_to(trial, session, record, []) == expected
