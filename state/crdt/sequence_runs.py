"""The operations of one replica as the fewest runs, whatever pieces they arrived in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from state.crdt.sequence_backlog import Op
from state.crdt.sequence_order import Order
from state.crdt.sequence_span import FLOOR, MASK, SHIFT, Content


class Run:
    """A run of insertions in pieces of (count, elements or None), or of deletions (no pieces)."""

    __slots__ = ("a", "b", "n", "pieces", "seq", "step")

    def __init__(self, op: Op) -> None:
        self.seq, self.n, self.step, self.a, self.b, content = op
        self.pieces: list[tuple[int, Content]] = [] if self.step else [(self.n, content)]

    def absorb(self, replica: int, op: Op) -> Op | None:
        """Take in as much of `op`, which follows, as the run goes on for; return the rest.

        One operation at a time would give the same runs: so they do not depend on how the
        operations were cut into pieces.
        """
        if op.seq != self.seq + self.n or (op.step == 0) != (self.step == 0):
            return op
        if not op.step:
            if op.a != (replica << SHIFT | op.seq) - 1 or op.b != self.b:
                return op
            self.pieces.append((op.n, op.content))
            self.n += op.n
            return None
        step = self.step if self.n > 1 else op.a - self.a
        if step not in (1, -1) or op.a != self.a + step * self.n:
            return op
        self.step = step
        if op.n == 1 or op.step == step:
            self.n += op.n
            return None
        self.n += 1
        return op.part(replica, op.seq + 1, op.end)


def runs_of(
    order: Order, deletions: list[Op], queue: list[Op], replica: int, since: int
) -> Iterator[Run]:
    """Yield the runs of `replica` after its operation `since`, compacted ones left out.

    Args:
        order: where its insertions lie.
        deletions: its applied deletions, in order.
        queue: its operations that wait.
        replica: its local index.
        since: the last operation that is not asked for.
    """
    run: Run | None = None
    for op in _operations(order, deletions, queue, replica, since):
        rest: Op | None = op
        while rest is not None:
            if run is not None:
                left = run.absorb(replica, rest)
                if left is not rest:
                    rest = left
                    continue
                yield run
            run, rest = Run(rest), None
    if run is not None:
        yield run


def _operations(
    order: Order, deletions: list[Op], queue: list[Op], replica: int, since: int
) -> Iterator[Op]:
    spans = order.spans[replica]
    at = max(0, bisect_right(order.starts[replica], replica << SHIFT | since) - 1)
    turn = max(0, bisect_right(deletions, since, key=lambda op: op.seq) - 1)
    while at < len(spans) or turn < len(deletions):
        if turn < len(deletions) and (
            at == len(spans) or deletions[turn].seq < spans[at].first & MASK
        ):
            op = deletions[turn]
            turn += 1
        else:
            span = spans[at]
            at += 1
            if span.left == FLOOR:
                continue
            op = Op(span.first & MASK, span.n, 0, span.left, span.right, span.content)
        if op.seq > since:
            yield op
        elif op.end > since + 1:
            yield op.part(replica, since + 1, op.end)
    for op in queue:
        if op.seq > since:
            yield op
        elif op.end > since + 1:
            yield op.part(replica, since + 1, op.end)
