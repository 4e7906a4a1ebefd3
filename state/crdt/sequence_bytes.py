"""Numbers, references to elements and runs of operations as bytes.

Numbers are LEB128 varints of at most 63 bits in their shortest form.

A run is a varint ``n * 8 + code``, where code says what the `n` operations are: visible
insertions, deleted ones, both (the lengths of the pieces follow, visible first), deletions
forwards or backwards, or operations that are not in these bytes. Elements that a run refers to are
written relative to the last one of the same replica that was referred to: writing tends to go on
near where it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from state.crdt.sequence_backlog import Op
from state.crdt.sequence_runs import Run
from state.crdt.sequence_span import MASK, SHIFT, Content

VISIBLE, GONE, MIXED, FORWARD, BACKWARD, SKIP = range(6)


class Writer:
    """Bytes in the making."""

    def __init__(self) -> None:
        self.data = bytearray()

    def number(self, value: int) -> None:
        """Append a varint."""
        data = self.data
        while value > 0x7F:
            data.append(value & 0x7F | 0x80)
            value >>= 7
        data.append(value)

    def name(self, name: str) -> None:
        """Append a replica's name."""
        raw = name.encode()
        self.number(len(raw))
        self.data += raw


class Reader:
    """Bytes being read; whatever is not there, or not as a `Writer` writes it, is a ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self) -> int:
        """Read a varint."""
        data, at = self.data, self.at
        try:
            value = data[at]
            at += 1
            if value > 0x7F:
                value &= 0x7F
                shift = 7
                while True:
                    byte = data[at]
                    at += 1
                    value |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                    shift += 7
                    if shift > 56:
                        raise ValueError("sequence: a number of more than 63 bits")
                if not byte:
                    raise ValueError("sequence: a number that is not in its shortest form")
        except IndexError:
            raise ValueError("sequence: truncated") from None
        self.at = at
        return value

    def count(self) -> int:
        """Read the number of things that follow, each of at least one byte."""
        value = self.number()
        if value > len(self.data) - self.at:
            raise ValueError("sequence: a count that is larger than what follows")
        return value

    def take(self, n: int) -> bytes:
        """Read `n` bytes."""
        if n > len(self.data) - self.at:
            raise ValueError("sequence: truncated")
        self.at += n
        return self.data[self.at - n : self.at]

    def name(self) -> str:
        """Read a replica's name."""
        try:
            return self.take(self.number()).decode()
        except UnicodeDecodeError:
            raise ValueError("sequence: a replica's name that is not UTF-8") from None


class References:
    """Elements as numbers relative to the last one of the same replica, both ways.

    Args:
        local: the local index of each replica of the table.
    """

    def __init__(self, local: list[int]) -> None:
        self.local = local
        self.table = {replica: at for at, replica in enumerate(local)}
        self.last = [0] * len(local)

    def write(self, out: Writer, element: int) -> None:
        """Append `element`; 0 is the edge of the document."""
        if not element:
            out.number(0)
            return
        at = self.table[element >> SHIFT]
        seq = element & MASK
        step = seq - self.last[at]
        self.last[at] = seq
        out.number(1 + at + len(self.last) * (step << 1 if step >= 0 else ~step << 1 | 1))

    def read(self, source: Reader) -> int:
        """Read an element."""
        value = source.number()
        if not value:
            return 0
        step, at = divmod(value - 1, len(self.last)) if self.last else (0, 0)
        seq = self.last[at] + (~(step >> 1) if step & 1 else step >> 1) if self.last else 0
        if not 0 < seq <= MASK:
            raise ValueError("sequence: an element outside the range of counters")
        self.last[at] = seq
        return self.local[at] << SHIFT | seq


def write_runs(out: Writer, refs: References, replica: int, runs: Iterable[Run]) -> list[Content]:
    """Append the runs of one replica and return their visible elements."""
    contents: list[Content] = []
    rows = Writer()
    number = 0
    expected = 1
    for run in runs:
        if run.seq != expected:
            rows.number((run.seq - expected) << 3 | SKIP)
            number += 1
        expected = run.seq + run.n
        number += 1
        if run.step:
            rows.number(run.n << 3 | (FORWARD if run.n == 1 or run.step > 0 else BACKWARD))
            refs.write(rows, run.a)
            refs.last[refs.table[run.a >> SHIFT]] += run.step * (run.n - 1)
            continue
        contents += [content for _, content in run.pieces if content is not None]
        lengths = [
            (gone, sum(n for n, _ in group))
            for gone, group in groupby(run.pieces, key=lambda piece: piece[1] is None)
        ]
        code = MIXED if len(lengths) > 1 else GONE if lengths[0][0] else VISIBLE
        rows.number(run.n << 3 | code)
        refs.write(rows, run.a)
        refs.write(rows, run.b)
        refs.last[refs.table[replica]] = expected - 1
        if code == MIXED:
            if lengths[0][0]:
                rows.number(0)
            for _, n in lengths:
                rows.number(n)
    out.number(number)
    out.data += rows.data
    return contents


class Elements:
    """The visible elements of a payload, handed out in order."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.at = 0

    def take(self, n: int) -> Content:
        """Return the next `n`."""
        self.at += n
        if self.at > len(self.content):
            raise ValueError("sequence: more elements are announced than there are")
        return self.content[self.at - n : self.at]


def read_runs(source: Reader, refs: References, replica: int, elements: Elements) -> list[Op]:
    """Read what `write_runs` wrote, with one operation for each piece of a run."""
    ops: list[Op] = []
    seq = 1
    for _ in range(source.count()):
        head = source.number()
        n, code = head >> 3, head & 7
        if not 0 < n < MASK - seq or code > SKIP:
            raise ValueError("sequence: an empty run, or one of an unknown kind")
        if code <= MIXED:
            op = Op(seq, n, 0, refs.read(source), refs.read(source), None)
            op.check(replica)
            refs.last[refs.table[replica]] = op.end - 1
            ops += _pieces(source, op, replica, code, elements)
        elif code != SKIP:
            op = Op(seq, n, 1 if code == FORWARD else -1, refs.read(source), 0, None)
            op.check(replica)
            refs.last[refs.table[op.a >> SHIFT]] += op.step * (n - 1)
            ops.append(op)
        seq += n
    return ops


def _pieces(source: Reader, op: Op, replica: int, code: int, elements: Elements) -> list[Op]:
    if code == GONE:
        return [op]
    if code == VISIBLE:
        return [op._replace(content=elements.take(op.n))]
    pieces: list[Op] = []
    at, gone = op.seq, False
    while at < op.end:
        n = source.number()
        if n > op.end - at or (not n and (gone or pieces)):
            raise ValueError("sequence: pieces that do not make up their run")
        if n:
            piece = op.part(replica, at, at + n)
            pieces.append(piece if gone else piece._replace(content=elements.take(n)))
        at += n
        gone = not gone
    return pieces
