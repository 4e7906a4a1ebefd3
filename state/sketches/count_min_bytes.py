"""The table of a count-min sketch as canonical bytes.

Layout, little-endian: u8 bytes per counter (1, 2, 4 or 8: the fewest that hold the largest; 0 for
an empty table), u32 counters that follow, and

    few     their places in the table in row order, u16 or (beyond 65,536 counters) u32, counters
    all     the counters

whichever is shorter. Every row adds up to the same total.
"""

from __future__ import annotations

import itertools
import struct

import numpy as np

from state.sketches.weights import I64, exact_sum

_HEAD = struct.Struct("<BI")
_WIDTHS = (1, 2, 4, 8)


def write_table(table: I64 | None) -> bytes:
    """Return the bytes of a table of counters >= 0."""
    if table is None:
        return _HEAD.pack(0, 0)
    cells = table.ravel()
    places = np.flatnonzero(cells)
    width, place, few = _form(int(cells.max()), len(places), len(cells))
    if few:
        head = _HEAD.pack(width, len(places)) + places.astype(place).tobytes()
        return head + cells[places].astype(f"<u{width}").tobytes()
    return _HEAD.pack(width, len(cells)) + cells.astype(f"<u{width}").tobytes()


def read_table(data: bytes, rows: int, buckets: int, total: int) -> I64 | None:
    """Return the (rows, buckets) table in ``data``, None if it is empty.

    Raises:
        ValueError: ``data`` is not what `write_table` writes for a table of this shape and total.
    """
    if len(data) < _HEAD.size:
        raise ValueError("count-min: truncated table")
    width, stored = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if width == 0:
        if stored or body or total:
            raise ValueError("count-min: an empty table with counters")
        return None
    cells = rows * buckets
    if width not in _WIDTHS or not 0 < stored <= cells:
        raise ValueError(f"count-min: {stored} counters of {width} bytes for {cells}")
    place = _place(cells)
    few = len(body) == stored * (np.dtype(place).itemsize + width)
    if not few and (stored != cells or len(body) != cells * width):
        raise ValueError(f"count-min: {stored} counters of {width} bytes in {len(body)} bytes")
    counters = np.frombuffer(body, f"<u{width}", offset=len(body) - stored * width)
    largest = int(counters.max())
    if largest > total:
        raise ValueError(f"count-min: a counter above the total of {total}")
    if few:
        places = np.frombuffer(body, place, stored).astype(np.int64)
        if (places[1:] <= places[:-1]).any() or places[-1] >= cells or counters.min() < 1:
            raise ValueError("count-min: places out of order or range, or counters of 0")
        # Zeroed pages cost nothing until they are written: a short message claims no memory.
        table = np.zeros(cells, np.int64)
        table[places] = counters
        edges = np.searchsorted(places, np.arange(rows + 1) * buckets).tolist()
    else:
        table = counters.astype(np.int64)
        edges = list(range(0, cells + 1, buckets))
        counters = table
    for low, high in itertools.pairwise(edges):
        if exact_sum(counters[low:high], largest) != total:
            raise ValueError(f"count-min: a row does not add up to the total of {total}")
    if _form(largest, int(np.count_nonzero(counters)), cells) != (width, place, few):
        raise ValueError("count-min: a table in a longer form than needed")
    return table.reshape(rows, buckets)


def _form(largest: int, filled: int, cells: int) -> tuple[int, str, bool]:
    width = next(w for w in _WIDTHS if largest < 1 << 8 * w)
    place = _place(cells)
    return width, place, filled * (np.dtype(place).itemsize + width) < cells * width


def _place(cells: int) -> str:
    return "<u2" if cells <= 1 << 16 else "<u4"
