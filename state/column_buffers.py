"""The values of an Arrow column as the arrays that compiled loops read, mostly without a copy.

    integers, booleans, dates, times    8 bytes, little-endian, two's complement
    floats                              8 bytes of the f64, little-endian; -0.0 as 0.0, one NaN
    strings, binary                     their bytes (UTF-8)

so an int32 and an int64 column agree. Dictionaries are decoded by :func:`column_buffers`; who can
do better looks at them first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from state import murmur

U8: TypeAlias = npt.NDArray[np.uint8]
U64: TypeAlias = npt.NDArray[np.uint64]
Values: TypeAlias = pa.Array | pa.ChunkedArray | npt.NDArray[Any]

_NONE = np.zeros(0, np.uint8)
_NONE.flags.writeable = False
_NUMPY = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}


@dataclass(frozen=True, slots=True)
class Words:
    """A column of 8-byte values.

    Attributes:
        words: (T,) the values' bits; anything where null.
        valid: the validity bitmap, empty if nothing is null.
        first: the bit of `valid` that belongs to the first value.
    """

    words: U64
    valid: U8
    first: int


@dataclass(frozen=True, slots=True)
class Runs:
    """A column of strings or binary: value i is ``data[offsets[i]:offsets[i + 1]]``.

    Attributes:
        offsets: (T + 1,) int32 or int64.
        data: bytes, of other values too.
        valid: the validity bitmap, empty if nothing is null.
        first: the bit of `valid` that belongs to the first value.
    """

    offsets: murmur.Offsets
    data: U8
    valid: U8
    first: int


def chunks(values: Values) -> Iterator[pa.Array]:
    """Yield a column as Arrow arrays.

    Raises:
        ValueError: an array is not one-dimensional.
    """
    if isinstance(values, pa.ChunkedArray):
        yield from values.chunks
    elif isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"a column has one dimension, not {values.ndim}")
        yield pa.array(values)
    else:
        yield values


def column_buffers(column: pa.Array) -> Words | Runs:
    """Return the values of ``column`` as read-only arrays.

    Args:
        column: (T,) integers, booleans, floats, dates, times, durations, strings, binary, or a
            dictionary of these.

    Raises:
        TypeError: the column is of another type.
    """
    kind = column.type
    if types.is_dictionary(kind):
        return column_buffers(column.dictionary_decode())
    if types.is_string_view(kind) or types.is_binary_view(kind):
        column = column.cast(pa.large_binary())
        kind = column.type
    if types.is_null(kind):
        return Words(_frozen(np.zeros(len(column), np.uint64)), *_all_null(len(column)))
    valid, first = _validity(column)
    if types.is_string(kind) or types.is_binary(kind):
        return _runs(column, np.int32, valid, first)
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return _runs(column, np.int64, valid, first)
    if types.is_fixed_size_binary(kind) and not types.is_decimal(kind):
        starts = (column.offset + np.arange(len(column) + 1)) * kind.byte_width
        return Runs(_frozen(starts), _bytes(column.buffers()[1]), valid, first)
    if types.is_boolean(kind):
        filled = column.cast(pa.uint8())
        return Words(_widened(filled, np.uint8), valid, first)
    if types.is_integer(kind):
        return Words(_widened(column, kind.to_pandas_dtype()), valid, first)
    if types.is_floating(kind):
        floats = column if kind == pa.float64() else column.cast(pa.float64())
        bits = np.empty(len(column), np.uint64)
        murmur.canonical_floats(_widened(floats, np.int64), bits)
        return Words(_frozen(bits), valid, first)
    if types.is_temporal(kind) and not types.is_interval(kind):
        return Words(_widened(column, _NUMPY[kind.bit_width]), valid, first)
    raise TypeError(f"a column of type {kind} has no hash; cast it to string or binary first")


def _runs(column: pa.Array, offset: Any, valid: U8, first: int) -> Runs:
    _, offsets, data = column.buffers()
    size = np.dtype(offset).itemsize
    if offsets is None or offsets.size < (column.offset + len(column) + 1) * size:
        return Runs(_frozen(np.zeros(len(column) + 1, offset)), _NONE, valid, first)
    starts = np.frombuffer(offsets, offset, len(column) + 1, column.offset * size)
    return Runs(_frozen(starts), _bytes(data), valid, first)


def _widened(column: pa.Array, dtype: Any) -> Any:
    buffer = column.buffers()[1]
    if not len(column) or buffer is None:
        return _frozen(np.zeros(len(column), np.uint64))
    step = np.dtype(dtype)
    values = np.frombuffer(buffer, step, len(column), column.offset * step.itemsize)
    if step.itemsize < 8:
        values = values.astype(np.int64)
    return _frozen(values.view(np.uint64))


def _validity(column: pa.Array) -> tuple[U8, int]:
    if not column.null_count:
        return _NONE, 0
    return _bytes(column.buffers()[0]), column.offset


def _all_null(count: int) -> tuple[U8, int]:
    return (_frozen(np.zeros(count // 8 + 1, np.uint8)), 0) if count else (_NONE, 0)


def _bytes(buffer: pa.Buffer | None) -> U8:
    return _NONE if buffer is None else _frozen(np.frombuffer(buffer, np.uint8))


def _frozen(array: npt.NDArray[Any]) -> Any:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
