"""Where to cut a state into chunks, so that a small change leaves most of them as they were.

A cut follows eight bytes whose product with a constant begins with enough zeros, wherever they are.
So bytes that come, go or grow move no cuts but those around them, as they would if all chunks were
of one size (Muthitacharoen, Chen and Mazieres, "A Low-bandwidth Network File System", SOSP 2001).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_WINDOW: Final = 8
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_BLOCK: Final = 1 << 18
"""Bytes looked at in one go: what is made of them fits into a cache."""


def cuts(data: bytes, most: int) -> list[int]:
    """Return where each chunk ends, in order; the last one with `data`.

    A chunk has `most` bytes at most, and a quarter of that at least, unless it is the last. This
    takes time in proportion to the bytes, whatever they are.

    >>> import random
    >>> data = random.Random(1).randbytes(10_000)
    >>> before, after = cuts(data, 1000), cuts(b"more" + data, 1000)
    >>> len({end + 4 for end in before} & set(after)), len(before)
    (25, 25)
    """
    least = max(1, most // 4)
    below = np.uint64((1 << (64 - (least.bit_length() - 1))) - 1)
    found: list[int] = []
    start = 0
    for at in range(0, len(data), _BLOCK):
        limit = min(at + _BLOCK, len(data))
        marks = _marks(data, at, limit, below)
        while True:
            i = int(marks.searchsorted(start + least))
            end = min(int(marks[i]) if i < len(marks) else limit + 1, start + most)
            if end > limit:
                break
            found.append(end)
            start = end
    if start < len(data):
        found.append(len(data))
    return found


def _marks(data: bytes, at: int, limit: int, below: np.uint64) -> npt.NDArray[np.int64]:
    """Return all places in (at, limit] that follow eight such bytes, in order."""
    first = max(0, at - _WINDOW + 1)
    count = limit - _WINDOW - first + 1
    if count <= 0:
        return np.empty(0, np.int64)
    marked = np.empty(count, bool)
    for shift in range(min(_WINDOW, count)):
        places = (count - shift + _WINDOW - 1) // _WINDOW
        windows = np.frombuffer(data, "<u8", places, first + shift)
        marked[shift::_WINDOW] = windows * _FACTOR <= below
    return np.flatnonzero(marked) + (first + _WINDOW)
