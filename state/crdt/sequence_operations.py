"""The operations a sequence holds: applied ones in their order, and those that wait."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from state.crdt.causal import VersionVector
from state.crdt.sequence_backlog import Backlog, Op
from state.crdt.sequence_content import Kind
from state.crdt.sequence_order import Order
from state.crdt.sequence_span import BURIED, MASK, SHIFT

PENDING_LIMIT = 1 << 20
"""How many operations, and elements in them, may wait for missing ones."""

NAME_LIMIT = 255


class PendingOverflow(ValueError):
    """Too much waits for operations that did not come: merge a state that has them."""


class Operations:
    """What one replica knows, by the local index of the replicas that did it.

    An operation is applied once all those of its replica before it and the elements it refers to
    are there. Until then it waits.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.order = Order("" if kind == "text" else ())
        self.indices: dict[str, int] = {}
        self.applied = [0]
        """The number of the last operation applied, of each replica."""
        self.floor = [0]
        """The number of the last operation that is compacted, of each replica."""
        self.deletions: list[list[Op]] = [[]]
        self.backlog = Backlog()
        self.may_have_orphans = False
        """Whether an element may be deleted by a deletion that is not applied yet."""

    @property
    def names(self) -> list[str]:
        """The replicas' names by local index; number 0 is nobody's."""
        return self.order.names

    def intern(self, name: str) -> int:
        """Return the local index of a replica, a new one for a new name."""
        at = self.indices.get(name)
        if at is None:
            if not name or len(name.encode()) > NAME_LIMIT:
                raise ValueError(f"sequence: a replica's name has 1 to {NAME_LIMIT} bytes of UTF-8")
            at = self.indices[name] = len(self.applied)
            self.order.add_replica(name)
            self.applied.append(0)
            self.floor.append(0)
            self.deletions.append([])
        return at

    def delete(self, replica: int, op: Op) -> None:
        """Apply a deletion whose turn it is."""
        first = op.a if op.step > 0 else op.a - op.n + 1
        target = first >> SHIFT
        self.order.delete(first, op.n, target << SHIFT | self.floor[target])
        self.applied[replica] += op.n
        self.log_deletion(replica, op)

    def log_deletion(self, replica: int, op: Op) -> None:
        """Note who deleted what."""
        log = self.deletions[replica]
        if log and op.n == 1:
            last = log[-1]
            step = op.a - last.a if last.n == 1 else last.step
            if step in (1, -1) and op.a == last.a + step * last.n and op.seq == last.end:
                log[-1] = Op(last.seq, last.n + 1, step, last.a, 0, None)
                return
        log.append(op)

    def counters(self, version: VersionVector) -> list[int]:
        """Return `version` by local index."""
        return [version[name] for name in self.names]

    def vector(self, counters: list[int]) -> VersionVector:
        """Return what `counters` has by local index."""
        return VersionVector({n: at for n, at in zip(self.names, counters, strict=True) if at})

    def offer(self, ops: Iterable[tuple[int, Op]]) -> None:
        """Take in operations, each with its replica, and apply all whose turn it is.

        Raises:
            PendingOverflow: more than `PENDING_LIMIT` would wait; the latest are forgotten.
            ValueError: an operation cannot be applied; it is passed over.
        """
        replicas: dict[int, None] = {}
        for replica, op in ops:
            self.backlog.add(replica, op)
            replicas[replica] = None
        self.settle(replicas)
        if self.backlog.units > PENDING_LIMIT:
            self.backlog.shrink(PENDING_LIMIT)
            raise PendingOverflow("sequence: too much waits for operations that are missing")

    def settle(self, replicas: Iterable[int]) -> None:
        """Apply what waited for these replicas' operations, and what waited for that."""
        backlog, error = self.backlog, None
        work = list(replicas)
        for replica in tuple(work):
            work.extend(backlog.waiting.pop(replica, ()))
        while work:
            replica = work.pop()
            done = 0
            for op in backlog.queues.get(replica, ()):
                missing = op.first_missing(replica, self.applied)
                if missing >= 0:
                    backlog.wait(replica, missing)
                    break
                done += 1
                try:
                    self.apply(replica, op)
                except ValueError as refused:
                    error = refused
            if done:
                backlog.take(replica, done)
                work.extend(backlog.waiting.pop(replica, ()))
        if error is not None:
            raise error

    def apply(self, replica: int, op: Op) -> None:
        """Apply the part of an operation, whose turn it is, that is not applied yet."""
        known = self.applied[replica]
        if op.content is None and not op.step:
            self.may_have_orphans = True
            again = min(op.end - 1, known) - op.seq + 1
            if again > 0:
                self.bury(replica << SHIFT | op.seq, again)
        if op.end <= known + 1:
            return
        if op.seq <= known:
            op = op.part(replica, known + 1, op.end)
        if op.step:
            self.delete(replica, op)
        else:
            self.order.insert(replica << SHIFT | op.seq, op.n, op.a, op.b, op.content)
            self.applied[replica] += op.n

    def bury(self, first: int, n: int) -> None:
        """Delete elements of which it is known that they are deleted, but not by whom."""
        replica = first >> SHIFT
        n = min(n, self.applied[replica] - (first & MASK) + 1)
        if n > 0:
            self.may_have_orphans = True
            self.order.delete(first, n, replica << SHIFT | self.floor[replica])

    def orphans(self) -> list[tuple[int, int]]:
        """Return (first element, count) of what is deleted though no applied operation did it."""
        if not self.may_have_orphans:
            return []
        covered: list[tuple[int, int]] = sorted(
            (first, first + op.n)
            for log in self.deletions
            for op in log
            for first in (op.a if op.step > 0 else op.a - op.n + 1,)
        )
        ends: list[int] = []
        for _, end in covered:
            ends.append(max(end, ends[-1]) if ends else end)
        found: list[tuple[int, int]] = []
        for table in self.order.spans[1:]:
            for span in table:
                if span.content is None and span.right != BURIED:
                    for first, end in _outside(span.first, span.first + span.n, covered, ends):
                        if found and sum(found[-1]) == first:
                            found[-1] = (found[-1][0], end - found[-1][0])
                        else:
                            found.append((first, end - first))
        self.may_have_orphans = bool(found)
        return found

    def waiting_deleted(self, since: list[int]) -> list[tuple[int, int]]:
        """Return (first element, count) of insertions up to `since` that wait, known as deleted.

        Whoever has applied them need not know that.
        """
        return [
            (replica << SHIFT | op.seq, min(op.end - 1, since[replica]) - op.seq + 1)
            for replica, queue in self.backlog.queues.items()
            for op in queue
            if not op.step and op.content is None and op.seq <= since[replica]
        ]


def _outside(
    at: int, end: int, covered: list[tuple[int, int]], ends: list[int]
) -> Iterable[tuple[int, int]]:
    """Yield the parts of `at` .. `end` that no covered range has.

    Args:
        at: the first element.
        end: the one after the last.
        covered: ranges, sorted.
        ends: for each range the greatest end up to it.
    """
    while at < end:
        i = bisect_right(covered, (at, 1 << 62)) - 1
        if i >= 0 and ends[i] > at:
            at = ends[i]
            continue
        stop = min(end, covered[i + 1][0]) if i + 1 < len(covered) else end
        yield at, stop
        at = stop
