"""A digest for every frame of an incarnation, kept after the frames are pruned.

Eight bytes each in one file, in the order of the frames. With them a flow that starts again from
its beginning is held to what it sent before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from connectors.files.atomic import write_all
from connectors.quic.segment import Segment, SpoolDamaged

_SIZE = 8
_BLOCK = 512  # digests read at a time


class Digests:
    """The file of digests of one spool.

    Args:
        directory: the spool's, named in errors.
        fd: the open file; whoever opened it closes it.
    """

    def __init__(self, directory: Path, fd: int) -> None:
        self._directory = directory
        self.fd = fd
        self._block = (0, b"")

    def restore(self, segments: Sequence[Segment], synced: int) -> None:
        """Make the digests those of the frames in ``segments``; the ``synced`` ones are sure to be.

        Raises:
            SpoolDamaged: digests of frames that are pruned are missing.
        """
        count = os.fstat(self.fd).st_size // _SIZE
        end = segments[-1].end
        if count < segments[0].start:
            raise SpoolDamaged(f"{self._directory}: digests of frames from {count} on are missing")
        sure = min(count, synced, end)
        for segment in segments:
            if segment.end > sure:
                begin = max(sure, segment.start)
                write_all(self.fd, segment.digests(begin), _SIZE * begin)
        os.ftruncate(self.fd, _SIZE * end)

    def write(self, sequence: int, mark: bytes) -> None:
        """Add the digest of frame ``sequence``, the next one.

        Raises:
            OSError: it was not written.
        """
        write_all(self.fd, mark, _SIZE * sequence)

    def __getitem__(self, sequence: int) -> bytes:
        start, block = self._block
        if not start <= sequence < start + len(block) // _SIZE:
            start, block = sequence, os.pread(self.fd, _BLOCK * _SIZE, _SIZE * sequence)
            self._block = (start, block)
        position = _SIZE * (sequence - start)
        return block[position : position + _SIZE]

    def cut(self, sequence: int) -> None:
        """Forget the digests from ``sequence`` on."""
        os.ftruncate(self.fd, _SIZE * sequence)
        self._block = (0, b"")

    def sync(self) -> None:
        """Return when all are on the platter."""
        os.fdatasync(self.fd)
