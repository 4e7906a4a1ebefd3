"""All operations of a sequence, or those after a version, as one payload and back.

Payload: u8 kind (0 text, 1 list; 2 more if compacted), the elements in one block, the replicas'
names in order, the compacted part, the runs of each replica, and what is deleted by deletions that
are not applied. The compacted part is there if the kind says so: for each replica the numbers of
its last compacted and last applied operation, and all applied elements in document order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from state.crdt.sequence_backlog import Op
from state.crdt.sequence_bytes import Elements, Reader, References, Writer, read_runs, write_runs
from state.crdt.sequence_content import KINDS, Kind, decode_content, encode_content
from state.crdt.sequence_layout import SPAN_LIMIT
from state.crdt.sequence_operations import Operations
from state.crdt.sequence_order import Order
from state.crdt.sequence_runs import Run, runs_of
from state.crdt.sequence_span import BURIED, FLOOR, MASK, SHIFT, Content, Span

_SHOWN, _DELETED, _BURIED = range(3)
_UNSET = -3
_COMPACTED = 2


def write_state(ops: Operations, since: list[int]) -> bytes:
    """Return the operations of `ops` after `since`, the number of an operation per replica.

    What is compacted is left out, unless `since` is below it: then all is written.
    """
    whole = any(ops.floor) and any(s < f for s, f in zip(since, ops.floor, strict=True))
    if whole:
        since = ops.floor
    runs: dict[int, list[Run]] = {}
    orphans = sorted(
        ops.orphans() + ops.waiting_deleted(since),
        key=lambda orphan: (ops.names[orphan[0] >> SHIFT], orphan),
    )
    used = {first >> SHIFT for first, _ in orphans}
    for replica in range(1, len(ops.names)):
        queue = ops.backlog.queues.get(replica, [])
        found = list(runs_of(ops.order, ops.deletions[replica], queue, replica, since[replica]))
        if whole:
            _forget_applied(found, ops.applied[replica])
        if found:
            runs[replica] = found
            used.add(replica)
            used.update(origin >> SHIFT for run in found for origin in (run.a, run.b))
        if whole and ops.applied[replica]:
            used.add(replica)
    table = sorted(used - {0}, key=lambda replica: ops.names[replica])
    refs = References(table)
    body = Writer()
    body.number(len(table))
    for replica in table:
        body.name(ops.names[replica])
    contents: list[Content] = []
    if whole:
        contents += _write_placed(body, refs, ops)
    for replica in table:
        contents += write_runs(body, refs, replica, runs.get(replica, ()))
    body.number(len(orphans))
    for first, n in orphans:
        refs.write(body, first)
        body.number(n)
    head = Writer()
    head.number(KINDS.index(ops.kind) | (_COMPACTED if whole else 0))
    block = encode_content(ops.kind, contents)
    head.number(len(block))
    return bytes(head.data) + block + bytes(body.data)


def _forget_applied(runs: list[Run], applied: int) -> None:
    """Leave out the elements of runs that `_write_placed` writes."""
    for run in runs:
        seq = run.seq
        for k, (n, content) in enumerate(run.pieces):
            run.pieces[k] = (n, None if seq <= applied else content)
            seq += n


def _write_placed(out: Writer, refs: References, ops: Operations) -> list[Content]:
    for replica in refs.local:
        out.number(ops.floor[replica])
        out.number(ops.applied[replica])
    contents: list[Content] = []
    entries: list[tuple[int, int, int]] = []
    for span in ops.order:
        first, n = span.first, span.n
        state = _SHOWN if span.content is not None else _DELETED
        if span.right == BURIED:
            state = _BURIED
        if state == _SHOWN:
            contents.append(span.content)
        if entries and entries[-1][2] == state and entries[-1][0] + entries[-1][1] == first:
            first, n = entries[-1][0], entries[-1][1] + n
            entries.pop()
        entries.append((first, n, state))
    out.number(len(entries))
    for first, n, state in entries:
        refs.write(out, first)
        refs.last[refs.table[first >> SHIFT]] += n
        out.number(n << 2 | state)
    return contents


def kind_of(payload: bytes) -> tuple[Kind, bool]:
    """Return the kind of a payload, and whether it is compacted.

    Raises:
        ValueError: it is of no known kind.
    """
    if not payload or payload[0] >= 2 * _COMPACTED:
        raise ValueError("sequence: neither a text nor a list")
    return KINDS[payload[0] & 1], payload[0] >= _COMPACTED


def read_state(ops: Operations, payload: bytes) -> None:
    """Add the operations of a payload to `ops`; those of a compacted one only to a new object.

    Raises:
        ValueError: `payload` is malformed, or an operation in it cannot be applied.
    """
    kind, whole = kind_of(payload)
    if kind != ops.kind:
        raise ValueError(f"sequence: the bytes of a {kind}, not of a {ops.kind}")
    source = Reader(payload)
    source.take(1)
    elements = Elements(decode_content(kind, source.take(source.number())))
    names = [source.name() for _ in range(source.count())]
    if any(a >= b for a, b in itertools.pairwise(names)):
        raise ValueError("sequence: names of replicas that are not in order")
    table = [ops.intern(name) for name in names]
    refs = References(table)
    if whole:
        _read_placed(ops, source, refs, elements)
    found = [
        (replica, op) for replica in table for op in read_runs(source, refs, replica, elements)
    ]
    orphans = [(refs.read(source), source.number()) for _ in range(source.count())]
    if source.at != len(payload) or elements.at != len(elements.content):
        raise ValueError("sequence: bytes or elements that belong to nothing")
    if any(not first or (first & MASK) + n > MASK for first, n in orphans):
        raise ValueError("sequence: a deletion outside the range of counters")
    if whole:
        found = list(_link(ops, found))
    try:
        ops.offer(found)
    finally:
        for first, n in orphans:
            ops.bury(first, n)


def _read_placed(ops: Operations, source: Reader, refs: References, elements: Elements) -> None:
    for replica in refs.local:
        floor, applied = source.number(), source.number()
        if not floor <= applied < MASK:
            raise ValueError("sequence: more is compacted than was applied")
        ops.floor[replica], ops.applied[replica] = floor, applied
    spans: list[Span] = []
    for _ in range(source.count()):
        first, head = refs.read(source), source.number()
        n, state = head >> 2, head & 3
        replica, seq = first >> SHIFT, first & MASK
        if not first or not n or seq + n - 1 > ops.applied[replica] or state > _BURIED:
            raise ValueError("sequence: an element that was never written")
        refs.last[refs.table[replica]] = seq + n
        floor = replica << SHIFT | ops.floor[replica]
        if state == _BURIED and first + n - 1 > floor:
            raise ValueError("sequence: an element that not all know as deleted")
        content = elements.take(n) if state == _SHOWN else None
        for low, high in ((first, min(first + n, floor + 1)), (max(first, floor + 1), first + n)):
            step = SPAN_LIMIT if state == _SHOWN else n
            for at in range(low, high, step):
                end = min(at + step, high)
                part = None if content is None else content[at - first : end - first]
                right = _UNSET if at > floor else BURIED if state == _BURIED else FLOOR
                spans.append(Span(at, end - at, FLOOR if at <= floor else at - 1, right, part))
    ops.order.lay_out(spans)


def _link(ops: Operations, found: list[tuple[int, Op]]) -> Iterator[tuple[int, Op]]:
    """Give the elements that are in place their origins; yield the operations that are not."""
    order = ops.order
    for replica, op in found:
        applied = ops.applied[replica]
        if op.seq <= ops.floor[replica]:
            raise ValueError("sequence: an operation that is compacted already")
        if op.seq > applied:
            yield replica, op
            continue
        known = op.part(replica, op.seq, min(op.end, applied + 1))
        if op.end > known.end:
            yield replica, op.part(replica, known.end, op.end)
        if known.step:
            first = known.a if known.step > 0 else known.a - known.n + 1
            target = first >> SHIFT
            if (first & MASK) + known.n - 1 > ops.applied[target]:
                raise ValueError("sequence: a deletion in place before what it deletes")
            if order.delete(first, known.n, target << SHIFT | ops.floor[target]):
                raise ValueError("sequence: an element that is shown and deleted")
            ops.log_deletion(replica, known)
        elif known.content is not None:
            raise ValueError("sequence: an element in place that is written twice")
        else:
            _set_origins(order, replica, known)
    if any(span.right == _UNSET for span in order):
        raise ValueError("sequence: an element without origins")


def _set_origins(order: Order, replica: int, op: Op) -> None:
    at = replica << SHIFT | op.seq
    end = at + op.n
    for origin in (op.a, op.b):
        order.find(origin)
    for edge in (at, end):
        order.cut_before(edge)
    for span in order.within(at, end):
        if span.left == FLOOR or span.first != at:
            raise ValueError("sequence: a run that is not in place")
        span.left = op.a if span.first & MASK == op.seq else span.first - 1
        span.right = op.b
        at += span.n
    if at != end:
        raise ValueError("sequence: a run that is not in place")
