"""Granger causality between all pairs of series, from lagged moments alone.

Series i Granger-causes j when the past of i improves the linear prediction of j beyond what j's
own past (pairwise) or the past of all other series (conditional) already gives. Both tests are
F tests of nested least-squares fits, and both need only the scatter of lag-embedded rows.

Everything is computed on correlations, so that units do not matter. A pivot of the Cholesky
elimination is then the share of a regressor's variance that those before it leave unexplained:
the share below which a system counts as singular is `LEAST_SHARE`.

Sources: C. Granger, "Investigating causal relations by econometric models and cross-spectral
methods", Econometrica 37(3), 1969; J. Geweke, "Measures of conditional linear dependence and
feedback between time series", Journal of the American Statistical Association 79(388), 1984.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from state.causal.correlation import LEAST_SHARE, constant_nodes, constant_series, correlations

if TYPE_CHECKING:
    from state.moments import LaggedMoments
    from state.sliding_moments import SlidingMoments

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class SingularSystemError(ValueError):
    """Nothing can be tested: too few rows for the number of parameters."""


@dataclass(frozen=True)  # without slots, which leave no room for a cached property
class GrangerResult:
    """Tests of all ordered pairs; arrays are (N, N), indexed ``[cause, effect]``."""

    f: F64
    """F statistics; NaN on the diagonal and where `singular`."""
    df_num: I64
    """Numerator degrees of freedom: the number of lags."""
    df_den: I64
    """Denominator degrees of freedom: rows less parameters of the larger fit."""
    singular: Bools
    """Where no test is defined: a constant series, regressors that are linearly dependent, or an
    effect that they determine without error. Off the diagonal, F is NaN exactly here."""
    condition: F64
    """Largest variance inflation met in elimination, a lower bound on the condition number of the
    regressors' correlation matrix: expect F to lose ``log10(condition)`` of its 16 digits."""
    n: int
    """Embedded rows that the tests rest on."""

    @cached_property
    def p(self) -> F64:
        """The p values of `f`, not corrected for multiple tests; NaN where `f` is."""
        return np.asarray(special.fdtrc(self.df_num, self.df_den, self.f))


def granger(
    moments: LaggedMoments | SlidingMoments, lags: int, *, conditional: bool = False
) -> GrangerResult:
    """Test every ordered pair of series for Granger causality.

    Pairwise, the F is that of `statsmodels` `grangercausalitytests` (``ssr_ftest``). Conditional
    on all other series, it is `VARResults.test_causality(kind="wald")` over the number of lags,
    with the exact degrees of freedom of the one equation tested. Prefer the conditional test:
    the pairwise one also finds indirect links, and more of them the more rows there are.

    Rows count where all series are present (see :class:`state.moments.LaggedMoments`). A
    constant series has no links (`singular`) and takes no part in conditional tests; if the rest
    are linearly dependent, all conditional tests are singular.

    Args:
        moments: lagged moments of N series, or a sliding window's; `max_lag` at least `lags`.
        lags: past values of each series in the fit, at least 1.
        conditional: condition on the past of all other series.

    Raises:
        SingularSystemError: fewer embedded rows than parameters, plus one.
        ValueError: `lags` is out of range.

    >>> import numpy as np
    >>> from state.moments import LaggedMoments
    >>> x = np.random.default_rng(0).standard_normal((500, 2))
    >>> x[1:, 1] += 0.5 * x[:-1, 0]
    >>> result = granger(LaggedMoments.from_rows(x, 1), 1, conditional=True)
    >>> (result.p < 0.01).tolist()
    [[False, True], [False, False]]
    """
    if not 1 <= lags <= moments.max_lag:
        raise ValueError(f"lags must be from 1 to {moments.max_lag}, not {lags}")
    scatter = moments.scatter(lags)
    count = moments.n_series
    still = constant_nodes(scatter)
    constant = constant_series(still, count)
    width = int((~constant).sum()) if conditional else 2
    df_den = residual_df(scatter.n, width * lags)
    correlation = correlations(scatter, still)
    if conditional:
        gain, rest, least = _conditional(correlation, lags, constant)
    else:
        gain, rest, least = _pairwise(correlation, lags, count)
    singular: Bools = constant[:, None] | constant | ~(least > LEAST_SHARE) | ~(rest > LEAST_SHARE)
    return f_tests(gain, rest, singular, least, lags=lags, df_den=df_den, n=scatter.n)


def f_tests(
    gain: F64, rest: F64, singular: Bools, least: F64, *, lags: int, df_den: int, n: int
) -> GrangerResult:
    """Turn sums of squares, explained by the cause and left over, into a result."""
    count = len(gain)
    diagonal = np.eye(count, dtype=np.bool_)
    hidden = singular | diagonal
    f = np.full((count, count), np.nan)
    np.divide(gain * (df_den / lags), rest, out=f, where=~hidden)
    condition = np.full((count, count), np.inf)
    np.divide(1.0, least, out=condition, where=least > LEAST_SHARE)
    condition[diagonal] = np.nan
    return GrangerResult(
        f,
        np.full((count, count), lags),
        np.full((count, count), df_den),
        singular & ~diagonal,
        condition,
        n,
    )


