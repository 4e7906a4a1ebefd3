"""The updates that a peer can still give to others: the newest ones, within limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from state.gossip.events import Update
from state.gossip.messages import Range

_OVERHEAD = 64


class Log:
    """Updates by (origin, seq); the ones that came first are dropped first.

    An update that nobody else may have (the peer's own, and those of its earlier lives) is *kept*
    until it is stable, while others are dropped: but not if such updates alone take up more than
    half of the limits. As long as the log is `held`, none of them is dropped, whatever the limits:
    a peer with an old state may still be given another in its place, and its own updates again.

    >>> log = Log(updates=4, size=10_000)
    >>> log.append(Update("me#1", 1, b"x"), keep=True)
    >>> for seq in (1, 2, 3, 4): log.append(Update("a#1", seq, b"x"))
    >>> [(update.origin, update.seq) for update in log], log.get("a#1", 1)
    ([('a#1', 2), ('a#1', 3), ('a#1', 4), ('me#1', 1)], None)

    Args:
        updates: How many are kept at most.
        size: How many bytes they may have together; the newest one is kept whatever its size.
    """

    def __init__(self, updates: int, size: int) -> None:
        self._most = updates
        self._most_bytes = size
        self._updates: dict[tuple[str, int], Update] = {}
        self._kept: dict[tuple[str, int], Update] = {}
        self._kept_size = 0
        self.held = False
        """Whether all that is kept stays, beyond the limits."""
        self.size = 0
        self.dropped = 0
        """How many were dropped for the limits."""

    def __len__(self) -> int:
        return len(self._updates) + len(self._kept)

    def __iter__(self) -> Iterator[Update]:
        yield from self._updates.values()
        yield from self._kept.values()

    def append(self, update: Update, *, keep: bool = False) -> None:
        """Add an update that is not there."""
        cost = len(update.payload) + _OVERHEAD
        self.size += cost
        if keep:
            self._kept[update.origin, update.seq] = update
            self._kept_size += cost
        else:
            self._updates[update.origin, update.seq] = update
        while len(self) > 1 and self._over():
            self._drop()

    def _over(self) -> bool:
        count, size = len(self._kept), self._kept_size
        if self.held:
            # The others have the other half all the same.
            count, size = min(count, self._most // 2), min(size, self._most_bytes // 2)
        return (
            len(self._updates) + count > self._most
            or self.size - self._kept_size + size > self._most_bytes
        )

    def _drop(self) -> None:
        kept = {} if self.held else self._kept
        too_many = 2 * len(kept) > self._most or 2 * self._kept_size > self._most_bytes
        source = kept if kept and (too_many or not self._updates) else self._updates
        gone = source.pop(next(iter(source)))
        cost = len(gone.payload) + _OVERHEAD
        self.size -= cost
        self._kept_size -= cost if source is self._kept else 0
        self.dropped += 1

    def settle(self, stable: Mapping[str, int]) -> None:
        """Keep updates below `stable` no longer than others."""
        for key in [key for key in self._kept if key[1] <= stable.get(key[0], 0)]:
            update = self._updates[key] = self._kept.pop(key)
            self._kept_size -= len(update.payload) + _OVERHEAD

    def get(self, origin: str, seq: int) -> Update | None:
        """Return an update, if it is still there."""
        return self._updates.get((origin, seq)) or self._kept.get((origin, seq))

    def select(self, ranges: Iterable[Range], size: int) -> tuple[list[Update], list[Range], bool]:
        """Return the updates of `ranges` that are here, what is not, and whether all was looked at.

        Looks at as many as fit in about `size` bytes.
        """
        found: list[Update] = []
        absent: list[Range] = []
        for row in ranges:
            gap = 0
            for seq in range(row.first, row.last + 1):
                update = self.get(row.origin, seq)
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
