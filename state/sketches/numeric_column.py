"""Columns of numbers as NumPy arrays, without their nulls.

Floats become float64; integers, booleans, dates, times and durations become int64 (uint64 for
uint64), in the column's own unit, so that nothing is rounded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Values: TypeAlias = pa.Array | pa.ChunkedArray | npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

BLOCK = 1 << 16
_HALF = {32: pa.int32(), 64: pa.int64()}


def number_arrays(values: Values) -> Iterator[F64 | I64 | U64]:
    """Yield the non-null values of a column as contiguous, read-only float64, int64 or uint64.

    Args:
        values: (T,) booleans, integers, floats or times, or a dictionary of these.

    Raises:
        TypeError: the column does not hold numbers.
        ValueError: an array is not one-dimensional.

    >>> import pyarrow as pa
    >>> [x.tolist() for x in number_arrays(pa.array([True, None, False]))]
    [[1, 0]]
    """
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"a column has one dimension, not {values.ndim}")
        if values.dtype.kind in "biuf":
            yield _frozen(values)
            return
        values = pa.array(values)
    if isinstance(values, pa.ChunkedArray):
        for chunk in values.chunks:
            yield _numbers(chunk)
    else:
        yield _numbers(values)


def float_blocks(values: Values) -> Iterator[tuple[F64, int]]:
    """Yield a column as float64, a block that fits the cache at a time.

    Integers beyond 2**53 are rounded to the nearest float64, and -0.0 becomes 0.0, so that equal
    values are equal bytes. Errors are those of :func:`number_arrays`.

    Yields:
        At most `BLOCK` values without NaN, and how many NaN were left out among them.
    """
    for numbers in number_arrays(values):
        for start in range(0, len(numbers), BLOCK):
            with np.errstate(invalid="ignore"):  # of a signalling NaN
                floats = np.add(numbers[start : start + BLOCK], 0.0, dtype=np.float64)
            bad = np.isnan(floats)
            nans = int(np.count_nonzero(bad))
            yield (floats[~bad] if nans else floats), nans


def _numbers(column: pa.Array) -> F64 | I64 | U64:
    kind = column.type
    if types.is_dictionary(kind):
        return _numbers(column.dictionary_decode())
    if types.is_null(kind):
        return _frozen(np.empty(0))
    if types.is_temporal(kind):
        if types.is_interval(kind):
            raise TypeError(f"a column of {kind} is not a column of numbers")
        column = column.cast(_HALF[kind.bit_width])
    elif types.is_boolean(kind):
        column = column.cast(pa.int64())
    elif not (types.is_integer(kind) or types.is_floating(kind)):
        raise TypeError(f"a column of {kind} is not a column of numbers")
    if column.null_count:
        column = pc.drop_null(column)
    return _frozen(column.to_numpy(zero_copy_only=False))


def _frozen(values: npt.NDArray[Any]) -> F64 | I64 | U64:
    if values.dtype.kind == "f":
        wide: npt.DTypeLike = np.float64
    else:
        wide = np.uint64 if values.dtype == np.uint64 else np.int64
    # A view of its own: one compiled kernel serves all callers if every array is read-only.
    array = np.ascontiguousarray(values, dtype=wide).view()
    array.flags.writeable = False
    return array
