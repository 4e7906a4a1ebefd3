"""How often each value of a column occurs, in a table of fixed size: count-min.

Source: G. Cormode, S. Muthukrishnan, "An improved data stream summary: the count-min sketch and
its applications" (J. Algorithms 2005). Rows, slots and images are those of Apache DataSketches'
`count_min_sketch`.
"""

from __future__ import annotations

import math
import struct
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from state.column_buffers import Values, chunks
from state.hashing import hash64
from state.mergeable import Algebra, seal, unseal
from state.sketches.count_min_bytes import read_table, write_table
from state.sketches.count_min_seeds import library_agrees, row_seeds
from state.sketches.count_min_slots import column_slots
from state.sketches.weights import (
    I64,
    LARGEST_TOTAL,
    Weights,
    entry_weights,
    exact_sum,
    tally_rows,
    whole_weights,
)

_KIND = "count-min"
_HEAD = struct.Struct("<BIQHQ")  # rows, buckets, seed, bytes of the name, total
_IMAGE = struct.Struct("<BBBBIIBHB")  # words, version, family, flags, -, buckets, rows, seed's hash
_FAMILY = 18
_EMPTY = 1
_MOST_CELLS = 1 << 24
_EXACT_FLOAT = 2**53
_SEED = 9001


class CountMin:
    """Estimate how often values occur in a column; never below the truth.

    An estimate is too high by at most e / buckets of the total weight, for each value with
    probability 1 - exp(-rows): 99.3 % for the default of 5 rows. Counting is exact arithmetic, so
    equal rows give equal bytes whatever the order or the split. A part that arrives twice is
    counted twice.

    Nulls are skipped. Values are hashed as :mod:`state.hashing` says; an integer and a float of
    equal value are different values.

    Args:
        column: the column that `update` reads.
        rows: 1 to 255 independent rows of counters.
        buckets: counters in a row, at least 3 and in all rows at most 2**24; a power of two is
            faster.
        seed: from which the rows' seeds are made, below 2**64.

    >>> import numpy as np
    >>> frequency = CountMin()
    >>> frequency.add(np.array(["a", "b", "a"]))
    >>> frequency.estimate(np.array(["a", "c"])).tolist()
    [2, 0]
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = ("_row_seeds", "_table", "_total", "buckets", "column", "rows", "seed")

    def __init__(
        self, column: str = "value", *, rows: int = 5, buckets: int = 2048, seed: int = _SEED
    ) -> None:
        if not 1 <= rows <= 255:
            raise ValueError(f"rows must be in [1, 255], not {rows}")
        if buckets < 3 or rows * buckets > _MOST_CELLS:
            raise ValueError(f"{rows} x {buckets} buckets: at least 3 and at most 2**24 in all")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"a seed is in [0, 2**64), not {seed}")
        if len(column.encode()) >= 1 << 16:
            raise ValueError(f"the name of the column has {len(column.encode())} bytes")
        self.column = column
        self.rows = rows
        self.buckets = buckets
        self.seed = seed
        self._row_seeds = row_seeds(seed, rows)
        self._table: I64 | None = None  # (rows, buckets), made when something is counted
        self._total = 0

    @property
    def total(self) -> int:
        """The weight of all values counted."""
        return self._total

    def add(self, values: Values, weights: Weights | None = None) -> None:
        """Count the values of a column, once each or with whole weights.

        Args:
            values: (T,) of any type that :mod:`state.hashing` takes.
            weights: (T,) integers >= 0; those of nulls are skipped with them.

        Raises:
            TypeError: the column's type has no hash, or weights are not integers.
            ValueError: weights do not fit, or the total would reach 2**63.
        """
        whole = None if weights is None else whole_weights(weights, len(values))
        if self._total + (len(values) if whole is None else exact_sum(whole)) > LARGEST_TOTAL:
            raise ValueError("the total weight of a sketch is below 2**63")
        start = 0
        for column in chunks(values):
            stop = start + len(column)
            self._add(column, None if whole is None else whole[start:stop])
            start = stop

    def update(self, batch: pa.RecordBatch) -> None:
        """Count the column of a batch, once per row."""
        self.add(batch.column(self.column))

    def merge(self, other: Self) -> None:
        """Add the counts of another sketch of the same parameters.

        Raises:
            ValueError: column, rows, buckets or seeds differ, or the total would reach 2**63.
        """
        mine, theirs = self._parameters(), other._parameters()
        if mine != theirs:
            raise ValueError(f"sketches of {mine} and {theirs} do not merge")
        if self._total + other._total > LARGEST_TOTAL:
            raise ValueError("the total weight of a sketch is below 2**63")
        if other._table is not None:
            np.add(self._counters(), other._table, out=self._counters())
            self._total += other._total

    def estimate(self, values: Values) -> I64:
        """Return how often each of the values occurred, or more: (T,) int64; 0 for null."""
        out = np.zeros(len(values), np.int64)
        if self._table is None:
            return out
        start = 0
        for column in chunks(values):
            least = np.full(len(column), LARGEST_TOTAL)
            for part, slots in column_slots(column, self._seeds(), self.buckets):
                for row, counters in enumerate(self._table):
                    np.minimum(least[part], counters[slots[row]], out=least[part])
            if column.null_count:
                least[column.is_null().to_numpy(zero_copy_only=False)] = 0
            out[start : start + len(column)] = least
            start += len(column)
        return out

    def lower_bound(self, values: Values) -> I64:
        """Return what each value occurred at least, with probability 1 - exp(-rows) for each."""
        error = math.floor(math.e / self.buckets * self._total)
        return np.maximum(self.estimate(values) - error, 0)

    def upper_bound(self, values: Values) -> I64:
        """Return what each value occurred at most, for certain: the estimate."""
        return self.estimate(values)

    def to_bytes(self) -> bytes:
        """Return the state as bytes: few counters with their places, or all in narrow integers."""
        name = self.column.encode()
        head = _HEAD.pack(self.rows, self.buckets, self.seed, len(name), self._total)
        seeds = self._seeds().astype("<u8").tobytes()
        return seal(_KIND, 1, head + seeds + name + write_table(self._table))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged.
        """
        _, payload = unseal(_KIND, data, versions={1})
        if len(payload) < _HEAD.size:
            raise ValueError(f"{_KIND}: {len(payload)} bytes are too few")
        rows, buckets, seed, length, total = _HEAD.unpack_from(payload)
        start = _HEAD.size + 8 * rows
        if len(payload) < start + length or total > LARGEST_TOTAL:
            raise ValueError(f"{_KIND}: truncated, or a total of {total}")
        column = payload[start : start + length].decode()
        state = cls(column, rows=rows, buckets=buckets, seed=seed)
        state._row_seeds = struct.unpack_from(f"<{rows}Q", payload, _HEAD.size)
        state._table = read_table(payload[start + length :], rows, buckets, total)
        state._total = total
        return state

    def to_datasketches(self) -> bytes:
        """Return an image that `datasketches.count_min_sketch.deserialize` reads.

        Raises:
            ValueError: the total exceeds 2**53, which the library's floats do not hold, or the
                library draws other seeds for the rows here than libstdc++ does.
        """
        self._check_library()
        if self._total > _EXACT_FLOAT:
            raise ValueError(f"a total of {self._total} is beyond the floats of DataSketches")
        empty = self._table is None
        hashed = _seed_hash(self.seed)
        head = _IMAGE.pack(2, 1, _FAMILY, empty, 0, self.buckets, self.rows, hashed, 0)
        if self._table is None:
            return head
        return head + struct.pack("<d", self._total) + self._table.astype("<f8").tobytes()

    @classmethod
    def from_datasketches(cls, data: bytes, column: str = "value", *, seed: int = _SEED) -> Self:
        """Return the sketch of an image of `count_min_sketch` made on Linux.

        Raises:
            ValueError: ``data`` is not a well-formed image, its seed is another, or it holds
                weights that are not whole or are negative.
        """
        if len(data) < _IMAGE.size:
            raise ValueError(f"{len(data)} bytes are too few for a count-min image")
        words, version, family, flags, _, buckets, rows, hashed, _ = _IMAGE.unpack_from(data)
        if (words, version, family) != (2, 1, _FAMILY):
            raise ValueError(f"not a count-min image: {words}, version {version}, family {family}")
        state = cls(column, rows=rows, buckets=buckets, seed=seed)
        if hashed != _seed_hash(seed):
            raise ValueError(f"a count-min image of another seed than {seed}")
        state._check_library()
        empty = bool(flags & _EMPTY)
        if len(data) != _IMAGE.size + (0 if empty else 8 * (1 + rows * buckets)):
            raise ValueError(f"a count-min image of {rows} x {buckets} in {len(data)} bytes")
        if empty:
            return state
        floats = np.frombuffer(data, "<f8", offset=_IMAGE.size)
        if not ((floats >= 0) & (floats <= _EXACT_FLOAT) & (floats == np.floor(floats))).all():
            raise ValueError("a count-min image with weights that are not whole, or negative")
        table = floats[1:].astype(np.int64).reshape(rows, buckets)
        if (table.sum(axis=1) != int(floats[0])).any():
            raise ValueError("rows of a count-min image do not add up to its total")
        if floats[0]:
            state._table, state._total = table, int(floats[0])
        return state

    def _add(self, column: pa.Array, weights: I64 | None) -> None:
        if types.is_dictionary(column.type):
            if len(column.dictionary) <= len(column):
                self._add(column.dictionary, entry_weights(column, weights))
            else:
                self._add(column.dictionary_decode(), weights)
            return
        if column.null_count:
            known = column.is_valid().to_numpy(zero_copy_only=False)
            weights = known.astype(np.int64) if weights is None else np.where(known, weights, 0)
        added = len(column) if weights is None else exact_sum(weights)
        slots_of = column_slots(column, self._seeds(), self.buckets)
        if not added:
            next(slots_of, None)  # refuses a column without a hash, whatever is in it
            return
        table = self._counters()
        for part, slots in slots_of:
            tally_rows(slots, None if weights is None else weights[part], table)
        self._total += added

    def _counters(self) -> I64:
        if self._table is None:
            self._table = np.zeros((self.rows, self.buckets), np.int64)
        return self._table

    def _seeds(self) -> npt.NDArray[np.uint64]:
        return np.array(self._row_seeds, np.uint64)

    def _parameters(self) -> tuple[str, int, int, int, tuple[int, ...]]:
        return self.column, self.rows, self.buckets, self.seed, self._row_seeds

    def _check_library(self) -> None:
        ours = row_seeds(self.seed, self.rows)
        if self._row_seeds != ours or not library_agrees(self.seed, self.rows):
            raise ValueError("DataSketches has other seeds for the rows here: tables do not match")


def _seed_hash(seed: int) -> int:
    return int(hash64(pa.array([seed], pa.uint64()))[0]) & 0xFFFF
