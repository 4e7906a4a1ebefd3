"""Granger causality with heteroskedasticity-robust errors, from rows.

Returns of markets come in calm and wild stretches. Errors that assume one variance for all then
find links that are not there; a sandwich covariance does not assume it. It weighs each row by its
own residual, so it needs the rows and cannot be computed from moments.

Source: J. MacKinnon, H. White, "Some heteroskedasticity-consistent covariance matrix estimators
with improved finite sample properties", Journal of Econometrics 29(3), 1985.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from state.causal.correlation import LEAST_SHARE, rounding
from state.causal.linear import GrangerResult, residual_df
from state.moments import centre

F64 = npt.NDArray[np.float64]
Kind = Literal["HC0", "HC1", "HC3"]


def granger_robust(
    x: npt.ArrayLike, lags: int, *, conditional: bool = True, kind: Kind = "HC3"
) -> GrangerResult:
    """Test every ordered pair of series for Granger causality, robust to changing variance.

    The statistic is a Wald test over the number of lags, that of `statsmodels`
    ``OLS(...).fit(cov_type=kind).wald_test(..., use_f=True)``. A row with NaN is a gap and no lag
    reaches over it; order is that of the rows. What is constant or linearly dependent is treated
    as by :func:`state.causal.linear.granger`; under HC3, a row that alone determines a
    coefficient (leverage 1) makes its fit singular too.

    Args:
        x: rows (T, N), each one step after the last.
        lags: past values of each series in the fit, at least 1.
        conditional: condition on the past of all other series.
        kind: HC3 (jackknife-like; best in short samples), HC1 or HC0.

    Raises:
        SingularSystemError: fewer embedded rows than parameters, plus one.
        ValueError: `x` is not (T, N), a value is infinite, or an argument is out of range.
    """
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"rows must be an array (T, N), not of shape {rows.shape}")
    if lags < 1:
        raise ValueError(f"lags must be at least 1, not {lags}")
    if kind not in ("HC0", "HC1", "HC3"):
        raise ValueError(f"kind must be HC0, HC1 or HC3, not {kind!r}")
    if np.isinf(rows).any():
        raise ValueError("rows hold an infinite value")
    now, past, constant = _embedded(rows, lags)
    n, count = now.shape
    kept = np.flatnonzero(~constant)
    df_den = residual_df(n, (len(kept) if conditional else 2) * lags)
    f = np.full((count, count), np.nan)
    condition = np.full((count, count), np.inf)
    if conditional:
        if len(kept):
            inside = np.ix_(kept, kept)
            f[inside], condition[inside] = _wald(now[:, kept], past[:, kept], kind)
    else:
        for at, i in enumerate(kept):
            for j in kept[:at]:
                both = np.array([i, j])
                inside = np.ix_(both, both)
                f[inside], condition[inside] = _wald(now[:, both], past[:, both], kind)
    diagonal: npt.NDArray[np.bool_] = np.eye(count, dtype=np.bool_)
    f[diagonal] = condition[diagonal] = np.nan
    return GrangerResult(
        f,
        np.full((count, count), lags),
        np.full((count, count), df_den),
        np.isnan(f) & ~diagonal,
        condition,
        n,
    )


def _embedded(rows: F64, lags: int) -> tuple[F64, F64, npt.NDArray[np.bool_]]:
    """Return x_t (n, N) and its past (n, N, lags), centred and of unit norm, and what is flat."""
    count = rows.shape[1]
    present = np.asarray(~np.isnan(rows).any(axis=1))
    whole: npt.NDArray[np.bool_] = present[lags:].copy()
    for lag in range(1, lags + 1):
        whole &= present[lags - lag : max(0, len(rows) - lag)]
    at = np.flatnonzero(whole) + lags
    z = np.stack([rows[at - lag] for lag in range(lags + 1)], axis=2)  # (n, N, lags + 1)
    if not len(at):
        return z[:, :, 0], z[:, :, 1:], np.zeros(count, dtype=np.bool_)
    flat = z.reshape(len(at), -1)
    mean = centre(flat)
    centred = flat - mean
    centred -= centred.mean(axis=0)
    norm = np.sqrt(np.einsum("ti,ti->i", centred, centred))
    still = norm <= np.sqrt(len(at)) * rounding(mean)
    scaled = centred / np.where(still, 1.0, norm)
    z = scaled.reshape(z.shape)
    return z[:, :, 0], z[:, :, 1:], still.reshape(count, -1).any(axis=1)


def _wald(now: F64, past: F64, kind: Kind) -> tuple[F64, F64]:
    """Return F and condition of every series' past in the fit of every series on all pasts."""
    n, count, lags = past.shape
    design = past.reshape(n, -1)
    width = design.shape[1]
    nothing = np.full((count, count), np.nan)
    q, r = np.linalg.qr(design)
    least = float(np.square(np.diagonal(r)).min())
    if least <= LEAST_SHARE:
        return nothing, np.full((count, count), np.inf)
    condition = np.full((count, count), 1.0 / least)
    loads = q.T @ now
    error = now - q @ loads
    exact = np.einsum("tj,tj->j", error, error) <= LEAST_SHARE
    spare = 1.0 - (1.0 / n + np.einsum("ti,ti->t", q, q))
    if kind == "HC3" and spare.min() <= LEAST_SHARE:
        return nothing, np.full((count, count), np.inf)
    weight = error * error
    if kind == "HC1":
        weight *= n / (n - width - 1)
    elif kind == "HC3":
        weight /= (spare * spare)[:, None]
    # Slopes are r^-1 loads; so is their covariance, from both sides.
    root = np.linalg.solve(r, np.eye(width)).reshape(count, lags, width)
    slopes = (root @ loads).reshape(count, lags, count)
    f = nothing
    for j in np.flatnonzero(~exact):
        meat = q.T @ (weight[:, j, None] * q)
        covariance = root @ meat @ root.transpose(0, 2, 1)
        b = slopes[:, :, j]
        try:
            f[:, j] = np.einsum("ia,ia->i", b, _solve(covariance, b)) / lags
        except np.linalg.LinAlgError:
            condition[:, j] = np.inf
    condition[:, exact] = np.inf
    return f, condition


def _solve(matrix: F64, side: F64) -> F64:
    """Solve a stack of positive definite systems (N, k, k), (N, k).

    Raises:
        LinAlgError: one of them is not.
    """
    lower = np.linalg.cholesky(matrix)
    half = np.linalg.solve(lower, side[:, :, None])
    solution: F64 = np.linalg.solve(lower.transpose(0, 2, 1), half)[:, :, 0]
    return solution
