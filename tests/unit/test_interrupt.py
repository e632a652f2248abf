"""Signals that are questions to this process, and what they are to the processes that it starts."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from caviar.cli.interrupt import interruptible


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_ends_by_sigterm() -> None:
    """As a pool ends its own: they have this process's handlers, and nobody asks them."""
    with interruptible() as is_interrupted:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writer, b"x")
            time.sleep(60)
            os._exit(1)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        os.close(writer)
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
        assert not is_interrupted()

        os.kill(os.getpid(), signal.SIGTERM)
        assert is_interrupted()
    assert sys.exc_info() == (None, None, None)
