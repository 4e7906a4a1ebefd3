"""Partial correlations of lag-embedded rows, many at a time, from their scatter matrix.

The Cholesky factor of the correlations of ``[Z..., x, y]`` holds the whole test of ``x`` and ``y``
given ``Z`` in its last row: what of ``y`` lies along the rest of ``x``, and what lies apart from
it. Tests with equally many conditions are factored as one stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from state.causal.correlation import LEAST_SHARE, constant_nodes, correlations

if TYPE_CHECKING:
    from state.moments import Scatter

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

STACK = 2**18
"""Numbers per stack of matrices: 2 MB, so that memory stays small and near the processor."""


class Correlations:
    """All partial correlations of lag-embedded rows; node = lag * N + series.

    Takes the scatter over: its matrix is scaled in place.
    """

    def __init__(self, scatter: Scatter, max_lag: int) -> None:
        matrix = scatter.matrix
        if not np.isfinite(matrix).all():
            raise ValueError("the moments are not finite: a series has infinite or missing values")
        self.rows = int(scatter.n)
        self.size = matrix.shape[0]
        self.max_lag = max_lag
        self.series = self.size // (2 * max_lag + 1)
        self.constant: Bools = constant_nodes(scatter)
        correlation = correlations(scatter, self.constant)
        # Unit variance and no correlation: as a condition, a constant changes nothing.
        np.fill_diagonal(correlation, 1.0)
        self._flat = np.ascontiguousarray(correlation).ravel()

    def factor(self, nodes: Ints) -> tuple[Floats, Floats]:
        """Factor the correlations of each row of `nodes` (B, k).

        Returns the pivots (B, k): the square root of what is left of a variable's variance given
        those before it; and what of the last one lies along the rest of the last but one (B,).
        """
        count, width = nodes.shape
        pivots, along = np.empty((count, width)), np.zeros(count)
        step = max(1, STACK // width**2)
        for start in range(0, count, step):
            part = slice(start, start + step)
            some = nodes[part]
            stack = self._flat.take(some[:, :, None] * self.size + some[:, None, :])
            try:
                factor = np.linalg.cholesky(stack)
            except np.linalg.LinAlgError:
                factor = _semidefinite(stack)
            pivots[part] = np.diagonal(factor, axis1=1, axis2=2)
            if width > 1:
                along[part] = factor[:, -1, -2]
        return pivots, along

    def partial(self, nodes: Ints) -> tuple[Floats, Floats, Bools]:
        """Test x and y given Z for each row (Z..., x, y) of `nodes` (B, k + 2).

        Returns the partial correlations, their p-values, and where the test is singular
        (there both are NaN). There must be at least one degree of freedom.
        """
        pivots, along = self.factor(nodes)
        apart = pivots[:, -1]
        length = np.hypot(along, apart)
        singular = (pivots[:, :-1] ** 2 <= LEAST_SHARE).any(axis=1) | (length**2 <= LEAST_SHARE)
        freedom = self.rows - nodes.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = along / length
            p = 2.0 * special.stdtr(freedom, -np.abs(along / apart) * np.sqrt(freedom))
        value[singular] = p[singular] = np.nan
        return value, p, singular


def _semidefinite(stack: Floats) -> Floats:
    """Factor correlation matrices that LAPACK rejects: a lost pivot is 0, and so is its column."""
    rest = stack.copy()
    factor = np.zeros_like(stack)
    for k in range(stack.shape[1]):
        pivot = np.sqrt(np.maximum(rest[:, k, k], 0.0))
        inverse = np.where(pivot**2 > LEAST_SHARE, 1.0 / np.where(pivot > 0, pivot, 1.0), 0.0)
        column = rest[:, :, k] * inverse[:, None]
        factor[:, k:, k] = column[:, k:]
        rest -= column[:, :, None] * column[:, None, :]
    return factor
