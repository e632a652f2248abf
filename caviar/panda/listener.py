"""Hearing what other processes ask, on a thread of its own: training does not stop to look into the database."""

from __future__ import annotations

import threading
from contextlib import suppress

from caviar.errors import StorageUnreachable
from caviar.storage import Storage

#: How often the database is asked whether there is a request.
_LOOK_S = 0.03


class Listener:
    """Looks for requests to one trial; the first look is due at once.

    Args:
        storage: the trial database.
        trial: (study, number).
    """

    def __init__(self, storage: Storage, trial: tuple[str, int]) -> None:
        self._sessions, self._trial = storage.sessions, trial
        self._heard, self._closed = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._heard.set()  # what was asked before this run is to be answered before it goes on
        self._thread = threading.Thread(target=self._run, name=f"listener of {trial[0]}/{trial[1]}", daemon=True)
        self._thread.start()

    def has_heard(self) -> bool:
        """Return whether something was asked since the last call; where it was, look what.

        Raises:
            StorageError: the database could not be read.
        """
        if self._error is not None:
            raise self._error
        if not self._heard.is_set():
            return False
        self._heard.clear()  # before the caller looks: what is asked meanwhile is heard again
        return True

    def wait(self, timeout_s: float) -> None:
        """Return when something has been asked, or so much time has passed."""
        self._heard.wait(timeout_s)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closed.wait(_LOOK_S):
                with suppress(StorageUnreachable):  # the scribe says so, and gives up if that lasts
                    if not self._heard.is_set() and self._sessions.asked(*self._trial):
                        self._heard.set()
        except BaseException as error:  # noqa: BLE001 - raised by the next call of the other thread
            self._error = error
            self._heard.set()
