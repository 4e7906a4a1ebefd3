"""Coupons: what HyperLogLog keeps of a value, computed and folded whole columns at a time.

A coupon is 32 bits: the low 26 of the first word of the value's hash (its address), and above them
one more than the leading zeros of the second word, at most 63. A register array of 2**lg_k takes
the largest value at each address modulo its size. 0 stands for no value. Coupons are those of
Apache DataSketches, value by value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from state import murmur
from state.column_buffers import Values, Words, chunks, column_buffers
from state.murmur import RUNS, compiled, finish, inlined, leading_zeros, mix_runs, word_pair

U8: TypeAlias = npt.NDArray[np.uint8]
U32: TypeAlias = npt.NDArray[np.uint32]

ADDRESS_BITS = 26
LARGEST_VALUE = 63

_ADDRESS = np.uint64((1 << ADDRESS_BITS) - 1)
_BITS = np.uint64(ADDRESS_BITS)
_MOST = np.uint64(LARGEST_VALUE)
_ONE = np.uint64(1)
_BLOCK = 1 << 14  # rows at once: their coupons stay in the nearest cache


def column_coupons(values: Values, seed: int) -> Iterator[U32]:
    """Yield the coupons of a column, block by block; 0 for null.

    Raises:
        TypeError: the column's type has no hash.
    """
    for column in chunks(values):
        yield from _array_coupons(column, np.uint64(seed))


def _array_coupons(column: pa.Array, seed: np.uint64) -> Iterator[U32]:
    if types.is_dictionary(column.type):
        known = [*_array_coupons(column.dictionary, seed), np.zeros(1, np.uint32)]
        table = np.concatenate(known)
        # Null takes the last place, where the 0 is.
        at = column.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
        yield table[at]
        return
    buffers = column_buffers(column)
    for start in range(0, len(column), _BLOCK):
        stop = min(start + _BLOCK, len(column))
        out = np.empty(stop - start, np.uint32)
        if isinstance(buffers, Words):
            _of_words(buffers.words[start:stop], seed, out)
        else:
            _of_runs(buffers.offsets[start : stop + 1], buffers.data, seed, out)
        if buffers.valid.size:
            murmur.clear_nulls(buffers.valid, buffers.first + start, out)
        yield out


def fold_registers(coupons: U32, registers: U8) -> None:
    """Raise each coupon's register to its value; ``registers`` has a power of two of them."""
    _fold(coupons, np.uint32(len(registers) - 1), registers)


def distinct(known: U32, coupons: U32, limit: int) -> U32 | None:
    """Return the sorted distinct coupons of both, without 0, or None if there are ``limit``."""
    room = 2 * min(len(known) + len(coupons), limit) + 1
    table = np.zeros(1 << room.bit_length(), np.uint32)
    count = _collect(known, table, 0, limit)
    count = _collect(coupons, table, count, limit)
    return None if count >= limit else np.sort(table[table != 0])


@inlined
def _coupon(first: np.uint64, second: np.uint64) -> np.uint32:
    value = min(leading_zeros(second) + _ONE, _MOST)
    return np.uint32((value << _BITS) | (first & _ADDRESS))


@compiled
def _of_words(words: murmur.U64, seed: np.uint64, out: U32) -> None:
    for i in range(words.size):
        first, second = word_pair(words[i], seed)
        out[i] = _coupon(first, second)


@compiled
def _of_runs(offsets: murmur.Offsets, data: U8, seed: np.uint64, out: U32) -> None:
    seeds = np.full(1, seed)
    heads = np.empty((2, 1, RUNS), np.uint64)
    tails = np.empty((2, RUNS), np.uint64)
    lengths = np.empty(RUNS, np.uint64)
    h1, h2 = heads[0, 0], heads[1, 0]
    t1, t2 = tails[0], tails[1]
    for start in range(0, out.size, RUNS):
        part = out[start : start + RUNS]
        runs = offsets[start : start + part.size + 1]
        whole = mix_runs(runs, data, seeds, heads, tails, lengths)
        if whole:
            for i in range(part.size):
                t1[i], t2[i] = finish(h1[i] ^ t1[i], h2[i] ^ t2[i], lengths[i])
        else:
            for i in range(part.size):
                t1[i], t2[i] = finish(seed ^ t1[i], seed ^ t2[i], lengths[i])
        for i in range(part.size):
            part[i] = _coupon(t1[i], t2[i])


@compiled
def _fold(coupons: U32, mask: np.uint32, registers: U8) -> None:
    for i in range(coupons.size):
        coupon = coupons[i]
        value = np.uint8(coupon >> np.uint32(26))
        at = coupon & mask
        registers[at] = max(registers[at], value)


@compiled
def _collect(coupons: U32, table: U32, count: int, limit: int) -> int:
    # An open-addressing set; `table` is never more than half full.
    mask = np.uint32(table.size - 1)
    for i in range(coupons.size):
        if count >= limit:
            break
        coupon = coupons[i]
        if coupon == 0:
            continue
        at = coupon & mask
        while table[at] != 0 and table[at] != coupon:
            at = (at + np.uint32(1)) & mask
        if table[at] == 0:
            table[at] = coupon
            count += 1
    return count
