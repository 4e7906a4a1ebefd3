"""The files of a spool's frames: consecutive segments, the newest one open."""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path

from connectors.quic.segment import SUFFIX, Segment
from state.frames import Data, Kind

_INDEXED = 4  # closed segments whose offsets are kept in memory


class Segments:
    """The frames [first, end) of a spool, on disk.

    Not safe to call from several threads.

    Args:
        directory: the spool's.
        size: bytes after which a new segment is begun.
        synced: frames below this are known to be on the platter, and are not read again.
    """

    def __init__(self, directory: Path, size: int, synced: int) -> None:
        self._directory = directory
        self._size = size
        self._indexed: list[Segment] = []
        self._pruned: list[Segment] = []  # pruned, and not yet deleted
        self._unsynced: list[Segment] = []  # closed since the last sync
        self._segments: list[Segment] = []
        self._recover(synced)
        if not self._segments:
            self._segments.append(Segment.create(directory, 0))
        self._segments[-1].open()
        self.first = self._segments[0].start
        """The oldest frame that is not pruned."""
        self._first_offset = 0
        self.held = sum(part.size for part in self._segments)
        """Bytes of the frames [first, end), headers included."""

    def _recover(self, synced: int) -> None:
        """Find the segments, cut at the first record that is not whole."""
        paths = paths_of(self._directory)
        starts = [int(path.name.removesuffix(SUFFIX)) for path in paths]
        for i, (path, start) in enumerate(zip(paths, starts, strict=True)):
            end = starts[i + 1] if i + 1 < len(starts) else None
            segment = Segment(path, start, (end or start) - start, path.stat().st_size)
            self._segments.append(segment)
            if end is not None and end <= synced:
                continue
            whole = segment.recover()
            if end is None or not whole or segment.end != end:
                if not whole:
                    os.truncate(path, segment.size)
                for later in paths[i + 1 :]:
                    later.unlink()
                break
            segment.forget_offsets()
            self._unsynced.append(segment)

    @property
    def end(self) -> int:
        """The sequence after the newest frame."""
        return self._segments[-1].end

    @property
    def parts(self) -> tuple[Segment, ...]:
        """The segments that hold frames from `first` on."""
        return tuple(self._segments)

    @property
    def pruned(self) -> int:
        """Bytes of pruned files that are still there."""
        return sum(part.size for part in self._pruned)

    def append(self, kind: Kind, schema: int, body: bytes, mark: bytes) -> None:
        """Write the next frame.

        Raises:
            OSError: it was not written; all is as before, but for an empty new file.
        """
        segment = self._segments[-1]
        if segment.size >= self._size:
            segment = self._roll()
        self.held += segment.append(kind, schema, body, mark)

    def take_back(self) -> None:
        """Forget the newest frame, just appended."""
        last = self._segments[-1]
        size = last.size
        last.truncate(last.end - 1)
        self.held -= size - last.size

    def read(self, sequence: int, limit: int) -> list[Data]:
        """Return frames of one file from ``sequence`` on: at least one, or about ``limit`` bytes.

        Raises:
            SpoolDamaged: the file is not what was written.
        """
        segment = self._segments[bisect_right(self._segments, sequence, key=_start) - 1]
        frames = segment.read(sequence, limit)
        self._keep_indexed(segment)
        return frames

    def prune(self, sequence: int) -> None:
        """Forget the frames below ``sequence``, which is above `first`."""
        while len(self._segments) > 1 and self._segments[0].end <= sequence:
            dropped = self._segments.pop(0)
            self.held -= dropped.size - self._first_offset
            self._first_offset = 0
            self._pruned.append(dropped)
        segment = self._segments[0]
        offset = segment.offset(sequence)
        self._keep_indexed(segment)
        self.held -= offset - self._first_offset
        self.first, self._first_offset = sequence, offset

    def delete_pruned(self, below: int) -> bool:
        """Delete the pruned files whose frames are all below ``below``; return if any were."""
        deleted = False
        while self._pruned and self._pruned[0].end <= below:
            self._discard(self._pruned.pop(0))
            deleted = True
        last = self._segments[-1]
        if last.count and self.first == last.end <= below:
            last.restart(self._directory)
            self._first_offset = 0
            deleted = True
        return deleted

    def cut(self, sequence: int) -> None:
        """Drop the frames from ``sequence`` on."""
        while self._segments[-1].start > sequence:
            dropped = self._segments.pop()
            self.held -= dropped.size
            self._discard(dropped)
        last = self._segments[-1]
        self.held -= last.size
        last.truncate(sequence)
        self.held += last.size

    def to_sync(self) -> list[int]:
        """Return descriptors, the caller's to close, of the files written since the last call."""
        closed, self._unsynced = self._unsynced, []
        fds = [os.dup(self._segments[-1].fileno())]
        fds += [os.open(part.path, os.O_RDONLY) for part in closed if part.end > self.first]
        return fds

    def remove(self) -> None:
        """Delete all files."""
        for segment in reversed([*self._pruned, *self._segments]):
            self._discard(segment)

    def close(self) -> None:
        """Close the files."""
        for segment in self._segments:
            segment.close()

    def _roll(self) -> Segment:
        """Begin a new segment."""
        last = self._segments[-1]
        created = Segment.create(self._directory, last.end)
        last.close()
        self._unsynced.append(last)
        self._keep_indexed(last)
        self._segments.append(created)
        return created

    def _keep_indexed(self, segment: Segment) -> None:
        """Keep the offsets of ``segment``, and those of few others."""
        if segment is self._segments[-1]:
            return
        if segment in self._indexed:
            self._indexed.remove(segment)
        self._indexed.append(segment)
        if len(self._indexed) > _INDEXED:
            self._indexed.pop(0).forget_offsets()

    def _discard(self, segment: Segment) -> None:
        segment.close()
        segment.path.unlink(missing_ok=True)
        for kept in (self._indexed, self._unsynced):
            if segment in kept:
                kept.remove(segment)


def paths_of(directory: Path) -> list[Path]:
    """Return the files of frames in ``directory``, oldest first."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def _start(segment: Segment) -> int:
    return segment.start
