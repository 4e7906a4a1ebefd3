"""Where count-min counts a value: the slot in each row, computed whole columns at a time.

The slot of a value in a row is the first word of its hash under the row's seed, modulo the number
of buckets, as in Apache DataSketches. What does not depend on the seed is mixed once for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from state.column_buffers import Words, column_buffers
from state.murmur import (
    RUNS,
    U8,
    U32,
    U64,
    Offsets,
    compiled,
    finish,
    inlined,
    mix1,
    mix_heads,
    mix_tails,
)

_BLOCK = 1 << 12  # rows at once: their slots in all rows of the table stay near
_8, _16 = np.uint64(8), np.uint64(16)


def column_slots(column: pa.Array, seeds: U64, buckets: int) -> Iterator[tuple[slice, U32]]:
    """Yield (rows of the column, their (rows of the table, T) slots), block by block.

    The slot of a null is arbitrary. The array is overwritten by the next one.

    Raises:
        TypeError: the column's type has no hash.
    """
    buffers = column_buffers(column)
    out = np.empty((len(seeds), min(_BLOCK, len(column))), np.uint32)
    for start in range(0, len(column), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(column)))
        if isinstance(buffers, Words):
            _of_words(buffers.words[part], seeds, np.uint64(buckets), out)
        else:
            offsets = buffers.offsets[part.start : part.stop + 1]
            _of_runs(offsets, buffers.data, seeds, np.uint64(buckets), out)
        yield part, out[:, : part.stop - start]


@inlined
def _reduce(hashes: U64, count: int, buckets: np.uint64, slots: U32) -> None:
    # A mask is many times faster than a remainder, and the same for powers of two.
    mask = buckets - np.uint64(1)
    if buckets & mask:
        for i in range(count):
            slots[i] = np.uint32(hashes[i] % buckets)
    else:
        for i in range(count):
            slots[i] = np.uint32(hashes[i] & mask)


@compiled
def _of_words(words: U64, seeds: U64, buckets: np.uint64, out: U32) -> None:
    mixed = np.empty(words.size, np.uint64)
    hashes = np.empty(words.size, np.uint64)
    for i in range(words.size):
        mixed[i] = mix1(words[i])
    for row in range(seeds.size):
        seed = seeds[row]
        for i in range(words.size):
            hashes[i] = finish(seed ^ mixed[i], seed, _8)[0]
        _reduce(hashes, words.size, buckets, out[row])


@compiled
def _of_runs(offsets: Offsets, data: U8, seeds: U64, buckets: np.uint64, out: U32) -> None:
    t1 = np.empty(RUNS, np.uint64)
    t2 = np.empty(RUNS, np.uint64)
    lengths = np.empty(RUNS, np.uint64)
    hashes = np.empty(RUNS, np.uint64)
    h1 = np.empty((seeds.size, RUNS), np.uint64)
    h2 = np.empty((seeds.size, RUNS), np.uint64)
    for start in range(0, offsets.size - 1, RUNS):
        edges = offsets[start : start + RUNS + 1]
        count = edges.size - 1
        longest = mix_tails(edges, data, t1, t2, lengths)
        if longest >= _16:
            mix_heads(edges, data, lengths, longest, seeds, h1, h2)
        for row in range(seeds.size):
            if longest < _16:
                for i in range(count):
                    hashes[i] = finish(seeds[row] ^ t1[i], seeds[row] ^ t2[i], lengths[i])[0]
            else:
                for i in range(count):
                    hashes[i] = finish(h1[row, i] ^ t1[i], h2[row, i] ^ t2[i], lengths[i])[0]
            _reduce(hashes, count, buckets, out[row, start : start + count])
