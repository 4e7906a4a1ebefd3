"""The most frequent values of a column, with deterministic bounds: Misra-Gries.

Sources: J. Misra, D. Gries, "Finding repeated elements" (Sci. Comput. Program. 1982); the merge is
that of P. K. Agarwal, G. Cormode, Z. Huang, J. Phillips, Z. Wei, K. Yi, "Mergeable summaries"
(PODS 2012).
"""

from __future__ import annotations

import struct
from typing import ClassVar, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from state.column_buffers import Values, chunks
from state.mergeable import Algebra, seal, unseal
from state.sketches.plain_values import is_sorted_set, plain_values, read_values, values_bytes
from state.sketches.weights import (
    I64,
    LARGEST_TOTAL,
    Weights,
    entry_weights,
    exact_sum,
    tally,
    whole_weights,
)

_KIND = "heavy-hitters"
_HEAD = struct.Struct("<IHIQQ")  # capacity, bytes of the name, values, total, error
_NO_COUNTS = np.zeros(0, np.int64)


class HeavyHitters:
    """Keep the most frequent values of a column, each with a count that is never too high.

    A count is too low by at most `error`, which never exceeds total / (capacity + 1), for certain:
    every value that makes up more than that share of the total weight is kept. A part that
    arrives twice is counted twice.

    Up to `capacity` distinct values everything is exact and equal rows give equal bytes. Beyond,
    counts depend on how the rows were split into batches and parts, within the bounds. Each batch
    is counted exactly before it is folded in, so larger batches give smaller errors.

    Nulls are skipped; all NaN are one value. Columns of narrow and wide types are one, but strings,
    binary, floats, signed and unsigned 64-bit integers and each unit of time are not.

    Args:
        column: the column that `update` reads.
        capacity: how many values are kept, below 2**32.

    >>> import numpy as np
    >>> endpoints = HeavyHitters(capacity=2)
    >>> endpoints.add(np.array(["/a", "/b", "/a", "/c", "/a"]))
    >>> endpoints.top(1).to_pylist()
    [{'value': '/a', 'estimate': 2, 'lower_bound': 2, 'upper_bound': 3}]
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = ("_counts", "_error", "_total", "_values", "capacity", "column")

    def __init__(self, column: str = "value", *, capacity: int = 256) -> None:
        if not 1 <= capacity < 1 << 32:
            raise ValueError(f"capacity must be in [1, 2**32), not {capacity}")
        if len(column.encode()) >= 1 << 16:
            raise ValueError(f"the name of the column has {len(column.encode())} bytes")
        self.column = column
        self.capacity = capacity
        self._values: pa.Array = pa.nulls(0)  # sorted and distinct
        self._counts: I64 = _NO_COUNTS
        self._total = 0
        self._error = 0

    @property
    def total(self) -> int:
        """The weight of all values counted."""
        return self._total

    @property
    def error(self) -> int:
        """By how much a count may be too low, at most total / (capacity + 1)."""
        return self._error

    def add(self, values: Values, weights: Weights | None = None) -> None:
        """Count the values of a column, once each or with whole weights.

        Args:
            values: (T,) integers, booleans, floats, times, strings, binary, or a dictionary.
            weights: (T,) integers >= 0; those of nulls are skipped with them.

        Raises:
            TypeError: the column is of another type, or weights are not integers.
            ValueError: the values' type is not that of those before, weights do not fit, or the
                total would reach 2**63.
        """
        whole = None if weights is None else whole_weights(weights, len(values))
        if self._total + (len(values) if whole is None else exact_sum(whole)) > LARGEST_TOTAL:
            raise ValueError("the total weight of a sketch is below 2**63")
        start = 0
        for column in chunks(values):
            stop = start + len(column)
            self._fold(*_counted(column, None if whole is None else whole[start:stop]))
            start = stop

    def update(self, batch: pa.RecordBatch) -> None:
        """Count the column of a batch, once per row."""
        self.add(batch.column(self.column))

    def merge(self, other: Self) -> None:
        """Join the counts of another sketch of the same parameters.

        Raises:
            ValueError: column, capacity or types of values differ, or the total would reach 2**63.
        """
        mine, theirs = (self.column, self.capacity), (other.column, other.capacity)
        if mine != theirs:
            raise ValueError(f"sketches of (column, capacity) {mine} and {theirs} do not merge")
        if self._total + other._total > LARGEST_TOTAL:
            raise ValueError("the total weight of a sketch is below 2**63")
        self._fold(other._values, other._counts, lost=other._total - exact_sum(other._counts))
        self._error += other._error

    def estimate(self, values: Values) -> I64:
        """Return the count that is kept of each of the values: (T,) int64; 0 for null.

        Raises:
            ValueError: the values' type is not that of those counted.
        """
        return np.concatenate([_NO_COUNTS, *(self._found(column) for column in chunks(values))])

    def lower_bound(self, values: Values) -> I64:
        """Return what each value occurred at least, for certain: the estimate."""
        return self.estimate(values)

    def upper_bound(self, values: Values) -> I64:
        """Return what each value occurred at most, for certain."""
        return self.estimate(values) + self._error

    def top(self, k: int = 10) -> pa.RecordBatch:
        """Return the ``k`` values of the largest counts, equal counts in the order of values.

        The columns are value, estimate, lower_bound and upper_bound; fewer rows if fewer are kept.
        """
        order = np.argsort(-self._counts, kind="stable")[: max(k, 0)]
        counts = self._counts[order]
        return pa.record_batch(
            {
                "value": self._values.take(pa.array(order)),
                "estimate": counts,
                "lower_bound": counts,
                "upper_bound": counts + self._error,
            }
        )

    def to_bytes(self) -> bytes:
        """Return the state as bytes: the values in their order, and 8 bytes for each count."""
        name = self.column.encode()
        head = _HEAD.pack(self.capacity, len(name), len(self._counts), self._total, self._error)
        counts = self._counts.astype("<i8").tobytes()
        return seal(_KIND, 1, head + name + counts + values_bytes(self._values))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged.
        """
        _, payload = unseal(_KIND, data, versions={1})
        if len(payload) < _HEAD.size:
            raise ValueError(f"{_KIND}: {len(payload)} bytes are too few")
        capacity, length, count, total, error = _HEAD.unpack_from(payload)
        start = _HEAD.size + length
        if len(payload) < start + 8 * count or count > capacity:
            raise ValueError(f"{_KIND}: {count} counts of {capacity} in {len(payload)} bytes")
        state = cls(payload[_HEAD.size : start].decode(), capacity=capacity)
        state._values = read_values(payload[start + 8 * count :])
        state._counts = np.frombuffer(payload, "<i8", count, start).astype(np.int64)
        if len(state._values) != count or (count and state._counts.min() < 1):
            raise ValueError(f"{_KIND}: values and counts do not match, or counts below 1")
        lost = total - exact_sum(state._counts)
        if total > LARGEST_TOTAL or lost < error * (capacity + 1) or (lost and not error):
            raise ValueError(f"{_KIND}: an error of {error} with {lost} of {total} not kept")
        state._total, state._error = total, error
        return state

    def _fold(self, values: pa.Array, counts: I64, lost: int = 0) -> None:
        self._check_type(values.type)
        self._total += exact_sum(counts) + lost
        if types.is_null(values.type):
            return
        if not types.is_null(self._values.type):
            both = pa.concat_arrays([self._values, values])
            values, counts = _grouped(both, np.concatenate([self._counts, counts]))
        if len(counts) > self.capacity:
            # The summaries' merge: what the largest count that does not fit has, all give up.
            excess = np.partition(counts, -self.capacity - 1)[-self.capacity - 1]
            kept = np.flatnonzero(counts > excess)
            values, counts = values.take(pa.array(kept)), counts[kept] - excess
            self._error += int(excess)
        if not is_sorted_set(values):
            order = pc.sort_indices(values)
            values, counts = values.take(order), counts[order.to_numpy()]
        self._values, self._counts = values, counts

    def _found(self, column: pa.Array) -> I64:
        values = plain_values(column)
        self._check_type(values.type)
        if not len(self._counts) or types.is_null(values.type):
            return np.zeros(len(values), np.int64)
        places = pc.index_in(values, value_set=self._values, skip_nulls=True)
        at = places.fill_null(len(self._counts)).to_numpy(zero_copy_only=False)
        return cast(I64, np.append(self._counts, 0)[at])

    def _check_type(self, kind: pa.DataType) -> None:
        mine = self._values.type
        if kind != mine and not types.is_null(kind) and not types.is_null(mine):
            raise ValueError(f"values of {kind} among those of {mine}")


