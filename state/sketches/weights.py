"""Whole weights of rows, and their sums, as the frequency sketches take them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from state.murmur import U32, compiled

I64: TypeAlias = npt.NDArray[np.int64]
Weights: TypeAlias = pa.Array | pa.ChunkedArray | npt.NDArray[Any]

LARGEST_TOTAL = 2**63 - 1


def whole_weights(weights: Weights, count: int) -> I64:
    """Return ``count`` weights as int64.

    Raises:
        TypeError: the weights are not integers.
        ValueError: one is negative, null or above 2**63 - 1, or there are more or fewer.
    """
    if isinstance(weights, pa.Array | pa.ChunkedArray):
        if not pa.types.is_integer(weights.type):
            raise TypeError(f"weights are integers, not {weights.type}")
        if weights.null_count:
            raise ValueError(f"{weights.null_count} of the weights are null")
        weights = weights.to_numpy()
    array = np.asarray(weights)
    if array.dtype.kind not in "iu":
        raise TypeError(f"weights are integers, not {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"{count} values have weights of shape {array.shape}")
    if count and (array.min() < 0 or array.max() > LARGEST_TOTAL):
        raise ValueError("weights are in [0, 2**63)")
    return np.ascontiguousarray(array, dtype=np.int64)


def exact_sum(weights: npt.NDArray[Any], largest: int | None = None) -> int:
    """Return the sum of whole weights in [0, 2**63) that may not fit 64 bits.

    >>> exact_sum(np.array([2**63 - 1, 2**63 - 1])) == 2**64 - 2
    True
    """
    if not len(weights):
        return 0
    if len(weights) * (int(weights.max()) if largest is None else largest) <= LARGEST_TOTAL:
        return int(weights.sum(dtype=np.int64))
    wide = weights.astype(np.int64)
    high, low = wide >> 32, wide & 0xFFFFFFFF
    return (int(high.sum()) << 32) + int(low.sum())


def tally(places: U32, weights: I64 | None, counters: I64) -> None:
    """Add 1, or each weight, to the counter at each place, which must exist."""
    tally_rows(places[np.newaxis], weights, counters[np.newaxis])


def tally_rows(places: U32, weights: I64 | None, counters: I64) -> None:
    """Tally each row: (rows, T) places, (T,) weights, (rows, N) counters."""
    if weights is None:
        _tally(places, counters)
    else:
        _tally_weights(places, weights, counters)


def entry_weights(column: pa.DictionaryArray, weights: I64 | None) -> I64:
    """Return the weight of all rows of each entry of a column's dictionary."""
    indices = column.indices
    if indices.null_count:
        if weights is not None:
            weights = weights[indices.is_valid().to_numpy(zero_copy_only=False)]
        indices = indices.drop_null()
    sums = np.zeros(len(column.dictionary), np.int64)
    places = indices.to_numpy(zero_copy_only=False).astype(np.uint32)
    if len(places) and places.max() >= len(sums):
        raise ValueError("an index beyond the dictionary of the column")
    tally(places, weights, sums)
    return sums


@compiled
def _tally(places: U32, counters: I64) -> None:
    for row in range(len(places)):
        own = counters[row]
        for place in places[row]:
            own[place] += 1


@compiled
def _tally_weights(places: U32, weights: I64, counters: I64) -> None:
    for row in range(len(places)):
        own, at = counters[row], places[row]
        for i in range(weights.size):
            own[at[i]] += weights[i]
