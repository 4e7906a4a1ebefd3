"""A replicated text or list that several replicas edit at once.

Every insertion and every deletion of an element is an operation with a number: the replica's
counter, from 1. A state is a set of operations; merging is union. Deltas and states are both such
sets, so they may come in any order and any number of times: what builds on something missing waits
for it. Where an insertion goes among concurrent ones is FugueMax's rule (`sequence_order`).

The elements of deleted text are forgotten at once. Their places are kept until every replica is
known to have seen the deletion (`Sequence.compact`).

=====================  ===============================================================
module                 what it holds
=====================  ===============================================================
`sequence_span`        elements, spans, blocks
`sequence_order`       the document order
`sequence_operations`  what is applied, what waits
`sequence_backlog`     one operation, and the queues of waiting ones
`sequence_runs`        operations as the fewest runs
`sequence_bytes`       numbers, references and runs as bytes
`sequence_state`       a whole state as bytes
`sequence_keystroke`   the delta of one edit as bytes
`sequence_compaction`  the cut below which nothing can be referred to
=====================  ===============================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from state.crdt.causal import VersionVector
from state.crdt.sequence_backlog import Op
from state.crdt.sequence_compaction import compact
from state.crdt.sequence_content import (
    KINDS,
    Kind,
    decode_content,
    difference,
    encode_content,
    to_content,
)
from state.crdt.sequence_keystroke import DELETION, LIST, MAGIC, TEXT, Keystrokes
from state.crdt.sequence_operations import Operations, PendingOverflow
from state.crdt.sequence_span import MASK, SHIFT, Edit
from state.crdt.sequence_state import kind_of, read_state, write_state
from state.mergeable import Algebra, seal, unseal

__all__ = ["Edit", "PendingOverflow", "Sequence"]

_NAME, _VERSION = "sequence", 1


class Sequence:
    """A text (`str`) or a list of plain values, edited by index and merged without conflicts.

    Indices count code points of a text, as `str` does, and elements of a list. Runs that replicas
    write at one place at the same time end up one after the other, never interleaved.

    A replica's id must be new for each incarnation that may have lost operations: numbers that are
    used twice cannot be told apart.

    Args:
        replica: who edits here, 1 to 255 bytes of UTF-8; None for a copy that only follows. It is
            no part of the state, and may be set later.
        kind: "text" or "list".

    >>> ann, bob = Sequence("ann"), Sequence("bob")
    >>> bob.apply(ann.insert(0, "Hello!"))
    >>> to_bob, to_ann = ann.insert(5, " world"), bob.delete(0, 1)
    >>> ann.apply(to_ann), bob.apply(to_bob)
    (None, None)
    >>> ann.text(), ann.to_bytes() == bob.to_bytes()
    ('ello world!', True)
    """

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    def __init__(self, replica: str | None = None, *, kind: Kind = "text") -> None:
        if kind not in KINDS:
            raise ValueError(f"sequence: {kind!r} is neither text nor list")
        self._ops = Operations(kind)
        self._keystrokes = Keystrokes(self._ops)
        self._delta_kind = TEXT if kind == "text" else LIST
        self.replica = replica

    @property
    def kind(self) -> Kind:
        """Either "text" or "list"."""
        return self._ops.kind

    @property
    def replica(self) -> str | None:
        """Who edits here; None where nobody does."""
        return self._ops.names[self._own] if self._own else None

    @replica.setter
    def replica(self, name: str | None) -> None:
        self._own = 0 if name is None else self._ops.intern(name)

    def __len__(self) -> int:
        return self._ops.order.length

    def __repr__(self) -> str:
        return f"Sequence({self.replica!r}, kind={self.kind!r}, length={len(self)})"

    @property
    def value(self) -> str | list[Any]:
        """The visible elements: a `str` or a `list`."""
        return self.text() if self.kind == "text" else list(self._elements())

    def text(self) -> str:
        """Return the text.

        Raises:
            ValueError: it is a list.
        """
        if self.kind != "text":
            raise ValueError("sequence: a list has no text; see value")
        return "".join(self._contents())

    def _contents(self) -> Iterable[Any]:
        return [
            span.content
            for block in self._ops.order.blocks
            for span in block.spans
            if span.content is not None
        ]

    def _elements(self) -> Iterable[Any]:
        return (element for content in self._contents() for element in content)

    @property
    def version(self) -> VersionVector:
        """The number of the last operation applied, of each replica."""
        return self._ops.vector(self._ops.applied)

    @property
    def compacted(self) -> VersionVector:
        """The cut below which operations are folded away."""
        return self._ops.vector(self._ops.floor)

    @property
    def pending(self) -> int:
        """How many operations wait for others that are missing."""
        return len(self._ops.backlog)

    def insert(self, index: int, elements: Any) -> bytes:
        """Insert a `str`, or an iterable of plain values, before `index`; return the delta.

        Raises:
            IndexError: `index` is not in 0 .. len(self).
            ValueError: no replica is set, or an element is not a plain value.
        """
        order = self._ops.order
        if not 0 <= index <= order.length:
            raise IndexError(f"sequence: index {index} of an insertion into {order.length}")
        own = self._writer()
        content = to_content(self.kind, elements)
        tail = encode_content(self.kind, (content,))
        n = len(content)
        if not n:
            return self._nothing()
        left = 0
        after = order.head.next
        right = after.first if after is not None else 0
        if index:
            span, offset = order.at(index - 1)
            left = span.first + offset
            after = span.next
            right = left + 1 if offset + 1 < span.n else after.first if after is not None else 0
        first = own << SHIFT | self._ops.applied[own] + 1
        order.insert(first, n, left, right, content)
        self._ops.applied[own] += n
        order.keep_cursor(order.near, index + n - order.near.n)
        delta = self._keystrokes.write(self._delta_kind, first, left, right, tail)
        return delta if delta is not None else self._own_since(first)

    def delete(self, index: int, count: int) -> bytes:
        """Delete `count` elements from `index` on; return the delta.

        Raises:
            IndexError: they are not all there.
            ValueError: no replica is set.
        """
        order = self._ops.order
        if index < 0 or count < 0 or index + count > order.length:
            raise IndexError(f"sequence: {count} elements from {index} on of {order.length}")
        own = self._writer()
        if not count:
            return self._nothing()
        start = own << SHIFT | self._ops.applied[own] + 1
        n = 0
        while count:
            span, offset = order.at(index)
            first, n = span.first + offset, min(count, span.n - offset)
            self._ops.delete(own, Op(self._ops.applied[own] + 1, n, 1, first, 0, None))
            if span.content is not None:
                order.keep_cursor(span, index - offset)
            count -= n
        delta = None
        if start + n == (own << SHIFT | self._ops.applied[own] + 1):
            delta = self._keystrokes.write(DELETION, start, first, n, b"")
        return delta if delta is not None else self._own_since(start)

    def _writer(self) -> int:
        if not self._own:
            raise ValueError("sequence: set `replica` before editing")
        if self._own in self._ops.backlog.queues:
            raise ValueError(
                f"sequence: replica {self.replica!r} has written more than is known here; "
                "edit under a new id"
            )
        if self._ops.applied[self._own] > MASK >> 1:
            raise ValueError(f"sequence: the numbers of replica {self.replica!r} are used up")
        return self._own

    def _nothing(self) -> bytes:
        return type(self)(kind=self.kind).to_bytes()

    def _own_since(self, first: int) -> bytes:
        since = list(self._ops.applied)
        since[self._own] = (first & MASK) - 1
        return self._sealed(since)

    def apply(self, delta: bytes) -> None:
        """Take in a delta or the bytes of a state; the same again changes nothing.

        What builds on operations that are missing here waits, and shows in `pending`.

        Raises:
            ValueError: the bytes are damaged or hostile, or of a sequence of the other kind.
            PendingOverflow: too much waits; what is not kept must come again.
        """
        if delta[:1] != MAGIC:
            self._apply_state(delta)
            return
        kind, first, a, b, tail = self._keystrokes.read(delta)
        ops = self._ops
        replica, seq, applied = first >> SHIFT, first & MASK, ops.applied
        if kind == DELETION:
            if tail:
                raise ValueError("sequence: a deletion with elements")
            op = Op(seq, b, 1, a, 0, None)
        elif kind == self._delta_kind:
            content = decode_content(ops.kind, tail)
            n = len(content)
            if (
                n
                and seq == applied[replica] + 1
                and a & MASK <= applied[a >> SHIFT]
                and b & MASK <= applied[b >> SHIFT]
            ):  # what `offer` would do, at once
                ops.order.insert(first, n, a, b, content)
                applied[replica] += n
                if ops.backlog.queues:
                    ops.settle([replica])
                return
            op = Op(seq, n, 0, a, b, content)
        else:
            raise ValueError(f"sequence: a delta that is not for a {self.kind}")
        op.check(replica)
        ops.offer([(replica, op)])

    def follow(self, delta: bytes) -> list[Edit]:
        """Do what `apply` does and return the edits that bring a copy of `value` up to date.

        Each edit's index holds after the edits before it. Where `delta` brings a compacted state
        that goes beyond this one, they are one edit that spans all differences.

        Raises:
            ValueError: as in `apply`; what could be applied before the error is not reported.
        """
        order = self._ops.order
        edits: list[Edit] = []
        order.edits = edits
        try:
            self.apply(delta)
        finally:
            order.edits = None
        return edits

    def _apply_state(self, data: bytes) -> None:
        payload = _unsealed(data)
        if not kind_of(payload)[1]:
            read_state(self._ops, payload)
            return
        order = self._ops.order
        before = self.value if order.edits is not None else None
        self.merge(self.from_bytes(data))
        if order.edits is not None and self._ops.order is not order:
            order.edits += difference(before, self.value)

    def merge(self, other: Self) -> None:
        """Take in everything that `other` knows, waiting operations included.

        Raises:
            ValueError: `other` is of the other kind, or they were compacted at cuts of which
                neither includes the other and one replica has not reached.
        """
        if other.kind != self.kind:
            raise ValueError(f"sequence: a {other.kind} cannot be merged into a {self.kind}")
        if self.compacted.covers(other.compacted):
            read_state(self._ops, write_state(other._ops, other._ops.counters(self.version)))
            return
        joined = self.from_bytes(other.to_bytes())
        joined.compact(self.compacted)
        joined.merge(self)
        joined.replica = self.replica
        self._ops, self._keystrokes, self._own = joined._ops, joined._keystrokes, joined._own

    def delta_since(self, version: VersionVector) -> bytes:
        """Return what a replica lacks that has everything up to `version`.

        This is the whole state where `version` is below the cut of the last compaction.
        """
        return self._sealed(self._ops.counters(version))

    def _sealed(self, since: list[int]) -> bytes:
        return seal(_NAME, _VERSION, write_state(self._ops, since))

    def compact(self, stable: VersionVector) -> None:
        """Forget what no operation to come can refer to, given that all have reached `stable`.

        The caller guarantees that every replica has applied all operations up to `stable`, and
        that all operations that are not applied here were written by replicas that had. Replicas
        need not compact at the same time: merging goes on between those that did and those that
        did not, and equal operations and equal cuts give equal bytes.

        Of the elements up to `stable` the order of the visible ones stays, and one tombstone of
        each row of deleted ones. A `stable` below the last cut changes nothing.

        Raises:
            ValueError: `stable` is ahead of `version`, or has a deletion without what it deletes.
        """
        if not self.version.covers(stable):
            raise ValueError("sequence: the cut is ahead of what is known here")
        compact(self._ops, self._ops.counters(stable))

    def to_bytes(self) -> bytes:
        """Return the state as bytes, equal for equal states."""
        return self._sealed([0] * len(self._ops.names))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` or `delta_since` wrote, with no replica set.

        Raises:
            ValueError: `data` is malformed.
        """
        payload = _unsealed(data)
        sequence = cls(kind=kind_of(payload)[0])
        read_state(sequence._ops, payload)
        return sequence


def _unsealed(data: bytes) -> bytes:
    return unseal(_NAME, data, versions={_VERSION})[1]
