"""The sums over one run of rows without a gap, from which lag-embedded Gram matrices are rebuilt.

A run keeps the number of rows, their sum, the lagged products Gamma_k = sum_t x_t x_{t-k}' for
k = 0..L, and its first and last L rows, all less a shift. The Gram matrix of the lag-embedded rows
(x_t, x_{t-1}, ..., x_{t-L}) is block-Toeplitz in Gamma up to the rows at the run's two edges, so
it is rebuilt from these in time that does not depend on the run's length, and two runs that follow
each other join exactly, however short they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dgemm

from state.float_bytes import FloatReader, float_bytes

F64 = npt.NDArray[np.float64]


_COUNT = struct.Struct("<Q")


class Run:
    """Sums over rows without a gap, less a shift that its owner keeps.

    The owner passes the same shift to every call until it calls `reshift`.
    """

    __slots__ = ("first", "gamma", "last", "n", "sums")

    def __init__(self, n_series: int, max_lag: int) -> None:
        self.n = 0
        self.sums: F64 = np.zeros(n_series)
        self.gamma: F64 = np.zeros((n_series, (max_lag + 1) * n_series))
        """Gamma_k side by side: column ``k * N + j`` of row i sums x_t[i] x_{t-k}[j]."""
        self.first: F64 = np.empty((0, n_series))
        self.last: F64 = np.empty((0, n_series))

    @classmethod
    def of(cls, rows: F64, max_lag: int, shift: F64) -> Run:
        """Return the run of these complete rows (T, N)."""
        count, width = rows.shape
        run = cls(width, max_lag)
        run.n = count
        y = rows - shift
        run.sums = y.sum(axis=0)
        for k in range(min(max_lag, count - 1) + 1):
            np.matmul(y[k:].T, y[: count - k], out=run.gamma[:, k * width : (k + 1) * width])
        run.first = rows[:max_lag].copy()
        run.last = rows[max(0, count - max_lag) :].copy() if max_lag else rows[:0].copy()
        return run

    @property
    def max_lag(self) -> int:
        """Lags that the run carries."""
        return int(self.gamma.shape[1]) // len(self.gamma) - 1

    def copy(self) -> Run:
        """Return a run that shares no memory with this one."""
        other = Run.__new__(Run)
        other.n = self.n
        other.sums, other.gamma = self.sums.copy(), self.gamma.copy()
        other.first, other.last = self.first.copy(), self.last.copy()
        return other

    def select(self, index: npt.NDArray[np.intp]) -> Run:
        """Return the run of some series, in the order of `index`."""
        width = len(self.sums)
        part = Run(len(index), self.max_lag)
        part.n, part.sums = self.n, self.sums[index]
        gamma = self.gamma.reshape(width, -1, width)
        part.gamma = gamma[index][:, :, index].reshape(len(index), -1)
        part.first, part.last = self.first[:, index], self.last[:, index]
        return part

    def parts(self) -> Iterator[bytes]:
        """Give the run as bytes."""
        yield _COUNT.pack(self.n)
        yield from map(float_bytes, (self.sums, self.gamma, self.first, self.last))

    @classmethod
    def read(cls, read: FloatReader, n_series: int, max_lag: int) -> Run:
        """Take what `parts` gave.

        Raises:
            ValueError: the payload ends early or holds what is not finite.
        """
        run = cls.__new__(cls)
        (run.n,) = read.unpack(_COUNT)
        edge = min(run.n, max_lag)
        run.sums, run.gamma = read.floats(n_series), read.floats(n_series, (max_lag + 1) * n_series)
        run.first, run.last = read.floats(edge, n_series), read.floats(edge, n_series)
        return run

    def push(self, row: F64, shift: F64) -> None:
        """Append one complete row (N,)."""
        width = len(row)
        depth = len(self.last)
        y = row - shift
        behind = np.empty((depth + 1, width))
        behind[0] = y
        if depth:
            np.subtract(self.last[::-1], shift, out=behind[1:])
        products = np.multiply.outer(y, behind.reshape(-1))
        if depth == self.max_lag:
            self.gamma += products
        else:
            self.gamma[:, : (depth + 1) * width] += products
        self.sums += y
        self.n += 1
        lags = self.max_lag
        if len(self.first) < lags:
            self.first = np.concatenate([self.first, row[None]])
        if depth < lags:
            self.last = np.concatenate([self.last, row[None]])
        elif lags:
            self.last[:-1] = self.last[1:]
            self.last[-1] = row

    def drop(self, following: F64, oldest: F64, shift: F64) -> None:
        """Remove the oldest row, given the rows after it: L of them, or as many as there are."""
        width = len(oldest)
        y = oldest - shift
        # Gamma_k paired the leaving row, as x_{t-k}, with the row k steps after it.
        later = (np.concatenate([oldest[None], following]) - shift).T
        paired = self.gamma.reshape(width, -1, width)[:, : later.shape[1]]
        paired -= later[:, :, None] * y
        self.sums -= y
        self.n -= 1
        self.first = following.copy()
        if len(self.last) > self.n:
            self.last = self.last[1:]

    def join(self, other: Run, shift: F64) -> None:
        """Append a run that follows this one without a gap, under the same shift."""
        lags, width = self.max_lag, len(self.gamma)
        before, after = self.last - shift, other.first - shift
        self.gamma += other.gamma
        for k in range(1, lags + 1):
            # Row s of `after` is paired with row len(before) + s - k of `before`.
            low = max(0, k - len(before))
            high = min(k, len(after))
            if low < high:
                start = len(before) + low - k
                self.gamma[:, k * width : (k + 1) * width] += (
                    after[low:high].T @ before[start : start + high - low]
                )
        self.sums += other.sums
        self.n += other.n
        if len(self.first) < lags:
            self.first = np.concatenate([self.first, other.first])[:lags]
        if lags:
            self.last = np.concatenate([self.last, other.last])[-lags:]

    def reshift(self, old: F64, new: F64) -> None:
        """Move the sums from one shift to another, exactly but for rounding."""
        d = new - old
        width = len(d)
        first, last = self.first - old, self.last - old
        for k in range(min(self.max_lag, self.n - 1) + 1):
            ahead = self.sums - first[:k].sum(axis=0)
            behind = self.sums - last[len(last) - k :].sum(axis=0)
            self.gamma[:, k * width : (k + 1) * width] += (
                (self.n - k) * np.outer(d, d) - np.outer(ahead, d) - np.outer(d, behind)
            )
        self.sums = self.sums - self.n * d

    def embedded(self, lags: int, shift: F64, *, centred: bool = False) -> tuple[int, F64, F64]:
        """Return count, sum and Gram matrix of the embedded rows less the shift; needs n > lags.

        With `centred`, the matrix is of the rows less their mean.
        """
        width = len(shift)
        # With zeros before the first and after the last row the Gram matrix is block-Toeplitz;
        # the 2L embedded rows that hold such a zero are then taken out again.
        side = self.gamma[:, : (lags + 1) * width].reshape(width, lags + 1, width)
        mirrored = side[:, :0:-1].transpose(2, 1, 0)  # Gamma_L', ..., Gamma_1'
        band = np.concatenate([mirrored, side], axis=1).reshape(width, -1)
        gram = np.concatenate(
            [band[:, (lags - a) * width : (2 * lags + 1 - a) * width] for a in range(lags + 1)]
        )
        count = self.n - lags
        edges = np.zeros((2 * lags + 1, lags + 1, width))
        if lags:
            first = self.first[:lags] - shift
            last = self.last[len(self.last) - lags :] - shift
            for a in range(lags + 1):
                edges[a:lags, a] = first[: lags - a]
                edges[lags : lags + a, a] = last[lags - a :]
        flat = edges.reshape(2 * lags + 1, -1)
        sums = (self.sums - edges.sum(axis=0)).reshape(-1)
        if centred:
            # One row more in the same product takes out n times the mean's square.
            flat[-1] = sums / np.sqrt(count)
        # In place: a temporary of this size costs more than the product itself. The matrix is
        # symmetric, so its transpose, which BLAS wants, is as good.
        less = dgemm(-1.0, flat.T, flat.T, beta=1.0, c=gram.T, trans_b=True, overwrite_c=True)
        return count, sums, less.T


def centre(rows: F64) -> F64:
    """Return the mean of rows (T, N), exact for a constant series; T >= 1."""
    center: F64 = rows[0] + (rows - rows[0]).mean(axis=0)
    return center
