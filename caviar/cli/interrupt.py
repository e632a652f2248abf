"""Ctrl-C, SIGTERM and a closed terminal as a question that a loop asks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end what is done meanwhile as Ctrl-C does, so that it can clear away what is half done."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into an answer to `is_interrupted`; a second Ctrl-C ends at once."""
    asked, here = False, os.getpid()

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if os.getpid() != here:  # a child of this process, as of a pool that ends its own
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if asked and number != hangup:  # of which a terminal that is closed may send several
            raise KeyboardInterrupt
        asked = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # as under nohup
        numbers.append(hangup)
    before = {number: signal.signal(number, ask) for number in numbers}

    def is_interrupted() -> bool:
        if threading.current_thread() is threading.main_thread():  # no other may
            signal.signal(signal.SIGTERM, ask)  # in the place of Ray's, which comes with it and prints a stack
        return asked

    try:
        yield is_interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
