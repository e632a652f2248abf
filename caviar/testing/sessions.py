"""What every :class:`caviar.storage.base.Sessions` does with babysat trials, their leases and checkpoints.

Bind it in a test module: `class TestMine(SessionsContract)`, with a fixture `storage` that yields a fresh one. What two
processes do to each other is in `tests/integration`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from caviar.errors import PandaBusy, SettingsError, StudyBusy, StudyNotFound, TrialNotFound
from caviar.records import Intervention, Status, StoredCheckpoint, Trial, TrialResult, TrialState
from caviar.storage.base import Storage
from caviar.storage.holder import new_holder
from caviar.testing.storage import make_result, make_spec, make_trial

#: Names of owners: what is known of none of them is whether it lives.
ANNA, BORIS = "anna:1", "boris:2"
SETTINGS: dict[str, Any] = {"epochs": 5, "start_epoch": 0, "rules": {"diverged": {"factor": 2.5}}}


def babysat(storage: Storage, **changes: Any) -> Trial:
    """Add a babysat trial, in a study of its own where there is none yet."""
    if not any(summary.spec.name == "digits" for summary in storage.studies()):
        storage.create_study(make_spec())
    return storage.sessions.create(make_trial(**changes), SETTINGS)


def request(trial: Trial, token: str = "t", kind: str = "set", **changes: Any) -> Intervention:
    """Return a request to a trial."""
    given = {"arguments": {"learning_rate": 0.5} if kind == "set" else {}, **changes}
    return Intervention(trial=trial.name, token=token, kind=kind, **given)


def checkpoint(epoch: int, batch: int = 0, **changes: Any) -> StoredCheckpoint:
    """Return a checkpoint as it is before the database knows it."""
    return replace(StoredCheckpoint(path=f"d/e{epoch}-b{batch}", epoch=epoch, batch=batch, step=9 * epoch), **changes)


class SessionsContract:
    """The suite; needs a fixture `storage`."""

    @pytest.fixture
    def ended_process(self) -> Iterator[str]:
        """Name of an owner whose process has ended."""
        code = "from caviar.storage.holder import new_holder; print(new_holder())"
        yield subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    def test_a_babysat_trial_gets_the_next_number(self, storage: Storage) -> None:
        """Numbers go on where the study's trials end, and the session remembers params and settings."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0), make_trial(1)])

        made = storage.sessions.create(make_trial(0, parent="digits/1", parent_epoch=3), SETTINGS)

        assert made.name == "digits/2"
        assert storage.get_trial("digits", 2) == made
        session = storage.sessions.get("digits", 2)
        assert session is not None
        assert (session.trial, session.start_params, session.settings) == ("digits/2", made.params, SETTINGS)
        assert (session.owner, session.acquired_at, session.expires_at) == (None, None, None)

    def test_a_trial_that_nobody_babysits_has_no_session(self, storage: Storage) -> None:
        """None is returned, also for a number that does not exist."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0)])

        assert storage.sessions.get("digits", 0) is None
        assert storage.sessions.get("digits", 7) is None
        assert storage.sessions.all() == []

    def test_an_unknown_study_is_told(self, storage: Storage) -> None:
        """Each question about a study that is not there says so."""
        storage.create_study(make_spec())

        with pytest.raises(StudyNotFound, match="'other'"):
            storage.sessions.create(make_trial(study="other"), SETTINGS)
        with pytest.raises(StudyNotFound, match="'other'"):
            storage.sessions.get("other", 0)
        with pytest.raises(StudyNotFound, match="'other'"):
            storage.sessions.all("other")

    def test_ten_who_create_at_once_get_ten_numbers(self, storage: Storage) -> None:
        """No number is given twice, and none is left out."""
        storage.create_study(make_spec())

        with ThreadPoolExecutor(10) as pool:
            made = list(pool.map(lambda _: storage.sessions.create(make_trial(), SETTINGS), range(10)))

        assert sorted(trial.number for trial in made) == list(range(10))
        assert {session.trial for session in storage.sessions.all("digits")} == {f"digits/{n}" for n in range(10)}

    def test_sessions_of_one_study_or_of_all_are_listed(self, storage: Storage) -> None:
        """In the order in which they were made."""
        storage.create_study(make_spec("a"))
        storage.create_study(make_spec("b"))
        for study in ("b", "a", "b"):
            storage.sessions.create(make_trial(study=study), SETTINGS)

        assert [session.trial for session in storage.sessions.all()] == ["b/0", "a/0", "b/1"]
        assert [session.trial for session in storage.sessions.all("b")] == ["b/0", "b/1"]

    def test_a_trial_of_a_sweep_is_adopted_as_it_is_given(self, storage: Storage) -> None:
        """Trial, session and the answer to the request are written in one."""
        storage.create_study(make_spec())
        trial = make_trial(0, state=TrialState.RUNNING, epoch=4)
        storage.add_trials("digits", [trial])
        asked = storage.sessions.ask(request(trial, kind="take"))

        storage.sessions.adopt(
            replace(trial, state=TrialState.WAITING, epoch=2), SETTINGS, answer=replace(asked, status=Status.APPLIED)
        )

        assert storage.get_trial("digits", 0).state is TrialState.WAITING
        assert storage.get_trial("digits", 0).epoch == 2
        session = storage.sessions.get("digits", 0)
        assert session is not None and session.start_params == trial.params
        assert storage.sessions.asked_of("digits", "take") == []

    def test_a_session_is_restored_with_what_was_done(self, storage: Storage) -> None:
        """As from a file: of a trial in any state, all that was asked, and no lease."""
        trial = babysat(storage, value=0.5)
        storage.sessions.acquire("digits", trial.number, ANNA, 60)
        done = storage.sessions.ask(
            request(trial, author="a\x00", note="\ud800", arguments={"learning_rate": math.nan})
        )
        done = replace(
            done, status=Status.APPLIED, sequence=1, metrics_after={"val_loss": math.inf}, before={"l2": 0.0}
        )
        storage.sessions.answer(done, ANNA)
        session = storage.sessions.get("digits", trial.number)
        assert session is not None
        storage.create_study(make_spec("copy"))
        copy = replace(trial, study="copy")
        storage.add_trials("copy", [copy])

        storage.sessions.restore(replace(session, trial=copy.name), [replace(done, trial=copy.name)])

        found = storage.sessions.get("copy", copy.number)
        assert found == replace(session, trial=copy.name, owner=None, acquired_at=None, expires_at=None)
        (again,) = storage.sessions.interventions("copy", copy.number)
        assert repr(again) == repr(replace(storage.sessions.interventions("digits", 0)[0], trial=copy.name))

    @pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
    def test_a_finished_trial_is_not_adopted(self, storage: Storage, state: TrialState) -> None:
        """It stays as it is, and so does the request."""
        storage.create_study(make_spec())
        storage.add_trials("digits", [make_trial(0, state=state)])

        with pytest.raises(PandaBusy, match=f"{state}: a finished trial is not changed"):
            storage.sessions.adopt(make_trial(0), SETTINGS, answer=request(make_trial(0), kind="take"))

        assert storage.get_trial("digits", 0).state is state
        assert storage.sessions.get("digits", 0) is None
        assert storage.sessions.interventions("digits", 0) == []

    def test_a_trial_is_adopted_once(self, storage: Storage) -> None:
        """The second is told that it is babysat."""
        trial = babysat(storage)

        with pytest.raises(PandaBusy, match="babysat already"):
            storage.sessions.adopt(trial, {})

        session = storage.sessions.get("digits", 0)
        assert session is not None and session.settings == SETTINGS

    def test_a_trial_that_is_not_there_is_not_adopted(self, storage: Storage) -> None:
        """The message names its number."""
        storage.create_study(make_spec())

        with pytest.raises(TrialNotFound, match="no trial 3"):
            storage.sessions.adopt(make_trial(3), SETTINGS)

    def test_settings_change_but_for_where_it_began_and_its_epochs(self, storage: Storage) -> None:
        """What is not given stays too."""
        babysat(storage)

        storage.sessions.configure("digits", 0, {"epochs": 99, "start_epoch": 9, "rules": {}, "checkpoints": {"a": 1}})

        session = storage.sessions.get("digits", 0)
        assert session is not None
        assert session.settings == {**SETTINGS, "rules": {}, "checkpoints": {"a": 1}}
        with pytest.raises(TrialNotFound, match="not babysat"):
            storage.sessions.configure("digits", 1, {})

    # leases

    def test_a_lease_keeps_others_out_until_it_is_released(self, storage: Storage) -> None:
        """The other is told who has it and since when; whoever has it may take it again."""
        babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)

        with pytest.raises(PandaBusy, match=r"babysat by 'anna:1' since \d{4}-"):
            storage.sessions.acquire("digits", 0, BORIS, 60)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        storage.sessions.release("digits", 0, BORIS)  # not his to give up
        session = storage.sessions.get("digits", 0)
        storage.sessions.release("digits", 0, ANNA)
        storage.sessions.acquire("digits", 0, BORIS, 60)

        assert session is not None and session.owner == ANNA
        assert session.acquired_at is not None and session.expires_at is not None
        assert session.acquired_at < session.expires_at

    def test_a_lease_that_expired_is_taken_over(self, storage: Storage) -> None:
        """The first owner is out: it may neither prolong nor write, and a release is not its own."""
        babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 1e-6)

        storage.sessions.acquire("digits", 0, BORIS, 60)

        with pytest.raises(PandaBusy, match="was lost, 'boris:2' babysits it now"):
            storage.sessions.renew("digits", 0, ANNA, 60)
        storage.sessions.release("digits", 0, ANNA)
        session = storage.sessions.get("digits", 0)
        assert session is not None and session.owner == BORIS

    def test_a_lease_that_expired_is_prolonged_where_nobody_took_it(self, storage: Storage) -> None:
        """Whoever was slow, and alone, goes on."""
        babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 1e-6)

        storage.sessions.renew("digits", 0, ANNA, 60)

        with pytest.raises(PandaBusy):
            storage.sessions.acquire("digits", 0, BORIS, 60)

    def test_a_lease_that_others_took_and_gave_up_is_not_prolonged(self, storage: Storage) -> None:
        """Whoever slept while another came and went has an old state in hand."""
        babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 1e-6)
        storage.sessions.acquire("digits", 0, BORIS, 60)
        storage.sessions.release("digits", 0, BORIS)

        with pytest.raises(PandaBusy, match="was lost, nobody babysits it now"):
            storage.sessions.renew("digits", 0, ANNA, 60)

    def test_the_lease_of_a_process_that_ended_is_taken_over_at_once(
        self, storage: Storage, ended_process: str
    ) -> None:
        """It need not expire."""
        babysat(storage)
        storage.sessions.acquire("digits", 0, ended_process, 1e6)

        storage.sessions.acquire("digits", 0, ANNA, 60)

        session = storage.sessions.get("digits", 0)
        assert session is not None and session.owner == ANNA

    def test_the_lease_of_a_living_process_is_not_taken_over(self, storage: Storage) -> None:
        """Its process number is in the message."""
        babysat(storage)
        storage.sessions.acquire("digits", 0, new_holder(), 1e6)

        with pytest.raises(PandaBusy, match=str(os.getpid())):
            storage.sessions.acquire("digits", 0, ANNA, 60)

    def test_of_many_who_ask_at_once_one_gets_the_lease(self, storage: Storage) -> None:
        """The others are refused."""
        babysat(storage)

        def ask(name: str) -> bool:
            try:
                storage.sessions.acquire("digits", 0, name, 60)
            except PandaBusy:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(ask, [f"owner:{n}" for n in range(8)]))

        assert sum(got) == 1

    def test_a_lease_needs_a_session_an_owner_and_a_duration(self, storage: Storage) -> None:
        """Each mistake is told."""
        babysat(storage)

        with pytest.raises(TrialNotFound, match="not babysat"):
            storage.sessions.acquire("digits", 5, ANNA, 60)
        for owner, ttl_s in (("", 60), ("a\x00", 60), (ANNA, 0), (ANNA, math.nan), (ANNA, -1)):
            with pytest.raises(SettingsError):
                storage.sessions.acquire("digits", 0, owner, ttl_s)
            with pytest.raises(SettingsError):
                storage.sessions.renew("digits", 0, owner, ttl_s)

    # writing

    def test_trial_reports_and_checkpoint_are_written_together(self, storage: Storage) -> None:
        """The checkpoint comes back with its id and time."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        result = make_result(0, state=TrialState.RUNNING, value=None)

        written = storage.sessions.write(result, ANNA, checkpoint=checkpoint(3, pins=("start", "ü'\"")))

        assert written is not None and written.id is not None and written.created_at is not None
        assert storage.sessions.checkpoints("digits", 0) == [written]
        assert written.pins == ("start", "ü'\"")
        assert storage.get_trial("digits", 0) == result.trial
        assert len(storage.reports(trial.study, 0)) == 3

    @pytest.mark.parametrize("owner", [BORIS, ""])
    def test_who_has_lost_the_lease_changes_nothing(self, storage: Storage, owner: str) -> None:
        """Neither a trial nor a checkpoint nor a request is written, nor anything removed."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, BORIS, 60)
        kept = storage.sessions.write(TrialResult(trial=trial), BORIS, checkpoint=checkpoint(1))
        asked = storage.sessions.ask(request(trial))
        assert kept is not None
        if not owner:
            storage.sessions.release("digits", 0, BORIS)
        before = (storage.get_trial("digits", 0), len(storage.reports("digits", 0)))

        with pytest.raises(PandaBusy, match="was lost"):
            storage.sessions.write(make_result(0), ANNA, checkpoint=checkpoint(2), forgotten=[kept], answered=[asked])
        with pytest.raises(PandaBusy, match="was lost"):
            storage.sessions.answer(
                replace(asked, status=Status.APPLIED, sequence=1), ANNA, rollback_to=checkpoint(0), pinned=[kept]
            )

        assert (storage.get_trial("digits", 0), len(storage.reports("digits", 0))) == before
        assert storage.sessions.checkpoints("digits", 0) == [kept]
        assert storage.sessions.interventions("digits", 0) == [asked]

    def test_an_expired_lease_that_nobody_took_still_writes(self, storage: Storage) -> None:
        """Only another owner ends it."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 1e-6)

        assert storage.sessions.write(TrialResult(trial=trial), ANNA, checkpoint=checkpoint(1)) is not None

    def test_a_checkpoint_of_the_same_file_replaces_the_one_before(self, storage: Storage) -> None:
        """The list never names a file twice."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        storage.sessions.write(TrialResult(trial=trial), ANNA, checkpoint=checkpoint(1, sequence=1))

        written = storage.sessions.write(TrialResult(trial=trial), ANNA, checkpoint=checkpoint(1, sequence=2))

        assert storage.sessions.checkpoints("digits", 0) == [written]

    def fill_shelf(self, storage: Storage, trial: Trial, n: int) -> None:
        """Make the database know checkpoints of epochs 0 to n - 1; a binding may know a faster way."""
        for epoch in range(n):
            storage.sessions.write(TrialResult(trial=trial), ANNA, checkpoint=checkpoint(epoch))

    def test_ten_thousand_checkpoints_are_listed_and_forgotten(self, storage: Storage) -> None:
        """In the order in which they were written, and of this trial alone."""
        trial, other = babysat(storage), babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 600)
        storage.sessions.acquire("digits", 1, ANNA, 600)
        storage.sessions.write(TrialResult(trial=other), ANNA, checkpoint=checkpoint(1))
        self.fill_shelf(storage, trial, 10_000)

        found = storage.sessions.checkpoints("digits", 0)
        storage.sessions.write(TrialResult(trial=trial), ANNA, forgotten=found[1:])

        assert [c.epoch for c in found] == list(range(10_000))
        assert storage.sessions.checkpoints("digits", 0) == found[:1]
        assert len(storage.sessions.checkpoints("digits", 1)) == 1

    def test_a_study_of_which_a_trial_is_babysat_now_is_neither_renamed_nor_deleted(
        self, storage: Storage, ended_process: str
    ) -> None:
        """Whoever babysits it would lose it; one that has died or left has nothing to lose."""
        babysat(storage)
        babysat(storage)
        storage.create_study(make_spec("other"))
        storage.sessions.acquire("digits", 0, ended_process, 1e6)
        storage.sessions.acquire("digits", 1, ANNA, 60)

        with pytest.raises(StudyBusy, match="trial 'digits/1' is babysat by 'anna:1' since"):
            storage.rename_study("digits", "b")
        with pytest.raises(StudyBusy, match="trial 'digits/1' is babysat by 'anna:1' since"):
            storage.delete_study("digits")
        storage.rename_study("other", "another")
        storage.sessions.release("digits", 1, ANNA)
        storage.rename_study("digits", "b")
        storage.delete_study("b")

        assert [summary.spec.name for summary in storage.studies()] == ["another"]

    def test_deleting_the_study_deletes_what_was_babysat(self, storage: Storage) -> None:
        """Nothing is left over."""
        trial = babysat(storage)
        storage.sessions.acquire("digits", 0, ANNA, 60)
        storage.sessions.write(TrialResult(trial=trial), ANNA, checkpoint=checkpoint(1))
        storage.sessions.ask(request(trial))
        storage.sessions.release("digits", 0, ANNA)

        storage.delete_study("digits")

        assert storage.sessions.all() == []
        assert babysat(storage).number == 0
        assert storage.sessions.checkpoints("digits", 0) == []
        assert storage.sessions.interventions("digits", 0) == []
