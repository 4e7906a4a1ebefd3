"""The frames of one sender that its peer does not yet have for good: on disk, newest in memory.

A directory holds one *incarnation* of a sender: an unbroken sequence of frames from 0. Files:

| file | what |
| --- | --- |
| `lock` | held with flock by the process that has the spool open |
| `incarnation` | its number, in digits |
| `schemas` | schemas by id, appended |
| `<first sequence>.frames` | frames, in segments of about 8 MiB, deleted once pruned |
| `digests` | eight bytes for every frame of the incarnation, pruned ones too |
| `marks` | where pruning has come to, and what is known to be on the platter |

Frames are handed to the kernel before `append` returns, so a killed process loses none; what a
power failure leaves after the last `sync` is cut off at the first record that is not whole.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from connectors.quic.digests import Digests
from connectors.quic.incarnation import hold, read_incarnation, write_incarnation
from connectors.quic.schemas import Schemas
from connectors.quic.segment import HEADER, SpoolDamaged, digest
from connectors.quic.segments import Segments, paths_of
from state.frames import Data, Kind

__all__ = ["Spool", "SpoolConflict", "SpoolDamaged"]

_SEGMENT = 8 << 20
_PRUNED = 8  # segments' worth of pruned files that may wait for the next sync
_OVERHEAD = 200  # bytes of memory that a frame takes besides its body
_MARKS = struct.Struct("<QQI")  # pruned, synced, CRC-32 of both


class SpoolConflict(ValueError):
    """A flow that started again did not produce the items that it produced before."""


class Spool:
    """Unacknowledged frames of one sender.

    Safe to call from several threads. Opening a new directory starts an incarnation with the
    wall clock in nanoseconds as its number, or one more than the number found there if that is
    larger; opening a used one goes on with the frames in it, cutting a torn last record.

    Args:
        directory: made if missing, with its parents.
        memory: bytes of the newest frames that are also kept in memory.
        segment: bytes after which a new file is begun.
        clock: wall clock in nanoseconds.

    Raises:
        Busy: the directory is open elsewhere.
        SpoolDamaged: files are missing or damaged beyond a torn end.

    >>> import tempfile
    >>> spool = Spool(Path(tempfile.mkdtemp()) / "worker-0")
    >>> [spool.append(Kind.BYTES, 0, body) for body in (b"a", b"b", b"c")]
    [0, 1, 2]
    >>> spool.prune(1)
    >>> [frame.body for frame in spool.read(1, 1000)]
    [b'b', b'c']
    >>> spool.rewind(0)
    >>> spool.append(Kind.BYTES, 0, b"a")
    0
    >>> spool.append(Kind.BYTES, 0, b"x")
    Traceback (most recent call last):
        ...
    connectors.quic.spool.SpoolConflict: ...item 1 differs from the one sent before...
    >>> spool.remove()
    """

    def __init__(
        self,
        directory: Path,
        *,
        memory: int = 16 << 20,
        segment: int = _SEGMENT,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directory = directory
        self._memory_limit = memory
        self._segment_size = segment
        self._lock = threading.Lock()
        self._memory: dict[int, Data] = {}  # frames [next - len, next)
        self._memory_held = 0
        self._synced = 0
        self._closed = False
        directory.mkdir(parents=True, exist_ok=True)
        self._files = ExitStack()
        self._files.callback(os.close, hold(directory))  # closed last
        try:
            self._open(clock)
        except BaseException:
            self._close()
            raise

    def _open(self, clock: Callable[[], int]) -> None:
        directory = self._directory
        found = read_incarnation(directory)
        if not paths_of(directory):
            for name in ("schemas", "digests", "marks"):
                (directory / name).unlink(missing_ok=True)
            found = max(clock(), 0 if found is None else found + 1)
            write_incarnation(directory, found)
        elif found is None:
            raise SpoolDamaged(f"{directory}: frames without an incarnation: delete or restore it")
        self.incarnation = found
        """Tells this sequence of frames from earlier ones of the same sender."""
        self._schemas = Schemas(directory / "schemas", self._file("schemas"))
        self._digests = Digests(directory, self._file("digests"))
        self._marks_fd = self._file("marks")
        pruned = self._read_marks()
        self._segments = Segments(directory, self._segment_size, self._synced)
        self._files.callback(self._segments.close)
        self._next = self._cursor = self._segments.end
        self._digests.restore(self._segments.parts, self._synced)
        self._write_marks(0)  # takes its disk block now: pruning must work when the disk is full
        self._forget(min(pruned, self._next))

    @property
    def schemas(self) -> Mapping[int, bytes]:
        """Schemas by id, as handed to `add_schema`."""
        return self._schemas.bodies

    @property
    def first(self) -> int:
        """The lowest sequence that is kept."""
        return self._segments.first

    @property
    def next(self) -> int:
        """One more than the highest sequence ever written."""
        return self._next

    @property
    def cursor(self) -> int:
        """The sequence that the next `append` takes: `next`, or lower after `rewind`."""
        return self._cursor

    @property
    def held(self) -> int:
        """Bytes on disk of the frames [first, next), headers included."""
        return self._segments.held

    def add_schema(self, id: int, body: bytes) -> None:  # noqa: A002
        """Keep a schema before the first frame that names it. Twice the same is once.

        Raises:
            ValueError: ``id`` has another schema.
            OSError: the disk is full; nothing was added.
        """
        with self._lock:
            self._check_open()
            try:
                self._schemas.add(id, body)
            except OSError as error:
                raise self._failure(error) from error

    def append(self, kind: Kind, schema: int, body: bytes) -> int:
        """Keep a frame and return its sequence; the kernel has it when this returns.

        After `rewind`, a frame that was written before is compared instead.

        Raises:
            SpoolConflict: it differs from the one written before under that sequence.
            OSError: it was not written (the disk is full); the spool is as before.
        """
        mark = digest(kind, schema, body)
        with self._lock:
            self._check_open()
            sequence = self._cursor
            if sequence < self._next:
                if self._digests[sequence] != mark:
                    raise SpoolConflict(
                        f"{self._directory}: item {sequence} differs from the one sent before "
                        "the restart. The flow did not produce the same items again, so they "
                        "cannot be counted once: use hold=True, which sends items only when a "
                        "snapshot covers them"
                    )
                self._cursor = sequence + 1
                return sequence
            if schema and schema not in self.schemas:
                raise ValueError(f"schema {schema} is used before it was added")
            try:
                self._append(kind, schema, body, mark)
            except OSError:
                self._digests.sync()
                if not self._segments.delete_pruned(self._next):
                    raise
                self._append(kind, schema, body, mark)
            self._next = self._cursor = sequence + 1
            self._remember(Data(sequence, kind, schema, body))
            return sequence

    def read(self, sequence: int, limit: int) -> list[Data]:
        """Return frames from ``sequence`` on, about ``limit`` bytes and at least one.

        Empty only if ``sequence`` is `next`.

        Raises:
            ValueError: ``sequence`` is pruned or was never written.
            SpoolDamaged: a file was changed by someone else.
        """
        with self._lock:
            self._check_open()
            if not self.first <= sequence <= self._next:
                raise ValueError(
                    f"{self._directory}: frame {sequence} is not in [{self.first}, {self._next})"
                )
            frames: list[Data] = []
            left = limit
            while sequence < self._next - len(self._memory) and (left > 0 or not frames):
                more = self._segments.read(sequence, left)
                frames += more
                sequence += len(more)
                left -= sum(len(frame.body) + HEADER.size for frame in more)
            while sequence < self._next and (left > 0 or not frames):
                frame = self._memory[sequence]
                frames.append(frame)
                sequence += 1
                left -= len(frame.body) + HEADER.size
            return frames

    def prune(self, sequence: int) -> None:
        """Forget the frames below ``sequence``: the peer has them for good.

        Files of which all frames are pruned go with the next `sync`, or when they are many or
        the disk is full: deleting them waits for the disk. Lower than `first` does nothing.

        Raises:
            ValueError: ``sequence`` is above `next`.
        """
        with self._lock:
            self._check_open()
            if sequence > self._next:
                raise ValueError(
                    f"{self._directory}: told to forget frames below {sequence}, "
                    f"but only {self._next} were written"
                )
            self._forget(sequence)

    def rewind(self, sequence: int) -> None:
        """Expect the frames from ``sequence`` on to be appended again, each the same.

        Those from `first` on stay readable meanwhile. Not remembered over a restart.

        Raises:
            ValueError: ``sequence`` is above `next` or negative.
        """
        with self._lock:
            self._check_open()
            if not 0 <= sequence <= self._next:
                raise ValueError(
                    f"{self._directory}: cannot go back to {sequence}: {self._next} were written"
                )
            self._cursor = sequence

    def cut(self, sequence: int) -> None:
        """Drop the frames from ``sequence`` on, which were never sent, and go on from there.

        Raises:
            ValueError: ``sequence`` is above `next`, or below `first` (so the peer has it).
        """
        with self._lock:
            self._check_open()
            if not self.first <= sequence <= self._next:
                raise ValueError(
                    f"{self._directory}: cannot cut at {sequence}: "
                    f"frames [{self.first}, {self._next}) are kept"
                )
            for number in range(max(sequence, self._next - len(self._memory)), self._next):
                self._memory_held -= len(self._memory.pop(number).body) + _OVERHEAD
            self._synced = min(self._synced, sequence)
            self._write_marks(self.first)
            self._segments.cut(sequence)
            self._digests.cut(sequence)
            self._next = self._cursor = sequence

    def sync(self) -> None:
        """Return when everything appended so far would survive a power failure.

        Other threads may append and read meanwhile.
        """
        with self._lock:
            self._check_open()
            reached = self._next
            fds = [os.dup(fd) for fd in (self._digests.fd, self._schemas.fd, self._marks_fd)]
            fds += self._segments.to_sync()
            fds.append(os.open(self._directory, os.O_RDONLY))
        try:
            for fd in fds:
                os.fsync(fd)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            for fd in fds:
                os.close(fd)
        with self._lock:
            if not self._closed:
                self._synced = min(reached, self._next)
                self._write_marks(self.first)
                self._segments.delete_pruned(self._synced)

    def remove(self) -> None:
        """Close the spool and delete its files, and the directory if nothing else is in it."""
        with self._lock:
            self._check_open()
            self._segments.remove()
            for name in ("digests", "schemas", "marks", "incarnation", "lock"):
                (self._directory / name).unlink(missing_ok=True)
            self._close()
            if not any(self._directory.iterdir()):
                self._directory.rmdir()

    def close(self) -> None:
        """Close the files; the frames stay. Twice is once."""
        with self._lock:
            if not self._closed:
                self._close()

    def _close(self) -> None:
        self._closed = True
        self._files.close()
        self._memory.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self._directory}: the spool is closed")

    def _file(self, name: str) -> int:
        fd = os.open(self._directory / name, os.O_RDWR | os.O_CREAT, 0o600)
        self._files.callback(os.close, fd)
        return fd

    def _failure(self, error: OSError) -> OSError:
        return OSError(error.errno, f"cannot keep frames: {error.strerror}", str(self._directory))

    # Opening

    def _read_marks(self) -> int:
        data = os.pread(self._marks_fd, _MARKS.size, 0)
        if len(data) < _MARKS.size or zlib.crc32(data[:16]) != _MARKS.unpack(data)[2]:
            return 0
        pruned, self._synced, _ = _MARKS.unpack(data)
        return int(pruned)

    def _write_marks(self, pruned: int) -> None:
        data = struct.pack("<QQ", pruned, self._synced)
        os.pwrite(self._marks_fd, data + struct.pack("<I", zlib.crc32(data)), 0)

    # Frames

    def _append(self, kind: Kind, schema: int, body: bytes, mark: bytes) -> None:
        """Write a frame and its digest, or neither."""
        try:
            self._segments.append(kind, schema, body, mark)
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._digests.write(self._next, mark)
        except OSError as error:
            self._segments.take_back()
            raise self._failure(error) from error

    def _remember(self, frame: Data) -> None:
        self._memory[frame.sequence] = frame
        self._memory_held += len(frame.body) + _OVERHEAD
        while self._memory_held > self._memory_limit:
            oldest = self._memory.pop(self._next - len(self._memory))
            self._memory_held -= len(oldest.body) + _OVERHEAD

    def _forget(self, sequence: int) -> None:
        if sequence <= self.first:
            return
        self._write_marks(sequence)
        for number in range(self._next - len(self._memory), sequence):
            self._memory_held -= len(self._memory.pop(number).body) + _OVERHEAD
        self._segments.prune(sequence)
        # Only what is synced goes: without its file, nothing else knows a frame's digest.
        if self._segments.pruned > _PRUNED * self._segment_size:
            self._digests.sync()
            self._segments.delete_pruned(sequence)
