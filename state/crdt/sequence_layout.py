"""Where the elements of a sequence are: in document order, by number and by index.

Elements that were written one after the other lie in one `Span`, and up to `BLOCK_LIMIT` spans in
one `Block` that knows how many of its elements are visible. Finding an element costs a bisection
among the spans of one replica; finding an index costs a walk over the blocks.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from state.crdt.sequence_span import FLOOR, MASK, SHIFT, Block, Content, Edit, Span

SPAN_LIMIT = 1024
"""Visible elements of a span at most: what a keystroke copies."""
BLOCK_LIMIT = 96


class Layout:
    """Spans in document order, deleted ones too."""

    def __init__(self, empty: Content) -> None:
        self.empty = empty
        self.head = head = Span(0, 1, FLOOR, FLOOR, None)
        head.block = Block([head], 0)
        self.blocks = [head.block]
        self.names: list[str] = [""]
        self.starts: list[list[int]] = [[0]]
        self.spans: list[list[Span]] = [[head]]
        self.length = 0
        self.edits: list[Edit] | None = None
        """Where changes of what is visible are noted down, if anywhere."""
        self.near = head
        """The span that was last written to."""
        self._cursor: Span | None = None
        self._cursor_index = 0

    def add_replica(self, name: str) -> None:
        """Make room for the elements of one more replica."""
        self.names.append(name)
        self.starts.append([])
        self.spans.append([])

    def __iter__(self) -> Iterator[Span]:
        span = self.head.next
        while span is not None:
            yield span
            span = span.next

    def lay_out(self, spans: Iterable[Span]) -> None:
        """Replace everything by `spans`, in document order.

        Raises:
            ValueError: two of them hold the same element.
        """
        tables: list[list[Span]] = [[] for _ in self.names]
        tables[0].append(self.head)
        self.near = last = self.head
        self.head.next = self._cursor = None
        self.blocks = [Block([self.head], 0)]
        self.head.block = self.blocks[0]
        self.length = 0
        for span in spans:
            tables[span.first >> SHIFT].append(span)
            if len(self.blocks[-1].spans) >= BLOCK_LIMIT // 2:
                self.blocks.append(Block([], 0))
            block = span.block = self.blocks[-1]
            block.spans.append(span)
            if span.content is not None:
                block.visible += span.n
                self.length += span.n
            span.next = None
            last.next = span
            last = span
        for table in tables:
            table.sort(key=lambda span: span.first)
            for before, span in itertools.pairwise(table):
                if span.first < before.first + before.n:
                    raise ValueError("sequence: an element that is there twice")
        self.spans = tables
        self.starts = [[span.first for span in table] for table in tables]

    def find(self, element: int) -> Span:
        """Return the span that holds `element`; ValueError where none does."""
        replica = element >> SHIFT
        at = bisect_right(self.starts[replica], element) - 1
        if at >= 0:
            span = self.spans[replica][at]
            if element < span.first + span.n:
                return span
        raise ValueError(
            f"sequence: element {element & MASK} of replica {self.names[replica]!r} is not known"
        )

    def within(self, first: int, end: int) -> list[Span]:
        """Return the spans that hold any of the elements `first` .. `end - 1` of one replica."""
        starts, spans = self.starts[first >> SHIFT], self.spans[first >> SHIFT]
        low, high = bisect_right(starts, first) - 1, bisect_left(starts, end)
        if low < 0 or spans[low].first + spans[low].n <= first:
            low += 1
        return spans[low:high]

    def place(self, element: int) -> tuple[int, int, int]:
        """Return a key that orders elements as the document does, until the next change."""
        span = self.find(element)
        return (
            self.blocks.index(span.block),
            span.block.spans.index(span),
            element - span.first,
        )

    def split(self, span: Span, at: int) -> Span:
        """Cut `span` before element `at`, which lies inside it; return the second part."""
        k = at - span.first
        content = span.content
        new = Span(at, span.n - k, FLOOR if span.left == FLOOR else at - 1, span.right, None)
        span.n = k
        if content is not None:
            new.content = content[k:]
            span.content = content[:k]
            span.block.visible -= new.n
        self._index(new)
        self.put_after(span, new)
        return new

    def cut_before(self, element: int) -> None:
        """Let a span begin at `element`, if that lies inside one."""
        for span in self.within(element, element + 1):
            if span.first < element:
                self.split(span, element)

    def _index(self, span: Span) -> None:
        replica = span.first >> SHIFT
        starts = self.starts[replica]
        if not starts or span.first > starts[-1]:
            starts.append(span.first)
            self.spans[replica].append(span)
        else:
            at = bisect_right(starts, span.first)
            starts.insert(at, span.first)
            self.spans[replica].insert(at, span)

    def put_after(self, span: Span, new: Span) -> None:
        """Link `new` behind `span`."""
        new.next = span.next
        span.next = new
        block = new.block = span.block
        spans = block.spans
        spans.insert(spans.index(span) + 1, new)
        if new.content is not None:
            block.visible += new.n
        if len(spans) > BLOCK_LIMIT:
            half = spans[BLOCK_LIMIT // 2 :]
            del spans[BLOCK_LIMIT // 2 :]
            visible = sum(s.n for s in half if s.content is not None)
            block.visible -= visible
            other = Block(half, visible)
            for moved in half:
                moved.block = other
            self.blocks.insert(self.blocks.index(block) + 1, other)

    def at(self, index: int) -> tuple[Span, int]:
        """Return the span and the offset in it of the visible element number `index`."""
        span = self._cursor
        if span is not None:
            offset = index - self._cursor_index
            if 0 <= offset < span.n:
                return span, offset
        rest = index
        for block in self.blocks:
            if rest < block.visible:
                break
            rest -= block.visible
        for span in block.spans:
            if span.content is not None:
                if rest < span.n:
                    self._cursor, self._cursor_index = span, index - rest
                    return span, rest
                rest -= span.n
        raise IndexError(index)

    def keep_cursor(self, span: Span, index: int) -> None:
        """Remember that `span`, still visible, begins at `index`, until the next change."""
        self._cursor, self._cursor_index = span, index

    def index_of(self, span: Span) -> int:
        """Return how many visible elements lie before `span`."""
        block = span.block
        total = 0
        for other in self.blocks:
            if other is block:
                break
            total += other.visible
        for before in block.spans:
            if before is span:
                break
            if before.content is not None:
                total += before.n
        return total
