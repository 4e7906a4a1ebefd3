"""Who may write: locks on files that end with their process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Busy(OSError):
    """Another process holds the lock, or this one does already."""


def lock(path: Path, what: str, about: Path) -> int:
    """Return a descriptor that holds the lock file at `path` until it is closed.

    Args:
        path: made if missing, and left there.
        what: what it guards, for the message.
        about: where that is, for the message.

    Raises:
        Busy: another descriptor holds it.
        OSError: the file cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Busy(error.errno, f"another process has this {what} open", str(about)) from error
    except BaseException:
        os.close(fd)
        raise
    return fd