def _counted(column: pa.Array, weights: I64 | None) -> tuple[pa.Array, I64]:
    # Distinct values, without null, and their weights above 0.
    if types.is_dictionary(column.type) and len(column.dictionary) <= len(column):
        return _counted(column.dictionary, entry_weights(column, weights))
    values = plain_values(column)
    if values.null_count:
        if weights is not None:
            weights = weights[values.is_valid().to_numpy(zero_copy_only=False)]
        values = values.drop_null()
    values, sums = _grouped(values, weights)
    used = np.flatnonzero(sums)
    if not len(used):
        return pa.nulls(0), _NO_COUNTS  # a column in which nothing counts sets no type
    if len(used) == len(sums):
        return values, sums
    return values.take(pa.array(used)), sums[used]


def _grouped(values: pa.Array, weights: I64 | None) -> tuple[pa.Array, I64]:
    # Distinct values and their weights, without null.
    if types.is_integer(values.type) and len(values):
        numbers = values.to_numpy()
        low, high = numbers.min(), numbers.max()
        if int(high) - int(low) < 4 * len(numbers):  # counting is faster than hashing
            codes = numbers - low
            if weights is None:
                sums = np.bincount(codes.astype(np.int64, copy=False))
            else:
                sums = np.zeros(int(high) - int(low) + 1, np.int64)
                tally(codes.astype(np.uint32), weights, sums)
            found = np.flatnonzero(sums)
            return pa.array(found.astype(numbers.dtype) + low), sums[found]
    encoded = values.dictionary_encode()
    sums = np.zeros(len(encoded.dictionary), np.int64)
    tally(encoded.indices.to_numpy(zero_copy_only=False).view(np.uint32), weights, sums)
    return encoded.dictionary, sums
