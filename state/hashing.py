"""The one hash of the house: MurmurHash3 x64 128, whole columns at a time.

Equal values hash equally on every platform, in every process and in every version, which
Python's and Polars' own hashes do not promise, so a shard or a sketch keeps its meaning when it
crosses machines or is restored years later. Values are hashed as these bytes:

    integers, booleans, dates, times    8 bytes, little-endian, two's complement
    floats                              8 bytes of the f64, little-endian; -0.0 as 0.0, one NaN
    strings, binary                     their bytes (UTF-8)
    null                                hashes to the seed's own 0

so an int32 and an int64 column agree. Several columns chain: the hash of one is the seed of the
next.

Source: Austin Appleby, MurmurHash3 (public domain), ``MurmurHash3_x64_128``; the first 64 of its
128 bits are used. The arithmetic is in :mod:`state.murmur`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from state import murmur
from state.column_buffers import Words, column_buffers

U64 = npt.NDArray[np.uint64]


def hash64(column: pa.Array, seed: int | U64 = 0) -> U64:
    """Hash every value of ``column`` to 64 bits.

    Args:
        column: (T,) integers, booleans, floats, times, strings, binary, or a dictionary of these.
        seed: one seed below 2**64, or one for each value.

    Returns:
        (T,) uint64.

    Raises:
        TypeError: the column's type has no hash here.

    >>> [hex(h) for h in hash64(pa.array(["hello", "", None]))]
    ['0xcbd8a7b341bd9b02', '0x0', '0x0']
    """
    buffers = column_buffers(column)
    hashed = np.empty(len(column), np.uint64)
    if isinstance(seed, np.ndarray) and seed.ndim:
        # A copy where needed only: chained hashes come as fresh arrays.
        seeds = np.ascontiguousarray(np.broadcast_to(seed, hashed.shape), dtype=np.uint64)
        if isinstance(buffers, Words):
            murmur.hash_words_chained(buffers.words, seeds, hashed)
        else:
            murmur.hash_strings_chained(buffers.offsets, buffers.data, seeds, hashed)
    elif isinstance(buffers, Words):
        murmur.hash_words(buffers.words, np.uint64(seed), hashed)
    else:
        murmur.hash_strings(buffers.offsets, buffers.data, np.uint64(seed), hashed)
    if buffers.valid.size:
        murmur.clear_nulls(buffers.valid, buffers.first, hashed)
    return hashed


def hash_rows(columns: Sequence[pa.Array], seed: int = 0) -> U64:
    """Hash rows of several columns of equal length to (T,) uint64.

    Raises:
        ValueError: there are no columns.
    """
    if not columns:
        raise ValueError("a row hash needs at least one column")
    chained: int | U64 = seed
    for column in columns:
        chained = hash64(column, chained)
    return cast(U64, chained)
