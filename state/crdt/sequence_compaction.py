"""Forgetting what no operation to come can refer to.

At a cut that every replica has reached, an operation to come was written by a replica that knew
all elements and deletions below the cut. It can name as origins only what stood side by side
there: visible elements, and the first of a row of tombstones. So the origins of the elements below
the cut are forgotten, and of each row of tombstones below it all but the first, except those that
an element above the cut has as its origin.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from state.crdt.sequence_operations import Operations
from state.crdt.sequence_order import Order
from state.crdt.sequence_span import BURIED, FLOOR, MASK, SHIFT, Span


def compact(ops: Operations, cut: list[int]) -> None:
    """Raise the floor of `ops` to `cut`, for each replica the number of an applied operation.

    Raises:
        ValueError: a deletion below the cut deletes an element above it.
    """
    floor = [max(pair) for pair in zip(cut, ops.floor, strict=True)]
    if floor == ops.floor:
        return
    order = ops.order
    stable = [
        (first, first + part.n)
        for replica, log in enumerate(ops.deletions)
        for op in log
        if op.seq <= floor[replica]
        for part in (op.part(replica, op.seq, min(op.end, floor[replica] + 1)),)
        for first in (part.a if part.step > 0 else part.a - part.n + 1,)
    ]
    if any((end - 1) & MASK > floor[first >> SHIFT] for first, end in stable):
        raise ValueError("sequence: the cut has a deletion without the element deleted")
    for replica, last in enumerate(floor):
        order.cut_before(replica << SHIFT | (last + 1))
    for first, end in stable:
        _bury(order, first, end)
    ops.floor = floor
    for replica, log in enumerate(ops.deletions):
        last = floor[replica]
        ops.deletions[replica] = [
            op if op.seq > last else op.part(replica, last + 1, op.end)
            for op in log
            if op.end > last + 1
        ]
    for span in order:
        if span.first & MASK <= floor[span.first >> SHIFT]:
            span.left = FLOOR
            if span.right != BURIED:
                span.right = FLOOR
    named = {origin for span in order if span.left != FLOOR for origin in (span.left, span.right)}
    order.lay_out(list(_kept(order, sorted(named))))


def _bury(order: Order, first: int, end: int) -> None:
    """Mark elements as known by all to be deleted."""
    order.cut_before(first)
    order.cut_before(end)
    for span in order.within(first, end):
        span.left, span.right = FLOOR, BURIED


def _kept(order: Order, named: list[int]) -> Iterator[Span]:
    in_row = False
    for span in order:
        if span.right != BURIED:
            in_row = False
            yield span
            continue
        end = span.first + span.n
        keep = set(named[bisect_left(named, span.first) : bisect_left(named, end)])
        if not in_row:
            keep.add(span.first)
        in_row = True
        for element in sorted(keep):
            yield Span(element, 1, FLOOR, BURIED, None)
