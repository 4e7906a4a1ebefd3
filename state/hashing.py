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
128 bits are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

U64 = npt.NDArray[np.uint64]

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_TEXT_OR_BYTES = {
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
}


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
    seeds = np.broadcast_to(np.asarray(seed, dtype=np.uint64), (len(column),))
    kind = column.type
    if pa.types.is_dictionary(kind):
        return hash64(column.dictionary_decode(), seeds)
    if kind in _TEXT_OR_BYTES or pa.types.is_fixed_size_binary(kind):
        hashed = _hash_bytes(column.cast(pa.large_binary()), seeds)
    else:
        hashed = _hash_words(_words(column), seeds)
    if column.null_count:
        hashed[np.asarray(column.is_null())] = 0
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


def _words(column: pa.Array) -> U64:
    kind = column.type
    if pa.types.is_floating(kind):
        values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        values[np.isnan(values)] = np.nan
        return cast(U64, values.view(np.uint64))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        whole = column.cast(pa.uint64() if kind == pa.uint64() else pa.int64())
    elif pa.types.is_date32(kind) or pa.types.is_time32(kind):
        whole = column.cast(pa.int32()).cast(pa.int64())
    elif pa.types.is_temporal(kind) and kind.bit_width == 64:
        whole = column.cast(pa.int64())
    else:
        raise TypeError(f"a column of type {kind} has no hash; cast it to string or binary first")
    filled = pc.fill_null(whole, 0).to_numpy(zero_copy_only=False)
    return cast(U64, filled.astype(filled.dtype, copy=True).view(np.uint64))


def _rotl(x: U64, bits: int) -> U64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


def _fmix(k: U64) -> U64:
    k = k ^ (k >> np.uint64(33))
    k = k * np.uint64(0xFF51AFD7ED558CCD)
    k = k ^ (k >> np.uint64(33))
    k = k * np.uint64(0xC4CEB9FE1A85EC53)
    return cast(U64, k ^ (k >> np.uint64(33)))


def _mix1(k: U64) -> U64:
    return cast(U64, _rotl(k * _C1, 31) * _C2)


def _mix2(k: U64) -> U64:
    return cast(U64, _rotl(k * _C2, 33) * _C1)


def _finish(h1: U64, h2: U64, lengths: U64 | np.uint64) -> U64:
    h1 = h1 ^ lengths
    h2 = h2 ^ lengths
    h1 = h1 + h2
    h2 = h2 + h1
    h1 = _fmix(h1)
    h2 = _fmix(h2)
    return cast(U64, h1 + h2)


def _hash_words(words: U64, seeds: U64) -> U64:
    return _finish(seeds ^ _mix1(words), seeds.copy(), np.uint64(8))


def _hash_bytes(column: pa.Array, seeds: U64) -> U64:
    count = len(column)
    if not count:
        return np.empty(0, np.uint64)
    _, offsets_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + count + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    # Words are read 8 bytes at a time at any byte: pad so that the last reads stay inside.
    data = np.zeros(last - first + 24, np.uint8)
    if data_buffer is not None:
        data[: last - first] = np.frombuffer(data_buffer, np.uint8)[first:last]
    words = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data.data, strides=(1,))
    starts = offsets[:-1] - first
    lengths = np.diff(offsets)

    h1, h2 = seeds.copy(), seeds.copy()
    blocks = lengths >> 4
    for block in range(int(blocks.max())):
        rows = np.flatnonzero(blocks > block)
        at = starts[rows] + 16 * block
        a, b = h1[rows], h2[rows]
        a = a ^ _mix1(words[at])
        a = (_rotl(a, 27) + b) * np.uint64(5) + np.uint64(0x52DCE729)
        b = b ^ _mix2(words[at + 8])
        b = (_rotl(b, 31) + a) * np.uint64(5) + np.uint64(0x38495AB5)
        h1[rows], h2[rows] = a, b

    tail = starts + 16 * blocks
    rest = lengths & 15
    low = np.minimum(rest, 8)
    high = rest - low
    # An empty tail mixes to 0 and changes nothing, so no rows need to be left out.
    h2 ^= _mix2(words[tail + 8 * (high > 0)] & _mask(high))
    h1 ^= _mix1(words[tail] & _mask(low))
    return _finish(h1, h2, lengths.astype(np.uint64))


_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(9)], dtype=np.uint64)


def _mask(size: npt.NDArray[np.int64]) -> U64:
    return _MASKS[size]
