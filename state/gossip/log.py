"""The updates that a peer can still give to others: the newest ones, within limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from state.gossip.events import Update
from state.gossip.messages import Range

_OVERHEAD = 64


class Log:
    """Updates by (origin, seq); the ones that came first are dropped first.

    >>> log = Log(updates=2, size=10_000)
    >>> for seq in (1, 2, 3): log.append(Update("a#1", seq, b"x"))
    >>> [update.seq for update in log], log.get("a#1", 1)
    ([2, 3], None)

    Args:
        updates: How many are kept at most.
        size: How many bytes they may have together; the newest one is kept whatever its size.
    """

    def __init__(self, updates: int, size: int) -> None:
        self._most = updates
        self._most_bytes = size
        self._updates: dict[tuple[str, int], Update] = {}
        self.size = 0
        self.dropped = 0
        """How many were dropped for the limits."""

    def __len__(self) -> int:
        return len(self._updates)

    def __iter__(self) -> Iterator[Update]:
        return iter(self._updates.values())

    def append(self, update: Update) -> None:
        """Add an update that is not there."""
        updates = self._updates
        updates[update.origin, update.seq] = update
        self.size += len(update.payload) + _OVERHEAD
        while len(updates) > 1 and (len(updates) > self._most or self.size > self._most_bytes):
            gone = updates.pop(next(iter(updates)))
            self.size -= len(gone.payload) + _OVERHEAD
            self.dropped += 1

    def get(self, origin: str, seq: int) -> Update | None:
        """Return an update, if it is still there."""
        return self._updates.get((origin, seq))

    def select(self, ranges: Iterable[Range], size: int) -> tuple[list[Update], list[Range], bool]:
        """Return the updates of `ranges` that are here, what is not, and whether all was looked at.

        Looks at as many as fit in about `size` bytes.
        """
        found: list[Update] = []
        absent: list[Range] = []
        for row in ranges:
            gap = 0
            for seq in range(row.first, row.last + 1):
                update = self._updates.get((row.origin, seq))
                if update is None:
                    gap = gap or seq
                    size -= 16
                else:
                    if gap:
                        absent.append(Range(row.origin, gap, seq - 1))
                        gap = 0
                    found.append(update)
                    size -= len(update.payload) + _OVERHEAD
                if size <= 0:
                    if gap:
                        absent.append(Range(row.origin, gap, seq))
                    return found, absent, False
            if gap:
                absent.append(Range(row.origin, gap, row.last))
        return found, absent, True


def runs(updates: Iterable[Update]) -> list[Range]:
    """Return the numbers of `updates`, joined where they follow each other."""
    pairs = sorted((update.origin, update.seq) for update in updates)
    ranges: list[Range] = []
    at, first, last = "", 0, -1
    for origin, seq in pairs:
        if origin == at and seq == last + 1:
            last = seq
            continue
        if first:
            ranges.append(Range(at, first, last))
        at, first, last = origin, seq, seq
    if first:
        ranges.append(Range(at, first, last))
    return ranges
