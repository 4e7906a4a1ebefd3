"""Where count-min counts a value: the slot in each row, computed whole columns at a time.

The slot of a value in a row is the first word of its hash under the row's seed, modulo the number
of buckets, as in Apache DataSketches. What does not depend on the seed is mixed once for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from state.column_buffers import Runs, Words, column_buffers
from state.murmur import (
    U8,
    U32,
    U64,
    Offsets,
    compiled,
    finish,
    inlined,
    mix_blocks,
    mixed_tail,
    word_pair,
)

_BLOCK = 1 << 13
_15 = np.uint64(15)
_4 = np.uint64(4)


def column_slots(column: pa.Array, seeds: U64, buckets: int) -> Iterator[tuple[slice, int, U32]]:
    """Yield (rows of the column, row of the table, slots), block by block of the column.

    The slot of a null is arbitrary. The array is overwritten by the next one.

    Raises:
        TypeError: the column's type has no hash.
    """
    buffers = column_buffers(column)
    out = np.empty(min(_BLOCK, len(column)), np.uint32)
    for start in range(0, len(column), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(column)))
        slots = out[: part.stop - start]
        if isinstance(buffers, Words):
            words = buffers.words[part]
            for row, seed in enumerate(seeds):
                _of_words(words, seed, np.uint64(buckets), slots)
                yield part, row, slots
        else:
            for row in _rows_of_runs(buffers, part, seeds, np.uint64(buckets), slots):
                yield part, row, slots


def _rows_of_runs(
    buffers: Runs, part: slice, seeds: U64, buckets: np.uint64, slots: U32
) -> Iterator[int]:
    offsets = buffers.offsets[part.start : part.stop + 1]
    first, second, lengths = (np.empty(len(slots), np.uint64) for _ in range(3))
    longest = _tails(offsets, buffers.data, first, second, lengths)
    for row, seed in enumerate(seeds):
        if longest < 16:
            _of_tails(first, second, lengths, seed, buckets, slots)
        else:
            _of_runs(offsets, buffers.data, first, second, seed, buckets, slots)
        yield row


@inlined
def _reduce(hashes: U64, buckets: np.uint64, slots: U32) -> None:
    # A mask is many times faster than a remainder, and the same for powers of two.
    mask = buckets - np.uint64(1)
    if buckets & mask:
        for i in range(hashes.size):
            slots[i] = np.uint32(hashes[i] % buckets)
    else:
        for i in range(hashes.size):
            slots[i] = np.uint32(hashes[i] & mask)


@compiled
def _of_words(words: U64, seed: np.uint64, buckets: np.uint64, slots: U32) -> None:
    hashes = np.empty(words.size, np.uint64)
    for i in range(words.size):
        hashes[i] = word_pair(words[i], seed)[0]
    _reduce(hashes, buckets, slots)


@compiled
def _tails(offsets: Offsets, data: U8, first: U64, second: U64, lengths: U64) -> np.uint64:
    longest = np.uint64(0)
    for i in range(offsets.size - 1):
        at = np.uint64(offsets[i])
        length = np.uint64(offsets[i + 1]) - at
        size = length & _15
        lengths[i] = length
        first[i], second[i] = mixed_tail(data, at + length - size, size)
        longest = max(longest, length)
    return longest


@compiled
def _of_tails(
    first: U64, second: U64, lengths: U64, seed: np.uint64, buckets: np.uint64, slots: U32
) -> None:
    hashes = np.empty(first.size, np.uint64)
    for i in range(first.size):
        hashes[i] = finish(seed ^ first[i], seed ^ second[i], lengths[i])[0]
    _reduce(hashes, buckets, slots)


@compiled
def _of_runs(
    offsets: Offsets,
    data: U8,
    first: U64,
    second: U64,
    seed: np.uint64,
    buckets: np.uint64,
    slots: U32,
) -> None:
    hashes = np.empty(first.size, np.uint64)
    for i in range(first.size):
        at = np.uint64(offsets[i])
        length = np.uint64(offsets[i + 1]) - at
        h1, h2 = mix_blocks(data, at, length >> _4, seed)
        hashes[i] = finish(h1 ^ first[i], h2 ^ second[i], length)[0]
    _reduce(hashes, buckets, slots)
