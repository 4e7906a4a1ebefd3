"""Who has a spool's directory, and which incarnation of its sender the frames in it are."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.files.atomic import replacing, sync_directory
from connectors.files.lock import lock
from connectors.quic.segment import SpoolDamaged


def hold(directory: Path) -> int:
    """Return a descriptor that holds the lock of ``directory`` until it is closed.

    Raises:
        Busy: another descriptor holds it.
    """
    path = directory / "lock"
    while True:
        fd = lock(path, "spool", directory)
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
    with replacing(directory / "incarnation") as file:
        file.write(b"%d\n" % number)
    sync_directory(directory.parent)
