"""Which updates a replica has seen: a version vector with the numbers beyond its gaps."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping

from state.gossip.messages import Range
from state.gossip.port import mix
from state.gossip.tables import Table

_HIGH = 0x9E3779B97F4A7C15
_EXTRA = 0xC2B2AE3D27D4EB4F
_WINDOW = 1 << 16


@functools.lru_cache(maxsize=1 << 16)
def key_of(text: str) -> int:
    """Return the 63-bit key under which `text` is found in a table."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Seen:
    """A set of (origin, seq), small where there are few gaps.

    Each origin is a row of `table`, for reconciliation; a row's hash stands for the whole set of
    its numbers.

    >>> seen = Seen()
    >>> [seen.add("a#1", seq) for seq in (1, 2, 5, 2)]
    [True, True, True, False]
    >>> seen.ranges_of("a#1")
    [Range(origin='a#1', first=1, last=2), Range(origin='a#1', first=5, last=5)]
    >>> seen.missing(Range("a#1", 1, 9), 100)
    [Range(origin='a#1', first=3, last=4), Range(origin='a#1', first=6, last=9)]
    """

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.table = Table()
        self._highs: dict[str, int] = {}
        self._extras: dict[str, set[int]] = {}
        self._sums: dict[str, int] = {}
        self.add_ranges(ranges)

    def __len__(self) -> int:
        """Return the number of origins."""
        return len(self._highs)

    def __iter__(self) -> Iterator[Range]:
        for origin in sorted(self._highs):
            yield from self.ranges_of(origin)

    def high(self, origin: str) -> int:
        """Return the number up to which all of `origin` was seen."""
        return self._highs.get(origin, 0)

    def top(self, origin: str) -> int:
        """Return the greatest number of `origin` that was seen."""
        return max(self._extras.get(origin, ()), default=self._highs.get(origin, 0))

    def highs(self) -> dict[str, int]:
        """Return the version vector: what was seen without gaps."""
        return {origin: high for origin, high in self._highs.items() if high}

    def clear(self) -> None:
        """Forget everything."""
        for origin in self._highs:
            self.table.drop(origin)
        for part in (self._highs, self._extras, self._sums):
            part.clear()

    def knows(self, origin: str) -> bool:
        """Return whether anything of `origin` was seen."""
        return origin in self._highs

    def has(self, origin: str, seq: int) -> bool:
        """Return whether the update was seen."""
        if seq <= self._highs.get(origin, 0):
            return True
        extras = self._extras.get(origin)
        return extras is not None and seq in extras

    def has_any(self, row: Range) -> bool:
        """Return whether any of the updates of `row` was seen."""
        if row.first <= self._highs.get(row.origin, 0):
            return True
        return any(row.first <= seq <= row.last for seq in self._extras.get(row.origin, ()))

    def admits(self, seq: int, origin: str) -> bool:
        """Return whether `seq` is near enough to what was seen: gaps cost memory."""
        return seq <= self._highs.get(origin, 0) + _WINDOW

    def add(self, origin: str, seq: int) -> bool:
        """Add an update; return whether it is new."""
        high = self._highs.get(origin)
        if high is None:
            high = self._highs[origin] = 0
            self.table.name(origin, key_of(origin))
        if seq <= high:
            return False
        extras = self._extras.get(origin)
        key = self.table.keys[origin]
        if seq == high + 1:
            high = seq
            if extras:
                total = self._sums[origin]
                while high + 1 in extras:
                    high += 1
                    extras.remove(high)
                    total -= mix(key + high * _EXTRA)
                self._sums[origin] = total
                if not extras:
                    del self._extras[origin], self._sums[origin]
            self._highs[origin] = high
        else:
            if extras is None:
                extras = self._extras[origin] = set()
                self._sums[origin] = 0
            elif seq in extras:
                return False
            extras.add(seq)
            self._sums[origin] += mix(key + seq * _EXTRA)
        self.table.put(origin, mix(key + high * _HIGH) + self._sums.get(origin, 0))
        return True

    def add_ranges(self, ranges: Iterable[Range]) -> None:
        """Add all updates of `ranges`; a run from the beginning costs no more than one.

        Raises:
            ValueError: there is a gap that is too wide to remember what is beyond it.
        """
        for row in ranges:
            origin, high = row.origin, self._highs.get(row.origin, 0)
            if row.first > high + 1:
                if not self.admits(row.last, origin):
                    raise ValueError(f"updates of {origin} up to {row.last} leave too wide a gap")
                for seq in range(row.first, row.last + 1):
                    self.add(origin, seq)
            elif row.last > high:
                self.add(origin, high + 1)
                if row.last > self._highs[origin]:
                    self._raise(origin, row.last)

    def _raise(self, origin: str, high: int) -> None:
        """Set the number without gaps to `high`, or more where what is beyond joins on."""
        key = self.table.keys[origin]
        rest = {seq for seq in self._extras.pop(origin, ()) if seq > high}
        self._sums.pop(origin, None)
        while high + 1 in rest:
            high += 1
            rest.remove(high)
        self._highs[origin] = high
        if rest:
            self._extras[origin] = rest
            self._sums[origin] = sum(mix(key + seq * _EXTRA) for seq in rest)
        self.table.put(origin, mix(key + high * _HIGH) + self._sums.get(origin, 0))

    def ranges_of(self, origin: str) -> list[Range]:
        """Return what was seen of `origin`, in order."""
        high = self._highs.get(origin, 0)
        runs = [Range(origin, 1, high)] if high else []
        first = last = 0
        for seq in sorted(self._extras.get(origin, ())):
            if seq != last + 1 or not first:
                if first:
                    runs.append(Range(origin, first, last))
                first = seq
            last = seq
        if first:
            runs.append(Range(origin, first, last))
        return runs

    def missing(self, row: Range, limit: int) -> list[Range]:
        """Return the parts of `row` that were not seen, of `limit` updates at most."""
        origin = row.origin
        at = max(row.first, self._highs.get(origin, 0) + 1)
        if at > row.last:
            return []
        parts: list[Range] = []
        inside = sorted(s for s in self._extras.get(origin, ()) if at <= s <= row.last)
        for stop in (*inside, row.last + 1):
            last = min(stop - 1, at + limit - 1)
            if at <= last:
                parts.append(Range(origin, at, last))
                limit -= last - at + 1
            if limit <= 0:
                break
            at = stop + 1
        return parts

    def beyond(self, origin: str, ranges: Iterable[Range]) -> list[Range]:
        """Return what was seen of `origin` and is not in `ranges`, which are in order."""
        rest: list[Range] = []
        theirs = list(ranges)
        for mine in self.ranges_of(origin):
            at = mine.first
            for row in theirs:
                if row.last < at or row.first > mine.last:
                    continue
                if row.first > at:
                    rest.append(Range(origin, at, row.first - 1))
                at = row.last + 1
                if at > mine.last:
                    break
            if at <= mine.last:
                rest.append(Range(origin, at, mine.last))
        return rest

    def covers(self, cut: Mapping[str, int]) -> bool:
        """Return whether everything below `cut` was seen."""
        return all(self._highs.get(origin, 0) >= high for origin, high in cut.items())
