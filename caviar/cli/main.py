"""The `caviar` command. stdout is data, stderr is talk; exit 0 done, 1 an error of caviar, 2 usage, 130 interrupted."""

from __future__ import annotations

import errno
import gc
import io
import os
import re
import sys

from caviar.cli.front_page import FRONT_PAGE
from caviar.cli.talk import open_talk, send_nowhere
from caviar.errors import CaviarError

#: What a write to stdout fails with: it is full, broken, or closed.
_OUTPUT_IS_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def main() -> None:
    """Run the command line and exit."""
    # Imports make a great many objects that stay: looking for garbage among them takes a tenth of the start.
    gc.set_threshold(100_000, 50, 100)
    open_talk()
    if sys.stdout is None:  # closed by whoever started this: what would be printed goes nowhere
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a text of a trial may hold what no encoding does
    try:
        status = _run(sys.argv[1:])
        sys.stdout.flush()  # the last that can fail
    except CaviarError as error:
        _say(str(error))
        status = 1
    except KeyboardInterrupt:
        _say("interrupted; run the same command to go on", kind="")
        status = 130
    except BrokenPipeError:
        # whoever read our output has seen enough
        send_nowhere(sys.stdout.fileno())
        status = 0
    except OSError as error:
        if error.filename is None and error.errno in _OUTPUT_IS_LOST:
            send_nowhere(sys.stdout.fileno())
            _say(f"cannot write the output: {error.strerror or error}; send it to another place")
        else:
            _say(str(error) if error.filename is None else f"cannot use {error.filename!r}: {error.strerror or error}")
        status = 1
    except Exception as error:  # by the module, so that cyclopts need not be imported
        if not type(error).__module__.startswith("cyclopts"):
            raise
        page = " ".join(["caviar", *(getattr(error, "command_chain", None) or ()), "--help"])
        _say(f"{_one_line(error)}; see `{page}`", kind="usage: ")
        status = 2
    gc.freeze()  # else Python looks through all that is left before it ends, for a fifth of the time of a query
    sys.exit(status if isinstance(status, int) else 0)


def _run(words: list[str]) -> object:
    """Run one command; return its exit status, if it has one."""
    if words in ([], ["--help"], ["-h"]):
        sys.stdout.write(FRONT_PAGE)
        return 0
    from caviar.cli.commands import app  # ten times as long as the page takes

    return app(words, exit_on_error=False, print_error=False, result_action="return_value")


def _say(message: str, kind: str = "error: ") -> None:
    from caviar.cli.tables import shown
    from caviar.wording import without_passwords

    print(f"caviar: {kind}{shown(without_passwords(message))}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # a list that ends in dots, which the page names whole
    return re.sub(r" Available commands: .*, \.\.\.$", "", text).rstrip(".")
