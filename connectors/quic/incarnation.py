"""Who has a spool's directory, and which incarnation of its sender the frames in it are."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from connectors.quic.segment import SpoolDamaged


class SpoolBusy(OSError):
    """Another process, or another Spool of this one, has the directory open."""


def hold(directory: Path) -> int:
    """Return a descriptor that holds the lock of ``directory`` until it is closed.

    Raises:
        SpoolBusy: another descriptor holds it.
    """
    path = directory / "lock"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise SpoolBusy(
                error.errno, "another process has this spool open", str(directory)
            ) from error
        try:
            if os.fstat(fd).st_ino == path.stat().st_ino:
                return fd
        except FileNotFoundError:
            directory.mkdir(parents=True, exist_ok=True)
        os.close(fd)  # the file was removed between opening and locking


def read_incarnation(directory: Path) -> int | None:
    """Return the number kept in ``directory``, None if there is none.

    Raises:
        SpoolDamaged: the file holds something else.
    """
    try:
        text = (directory / "incarnation").read_text()
    except FileNotFoundError:
        return None
    if not text.strip().isdecimal():
        raise SpoolDamaged(f"{directory / 'incarnation'}: not a number")
    return int(text)


def write_incarnation(directory: Path, number: int) -> None:
    """Keep ``number`` in ``directory``, over a power failure too."""
    written = directory / "incarnation.new"
    with written.open("w") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())
    written.rename(directory / "incarnation")
    for path in (directory, directory.parent):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
