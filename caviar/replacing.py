"""Writing a file whole or not at all, also where the power is cut."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write; it takes the place of `path` if nothing is raised, and is removed if it is.

    It lies beside `path`, since replacing is atomic only within one file system, under a name that no other thread,
    process or machine writes to.

    Raises:
        OSError: it cannot be put there; what `path` was before is untouched.
    """
    beside = path.parent / f".{path.name}.{secrets.token_hex(8)}.part"
    try:
        yield beside
        sync(beside)
        beside.replace(path)
        with contextlib.suppress(OSError):  # of a folder that cannot be read; the file is there all the same
            sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
