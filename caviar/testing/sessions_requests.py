"""What every :class:`caviar.storage.base.Sessions` does with requests to babysat trials, and with their record.

Bind it beside :class:`caviar.testing.sessions.SessionsContract`, to the same fixture.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from caviar.errors import RequestRejected, TrialNotFound
from caviar.records import EPOCH_METRICS, Reports, Status, TrialResult
from caviar.storage.base import Storage
from caviar.testing.sessions import ANNA, babysat, checkpoint, request
from caviar.testing.storage import AWKWARD_FLOATS, AWKWARD_TEXTS, make_spec, make_trial, same


def reports(first: int, last: int) -> Reports:
    """Return reports of some epochs, each value of which is its epoch."""
    values = np.repeat(np.arange(first, last + 1, dtype=float), len(EPOCH_METRICS)).reshape(-1, len(EPOCH_METRICS))
    return Reports(first, EPOCH_METRICS, values)


class SessionsRequestContract:
    """The suite; needs a fixture `storage`."""

    def test_a_request_waits_until_it_is_answered(self, storage: Storage) -> None:
        """Those that wait come in the order in which they were made."""
        trial = babysat(storage)
        first = storage.sessions.ask(request(trial, "z", author="anna@host", note="slower"))
        second = storage.sessions.ask(request(trial, "a", "pause"))
        storage.sessions.acquire("digits", 0, ANNA, 60)

        assert storage.sessions.asked("digits", 0) == [first, second]
        assert first.asked_at is not None and (first.status, first.author) == (Status.ASKED, "anna@host")
        answered = replace(
            first,
            status=Status.APPLIED,
            message="learning_rate 0.1 -> 0.5",
            sequence=1,
            epoch=3,
            batch=4,
            step=70,
            before={"learning_rate": 0.1},
            after={"learning_rate": 0.5, "epochs": None},
            metrics_before={"val_loss": math.inf},
            applied_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        )
        storage.sessions.answer(answered, ANNA)

        assert storage.sessions.asked("digits", 0) == [second]
        assert storage.sessions.intervention("digits", 0, "z") == answered
        assert storage.sessions.interventions("digits", 0) == [answered, second]

    def test_asking_twice_by_one_token_is_asking_once(self, storage: Storage) -> None:
        """The second gets the first's outcome, also when it has been applied meanwhile."""
        trial = babysat(storage)
        first = storage.sessions.ask(request(trial, author="anna"))
        again = storage.sessions.ask(request(trial, author="boris"))
        storage.sessions.acquire("digits", 0, ANNA, 60)
        answered = replace(first, status=Status.REJECTED, message="no")
        storage.sessions.answer(answered, ANNA)

        assert again == first
        assert storage.sessions.ask(request(trial)) == answered
        assert storage.sessions.interventions("digits", 0) == [answered]

    def test_a_token_is_not_used_for_two_requests(self, storage: Storage) -> None:
        """The second is refused; the first stands. Another trial may use it."""
        trial, other = babysat(storage), babysat(storage)
        first = storage.sessions.ask(request(trial))

        for another in (
            request(trial, kind="pause"),
            request(trial, arguments={"learning_rate": 0.4}),
            request(trial, arguments={}),
            request(trial, arguments={"learning_rate": 0.5, "l2": 1.0}),
        ):
            with pytest.raises(RequestRejected, match="'t' was used for another request"):
                storage.sessions.ask(another)
        storage.sessions.ask(request(other, kind="pause"))

        assert storage.sessions.interventions("digits", 0) == [first]

    @pytest.mark.parametrize("value", AWKWARD_FLOATS, ids=repr)
    def test_awkward_numbers_are_asked_for_and_asked_again(self, storage: Storage, value: float) -> None:
        """They come back as they are, to be rejected by whoever knows them to be wrong."""
        trial = babysat(storage)

        first = storage.sessions.ask(request(trial, arguments={"learning_rate": value}))
        storage.sessions.ask(request(trial, arguments={"learning_rate": value}))

        assert same(first.arguments["learning_rate"], value)
        (found,) = storage.sessions.asked("digits", 0)
        assert same(found.arguments["learning_rate"], value)

    @pytest.mark.parametrize("text", AWKWARD_TEXTS, ids=lambda text: ascii(text)[:20])
    def test_awkward_texts_survive(self, storage: Storage, text: str) -> None:
        """Author, note, message and text arguments come back to the letter."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        asked = storage.sessions.ask(request(trial, arguments={"name": text}, author=text, note=text))

        storage.sessions.answer(replace(asked, status=Status.REJECTED, message=text), ANNA)

        (found,) = storage.sessions.interventions("digits", 0)
        assert (found.arguments["name"], found.author, found.note, found.message) == (text, text, text, text)

    @pytest.mark.parametrize("token", ["", "NUL \x00", "\ud800"], ids=ascii)
    def test_a_token_that_cannot_be_stored_is_refused(self, storage: Storage, token: str) -> None:
        """One line says what a token is."""
        trial = babysat(storage)

        with pytest.raises(RequestRejected, match="id of a request"):
            storage.sessions.ask(request(trial, token))

    def test_a_request_to_a_trial_that_is_not_there_is_refused(self, storage: Storage) -> None:
        """Whereas one that a sweep trains may be asked for."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0), make_trial(1)])

        with pytest.raises(TrialNotFound, match="no trial 2"):
            storage.sessions.ask(request(make_trial(2), kind="take"))
        taken = storage.sessions.ask(request(make_trial(1), kind="take"))

        assert storage.sessions.asked_of("digits", "take") == [taken]
        assert storage.sessions.asked_of("digits", "pause") == []

    def test_a_rule_is_answered_without_having_asked(self, storage: Storage) -> None:
        """The record is added."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        done = request(trial, "r", author="rule:plateau", status=Status.APPLIED, sequence=1, asked_at=datetime.now(UTC))

        storage.sessions.answer(done, ANNA)

        assert storage.sessions.interventions("digits", 0) == [done]

    def test_the_record_is_in_the_order_of_application(self, storage: Storage) -> None:
        """Those that were not applied come after the others."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        asked = [storage.sessions.ask(request(trial, token)) for token in "abcd"]
        for index, sequence in ((2, 1), (0, 2)):
            storage.sessions.answer(replace(asked[index], status=Status.APPLIED, sequence=sequence), ANNA)
        storage.sessions.answer(replace(asked[1], status=Status.REJECTED), ANNA)

        assert [i.token for i in storage.sessions.interventions("digits", 0)] == ["c", "a", "b", "d"]

    def test_a_rollback_removes_later_reports_and_abandons_later_checkpoints(self, storage: Storage) -> None:
        """Those of its target and before stay; what is pinned stays pinned; other trials are not touched."""
        trial, other = babysat(storage), babysat(storage)
        for name in (trial, other):
            storage.sessions.acquire("digits", name.number, ANNA, 60)
            storage.sessions.write(TrialResult(trial=name, reports=reports(1, 5)), ANNA, checkpoint=checkpoint(5))
        places = ((1, 0), (2, 0), (2, 4), (3, 0))
        kept = [
            storage.sessions.write(TrialResult(trial=trial), ANNA, checkpoint=checkpoint(*place)) for place in places
        ]
        target, pinned = kept[1], kept[3]
        assert target is not None and pinned is not None

        storage.sessions.answer(
            request(trial, kind="rollback", status=Status.APPLIED, sequence=1),
            ANNA,
            rollback_to=target,
            pinned=[replace(pinned, pins=("branch",)), replace(target, pins=("rollback",))],
        )

        found = {(c.epoch, c.batch): (c.abandoned, c.pins) for c in storage.sessions.checkpoints("digits", 0)}
        assert found == {
            (5, 0): (True, ()),
            (1, 0): (False, ()),
            (2, 0): (False, ("rollback",)),
            (2, 4): (True, ()),
            (3, 0): (True, ("branch",)),
        }
        assert len(storage.reports("digits", 0)) == 2
        assert len(storage.reports("digits", 1)) == 5
        assert not storage.sessions.checkpoints("digits", 1)[0].abandoned

    def test_metrics_after_are_written_with_the_reports(self, storage: Storage) -> None:
        """An intervention's outcome is known an epoch later."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        done = request(trial, status=Status.APPLIED, sequence=1, asked_at=datetime.now(UTC))
        storage.sessions.answer(done, ANNA)

        known = replace(done, metrics_after={"val_loss": 0.25})
        storage.sessions.write(TrialResult(trial=trial, reports=reports(1, 1)), ANNA, answered=[known])

        assert storage.sessions.interventions("digits", 0) == [known]
