"""Correction for multiple tests: how many of the links called significant are expected false."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def benjamini_hochberg(p: npt.ArrayLike) -> F64:
    """Return Benjamini-Hochberg adjusted p values (q values), of the shape of `p`.

    Calling significant what has q <= alpha keeps the expected share of false ones at or below
    alpha for independent or positively dependent tests. NaN means "not tested": it stays NaN and
    does not count as a test.

    Source: Y. Benjamini, Y. Hochberg, "Controlling the false discovery rate", Journal of the Royal
    Statistical Society B 57(1), 1995.

    Raises:
        ValueError: a p value is outside [0, 1].

    >>> benjamini_hochberg([0.01, float("nan"), 0.04, 0.03]).round(3).tolist()
    [0.03, nan, 0.04, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(values)
    given = values[tested]
    if ((given < 0) | (given > 1)).any():
        raise ValueError("p values must be in [0, 1]")
    order = np.argsort(given)
    ranked = given[order] * (len(given) / np.arange(1, len(given) + 1))
    lowest = np.minimum.accumulate(ranked[::-1])[::-1]
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(lowest, 1.0)
    q = np.full(values.shape, np.nan)
    q[tested] = adjusted
    return q
