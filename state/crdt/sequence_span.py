"""The pieces that a sequence is laid out in: elements, spans of them, blocks of spans.

An element is an integer: the local index of the replica that wrote it above `SHIFT` bits, its
number below; 0 is the edge of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHIFT = 40
MASK = (1 << SHIFT) - 1

FLOOR = -1
"""The origins of an element of the compacted part: nothing new is compared with it."""
BURIED = -2
"""The right origin of an element of the compacted part that every replica knows as deleted."""

Content = Any
"""Visible elements: a `str` or a `tuple`; both slice and concatenate."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of the visible sequence: at `index`, `deleted` elements give way to `inserted`."""

    index: int
    deleted: int
    inserted: str | tuple[Any, ...]


class Block:
    """Consecutive spans, and how many of their elements are visible."""

    __slots__ = ("spans", "visible")

    def __init__(self, spans: list[Span], visible: int) -> None:
        self.spans = spans
        self.visible = visible


class Span:
    """Elements `first` .. `first + n - 1`; the left origin of each but the first is the one before.

    All have the right origin `right`. `content` is None once they are deleted.
    """

    __slots__ = ("block", "content", "first", "left", "n", "next", "right")

    block: Block

    def __init__(self, first: int, n: int, left: int, right: int, content: Content) -> None:
        self.first = first
        self.n = n
        self.left = left
        self.right = right
        self.content = content
        self.next: Span | None = None

    def continues(self, before: Span) -> bool:
        """Whether it stands behind `before` and was written as one run with it."""
        return (
            before.next is self
            and self.first == before.first + before.n
            and self.right == before.right
            and (self.left == self.first - 1 or self.left == before.left == FLOOR)
        )
