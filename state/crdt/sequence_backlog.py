"""Operations of a sequence, and those that wait for what they build on."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

from state.crdt.sequence_span import MASK, SHIFT


class Op(NamedTuple):
    """Consecutive operations of one replica, numbered `seq` .. `seq + n - 1`.

    An insertion has step 0, its origins in `a` (left) and `b` (right), and its elements in
    `content` (None: deleted since, and not sent). A deletion goes from element `a` in steps of 1
    or -1.
    """

    seq: int
    n: int
    step: int
    a: int
    b: int
    content: Any

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.seq + self.n

    def part(self, replica: int, first: int, end: int) -> Op:
        """Return the operations numbered `first` .. `end - 1` of those of `replica`."""
        k = first - self.seq
        n = end - first
        if self.step:
            return Op(first, n, self.step, self.a + self.step * k, 0, None)
        left = (replica << SHIFT | first) - 1 if k else self.a
        content = None if self.content is None else self.content[k : k + n]
        return Op(first, n, 0, left, self.b, content)

    def check(self, replica: int) -> None:
        """Raise ValueError unless it refers to what `replica` could have known."""
        if not 0 < self.n <= MASK - self.seq or self.seq < 1:
            raise ValueError("sequence: an operation outside the range of counters")
        last = self.a + self.step * (self.n - 1)
        if self.step and (last >> SHIFT != self.a >> SHIFT or not (last & MASK and self.a & MASK)):
            raise ValueError("sequence: a deletion outside the range of counters")
        for element in (self.a, last, self.b):
            if element >> SHIFT == replica and element & MASK >= self.seq:
                raise ValueError("sequence: an operation that builds on itself")

    def first_missing(self, replica: int, seen: list[int]) -> int:
        """Return the replica whose operations must come first, or -1 if none."""
        if self.seq > seen[replica] + 1:
            return replica
        if self.step:
            last = max(self.a, self.a + self.step * (self.n - 1))
            return last >> SHIFT if last & MASK > seen[last >> SHIFT] else -1
        for origin in (self.a, self.b):
            if origin & MASK > seen[origin >> SHIFT]:
                return origin >> SHIFT
        return -1

    @property
    def units(self) -> int:
        """What it counts against the bound of a backlog."""
        return 1 + (0 if self.content is None else len(self.content))


class Backlog:
    """Operations that are not applied yet: per replica disjoint and in order."""

    def __init__(self) -> None:
        self.queues: dict[int, list[Op]] = {}
        self.waiting: dict[int, set[int]] = {}
        self.units = 0

    def __bool__(self) -> bool:
        return bool(self.queues)

    def __len__(self) -> int:
        return sum(op.n for queue in self.queues.values() for op in queue)

    def add(self, replica: int, op: Op) -> None:
        """Keep `op`; where it repeats others, an insertion known as deleted stays deleted."""
        queue = self.queues.setdefault(replica, [])
        self.units += op.units
        if not queue or queue[-1].end <= op.seq:
            queue.append(op)
            return
        low = bisect_right(queue, op.seq, key=lambda o: o.seq)
        if low and queue[low - 1].end > op.seq:
            low -= 1
        high = low
        while high < len(queue) and queue[high].seq < op.end:
            high += 1
        overlapping = queue[low:high]
        self.units -= sum(o.units for o in overlapping) + op.units
        pieces = _union(replica, op, overlapping)
        self.units += sum(o.units for o in pieces)
        queue[low:high] = pieces

    def take(self, replica: int, count: int) -> None:
        """Drop the first `count` of a replica."""
        queue = self.queues[replica]
        self.units -= sum(op.units for op in queue[:count])
        del queue[:count]
        if not queue:
            del self.queues[replica]

    def wait(self, replica: int, other: int) -> None:
        """Note that `replica` cannot go on before `other` does."""
        self.waiting.setdefault(other, set()).add(replica)

    def shrink(self, limit: int) -> None:
        """Forget the latest operations of the longest queues until `limit` holds."""
        while self.units > limit:
            replica = max(self.queues, key=lambda r: len(self.queues[r]))
            self.units -= self.queues[replica].pop().units
            if not self.queues[replica]:
                del self.queues[replica]


def _union(replica: int, op: Op, others: list[Op]) -> list[Op]:
    """Return the union of `op` and what it overlaps, which is disjoint and in order."""
    pieces: list[Op] = []
    at = op.seq
    for known in others:
        if known.seq < at:
            pieces.append(known.part(replica, known.seq, at))
        elif at < known.seq:
            pieces.append(op.part(replica, at, known.seq))
        low, at = max(known.seq, op.seq), min(known.end, op.end)
        stays = known if op.step or op.content is not None else op
        pieces.append(stays.part(replica, low, at))
        if at < known.end:
            pieces.append(known.part(replica, at, known.end))
    if at < op.end:
        pieces.append(op.part(replica, at, op.end))
    return pieces
