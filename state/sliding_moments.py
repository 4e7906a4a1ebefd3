"""Lagged moments of the last rows only, kept up to date row by row.

A new row's products are added and the leaving row's subtracted, which costs the same however long
the window is. Subtraction leaves rounding behind, so the sums are rebuilt from the rows every
`window` rows, and at once when the window's spread has shrunk so far below what passed through it
that what is left behind would show.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from typing import Self

import numpy as np
import numpy.typing as npt

from state.lagged_run import F64, Run
from state.mergeable import seal, unseal
from state.moments import LARGEST, LaggedMoments, Scatter, centre

SHRUNK = 1e5
"""Rebuild when a series' squares once exceeded this many times their present centred sum."""

LARGEST_RESTORED = 2**27
"""Most products (1 GiB) that bytes may ask for: a short payload can name any number of series."""

_KIND = "sliding-moments"
_HEAD = struct.Struct("<IIQQ")  # series, lags, window, rows held


class SlidingMoments:
    """The lagged moments of the last `window` rows of N series.

    Not mergeable, since it forgets: `moments` gives a mergeable copy. *Missing* rows (any NaN) take
    their place in the window and are gaps in it, as in :class:`~state.moments.LaggedMoments`; every
    gap in the window makes `scatter` a little dearer. *Restart*: the bytes hold the rows, and
    sums are rebuilt from them, so results after a restart equal those without up to rounding
    (1e-9 of each series' spread).

    Args:
        n_series: N, at least 1.
        max_lag: L, at least 0.
        window: rows kept, more than `max_lag`.

    Raises:
        ValueError: a parameter is out of range.

    >>> sliding = SlidingMoments(1, 1, window=3)
    >>> for price in (9.0, 1.0, 2.0, 4.0):
    ...     sliding.push([price])
    >>> sliding.scatter().n, sliding.scatter().mean.tolist()
    (2, [3.0, 1.5])
    """

    def __init__(self, n_series: int, max_lag: int, window: int) -> None:
        LaggedMoments(n_series, max_lag)  # checks both
        if window <= max_lag:
            raise ValueError(f"a window of {window} rows holds no row with {max_lag} lags")
        self.n_series = n_series
        self.max_lag = max_lag
        self.window = window
        # Up to twice the window, so that the rows held are one slice and move once per `window`
        # pushes; it grows with the rows, so that a window costs only what it holds.
        self._buffer: F64 = np.empty((min(2 * window, 64), n_series))
        self._start = 0
        self._end = 0
        self._clear()

    @property
    def rows(self) -> int:
        """Rows held, missing ones included."""
        return self._end - self._start

    def push(self, row: npt.ArrayLike) -> None:
        """Append a row (N,); the oldest leaves when the window is full.

        Raises:
            ValueError: the shape does not fit, or a value is infinite or beyond `LARGEST`; the
                state is then as it was.
        """
        new = np.asarray(row, dtype=np.float64)
        if new.shape != (self.n_series,):
            raise ValueError(f"a row of {self.n_series} series expected, not shape {new.shape}")
        size = float(np.abs(new).max())
        missing = not size <= LARGEST
        if missing and (np.abs(new) > LARGEST).any():
            raise ValueError(f"the row holds an infinite value or one beyond {LARGEST:g}")
        if self._end == len(self._buffer):
            self._make_room()
        self._buffer[self._end] = new
        self._end += 1
        if missing:
            self._runs.append(Run(self.n_series, self.max_lag))
        else:
            self._enter(new)
        if self.rows > self.window:
            self._leave()
        self._pushes += 1
        if self._pushes >= self.window or self._shrunk():
            self._rebuild()

    @property
    def moments(self) -> LaggedMoments:
        """The moments of the rows held, as a mergeable state of their own."""
        return LaggedMoments.of_runs(self._runs, self._shift, self.rows)

    def scatter(self, lags: int | None = None) -> Scatter:
        """Return the centred scatter of the rows held, as `LaggedMoments.scatter` does."""
        if len(self._runs) == 1:
            # One run is read in place: nothing here changes it.
            return LaggedMoments.of_runs(self._runs, self._shift, self.rows, copy=False).scatter(
                lags
            )
        return self.moments.scatter(lags)

    def to_bytes(self) -> bytes:
        """Return the parameters and the rows held, as versioned bytes."""
        held = self._buffer[self._start : self._end]
        head = _HEAD.pack(self.n_series, self.max_lag, self.window, len(held))
        return seal(_KIND, 1, head + held.astype("<f8").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are malformed, truncated, of an unknown version, or of more than
                `LARGEST_RESTORED` products.
        """
        _, payload = unseal(_KIND, data, versions={1})
        if len(payload) < _HEAD.size:
            raise ValueError(f"{_KIND}: the payload ends early")
        n_series, max_lag, window, held = _HEAD.unpack_from(payload)
        if held > window or len(payload) != _HEAD.size + 8 * n_series * held:
            raise ValueError(f"{_KIND}: the header does not fit the payload")
        if n_series * n_series * (max_lag + 1) > LARGEST_RESTORED:
            raise ValueError(f"{_KIND}: {n_series} series at {max_lag} lags are too many")
        rows = np.frombuffer(payload, dtype="<f8", offset=_HEAD.size).reshape(held, n_series)
        if (np.abs(rows) > LARGEST).any():
            raise ValueError(f"{_KIND}: a row holds an infinite value or one beyond {LARGEST:g}")
        sliding = cls(n_series, max_lag, window)
        sliding._buffer = np.empty((max(held, len(sliding._buffer)), n_series))
        sliding._buffer[:held] = rows
        sliding._end = held
        sliding._rebuild()
        return sliding

    def _make_room(self) -> None:
        held = self._buffer[self._start : self._end].copy()
        self._start, self._end = 0, len(held)
        if len(self._buffer) < 2 * self.window:
            room = min(2 * len(self._buffer), 2 * self.window)
            self._buffer = np.empty((room, self.n_series))
        self._buffer[: len(held)] = held

    def _clear(self) -> None:
        self._runs: deque[Run] = deque([Run(self.n_series, self.max_lag)])
        """The runs between gaps, oldest first: one more than there are missing rows."""
        self._shift: F64 = np.zeros(self.n_series)
        self._n = 0
        self._sums: F64 = np.zeros(self.n_series)
        self._squares: F64 = np.zeros(self.n_series)
        self._peak: F64 = np.zeros(self.n_series)
        self._pushes = 0

    def _enter(self, row: F64) -> None:
        if not self._n:
            self._clear_shift(row)
        self._runs[-1].push(row, self._shift)
        y = row - self._shift
        self._n += 1
        self._sums += y
        self._squares += y * y
        np.maximum(self._peak, self._squares, out=self._peak)

    def _clear_shift(self, row: F64) -> None:
        """Start from a row while nothing is summed: the runs held are empty."""
        self._shift = row.copy()
        self._sums[:] = self._squares[:] = self._peak[:] = 0.0

    def _leave(self) -> None:
        oldest = self._buffer[self._start]
        self._start += 1
        run = self._runs[0]
        if not run.n:
            self._runs.popleft()
            return
        run.drop(
            self._buffer[self._start : self._start + min(run.n - 1, self.max_lag)],
            oldest,
            self._shift,
        )
        y = oldest - self._shift
        self._n -= 1
        self._sums -= y
        self._squares -= y * y

    def _shrunk(self) -> bool:
        if not self._n:
            return False
        centred = self._squares - self._sums * self._sums / self._n
        return bool((centred * SHRUNK < self._peak).any())

    def _rebuild(self) -> None:
        held = self._buffer[self._start : self._end]
        missing = np.isnan(held).any(axis=1)
        self._clear()
        whole = held[~missing]
        if len(whole):
            self._shift = centre(whole)
            y = whole - self._shift
            self._n = len(y)
            self._sums = y.sum(axis=0)
            self._squares = np.einsum("ti,ti->i", y, y)
            self._peak = self._squares.copy()
        edges = [-1, *np.flatnonzero(missing).tolist(), len(held)]
        self._runs = deque(
            Run.of(held[a + 1 : b], self.max_lag, self._shift) for a, b in itertools.pairwise(edges)
        )