def residual_df(n: int, slopes: int) -> int:
    """Return the residual degrees of freedom of a fit with an intercept.

    Raises:
        SingularSystemError: there are none.
    """
    df = n - slopes - 1
    if df < 1:
        raise SingularSystemError(
            f"{n} complete rows of lags are too few for {slopes} coefficients and an intercept"
        )
    return df


def _pairwise(correlation: F64, lags: int, count: int) -> tuple[F64, F64, F64]:
    """Return explained and remaining share and smallest pivot, for all pairs at once.

    Both fits of a pair share the effect's own past, so that is eliminated once for each effect,
    from the past of every possible cause; a small factor for each pair finishes. Pairs are the
    last axes of that factor and its loops run over lags only.
    """
    blocks = correlation.reshape(lags + 1, count, lags + 1, count)
    past = blocks[1:, :, 1:, :]  # lag, series, lag, series
    same = np.einsum("aibi->abi", past)  # lag, lag, series: of one series with itself
    now = blocks[0, :, 1:, :].copy()  # effect, lag, cause
    aim = np.einsum("jaj->ja", now).copy()  # effect, own lag
    own = same.copy()
    inverse = np.zeros((lags, lags, count))
    inverse[np.arange(lags), np.arange(lags)] = 1.0
    own_least = _eliminate(own, inverse)
    root = inverse.transpose(2, 0, 1).copy()  # effect, own lag, own lag
    aim = np.einsum("jab,jb->ja", root, aim)
    # A view: row j of block a is the past of effect j at own lag a, with everything.
    rows = correlation[count:, count:].reshape(lags, count, lags * count).transpose(1, 0, 2)
    cross = np.matmul(root, rows)  # effect, own lag, cause's lag and cause
    target = now - np.matmul(aim[:, None], cross).reshape(now.shape)
    cross = cross.reshape(count, lags, lags, count)
    pair = np.empty((lags, lags, count, count))
    for r in range(lags):
        explained = np.einsum("jai,jaci->cji", cross[:, :, r], cross[:, :, : r + 1])
        np.subtract(same[r, : r + 1, None], explained, out=pair[r, : r + 1])
    target = target.transpose(1, 0, 2).copy()  # cause's lag, effect, cause
    pair_least = _eliminate(pair, target)
    gain = np.einsum("rji,rji->ij", target, target)
    rest = (1.0 - np.einsum("ja,ja->j", aim, aim)) - gain
    return gain, rest, np.minimum(own_least, pair_least.T)


def _eliminate(matrix: F64, side: F64) -> F64:
    """Solve for `side` with the Cholesky factor of a stack of matrices (k, k, ...), in place.

    `side` is (k, ...) or (k, m, ...). Only the lower triangle of `matrix` is read. Returns the
    smallest pivot of each; where it is not above `LEAST_SHARE`, the solution means nothing.
    """
    size = len(matrix)
    least: F64 = np.full(matrix.shape[2:], np.inf)
    for a in range(size):
        pivot = matrix[a, a]
        np.minimum(least, pivot, out=least)
        inverse = 1.0 / np.sqrt(np.where(pivot > LEAST_SHARE, pivot, 1.0))
        side[a] *= inverse
        matrix[a + 1 :, a] *= inverse
        for b in range(a + 1, size):
            factor = matrix[b, a]
            side[b] -= factor * side[a]
            matrix[b, a + 1 : b + 1] -= factor * matrix[a + 1 : b + 1, a]
    return least


def _conditional(correlation: F64, lags: int, constant: Bools) -> tuple[F64, F64, F64]:
    """Return explained and remaining share and smallest pivot, given all other series."""
    count = len(constant)
    kept = np.flatnonzero(~constant)
    width = len(kept)
    gain = np.zeros((count, count))
    rest = np.zeros((count, count))
    least = np.zeros((count, count))
    if not width:
        return gain, rest, least
    at = (np.arange(lags + 1) * count + kept[:, None]).reshape(width, lags + 1)
    past = at[:, 1:].reshape(-1)  # series-major: the lags of one cause are neighbours
    try:
        lower = np.linalg.cholesky(correlation[np.ix_(past, past)])
    except np.linalg.LinAlgError:
        return gain, rest, least
    pivot = float(np.diagonal(lower).min()) ** 2
    if pivot <= LEAST_SHARE:
        return gain, rest, least
    root = np.linalg.solve(lower, np.eye(len(past)))
    half = root @ correlation[np.ix_(past, at[:, 0])]
    left = 1.0 - np.einsum("aj,aj->j", half, half)
    slopes = (root.T @ half).reshape(width, lags, width)
    inverse = (root.T @ root).reshape(width, lags, width, lags)
    variance = np.einsum("iaib->iab", inverse)
    explained = np.einsum("iaj,iaj->ij", slopes, np.linalg.solve(variance, slopes))
    inside = np.ix_(kept, kept)
    gain[inside], rest[inside], least[inside] = explained, left, pivot
    return gain, rest, least
