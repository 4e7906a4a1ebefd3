"""The centred scatter of lag-embedded rows: what every reader of lagged moments starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

LOST = 1e-7
"""Share of a series' sum of squares below which its scatter is not resolved to nine digits."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """The centred scatter of lag-embedded rows: index ``lag * N + series``."""

    n: int
    """Embedded rows."""
    mean: F64
    """((L+1)*N,) their mean; NaN when there are none."""
    matrix: F64
    """((L+1)*N, (L+1)*N) sum of (z - mean)(z - mean)'; zero when there are no rows."""

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return the scatter of no rows."""
        return cls(0, np.full(size, np.nan), np.zeros((size, size)))

    @classmethod
    def resolved(cls, n: int, mean: F64, matrix: F64, square: F64) -> Self:
        """Return a scatter, in place, with zeros for what `square` is too large to resolve."""
        lost = np.diagonal(matrix) < LOST * square
        if lost.any():
            matrix[lost] = 0.0
            matrix[:, lost] = 0.0
        return cls(n, mean, matrix)
