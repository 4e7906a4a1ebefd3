"""The embedded Gram matrices of runs that lie between two gaps, summed for each number of lags.

Nothing will ever follow or precede such a run directly, so its edges are not needed any more and
its embedded rows add up with those of the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from state.float_bytes import FloatReader, float_bytes
from state.lagged_run import F64, Run

_COUNT = struct.Struct("<Q")


class ClosedRuns:
    """Count, sum and Gram matrix of the embedded rows of closed runs, less their owner's shift.

    Holds lags 0, 1, ... up to one less than the longest run added, or the most that a run carries.
    """

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, F64, F64]] = {}

    def __len__(self) -> int:
        return len(self._of)

    @property
    def rows(self) -> int:
        """Rows in the runs."""
        return self._of[0][0] if self._of else 0

    def get(self, lags: int) -> tuple[int, F64, F64] | None:
        """Return what was summed at these lags; not for writing."""
        return self._of.get(lags)

    def copy(self) -> ClosedRuns:
        """Return the same sums, sharing no memory."""
        other = ClosedRuns()
        other._of = {k: (n, sums.copy(), gram.copy()) for k, (n, sums, gram) in self._of.items()}
        return other

    def close(self, run: Run, shift: F64) -> None:
        """Add a run that ended."""
        for lags in range(min(run.max_lag, run.n - 1) + 1):
            self._add(lags, *run.embedded(lags, shift))

    def join(self, other: ClosedRuns) -> None:
        """Add runs under the same shift; `other` is not to be used again."""
        for lags, sums in other._of.items():
            self._add(lags, *sums)

    def select(self, index: npt.NDArray[np.intp], count: int) -> ClosedRuns:
        """Return the sums of some of `count` series."""
        chosen = ClosedRuns()
        for lags, (n, sums, gram) in self._of.items():
            at = (np.arange(lags + 1)[:, None] * count + index).reshape(-1)
            chosen._of[lags] = (n, sums[at], gram[np.ix_(at, at)])
        return chosen

    def reshift(self, step: F64) -> None:
        """Move the sums to a shift that is larger by `step`."""
        for lags, (count, sums, gram) in self._of.items():
            d = np.tile(step, lags + 1)
            cross = np.outer(sums, d)
            self._of[lags] = (
                count,
                sums - count * d,
                gram - cross - cross.T + count * np.outer(d, d),
            )

    def parts(self) -> Iterator[bytes]:
        """Give the sums as bytes, fewest lags first."""
        for lags in sorted(self._of):
            count, sums, gram = self._of[lags]
            yield from (_COUNT.pack(count), float_bytes(sums), float_bytes(gram))

    @classmethod
    def read(cls, read: FloatReader, levels: int, count: int) -> ClosedRuns:
        """Take what `parts` gave of `count` series.

        Raises:
            ValueError: the payload ends early, or more lags see more rows.
        """
        runs = cls()
        most = None
        for lags in range(levels):
            (n,) = read.unpack(_COUNT)
            if n < 1 or (most is not None and n >= most):
                raise ValueError(f"closed runs: {n} rows at {lags} lags cannot be")
            most = n
            size = (lags + 1) * count
            runs._of[lags] = (n, read.floats(size), read.floats(size, size))
        return runs

    def _add(self, lags: int, count: int, sums: F64, gram: F64) -> None:
        if lags in self._of:
            n, total, products = self._of[lags]
            total += sums
            products += gram
            self._of[lags] = (n + count, total, products)
        else:
            self._of[lags] = (count, sums, gram)
