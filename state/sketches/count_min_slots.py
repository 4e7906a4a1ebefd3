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
    mix_runs,
)

_BLOCK = 1 << 13  # rows at once: their slots in all rows of the table stay near
_8 = np.uint64(8)


def column_slots(column: pa.Array, seeds: U64, buckets: int) -> Iterator[tuple[slice, U32]]:
    """Yield (rows of the column, their (rows of the table, T) slots), block by block.

    The slot of a null is arbitrary. The array is overwritten by the next one.

    Raises:
        TypeError: the column's type has no hash.
    """
    buffers = column_buffers(column)
    room = np.empty(len(seeds) * min(_BLOCK, len(column)), np.uint32)
    for start in range(0, len(column), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(column)))
        count = part.stop - part.start
        out = room[: len(seeds) * count].reshape(len(seeds), count)
        if isinstance(buffers, Words):
            _of_words(buffers.words[part], seeds, np.uint64(buckets), out)
        else:
            offsets = buffers.offsets[part.start : part.stop + 1]
            _of_runs(offsets, buffers.data, seeds, np.uint64(buckets), out)
        yield part, out


@inlined
def _reduce(hashes: U64, buckets: np.uint64, slots: U32) -> None:
    # A mask is many times faster than a remainder, and the same for powers of two.
    mask = buckets - np.uint64(1)
    if buckets & mask:
        for i in range(slots.size):
            slots[i] = np.uint32(hashes[i] % buckets)
    else:
        for i in range(slots.size):
            slots[i] = np.uint32(hashes[i] & mask)


@compiled
def _of_words(words: U64, seeds: U64, buckets: np.uint64, out: U32) -> None:
    mixed = np.empty(RUNS, np.uint64)
    hashes = np.empty(RUNS, np.uint64)
    for start in range(0, words.size, RUNS):
        part = words[start : start + RUNS]
        for i in range(part.size):
            mixed[i] = mix1(part[i])
        for row in range(seeds.size):
            seed = seeds[row]
            for i in range(part.size):
                hashes[i] = finish(seed ^ mixed[i], seed, _8)[0]
            _reduce(hashes, buckets, out[row, start : start + part.size])


@compiled
def _of_runs(offsets: Offsets, data: U8, seeds: U64, buckets: np.uint64, out: U32) -> None:
    heads = np.empty((2, seeds.size, RUNS), np.uint64)
    tails = np.empty((2, RUNS), np.uint64)
    lengths = np.empty(RUNS, np.uint64)
    hashes = np.empty(RUNS, np.uint64)
    t1, t2 = tails[0], tails[1]
    for start in range(0, offsets.size - 1, RUNS):
        runs = offsets[start : start + RUNS + 1]
        count = runs.size - 1
        whole = mix_runs(runs, data, seeds, heads, tails, lengths)
        for row in range(seeds.size):
            seed = seeds[row]
            h1, h2 = heads[0, row], heads[1, row]
            if whole:
                for i in range(count):
                    hashes[i] = finish(h1[i] ^ t1[i], h2[i] ^ t2[i], lengths[i])[0]
            else:
                for i in range(count):
                    hashes[i] = finish(seed ^ t1[i], seed ^ t2[i], lengths[i])[0]
            _reduce(hashes, buckets, out[row, start : start + count])
