"""What the command line says to people: on stderr, for as long as somebody listens."""

from __future__ import annotations

import io
import os
import sys


class Talk(io.TextIOWrapper):
    """A text stream whose reader may go away: what is said goes nowhere then, and the work goes on."""

    def write(self, text: str, /) -> int:
        """See :meth:`io.TextIOBase.write`."""
        try:
            return super().write(text)
        except BlockingIOError:  # whoever listens is slow: that much is not heard
            return len(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """See :meth:`io.IOBase.flush`."""
        try:
            super().flush()
        except BlockingIOError:
            return
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        send_nowhere(self.fileno())


def send_nowhere(descriptor: int) -> None:
    """Let what is written there, and what waits in its buffer, go nowhere; Python would complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def open_talk() -> None:
    """Let nothing that is written to stderr end the program."""
    if sys.stderr is None:  # closed by whoever started this: else `print` would take stdout
        sys.stderr = Talk(open(os.devnull, "wb"))  # noqa: PTH123, SIM115 - which is no file to be closed
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = Talk(
            sys.stderr.buffer, encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True
        )
