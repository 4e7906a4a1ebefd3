"""Lagged cross-moments: everything that linear causal analysis needs to know about past rows.

The state is a head run, a tail run (:class:`state.lagged_run.Run`) and, once there are gaps, the
embedded Gram matrices of the runs between them (:class:`state.closed_runs.ClosedRuns`); merging
joins one state's tail with the next one's head.

All products are of rows minus a *shift* near the mean, because products of raw prices lose in
their sums what a covariance consists of (T. Chan, G. Golub, R. LeVeque, "Algorithms for computing
the sample variance", The American Statistician 37(3), 1983). Moving to another shift is algebra
on the sums and needs no rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from state.closed_runs import ClosedRuns
from state.float_bytes import FloatReader, float_bytes
from state.lagged_run import F64, Run, centre
from state.mergeable import Algebra, seal, unseal
from state.scatter import Scatter

__all__ = ["LARGEST", "LaggedMoments", "Scatter", "centre"]

LARGEST = 1e150
"""Values beyond this have squares that a float64 cannot hold."""

FAR = 16.0
"""A shift is moved when its squared distance from the mean exceeds this many variances."""

_KIND = "lagged-moments"
_HEAD = struct.Struct("<IIQQBI")  # series, lags, rows, missing, has a gap, closed lags


class LaggedMoments:
    """Mergeable lagged cross-moments of N series up to lag L: an ordered monoid.

    *Missing values*: a row with any NaN is missing as a whole and is a gap. No product reaches
    over a gap, so an embedded row counts only where all L + 1 of its rows are present; an
    infinite value is an error. *Late and duplicate rows* are the caller's to order and drop: each
    row is one step after the row before it. *Empty* states are the identity. Space is
    O(L N^2) without gaps and O(L^3 N^2) with, however many rows were seen.

    Merging over any split equals one pass up to rounding, which is small against the spread of
    each series: prices near 1e9 with unit noise keep ten digits. A series whose variation in the
    embedded rows is less than `state.scatter.LOST` of that in all rows (the others being a jump at
    an edge of a run, or in a run not longer than the lags) is below what the sums resolve:
    `scatter` gives it zeros, as if constant, rather than digits that mean nothing.

    >>> x = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 30.0], [7.0, 50.0]])
    >>> a, b = LaggedMoments.from_rows(x[:1], 1), LaggedMoments.from_rows(x[1:], 1)
    >>> a.merge(b)
    >>> scatter = a.scatter()
    >>> scatter.n, scatter.mean.round(2).tolist()
    (3, [4.33, 33.33, 2.33, 20.0])
    >>> bool(np.allclose(scatter.matrix / 2, np.cov(np.hstack([x[1:], x[:-1]]).T)))
    True

    Args:
        n_series: N, at least 1.
        max_lag: L, at least 0.

    Raises:
        ValueError: a parameter is out of range.
    """

    __slots__ = ("_closed", "_due", "_head", "_lags", "_missing", "_rows", "_shift", "_tail")

    algebra: ClassVar[Algebra] = Algebra.ORDERED_MONOID

    def __init__(self, n_series: int, max_lag: int) -> None:
        if n_series < 1:
            raise ValueError(f"n_series must be at least 1, not {n_series}")
        if max_lag < 0:
            raise ValueError(f"max_lag must not be negative, not {max_lag}")
        self._lags = max_lag
        self._shift: F64 = np.zeros(n_series)
        self._head = Run(n_series, max_lag)
        self._tail: Run | None = None
        self._closed = ClosedRuns()
        self._rows = 0
        self._missing = 0
        self._due = 1
        """Rows present at which the shift is next compared with the mean."""

    @classmethod
    def from_rows(cls, x: npt.ArrayLike, max_lag: int) -> Self:
        """Return the moments of rows (T, N); rows with NaN are gaps.

        Raises:
            ValueError: `x` is not two-dimensional, or holds an infinite or too large value.
        """
        rows = np.asarray(x, dtype=np.float64)
        if rows.ndim != 2:
            raise ValueError(f"rows must be an array (T, N), not of shape {rows.shape}")
        moments = cls(rows.shape[1], max_lag)
        moments.append(rows)
        return moments

    @classmethod
    def of_runs(cls, runs: Sequence[Run], shift: F64, rows: int, *, copy: bool = True) -> Self:
        """Return the moments of runs with one missing row between each two, under one shift.

        Without `copy`, a single run is shared, so the result is for reading only.
        """
        moments = cls(len(shift), runs[0].max_lag)
        moments._shift = shift
        moments._head = runs[0].copy() if copy else runs[0]
        for at in range(1, len(runs)):
            moments._break()
            moments._tail = runs[at].copy()
        moments._rows, moments._missing = rows, len(runs) - 1
        moments._due = moments._present + 1
        return moments

    @property
    def n_series(self) -> int:
        """N."""
        return len(self._shift)

    @property
    def max_lag(self) -> int:
        """L."""
        return self._lags

    @property
    def rows(self) -> int:
        """Rows seen, missing ones and declared gaps included."""
        return self._rows

    @property
    def gaps(self) -> int:
        """Missing rows seen, declared gaps included."""
        return self._missing

    @property
    def _present(self) -> int:
        return self._head.n + self._closed.rows + (self._tail.n if self._tail else 0)

    def append(self, x: npt.ArrayLike) -> None:
        """Append one row (N,) or rows (T, N), each one step after the last.

        Raises:
            ValueError: the shape does not fit, or a value is infinite or beyond `LARGEST`; the
                state is then as it was.
        """
        rows = np.asarray(x, dtype=np.float64)
        if rows.shape[-1:] != self._shift.shape or rows.ndim > 2:
            raise ValueError(f"rows of {self.n_series} series expected, not shape {rows.shape}")
        if not rows.size:
            return
        size = float(np.abs(rows).max())
        if size <= LARGEST and rows.ndim == 1:
            self._push(rows)
            return
        rows = np.atleast_2d(rows)
        if size <= LARGEST:
            self._extend(rows)
            self._rows += len(rows)
            return
        if (np.abs(rows) > LARGEST).any():
            at = int(np.argmax((np.abs(rows) > LARGEST).any(axis=1)))
            raise ValueError(f"row {at} holds an infinite value or one beyond {LARGEST:g}")
        missing = np.isnan(rows).any(axis=1)
        start = 0
        for at in [*np.flatnonzero(missing).tolist(), len(rows)]:
            if at > start:
                self._extend(rows[start:at])
            if at < len(rows):
                self._break()
            start = at + 1
        self._rows += len(rows)
        self._missing += int(missing.sum())

    def gap(self) -> None:
        """Declare a gap: what follows is not lagged against what came before.

        The same as appending one row of NaN; counted in `rows` and `gaps`.
        """
        self._break()
        self._rows += 1
        self._missing += 1

    def merge(self, other: Self) -> None:
        """Append the moments of rows that follow this state's directly.

        Raises:
            ValueError: the number of series or the lags differ.
        """
        if (self.n_series, self._lags) != (other.n_series, other._lags):
            raise ValueError(
                f"moments of {self.n_series} series at {self._lags} lags do not merge with "
                f"{other.n_series} at {other._lags}"
            )
        part = other._copy()
        if not self._present:
            self._shift = part._shift
        else:
            part._reshift(self._shift)
        (self._tail or self._head).join(part._head, self._shift)
        if part._tail is not None:
            if self._tail is not None:
                self._closed.close(self._tail, self._shift)
            self._tail = part._tail
            self._closed.join(part._closed)
        self._rows += part._rows
        self._missing += part._missing
        self._recentre()

    def select(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Self:
        """Return the moments of some series, in the order of `indices`.

        Rows that were missing for any series of this state stay missing.

        Raises:
            IndexError: an index is out of range.
            ValueError: `indices` is empty.
        """
        index = np.asarray(indices, dtype=np.intp)
        chosen = type(self)(len(index), self._lags)

        chosen._shift = self._shift[index]
        chosen._head = self._head.select(index)
        chosen._tail = self._tail.select(index) if self._tail else None
        chosen._closed = self._closed.select(index, self.n_series)
        chosen._rows, chosen._missing, chosen._due = self._rows, self._missing, self._due
        return chosen

    def scatter(self, lags: int | None = None) -> Scatter:
        """Return the centred scatter of (x_t, x_{t-1}, ..., x_{t-lags}).

        Exactly the t for which rows t - lags .. t are all present count, so fewer lags than
        `max_lag` see more rows.

        Raises:
            ValueError: `lags` is negative or beyond `max_lag`.
        """
        lags = self._lags if lags is None else lags
        if not 0 <= lags <= self._lags:
            raise ValueError(f"lags must be from 0 to {self._lags}, not {lags}")
        size = (lags + 1) * self.n_series
        runs = [run for run in (self._head, self._tail) if run is not None and run.n > lags]
        closed = self._closed.get(lags)
        if closed is None and not runs:
            return Scatter.empty(size)
        if closed is None and len(runs) == 1:
            n, sums, matrix = runs[0].embedded(lags, self._shift, centred=True)
            mean = sums / n
        else:
            n, sums, gram = closed or (0, np.zeros(size), np.zeros((size, size)))
            for run in runs:
                count, more, products = run.embedded(lags, self._shift)
                n, sums, gram = n + count, sums + more, gram + products
            mean = sums / n
            matrix = gram - np.outer(mean, sums)
        square, _ = self._squares()
        shift = np.tile(self._shift, lags + 1)
        return Scatter.resolved(n, mean + shift, matrix, np.tile(square, lags + 1))

    def to_bytes(self) -> bytes:
        """Return the state as versioned bytes, little-endian float64 throughout."""
        parts = [
            _HEAD.pack(
                self.n_series,
                self._lags,
                self._rows,
                self._missing,
                self._tail is not None,
                len(self._closed),
            ),
            float_bytes(self._shift),
        ]
        for run in (self._head, self._tail):
            if run is not None:
                parts += run.parts()
        parts += self._closed.parts()
        return seal(_KIND, 1, b"".join(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are malformed, truncated, of an unknown version, or do not fit
                together.
        """
        _, payload = unseal(_KIND, data, versions={1})
        read = FloatReader(_KIND, payload)
        n, lags, rows, missing, gapped, closed = read.unpack(_HEAD)
        if (
            n < 1
            or gapped > 1
            or closed > (lags + 1) * gapped
            or 8 * n * n * (lags + 1) > len(payload)
        ):
            raise ValueError(f"{_KIND}: the header does not fit the payload")
        moments = cls(n, lags)
        moments._shift = read.floats(n)
        moments._head = Run.read(read, n, lags)
        moments._tail = Run.read(read, n, lags) if gapped else None
        moments._closed = ClosedRuns.read(read, closed, n)
        read.end()
        if moments._present + missing != rows or missing < gapped:
            raise ValueError(f"{_KIND}: {rows} rows are not those present and {missing} missing")
        moments._rows, moments._missing = rows, missing
        moments._due = 2 * moments._present + 1
        return moments

    def _copy(self) -> Self:
        other = type(self)(self.n_series, self._lags)
        other._shift = self._shift
        other._head = self._head.copy()
        other._tail = self._tail.copy() if self._tail else None
        other._closed = self._closed.copy()
        other._rows, other._missing, other._due = self._rows, self._missing, self._due
        return other

    def _push(self, row: F64) -> None:
        if not self._present:
            self._shift = row.copy()
        (self._tail or self._head).push(row, self._shift)
        self._rows += 1
        if self._rows - self._missing >= self._due:
            self._recentre()

    def _extend(self, rows: F64) -> None:
        """Append complete rows, without counting them as seen."""
        center = centre(rows)
        run = Run.of(rows, self._lags, center)
        if not self._present:
            self._shift = center
        else:
            run.reshift(center, self._shift)
        current = self._tail or self._head
        if current.n:
            current.join(run, self._shift)
            self._recentre()
            return
        if self._tail is None:
            self._head = run
        else:
            self._tail = run
        # The shift is this run's mean if there was nothing before it.
        if self._present > run.n:
            self._recentre()
        self._due = 2 * self._present

    def _break(self) -> None:
        if self._tail is not None:
            self._closed.close(self._tail, self._shift)
        self._tail = Run(self.n_series, self._lags)

    def _squares(self) -> tuple[F64, F64]:
        """Return the sums of squares and of values of all rows present, less the shift."""
        width = self.n_series
        square = np.diagonal(self._head.gamma[:, :width]).copy()
        sums = self._head.sums.copy()
        if self._tail is not None:
            square += np.diagonal(self._tail.gamma[:, :width])
            sums += self._tail.sums
        closed = self._closed.get(0)
        if closed is not None:
            square += np.diagonal(closed[2])
            sums += closed[1]
        return square, sums

    def _recentre(self) -> None:
        """Move the shift to the mean if it is far from it.

        The shift starts as a row or a mean of rows, and one of n values is within sqrt(n - 1)
        standard deviations of their mean (P. Samuelson, 1968). So checking each time the rows
        double bounds what is lost between checks.
        """
        n = self._present
        self._due = 2 * n
        if not n:
            return
        square, sums = self._squares()
        mean = sums / n
        bias = n * mean * mean
        far = bias > FAR * (square - bias)
        if far.any() and (bias[far] > 0).any():
            self._reshift(self._shift + np.where(far, mean, 0.0))

    def _reshift(self, new: F64) -> None:
        old, self._shift = self._shift, new
        for run in (self._head, self._tail):
            if run is not None:
                run.reshift(old, new)
        self._closed.reshift(new - old)
