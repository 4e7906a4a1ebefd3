"""The order of a sequence's elements: where a new one goes, and what becomes of deleted ones.

The order is FugueMax (Weidner and Kleppmann, "The Art of the Fugue", 2023) in the form that
compares origins: an element carries the elements that stood to its left and right when it was
written, and is placed between them by walking over what others wrote there meanwhile. Runs that
were written concurrently at one place do not interleave, forwards or backwards. The walk is needed
only where there was concurrency.
"""

from __future__ import annotations

from bisect import bisect_right

from state.crdt.sequence_layout import SPAN_LIMIT, Layout
from state.crdt.sequence_span import FLOOR, MASK, SHIFT, Content, Edit, Span


class Order(Layout):
    """All elements that were ever placed, deleted ones as tombstones."""

    def insert(self, first: int, n: int, left: int, right: int, content: Content) -> None:
        """Place `n` new elements, `first` and on; `content` None places them as deleted.

        Raises:
            ValueError: an origin is not an element, or they are not in document order.
        """
        span = self.near
        end = span.first + span.n
        if left != end - 1:
            span = self.find(left)
            end = span.first + span.n
            if left != end - 1:
                end = left + 1
                self.split(span, end)
        after = span.next
        if (0 if after is None else after.first) != right:
            span = self._among_concurrent(span, left, right, first)
        visible = content is not None
        if (
            first == span.first + span.n
            and first == left + 1
            and right == span.right
            and visible == (span.content is not None)
            and (not visible or span.n + n <= SPAN_LIMIT)
        ):
            if visible:
                span.content += content
                span.block.visible += n
            span.n += n
        else:
            step = SPAN_LIMIT if visible else n
            for k in range(0, n, step):
                m = min(step, n - k)
                new = Span(
                    first + k,
                    m,
                    first + k - 1 if k else left,
                    right,
                    content[k : k + m] if visible else None,
                )
                self._index(new)
                self.put_after(span, new)
                span = new
        self.near = span
        if visible:
            self.length += n
            self._cursor = None
            if self.edits is not None:
                self._record_insert(first, content)

    def _among_concurrent(self, span: Span, left: int, right: int, new: int) -> Span:
        """Return the span to place `new` after: one that lies between its origins."""
        end: Span | None = None
        if right:
            end = self.find(right)
            if end.first != right:
                end = self.split(end, right)
        far = (len(self.blocks), 0, 0)
        left_place = self.place(left)
        right_place = self.place(right) if right else far
        if right_place <= left_place:
            raise ValueError("sequence: the origins of an element are in the wrong order")
        key = (self.names[new >> SHIFT], new & MASK)
        target = previous = span
        other = span.next
        scanning = False
        while other is not None and other is not end:
            if other.left == left:
                if other.right == right:
                    if key < (self.names[other.first >> SHIFT], other.first & MASK):
                        break
                    scanning = False
                else:
                    scanning = (self.place(other.right) if other.right else far) < right_place
            elif other.left == FLOOR or self.place(other.left) < left_place:
                break
            previous, other = other, other.next
            if not scanning:
                target = previous
        return target

    def delete(self, first: int, n: int, floor: int = 0) -> int:
        """Bury the elements `first` .. `first + n - 1`; return how many were visible.

        Elements up to `floor` that are gone for good are passed over.

        Raises:
            ValueError: one of them is not an element.
        """
        visible, at = 0, first
        for span in self.within(first, first + n):
            if span.first > at:
                self._check_gone(at, span.first - 1, floor)
            at = max(at, span.first)
            k = min(first + n, span.first + span.n) - at
            if span.content is not None:
                visible += k
                self._bury(span, at, k)
            at += k
        if at < first + n:
            self._check_gone(at, first + n - 1, floor)
        return visible

    def _check_gone(self, first: int, last: int, floor: int) -> None:
        if last > floor:
            self.find(max(first, floor + 1))

    def _bury(self, span: Span, first: int, k: int) -> None:
        self._cursor = None
        if self.edits is not None:
            self._record_delete(span, first, k)
        self.length -= k
        if k < span.n:
            if first > span.first:
                if first + k == span.first + span.n and self._bury_end(span, first, k):
                    return
                if first + k < span.first + span.n:
                    self.split(span, first + k)
                span = self.split(span, first)
            else:
                if self._bury_start(span, k):
                    return
                self.split(span, first + k)
        span.content = None
        span.block.visible -= k
        self._join_buried(span)

    def _bury_end(self, span: Span, first: int, k: int) -> bool:
        """Move the end of `span` over to the tombstone behind it (a backspace held down)."""
        after = span.next
        if after is None or after.content is not None or not after.continues(span):
            return False
        starts = self.starts[first >> SHIFT]
        starts[bisect_right(starts, after.first) - 1] = after.first = first
        after.left = FLOOR if after.left == FLOOR else first - 1
        after.n += k
        span.n -= k
        span.content = span.content[: span.n]
        span.block.visible -= k
        return True

    def _bury_start(self, span: Span, k: int) -> bool:
        """Move the start of `span` over to the tombstone before it (a delete key held down)."""
        starts = self.starts[span.first >> SHIFT]
        at = bisect_right(starts, span.first) - 1
        before = self.spans[span.first >> SHIFT][at - 1] if at else None
        if before is None or before.content is not None or not span.continues(before):
            return False
        before.n += k
        span.first += k
        starts[at] = span.first
        span.left = FLOOR if span.left == FLOOR else span.first - 1
        span.n -= k
        span.content = span.content[k:]
        span.block.visible -= k
        return True

    def _join_buried(self, span: Span) -> None:
        """Join a tombstone with tombstones of the same run on either side."""
        replica = span.first >> SHIFT
        spans = self.spans[replica]
        at = bisect_right(self.starts[replica], span.first) - 1
        after = span.next
        if after is not None and after.content is None and after.continues(span):
            span.n += after.n
            self._drop(span, after, at + 1)
        if at:
            before = spans[at - 1]
            if before.content is None and span.continues(before):
                before.n += span.n
                self._drop(before, span, at)

    def _drop(self, before: Span, span: Span, at: int) -> None:
        """Take out `span`, which follows `before`, and is number `at` of its replica."""
        replica = span.first >> SHIFT
        del self.starts[replica][at], self.spans[replica][at]
        block = span.block
        block.spans.remove(span)
        if not block.spans:
            self.blocks.remove(block)
        before.next = span.next
        if self.near is span:
            self.near = before

    def _record_insert(self, first: int, content: Content) -> None:
        assert self.edits is not None
        span = self.find(first)
        index = self.index_of(span) + first - span.first
        last = self.edits[-1] if self.edits else None
        if last is not None and not last.deleted and last.index + len(last.inserted) == index:
            self.edits[-1] = Edit(last.index, 0, last.inserted + content)
        else:
            self.edits.append(Edit(index, 0, content))

    def _record_delete(self, span: Span, first: int, k: int) -> None:
        assert self.edits is not None
        index = self.index_of(span) + first - span.first
        last = self.edits[-1] if self.edits else None
        if last is not None and not last.inserted and index in (last.index, last.index - k):
            self.edits[-1] = Edit(index, last.deleted + k, self.empty)
        else:
            self.edits.append(Edit(index, k, self.empty))
