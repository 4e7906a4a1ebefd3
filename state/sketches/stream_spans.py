"""Sets of random streams as spans, so that a million numbered without gaps take one pair."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]
"""The first and the last stream of a run without gaps."""


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans, sorted and as few as can be.

    Raises:
        ValueError: a stream is in two of them, or a span ends before it starts.

    >>> joined([(4, 4), (0, 2), (3, 3)])
    [(0, 4)]
    """
    union: list[Span] = []
    for first, last in sorted(spans):
        if last < first:
            raise ValueError(f"streams {first} to {last}")
        if union and first <= union[-1][1]:
            raise ValueError(f"both parts hold rows of random stream {first}")
        if union and first == union[-1][1] + 1:
            union[-1] = (union[-1][0], last)
        else:
            union.append((first, last))
    return union
