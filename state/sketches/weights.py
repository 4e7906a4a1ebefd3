"""Whole weights of rows, as the frequency sketches take them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64: TypeAlias = npt.NDArray[np.int64]

LARGEST_TOTAL = 2**63 - 1


def whole_weights(weights: pa.Array | pa.ChunkedArray | npt.NDArray[Any], count: int) -> I64:
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


def exact_sum(weights: I64) -> int:
    """Return the sum of weights that may not fit 64 bits."""
    high, low = weights >> 32, weights & 0xFFFFFFFF
    return (int(high.sum()) << 32) + int(low.sum())
