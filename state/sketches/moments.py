"""Exact count, sum, mean, variance, minimum and maximum of a column.

The sums of the values and of their squares are whole numbers (see
:mod:`state.sketches.exact_sum`), so nothing is rounded before it is read, and two states of the
same rows are equal to the last bit however the rows were ordered, split and merged.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from state.mergeable import Algebra, seal, unseal
from state.sketches.numeric_column import Values, number_arrays

if TYPE_CHECKING:
    import pyarrow as pa

_KIND = "moments"
_COUNTS = struct.Struct("<QQQQ")  # finite values, nan, +inf, -inf
_ENDS = struct.Struct("<dd")
_WHOLE = struct.Struct("<HH")  # trailing zero bytes cut off, bytes that follow
_NAME = struct.Struct("<H")
_SUM_BYTES = 288  # 2112 bits of a double in units of 2**-1088, and 64 of counting
_SQUARE_BYTES = 560
_SUM_SCALE = 1088  # as in exact_sum, whose import compiles
_SQUARE_SCALE = 2 * _SUM_SCALE


class Moments:
    """Sum a column and its squares without rounding.

    Nulls are skipped; NaN are skipped and counted in `nans`. Infinities count as values and as
    minimum or maximum; they make `total` and `mean` what IEEE addition makes of them, and
    `variance` NaN. Integers, booleans and times are summed as integers (in the column's unit),
    also beyond 2**53. An empty state has total 0, and NaN for what has no value.

    Bytes are equal whenever the multisets of values are: about 60 bytes for numbers of similar
    size, at most 900.

    >>> import pyarrow as pa
    >>> m = Moments("x")
    >>> m.add(pa.array([1e16, 1.0, -1e16, None]))
    >>> m.count, m.total, m.minimum, m.maximum
    (3, 1.0, -1e+16, 1e+16)
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = (
        "_finite",
        "_maximum",
        "_minimum",
        "_negative",
        "_positive",
        "_squares",
        "_total",
        "column",
        "nans",
    )

    def __init__(self, column: str = "value") -> None:
        self.column = column
        self.nans = 0
        self._finite = self._positive = self._negative = 0
        self._total = self._squares = 0
        self._minimum, self._maximum = math.inf, -math.inf

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold the column of ``batch`` that this state watches."""
        self.add(batch.column(self.column))

    def add(self, values: Values) -> None:
        """Fold (T,) numbers or times.

        Raises:
            TypeError: the values are not numbers.
        """
        from state.sketches.exact_sum import sum_numbers

        for x in number_arrays(values):
            if not len(x):
                continue
            sums = sum_numbers(x)
            self.nans += sums.nans
            if sums.nans == len(x):
                continue
            self._finite += len(x) - sums.nans - sums.positive - sums.negative
            self._positive += sums.positive
            self._negative += sums.negative
            self._total += sums.total
            self._squares += sums.squares
            # Adding 0.0 makes one zero of the two.
            self._minimum = min(self._minimum, float(np.fmin.reduce(x)) + 0.0)
            self._maximum = max(self._maximum, float(np.fmax.reduce(x)) + 0.0)

    @property
    def count(self) -> int:
        """How many values were folded, without nulls and NaN."""
        return self._finite + self._positive + self._negative

    @property
    def infinities(self) -> int:
        """How many of the values are infinite."""
        return self._positive + self._negative

    @property
    def total(self) -> float:
        """The sum, rounded once to the nearest float."""
        return self._infinite() if self.infinities else _nearest(self.exact_total)

    @property
    def exact_total(self) -> Fraction:
        """The sum of the finite values, unrounded."""
        return Fraction(self._total, 1 << _SUM_SCALE)

    @property
    def exact_total_of_squares(self) -> Fraction:
        """The sum of the squares of the finite values, unrounded."""
        return Fraction(self._squares, 1 << _SQUARE_SCALE)

    @property
    def mean(self) -> float:
        """The mean, rounded once to the nearest float; NaN when empty."""
        if self.infinities:
            return self._infinite()
        return _nearest(self.exact_total / self._finite) if self._finite else math.nan

    def variance(self, ddof: int = 1) -> float:
        """Return the variance with ``count - ddof`` in the denominator, rounded once.

        NaN where the denominator is not positive or a value is infinite.
        """
        n = self._finite
        if self.infinities or n <= ddof:
            return math.nan
        scatter = self.exact_total_of_squares - self.exact_total**2 / n if n else Fraction(0)
        return _nearest(scatter / (n - ddof))

    @property
    def minimum(self) -> float:
        """The smallest value; NaN when empty. Integers beyond 2**53 are rounded here."""
        return self._minimum if self.count else math.nan

    @property
    def maximum(self) -> float:
        """The largest value; NaN when empty. Integers beyond 2**53 are rounded here."""
        return self._maximum if self.count else math.nan

    def merge(self, other: Self) -> None:
        """Add ``other``'s rows to this state's.

        Raises:
            ValueError: the two watch different columns.
        """
        if self.column != other.column:
            raise ValueError(f"moments of {self.column!r} do not merge with {other.column!r}")
        self.nans += other.nans
        self._finite += other._finite
        self._positive += other._positive
        self._negative += other._negative
        self._total += other._total
        self._squares += other._squares
        self._minimum = min(self._minimum, other._minimum)
        self._maximum = max(self._maximum, other._maximum)

    def to_bytes(self) -> bytes:
        """Return the state as canonical bytes."""
        name = self.column.encode()
        payload = [
            _NAME.pack(len(name)),
            name,
            _COUNTS.pack(self._finite, self.nans, self._positive, self._negative),
        ]
        if self.count:
            payload.append(_ENDS.pack(self._minimum, self._maximum))
        if self._finite:
            payload += [_pack(self._total), _pack(self._squares)]
        return seal(_KIND, 1, b"".join(payload))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that ``data`` holds.

        Raises:
            ValueError: the bytes are damaged or do not describe any column.
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
        state = cls(payload[_NAME.size : at].decode())
        state._finite, state.nans, state._positive, state._negative = _COUNTS.unpack_from(
            payload, at
        )
        at += _COUNTS.size
        if state.count:
            state._minimum, state._maximum = _ENDS.unpack_from(payload, at)
            at += _ENDS.size
        if state._finite:
            state._total, at = _unpack(payload, at, _SUM_BYTES)
            state._squares, at = _unpack(payload, at, _SQUARE_BYTES)
        if at != len(payload):
            raise ValueError(f"{_KIND}: {len(payload) - at} bytes too many")
        state._check()
        return state

    def _check(self) -> None:
        """Refuse sums that no column has."""
        low, high, n = self._minimum, self._maximum, self._finite
        if not self.count:
            return
        if not low <= high or (low == math.inf) != (self._positive == self.count):
            raise ValueError(f"{_KIND}: minimum {low} and maximum {high} contradict the counts")
        if (low == -math.inf) != (self._negative > 0) or (high == math.inf) != (self._positive > 0):
            raise ValueError(f"{_KIND}: the ends contradict the number of infinities")
        if (high == -math.inf) != (self._negative == self.count):
            raise ValueError(f"{_KIND}: the ends contradict the number of infinities")
        if any(end == 0 and math.copysign(1, end) < 0 for end in (low, high)):
            raise ValueError(f"{_KIND}: zero has no sign")
        # Cauchy and Schwarz: n * sum of squares >= square of the sum.
        if n * self._squares < self._total**2:
            raise ValueError(f"{_KIND}: the sum of squares is too small for the sum")

    def _infinite(self) -> float:
        if self._positive and self._negative:
            return math.nan
        return math.inf if self._positive else -math.inf


def _nearest(x: Fraction) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def _pack(whole: int) -> bytes:
    """Write a whole number without the zero bytes at its low end."""
    zeros = ((whole & -whole).bit_length() - 1) // 8 if whole else 0
    whole >>= 8 * zeros
    length = whole.bit_length() // 8 + 1
    return _WHOLE.pack(zeros, length) + whole.to_bytes(length, "little", signed=True)


def _unpack(payload: bytes, at: int, most: int) -> tuple[int, int]:
    zeros, length = _WHOLE.unpack_from(payload, at)
    start, end = at + _WHOLE.size, at + _WHOLE.size + length
    if zeros + length > most or end > len(payload):
        raise ValueError(f"{_KIND}: a sum of {zeros + length} bytes")
    whole = int.from_bytes(payload[start:end], "little", signed=True) << (8 * zeros)
    if _pack(whole) != payload[at:end]:
        raise ValueError(f"{_KIND}: a sum is not written in its shortest form")
    return whole, end
