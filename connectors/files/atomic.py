"""Change a file at one stroke or not at all, and let every error say which file it is about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path into an ``OSError`` that has none: a failed write or fsync ("disk full")."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error


@contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    Readers see the old file or the whole new one, also after a power cut: the data are on the
    disk before the name is. After an error the old file is untouched and the new one is gone.

    Args:
        path: the file to replace.
        mode: its permissions, from before the first byte is written; by default as for any file.
    """
    new = path.with_name(f".{path.name}.new")
    with naming(path):
        try:
            with new.open("wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(fd: int, data: bytes, position: int) -> None:
    """Write `data` at `position`, the end of the file, or nothing.

    Raises:
        OSError: the disk is full or broken; the file ends at `position`.
    """
    try:
        written = os.pwrite(fd, data, position)
        while written < len(data):
            written += os.pwrite(fd, memoryview(data)[written:], position + written)
    except OSError:
        os.ftruncate(fd, position)
        raise
