"""Rows grouped by small integers, and NumPy folds over such groups.

A hash table finds the group of a row at several times the cost of adding the row up. Where the
keys of a batch repeat and fit a modest range of codes, each statistic is instead one pass of
`bincount` or `minimum.at` into an array as long as that range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
Numbers: TypeAlias = npt.NDArray[Any]


def most_codes(rows: int) -> int:
    """Return how many codes pay: arrays of that size are cleared for each statistic."""
    return 4 * rows + 65_536


def most_values(rows: int) -> int:
    """Return how many different texts pay: they are hashed and sorted before all else."""
    return rows // 8 + 1024


class DenseGroups:
    """The rows of a batch under one code per combination of their keys.

    Reductions return one number per group that has rows, sorted by key: numbers by size, text by
    its bytes, nulls first, as Polars sorts them.

    >>> batch = pa.record_batch({"key": ["b", "a", "b"], "x": [1.0, 2.0, 5.0]})
    >>> groups = DenseGroups.of(batch, ["key"])
    >>> groups.keys()["key"].to_pylist(), groups.sum(groups.floats("x")).tolist()
    (['a', 'b'], [2.0, 6.0])
    """

    def __init__(self, batch: pa.RecordBatch, keys: dict[str, _Key], codes: I64, size: int) -> None:
        self._batch = batch
        self._keys = keys
        self._codes = codes
        self._size = size
        counts = np.bincount(codes, minlength=size)
        self._present: I64 = np.flatnonzero(counts)
        self.count: I64 = counts[self._present]
        """Rows of each group."""
        self._numbers: dict[str, Numbers | None] = {}
        self._totals: dict[str, F64] = {}

    @classmethod
    def of(cls, batch: pa.RecordBatch, by: Sequence[str]) -> DenseGroups | None:
        """Return the groups of rows, or None where keys have no codes or too many of them.

        There must be a row and a key.
        """
        limit = most_codes(batch.num_rows)
        keys: dict[str, _Key] = {}
        codes, size = np.empty(0, np.int64), 1
        for name in by:
            key = _key(batch.column(name), batch.num_rows)
            if key is None or size * key.size > limit:
                return None
            keys[name] = key
            codes = key.codes if size == 1 else codes * key.size + key.codes
            size *= key.size
        return cls(batch, keys, codes, size)

    def keys(self) -> dict[str, pa.Array]:
        """Return the keys of each group, dictionary-encoded ones as plain values."""
        found: dict[str, pa.Array] = {}
        codes = self._present
        for name, key in reversed(self._keys.items()):
            found[name] = key.values(codes % key.size)
            codes = codes // key.size
        return {name: found[name] for name in self._keys}

    def complete(self, column: str) -> bool:
        """Return whether a column has no nulls."""
        values = self._batch.column(column)
        if pa.types.is_dictionary(values.type) and values.dictionary.null_count:
            return False
        return not values.null_count

    def numbers(self, column: str) -> Numbers | None:
        """Return a column of finite numbers, or of times as integers; None if it is not one.

        Nulls, NaN and infinities have rules of their own, which are not repeated here.
        """
        if column not in self._numbers:
            self._numbers[column] = _finite(self._batch.column(column))
        return self._numbers[column]

    def floats(self, column: str) -> F64 | None:
        """Return a column of finite numbers as float64; None if it is not one."""
        numbers = self.numbers(column)
        if numbers is None or pa.types.is_temporal(self._batch.column(column).type):
            return None
        return numbers.astype(np.float64, copy=False)

    def total(self, column: str) -> F64 | None:
        """Return the sum of a column over each group; None if it is not one of finite numbers."""
        x = self.floats(column)
        if x is not None and column not in self._totals:
            self._totals[column] = self.sum(x)
        return self._totals.get(column)

    def sum(self, x: Numbers) -> F64:
        """Return the sum of `x` over each group."""
        sums = np.bincount(self._codes, weights=x, minlength=self._size)[self._present]
        return sums.astype(np.float64, copy=False)

    def min(self, x: Numbers, rows: I64 | None = None) -> Numbers:
        """Return the smallest `x` of each group, over all rows or those `x` is given for.

        Each group must have one of these.
        """
        return self._extreme(np.minimum, x, _range(x.dtype)[1], rows)

    def max(self, x: Numbers, rows: I64 | None = None) -> Numbers:
        """Return the largest `x` of each group, over all rows or those `x` is given for.

        Each group must have one of these.
        """
        return self._extreme(np.maximum, x, _range(x.dtype)[0], rows)

    def spread(self, of_group: Numbers) -> Numbers:
        """Return for each row the number that its group has."""
        wide = np.empty(self._size, of_group.dtype)
        wide[self._present] = of_group
        return wide[self._codes]

    def typed(self, numbers: Numbers, column: str) -> pa.Array:
        """Return what was reduced from `numbers(column)` in the type of that column."""
        return pa.array(numbers).view(self._batch.column(column).type)

    def _extreme(self, ufunc: np.ufunc, x: Numbers, start: Any, rows: I64 | None) -> Numbers:
        wide = np.full(self._size, start, x.dtype)
        ufunc.at(wide, self._codes if rows is None else self._codes[rows], x)
        return wide[self._present]


@dataclass(frozen=True, slots=True)
class _Key:
    """A key column as codes: its values are `low + code`, or those of a dictionary."""

    codes: I64
    size: int
    low: int
    type: pa.DataType
    dictionary: pa.Array | None = None

    def values(self, codes: I64) -> pa.Array:
        if self.dictionary is not None:
            return self.dictionary.take(pa.array(codes))
        return pa.array(codes + self.low).cast(self.type)


def _key(column: pa.Array, rows: int) -> _Key | None:
    """Return the codes of a column, or None if it has none that pay for that many rows."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _recoded(column, rows)
    if pa.types.is_integer(kind) and kind != pa.uint64() and not column.null_count:
        numbers = column.to_numpy().astype(np.int64, copy=False)
        low, high = int(numbers.min()), int(numbers.max())
        if high - low < most_codes(rows):
            return _Key(numbers - low, high - low + 1, low, kind)
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
        or kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
    ):
        return None
    coded = column.dictionary_encode(null_encoding="encode")
    size = len(coded.dictionary)
    if size > most_values(rows):
        return None
    order = pc.sort_indices(coded.dictionary).to_numpy()
    if coded.dictionary.null_count:
        order = np.roll(order, 1)  # from the end to the start
    rank = np.empty(size, np.int64)
    rank[order] = np.arange(size)
    values = coded.dictionary.take(pa.array(order))
    return _Key(rank[coded.indices.to_numpy()], size, 0, kind, values)


def _recoded(column: pa.DictionaryArray, rows: int) -> _Key | None:
    """Reuse the codes of a column. Its dictionary may repeat values and hold nulls."""
    values, indices = column.dictionary, column.indices.cast(pa.int64())
    if len(values) > most_values(rows):
        return None
    if indices.null_count:
        indices = indices.fill_null(len(values))
        values = pa.concat_arrays([values, pa.nulls(1, values.type)])
    key = _key(values, rows)
    return key and replace(key, codes=key.codes[indices.to_numpy()])


def _finite(column: pa.Array) -> Numbers | None:
    kind = column.type
    if column.null_count:
        return None
    if pa.types.is_timestamp(kind):
        column = column.view(pa.int64())
    elif not (pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64())):
        return None
    numbers: Numbers = column.to_numpy()
    return numbers if np.isfinite(numbers).all() else None


def _range(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    info = np.iinfo(dtype)
    return info.min, info.max
