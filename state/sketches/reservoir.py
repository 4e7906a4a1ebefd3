"""A random sample of rows that merges: the rows with the smallest random priorities.

Each row draws a priority; a reservoir keeps the `size` rows with the smallest ones. Which rows
those are depends neither on the order of the rows nor on how they were split, so reservoirs of
parts merge into a sample of the whole by keeping the smallest of the union, exactly.

Uniform priorities are 64 random bits. Weighted ones are exponential with the row's weight as rate,
``-log(u) / weight``, which samples without replacement in proportion to the weights.

Sources: E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches" (PODC 2007); P. Efraimidis,
P. Spirakis, "Weighted random sampling with a reservoir" (2006); N. Duffield, C. Lund, M. Thorup,
"Priority sampling for estimation of arbitrary subset sums" (2007) for the estimates.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from state.mergeable import Algebra, seal, unseal
from state.sketches.numeric_column import number_arrays
from state.sketches.plain_rows import check_same_columns, plain_rows, read_rows, rows_bytes
from state.sketches.sample_mean import SampleMean, hajek_mean
from state.sketches.smallest import Draw, Priorities, smallest
from state.sketches.stream_spans import Span, joined

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

_KIND = "reservoir"
_HEAD = struct.Struct("<QQQQQIII")  # size, stream, seed, seen, drawn; length of names, spans, rows
_SPAN = struct.Struct("<QQ")
_Names = tuple[tuple[str, ...] | None, str | None]
_MOST_STREAMS = 1 << 64
_NOTHING = pa.array([], pa.int64())


class Reservoir:
    """Keep a random sample of at most `size` whole rows.

    Row number n of an instance takes the n-th 64 bits of ``Philox(key=(seed, stream))``, so a
    reservoir restored from its bytes goes on with the very rows it would have kept. Two parts that
    are to be merged must draw from different streams; a reservoir remembers the streams it holds
    (as spans: numbered without gaps, a million parts take 16 bytes) and refuses a second one.
    A part that is merged twice is refused for the same reason. A reservoir that has seen no rows
    holds no stream.

    Nulls and NaN are kept as they are in the rows. Columns of dictionaries are decoded, and schema
    metadata is dropped, so that parts fit together.

    Args:
        columns: the columns to keep, in this order, and the weights; None keeps all columns.
        size: how many rows to keep.
        stream: number of this part's random stream, below 2**64; must be given.
        weight: column of weights, finite and >= 0; rows of weight 0 are never sampled. None
            samples uniformly.
        seed: the seed that all parts share, below 2**64.

    >>> import pyarrow as pa
    >>> parts = [Reservoir(["x"], size=3, stream=n) for n in range(2)]
    >>> for part in parts:
    ...     part.update(pa.record_batch({"x": range(100)}))
    >>> parts[0].merge(parts[1])
    >>> parts[0].count, parts[0].sample().num_rows
    (200, 3)
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = (
        "_drawn",
        "_priorities",
        "_rows",
        "_seen",
        "_spans",
        "_threshold",
        "columns",
        "seed",
        "size",
        "stream",
        "weight",
    )

    def __init__(
        self,
        columns: Sequence[str] | None = None,
        *,
        size: int = 256,
        stream: int,
        weight: str | None = None,
        seed: int = 0,
    ) -> None:
        if not 1 <= size < 1 << 31:
            raise ValueError(f"the size of a sample is positive and below 2**31, not {size}")
        if not (0 <= stream < _MOST_STREAMS and 0 <= seed < _MOST_STREAMS):
            raise ValueError(f"stream {stream} and seed {seed} must be below 2**64")
        self.columns = None if columns is None else tuple(columns)
        self.size = size
        self.stream = stream
        self.weight = weight
        self.seed = seed
        self._seen = 0
        self._drawn = 0
        self._spans: list[Span] = []  # streams merged in, as sorted [first, last]
        self._rows: pa.RecordBatch | None = None
        self._priorities: Priorities = np.empty(0, dtype=self._kind)
        self._threshold = self._last  # the smallest priority that was not kept

    @property
    def _kind(self) -> type[np.float64] | type[np.uint64]:
        return np.float64 if self.weight is not None else np.uint64

    @property
    def _last(self) -> float | int:
        return math.inf if self.weight is not None else (1 << 64) - 1

    @property
    def _kept(self) -> tuple[str, ...] | None:
        if self.columns is None or self.weight is None or self.weight in self.columns:
            return self.columns
        return (*self.columns, self.weight)

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold the rows of ``batch``.

        Raises:
            KeyError: a column is missing.
            ValueError: a weight is negative, null or not finite; a column is of a type that is not
                sent (see :func:`state.arrow_ipc.refusal`); the columns are not those of the rows
                before; or this reservoir's own stream was merged in from another.
        """
        from state.sketches.philox import words

        rows = self._project(batch)
        weights = None if self.weight is None else self._weights(batch.column(self.weight))
        self._claim()
        drawn = self._drawn

        def draw(start: int, stop: int) -> Priorities:
            bits = words(self.seed, self.stream, drawn + start, stop - start)
            return bits if weights is None else _exponential(bits) / weights[start:stop]

        with np.errstate(divide="ignore", over="ignore"):
            self._fold(rows, draw)

    def add_prioritised(self, batch: pa.RecordBatch, priorities: Priorities) -> None:
        """Fold rows whose priorities were drawn elsewhere, as many one-row leaves in one column.

        Args:
            batch: the rows.
            priorities: (T,) what `update` would draw: uint64 uniform bits, or for a weighted
                reservoir float64 exponential variates divided by the weights, infinite where the
                weight is 0. Of two equal priorities either row may be kept.

        Raises:
            ValueError: as of `update`; or the priorities are not such.
        """
        priorities = np.asarray(priorities)
        if priorities.shape != (len(batch),) or priorities.dtype != self._kind:
            raise ValueError(
                f"{len(batch)} rows need as many priorities of {self._kind.__name__}, not "
                f"{priorities.dtype} of shape {priorities.shape}"
            )
        if self.weight is not None and not (priorities >= 0).all():
            raise ValueError("weighted priorities are not negative and not NaN")
        rows = self._project(batch)
        self._claim()
        self._fold(rows, lambda start, stop: priorities[start:stop])

    def _project(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = plain_rows(batch, self._kept)
        if self._rows is not None:
            check_same_columns(self._rows, rows)
        return rows

    @staticmethod
    def _weights(column: pa.Array) -> F64:
        if column.null_count:
            raise ValueError("a weight is null")
        (numbers,) = number_arrays(column)
        weights = np.asarray(numbers, dtype=np.float64)
        if not ((weights >= 0) & (weights < np.inf)).all():
            raise ValueError("weights must be finite and not negative")
        return weights

    def _claim(self) -> None:
        if any(first <= self.stream <= last for first, last in self._spans):
            raise ValueError(
                f"stream {self.stream} was merged in: draw new rows from a stream of its own"
            )

    def _fold(self, rows: pa.RecordBatch, draw: Draw) -> None:
        """Keep the rows whose priorities are small enough."""
        self._seen += len(rows)
        self._drawn += len(rows)
        places, keys, self._threshold = smallest(draw, len(rows), self.size, self._threshold)
        if len(places) or self._rows is None:
            self._join(rows.take(pa.array(places)), keys)

    def _join(self, rows: pa.RecordBatch, priorities: Priorities) -> None:
        """Keep the smallest priorities of those kept and these, at most `size` in their order."""
        if not len(self._priorities):
            self._rows, self._priorities = rows, priorities
            return
        everything = np.concatenate([self._priorities, priorities])
        order = np.argsort(everything, kind="stable")
        if len(order) > self.size:
            self._threshold = min(self._threshold, everything[order[self.size]].item())
        order = order[: self.size]
        self._rows = pa.concat_batches([self._rows, rows]).take(pa.array(order))
        self._priorities = everything[order]

    @property
    def count(self) -> int:
        """How many rows were folded, those of weight 0 among them."""
        return self._seen

    def sample(self) -> pa.RecordBatch:
        """Return the sampled rows, by rising priority: the first n of them are a sample of n.

        A batch without columns before the first rows have come.
        """
        return self._rows if self._rows is not None else pa.record_batch({})

    def inclusion(self) -> F64:
        """Return for each sampled row the probability by which it is in the sample, (n,) floats.

        For weighted samples it is the probability given the other rows' priorities, by which
        Horvitz-Thompson sums are unbiased.
        """
        n = len(self._priorities)
        if self.weight is None:
            return np.full(n, n / self._seen if n else 1.0)
        if self._rows is None:
            return np.empty(0)
        weights = self._weights(self._rows.column(self.weight))
        return -np.expm1(-weights * float(self._threshold))

    def estimate(self, column: str) -> float:
        """Return the mean of ``column`` over all rows seen; NaN where there is none.

        Rows where the column is null or NaN are left out of the mean, and of a weighted sample
        those of weight 0: they are never seen in it. The weighted mean is Hajek's.

        Raises:
            KeyError: the column is not kept.
            TypeError: it does not hold numbers.
        """
        return self._mean(column).mean

    def lower_bound(self, column: str, confidence: float = 0.95) -> float:
        """Return the lower end of the interval in which the mean of ``column`` lies.

        The interval is Student's, at a quarter of the error allowed (see
        :mod:`state.sketches.sample_mean`), with the finite population's correction: of width 0
        where the sample holds all rows, and infinite where it has a single value of several.

        Raises:
            KeyError: the column is not kept.
            TypeError: it does not hold numbers.
            ValueError: the confidence is not within (0, 1).
        """
        found = self._mean(column)
        return found.mean - found.margin(confidence)

    def upper_bound(self, column: str, confidence: float = 0.95) -> float:
        """Return the upper end of the interval in which the mean of ``column`` lies."""
        found = self._mean(column)
        return found.mean + found.margin(confidence)

    def _mean(self, column: str) -> SampleMean:
        if self._rows is None:
            return hajek_mean(np.empty(0), np.empty(0))
        values = self._rows.column(column)
        known = np.asarray(pc.is_valid(values))
        (numbers,) = number_arrays(values)
        return hajek_mean(np.asarray(numbers, dtype=np.float64), self.inclusion()[known])

    def merge(self, other: Self) -> None:
        """Add ``other``'s rows to the ones sampled from.

        Raises:
            ValueError: the two differ in `columns`, `size`, `weight`, `seed` or the types of their
                columns, or both hold rows of the same stream.
        """
        for name in ("columns", "size", "weight", "seed"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"reservoirs with {name} {mine!r} and {theirs!r} do not merge")
        joined([*self._held(), *other._held()])
        if other._rows is None:
            return
        if self._rows is not None:
            check_same_columns(self._rows, other._rows)
        # The own stream stays apart from those merged in: it may go on.
        self._spans = joined([*self._spans, *other._held()])
        self._seen += other._seen
        self._threshold = min(self._threshold, other._threshold)
        if self._rows is None:
            self._rows = other._rows.take(_NOTHING)
        few = int(np.searchsorted(other._priorities, self._kind(self._threshold), "right"))
        if few:
            self._join(other._rows.slice(0, few), other._priorities[:few])

    def _held(self) -> list[Span]:
        own = [(self.stream, self.stream)] if self._drawn else []
        return [*self._spans, *own]

    def to_bytes(self) -> bytes:
        """Return the reservoir as canonical bytes; its rows are an Arrow IPC stream."""
        names = msgspec.json.encode((self.columns, self.weight))
        rows = b"" if self._rows is None else rows_bytes(self._rows)
        counts = (len(names), len(self._spans), len(self._priorities))
        head = _HEAD.pack(self.size, self.stream, self.seed, self._seen, self._drawn, *counts)
        wide = np.dtype(self._kind).newbyteorder("<")
        keys = np.append(self._priorities, self._kind(self._threshold)).astype(wide)
        spans = b"".join(_SPAN.pack(*span) for span in self._spans)
        return seal(_KIND, 1, head + names + spans + keys.tobytes() + rows)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the reservoir that ``data`` holds.

        Raises:
            ValueError: the bytes are damaged, or no reservoir writes them.
        """
        _, payload = unseal(_KIND, data, versions={1})
        try:
            return cls._read(payload)
        except (struct.error, msgspec.MsgspecError) as error:
            raise ValueError(f"{_KIND}: the payload ends early or names no columns") from error

    @classmethod
    def _read(cls, payload: bytes) -> Self:
        size, stream, seed, seen, drawn, wide, spans, n = _HEAD.unpack_from(payload)
        at = _HEAD.size + wide
        names = payload[_HEAD.size : at]
        columns, weight = msgspec.json.decode(names, type=_Names)
        if msgspec.json.encode((columns, weight)) != names:
            raise ValueError(f"{_KIND}: the names are not written in their shortest form")
        state = cls(columns, size=size, stream=stream, weight=weight, seed=seed)
        end = at + _SPAN.size * spans
        if end + 8 * (n + 1) > len(payload):
            raise ValueError(f"{_KIND}: {len(payload)} bytes, the header says otherwise")
        state._seen, state._drawn = seen, drawn
        state._spans = list(_SPAN.iter_unpack(payload[at:end]))
        kind = np.dtype(state._kind)
        keys = np.frombuffer(payload, kind.newbyteorder("<"), n + 1, end).astype(kind)
        state._priorities, state._threshold = keys[:-1], keys[-1].item()
        rows = payload[end + 8 * (n + 1) :]
        if rows:
            state._rows = read_rows(rows, state._kept)
        state._check()
        return state

    def _check(self) -> None:
        """Refuse what no folding and merging leads to."""
        n = len(self._priorities)
        joined(self._held())
        if self._spans != joined(self._spans):
            raise ValueError(f"{_KIND}: the streams are not in their shortest form")
        if (self._rows.num_rows if self._rows is not None else 0) != n:
            raise ValueError(f"{_KIND}: {n} priorities for another number of rows")
        if n > self.size or self._seen < max(n, self._drawn) or (self._seen and not self._held()):
            raise ValueError(f"{_KIND}: {n} rows of {self._seen} in a sample of {self.size}")
        keys = np.append(self._priorities, self._kind(self._threshold))
        # Written so that NaN fails too.
        if not ((keys[:-1] <= keys[1:]).all() and keys[0] >= 0):
            raise ValueError(f"{_KIND}: the priorities are not sorted below the threshold")
        if n < self.size and self._threshold != self._last:
            raise ValueError(f"{_KIND}: rows were refused by a sample that is not full")


def _exponential(bits: U64) -> F64:
    """Make exponential variates of uniform bits; never 0, so that a weight of 0 gives infinity."""
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(uniform)
