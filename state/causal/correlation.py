"""Correlations of lag-embedded rows, and which of their variables do not vary at all.

Every test here works on correlations, so that units do not matter, and a pivot of an elimination
is then the share of a variable's variance that those before it leave unexplained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from state.moments import Scatter

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEAST_SHARE = 1e-12
"""Share of a variable's variance that must remain given the others for a test to be defined."""


def rounding(mean: F64) -> F64:
    """Return the deviations from a mean that are only the rounding of values near it.

    Values near m come in steps of ``eps * m``: deviations of a few steps say nothing.
    """
    size: F64 = 64 * np.finfo(np.float64).eps * np.abs(mean)
    return size


def constant_nodes(scatter: Scatter) -> Bools:
    """Tell which embedded variables vary by no more than rounding; all do not without rows."""
    grid = rounding(np.nan_to_num(scatter.mean))
    return np.asarray(np.diagonal(scatter.matrix) <= scatter.n * grid * grid)


def constant_series(constant: Bools, count: int) -> Bools:
    """Tell which of `count` series are constant at some lag, from `constant_nodes`."""
    return np.asarray(constant.reshape(-1, count).any(axis=0))


def correlations(scatter: Scatter, constant: Bools) -> F64:
    """Turn the scatter's matrix, in place, into correlations; zero for what is constant."""
    matrix = scatter.matrix
    scale = np.where(constant, 0.0, 1.0 / np.sqrt(np.where(constant, 1.0, np.diagonal(matrix))))
    matrix *= scale
    matrix *= scale[:, None]
    return matrix
