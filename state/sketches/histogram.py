"""A histogram with relative error: DDSketch, whose merges lose nothing.

Values are counted in buckets whose ends differ by at most a factor ``(1 + a) / (1 - a)``, so any
value of a bucket is within ``a`` of its middle, relatively. The bits of a positive float64, read as
an integer, are its logarithm interpolated linearly between powers of two; a bucket is that integer
divided by a constant step. So no logarithm is computed: the bucket of a value is the same on every
platform, its ends are floats, and counting is exact.

Source: C. Masson, J. Rim, H. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees" (VLDB 2019); the mapping is its "fast" one, with linear interpolation,
which takes 44 % more buckets than logarithms would.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from state.mergeable import Algebra, seal, unseal
from state.sketches.numeric_column import Values, float_blocks

if TYPE_CHECKING:
    import pyarrow as pa

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Ranks = TypeVar("Ranks", float, F64)

_KIND = "histogram"
_NAME = struct.Struct("<H")
_HEAD = struct.Struct("<dQddI")  # relative error, nan, minimum, maximum, buckets
_MAGNITUDE = (1 << 63) - 1
_LARGEST = 0x7FEF_FFFF_FFFF_FFFF  # bits of the largest finite float64; one more is infinity
_FEW = 2048  # rows that are counted faster by sorting
_FINEST, _COARSEST = 1e-5, 0.25  # beyond 1/3 a bucket would span a whole octave


class Histogram:
    """Count a column's values in buckets of constant relative width.

    Nulls are skipped; NaN are skipped and counted in `nans`. Negative values have mirrored
    buckets; zero (both zeros) and each infinity have one of their own. Below the smallest normal
    float, 2.2e-308, the error is absolute: less than that. Integers beyond 2**53 are rounded to
    float64 first, times are integers in the column's unit.

    Bytes are equal whenever the multisets of values are. Only buckets in use take memory, 16
    bytes each: 50 for every factor of two between the values at 1 % error, whatever their number,
    and never more than ``2 * (1023 / relative_error + 2) + 1``, about 205,000 at 1 %.

    Args:
        column: the column that `update` reads.
        relative_error: how far an estimate may be from the value at its rank, relatively, in
            [1e-5, 0.25].

    >>> import pyarrow as pa
    >>> histogram = Histogram("ms", relative_error=0.01)
    >>> histogram.add(pa.array(range(1, 10_001)))
    >>> 9_900 * 0.99 <= histogram.estimate(0.99) <= 9_900 * 1.01
    True
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = (
        "_counts",
        "_keys",
        "_maximum",
        "_minimum",
        "_step",
        "column",
        "nans",
        "relative_error",
    )

    def __init__(self, column: str = "value", *, relative_error: float = 0.01) -> None:
        if not _FINEST <= relative_error <= _COARSEST:
            raise ValueError(f"a relative error is in [1e-5, 0.25], not {relative_error}")
        self.column = column
        self.relative_error = float(relative_error)
        self.nans = 0
        self._step = math.floor(2 * relative_error / (1 - relative_error) * 2**52)
        self._keys: I64 = np.empty(0, dtype=np.int64)
        self._counts: I64 = np.empty(0, dtype=np.int64)
        self._minimum, self._maximum = math.inf, -math.inf

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold the column of ``batch`` that this histogram watches."""
        self.add(batch.column(self.column))

    def add(self, values: Values) -> None:
        """Fold (T,) numbers or times.

        Raises:
            TypeError: the values are not numbers.
        """
        for x, nans in float_blocks(values):
            self.nans += nans
            if not len(x):
                continue
            low, high = float(x.min()), float(x.max())
            self._minimum = min(self._minimum, low)
            self._maximum = max(self._maximum, high)
            keys = self._bucket(x, finite=-math.inf < low and high < math.inf)
            first = int(keys.min())
            if len(x) >= _FEW and int(keys.max()) - first < 4 * len(x):
                counts = np.bincount(keys - first)
                found = np.flatnonzero(counts)
                self._join(found + first, counts[found])
            else:
                self._join(*np.unique(keys, return_counts=True))

    @property
    def _top(self) -> int:
        """The bucket of +inf; that of -inf is its negative."""
        return (_LARGEST - 1) // self._step + 2

    def _bucket(self, x: F64, *, finite: bool) -> I64:
        """Return the bucket of each value: 0 for zero, negative for negative values."""
        bits = x.view(np.int64)
        keys = bits & _MAGNITUDE
        keys -= 1
        keys //= self._step
        keys += 1
        if not finite:
            keys[np.isinf(x)] = self._top
        sign = bits >> 63  # 0 or -1
        keys ^= sign
        keys -= sign
        return keys

    def _join(self, keys: I64, counts: I64) -> None:
        """Add the counts of other buckets, whose keys are sorted and unique."""
        at = np.searchsorted(self._keys, keys)
        if len(self._keys) and (self._keys.take(at, mode="clip") == keys).all():
            self._counts[at] += counts
            return
        both = np.concatenate([self._keys, keys])
        self._keys, places = np.unique(both, return_inverse=True)
        self._counts, old = np.zeros(len(self._keys), dtype=np.int64), self._counts
        np.add.at(self._counts, places, np.concatenate([old, counts]))

    def _ends(self, keys: I64) -> tuple[F64, F64]:
        """Return the smallest and the largest value that each bucket may hold."""
        size = np.abs(keys)
        # The last finite bucket ends early, where a whole step would overflow.
        whole = np.clip(size, 1, self._top - 2)
        last = size > whole
        inner = (whole - 1 + last) * self._step + 1
        outer = np.where(last, _LARGEST, whole * self._step)
        near, far = inner.view(np.float64), outer.view(np.float64)
        near[size == self._top] = far[size == self._top] = np.inf
        near[size == 0] = far[size == 0] = 0.0
        low = np.where(keys < 0, -far, near)
        high = np.where(keys < 0, -near, far)
        return np.maximum(low, self._minimum), np.minimum(high, self._maximum)

    @property
    def count(self) -> int:
        """How many values were folded, without nulls and NaN."""
        return int(self._counts.sum())

    @property
    def buckets(self) -> int:
        """How many buckets are in use."""
        return len(self._keys)

    @property
    def minimum(self) -> float:
        """The smallest value, exact; NaN when empty."""
        return self._minimum if len(self._keys) else math.nan

    @property
    def maximum(self) -> float:
        """The largest value, exact; NaN when empty."""
        return self._maximum if len(self._keys) else math.nan

    def estimate(self, q: Ranks) -> Ranks:
        """Return a value within `relative_error` of the quantile at rank ``q`` in [0, 1].

        The quantile is the smallest value whose rank (the fraction of rows at or below it) is
        ``q`` or more; ranks 0 and 1 give the exact minimum and maximum.

        Returns:
            A float, or an array like ``q``; NaN when empty.

        Raises:
            ValueError: a rank is outside [0, 1].
        """
        ranks, low, high = self._find(q)
        with np.errstate(invalid="ignore", divide="ignore"):
            near, far = np.minimum(np.abs(low), np.abs(high)), np.maximum(np.abs(low), np.abs(high))
            middle = near * (far / (near / 2 + far / 2))
        middle = np.where(low < 0, -middle, middle)
        middle = np.where((low == high) | (near == 0), low, middle)
        middle = np.where(ranks <= 0, self.minimum, np.where(ranks >= 1, self.maximum, middle))
        return _like(q, np.clip(middle, low, high))

    def lower_bound(self, q: Ranks, confidence: float = 1.0) -> Ranks:
        """Return the low end of the bucket of the quantile at ``q``.

        The bounds always hold; ``confidence`` is there for likeness with other sketches.
        """
        return _like(q, self._find(q)[1])

    def upper_bound(self, q: Ranks, confidence: float = 1.0) -> Ranks:
        """Return the high end of the bucket of the quantile at ``q``; see `lower_bound`."""
        return _like(q, self._find(q)[2])

    def _find(self, q: float | F64) -> tuple[F64, F64, F64]:
        ranks = np.asarray(q, dtype=np.float64)
        if not ((ranks >= 0) & (ranks <= 1)).all():
            raise ValueError(f"ranks are in [0, 1], not {q}")
        if not len(self._keys):
            nothing = np.full(ranks.shape, np.nan)
            return ranks, nothing, nothing
        below = np.cumsum(self._counts)
        at = np.minimum(np.searchsorted(below, ranks * below[-1]), len(below) - 1)
        low, high = self._ends(self._keys[np.atleast_1d(at)])
        return ranks, low.reshape(ranks.shape), high.reshape(ranks.shape)

    def equi_depth(self, bins: int) -> pa.RecordBatch:
        """Return at most ``bins`` bins with counts as equal as the buckets allow.

        Returns:
            A batch of ``low``, ``high`` (float64) and ``count`` (int64): exactly ``count`` values
            are in [low, high], both ends included, and no value is outside all bins. Fewer bins
            come where a bucket holds more than its share.

        Raises:
            ValueError: ``bins`` is not positive.
        """
        import pyarrow as pa

        if bins < 1:
            raise ValueError(f"the number of bins is positive, not {bins}")
        below = np.concatenate([[0], np.cumsum(self._counts)])
        share = below[-1] * (np.arange(1, bins) / bins)
        right = np.clip(np.searchsorted(below, share), 1, max(1, len(below) - 1))
        if len(self._keys):
            left = right - 1
            nearer = np.where(share - below[left] < below[right] - share, left, right)
            cuts = np.unique(np.concatenate([[0], nearer, [len(self._keys)]]))
        else:
            cuts = np.zeros(1, dtype=np.int64)
        low = self._ends(self._keys[cuts[:-1]])[0]
        high = self._ends(self._keys[cuts[1:] - 1])[1]
        counts = np.diff(below[cuts])
        return pa.record_batch({"low": low, "high": high, "count": counts.astype(np.int64)})

    def merge(self, other: Self) -> None:
        """Add ``other``'s rows to this histogram's.

        Raises:
            ValueError: the two differ in `column` or `relative_error`.
        """
        if (self.column, self.relative_error) != (other.column, other.relative_error):
            raise ValueError(
                f"a histogram of {self.column!r} within {self.relative_error} does not merge with "
                f"{other.column!r} within {other.relative_error}"
            )
        self.nans += other.nans
        if not len(other._keys):
            return
        self._minimum = min(self._minimum, other._minimum)
        self._maximum = max(self._maximum, other._maximum)
        self._join(other._keys, other._counts)

    def to_bytes(self) -> bytes:
        """Return the histogram as canonical bytes, 12 for each bucket in use."""
        name = self.column.encode()
        low, high = (self._minimum, self._maximum) if len(self._keys) else (0.0, 0.0)
        payload = [
            _NAME.pack(len(name)),
            name,
            _HEAD.pack(self.relative_error, self.nans, low, high, len(self._keys)),
            self._keys.astype("<i4").tobytes(),
            self._counts.astype("<i8").tobytes(),
        ]
        return seal(_KIND, 1, b"".join(payload))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the histogram that ``data`` holds.

        Raises:
            ValueError: the bytes are damaged, or no histogram writes them.
        """
        _, payload = unseal(_KIND, data, versions={1})
        try:
            return cls._read(payload)
        except struct.error as error:
            raise ValueError(f"{_KIND}: the payload ends early") from error

    @classmethod
    def _read(cls, payload: bytes) -> Self:
        (length,) = _NAME.unpack_from(payload)
        at = _NAME.size + length
        name = payload[_NAME.size : at].decode()
        relative_error, nans, low, high, n = _HEAD.unpack_from(payload, at)
        at += _HEAD.size
        if len(payload) != at + 12 * n:
            raise ValueError(f"{_KIND}: {len(payload)} bytes do not hold {n} buckets")
        histogram = cls(name, relative_error=relative_error)
        histogram.nans = nans
        keys = np.frombuffer(payload, "<i4", n, at).astype(np.int64)
        counts = np.frombuffer(payload, "<i8", n, at + 4 * n).astype(np.int64)
        histogram._keys, histogram._counts = keys, counts
        if any(end == 0 and math.copysign(1, end) < 0 for end in (low, high)):
            raise ValueError(f"{_KIND}: zero has no sign")
        if not n:
            if (low, high) != (0.0, 0.0):
                raise ValueError(f"{_KIND}: an empty histogram has no minimum {low}")
            return histogram
        if not (keys[:-1] < keys[1:]).all() or (counts < 1).any() or sum(counts.tolist()) >> 62:
            raise ValueError(f"{_KIND}: the buckets are not rising, or not counted")
        ends = histogram._bucket(np.array([low, high]), finite=False)
        if math.isnan(low) or math.isnan(high) or low > high or (ends != keys[[0, -1]]).any():
            raise ValueError(f"{_KIND}: minimum {low} and maximum {high} are in other buckets")
        histogram._minimum, histogram._maximum = low, high
        return histogram


def _like(q: Ranks, found: F64) -> Ranks:
    return cast(Ranks, found if np.ndim(q) else float(found))
