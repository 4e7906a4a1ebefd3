"""One file of a spool: consecutive frames, each with its own header and digest.

A record is u64 sequence, u32 length, u8 kind, u32 schema, eight bytes of digest, and the body,
little-endian. A record that was torn by a crash fails its length or its digest.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from bisect import bisect_right
from pathlib import Path

from connectors.files.atomic import write_all
from state.frames import Data, Kind

SUFFIX = ".frames"
HEADER = struct.Struct("<QIBI8s")
_MARKED = struct.Struct("<BI")
_DATA_KINDS = {int(kind): kind for kind in Kind if kind >= Kind.BATCH}


class SpoolDamaged(ValueError):
    """Files of a spool are missing or were changed by someone else."""


def digest(kind: int, schema: int, body: bytes) -> bytes:
    """Return eight bytes of SHA-256, the fastest hash here, that tell one frame from another."""
    state = hashlib.sha256(_MARKED.pack(kind, schema), usedforsecurity=False)
    state.update(body)
    return state.digest()[:8]


class Segment:
    """The frames [start, start + count) in one file.

    Only the newest segment of a spool is open; the others are opened to be read. Offsets of
    records are found by one pass when they are first asked for, and may be forgotten.
    """

    __slots__ = ("_fd", "_offsets", "count", "path", "size", "start")

    def __init__(self, path: Path, start: int, count: int, size: int) -> None:
        self.path = path
        self.start = start
        self.count = count
        self.size = size
        self._offsets: array[int] | None = None
        self._fd = -1

    @classmethod
    def create(cls, directory: Path, start: int) -> Segment:
        """Make the empty file of the frames from ``start`` on, open for appending."""
        segment = cls(path_of(directory, start), start, 0, 0)
        segment._fd = os.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        segment._offsets = array("Q")
        return segment

    @property
    def end(self) -> int:
        """The sequence after its last frame."""
        return self.start + self.count

    def fileno(self) -> int:
        """Return the descriptor of the open file."""
        return self._fd

    def open(self) -> None:
        """Open the file for appending."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR)

    def close(self) -> None:
        """Close the file; the segment can still be read."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def recover(self) -> bool:
        """Count the sound frames in the file; return whether they fill it."""
        data = self.path.read_bytes()
        offsets = array("Q")
        position, sequence = 0, self.start
        while position + HEADER.size <= len(data):
            number, length, kind, schema, mark = HEADER.unpack_from(data, position)
            end = position + HEADER.size + length
            if number != sequence or kind not in _DATA_KINDS or end > len(data):
                break
            if digest(kind, schema, data[position + HEADER.size : end]) != mark:
                break
            offsets.append(position)
            position, sequence = end, sequence + 1
        self.count, self.size, self._offsets = len(offsets), position, offsets
        return position == len(data)

    def append(self, kind: int, schema: int, body: bytes, mark: bytes) -> int:
        """Write the next frame; return the bytes it took.

        Raises:
            OSError: it was not written; the segment is as before.
        """
        head = HEADER.pack(self.end, len(body), kind, schema, mark)
        total = len(head) + len(body)
        try:
            written = os.pwritev(self._fd, (head, body), self.size)
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        if written < total:
            write_all(self._fd, head + body, self.size)
        offsets = self._index()
        offsets.append(self.size)
        self.count += 1
        self.size += total
        return total

    def truncate(self, sequence: int) -> None:
        """Forget the frames from ``sequence`` on."""
        size = self.offset(sequence)
        self.open()
        os.ftruncate(self._fd, size)
        del self._index()[sequence - self.start :]
        self.count, self.size = sequence - self.start, size

    def restart(self, directory: Path) -> None:
        """Forget all frames and go on after them, in the same file under its next name.

        Renamed first: a file whose records do not fit its name is cut to nothing when it is
        opened, while an empty one under its old name would deny that there ever were frames.
        """
        renamed = path_of(directory, self.end)
        self.path.rename(renamed)
        self.path, self.start, self.count, self.size = renamed, self.end, 0, 0
        self._offsets = array("Q")
        os.ftruncate(self._fd, 0)

    def offset(self, sequence: int) -> int:
        """Return where frame ``sequence`` starts in the file."""
        index = sequence - self.start
        if index == self.count:
            return self.size
        return self._index()[index]

    def read(self, sequence: int, limit: int) -> list[Data]:
        """Return frames from ``sequence`` on: at least one, and no more than ``limit`` bytes.

        Raises:
            SpoolDamaged: what the file holds is not what was written.
        """
        offsets = self._index()
        first = sequence - self.start
        begin = offsets[first]
        last = max(bisect_right(offsets, begin + limit, lo=first) - 1, first + 1)
        end = offsets[last] if last < len(offsets) else self.size
        data = self._bytes(begin, end)
        frames: list[Data] = []
        position = 0
        while position < len(data):
            number, length, kind, schema, mark = HEADER.unpack_from(data, position)
            start = position + HEADER.size
            position = start + length
            body = data[start:position]
            if number != sequence or digest(kind, schema, body) != mark:
                raise SpoolDamaged(f"{self.path}: frame {sequence} is not what was written")
            frames.append(Data(sequence, _DATA_KINDS[kind], schema, body))
            sequence += 1
        return frames

    def digests(self, sequence: int) -> bytes:
        """Return the digests of the frames from ``sequence`` on."""
        data = self.path.read_bytes()
        offsets = self._index()[sequence - self.start :]
        return b"".join(HEADER.unpack_from(data, offset)[4] for offset in offsets)

    def forget_offsets(self) -> None:
        """Free the memory of the offsets; the next use reads the file again."""
        self._offsets = None

    def _index(self) -> array[int]:
        if self._offsets is None:
            data = self.path.read_bytes()[: self.size]
            offsets = array("Q")
            position = 0
            while position + HEADER.size <= len(data):
                offsets.append(position)
                position += HEADER.size + HEADER.unpack_from(data, position)[1]
            if len(offsets) != self.count or position != self.size:
                raise SpoolDamaged(f"{self.path}: its records do not add up to its size")
            self._offsets = offsets
        return self._offsets

    def _bytes(self, begin: int, end: int) -> bytes:
        fd = self._fd if self._fd >= 0 else os.open(self.path, os.O_RDONLY)
        try:
            data = os.pread(fd, end - begin, begin)
        finally:
            if fd != self._fd:
                os.close(fd)
        if len(data) != end - begin:
            raise SpoolDamaged(f"{self.path}: shorter than what was written")
        return data


def path_of(directory: Path, start: int) -> Path:
    """Return the file of the frames from ``start`` on."""
    return directory / f"{start:020d}{SUFFIX}"
