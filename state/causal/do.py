"""What setting one series to a value would do to all others, by the fitted linear model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from state.causal.correlation import LEAST_SHARE, constant_nodes
from state.causal.linear import SingularSystemError, residual_df

if TYPE_CHECKING:
    from state.moments import LaggedMoments
    from state.sliding_moments import SlidingMoments

F64 = npt.NDArray[np.float64]

ASSUMPTION = (
    "This is the effect of the intervention only if no unobserved series drives both the cause "
    "and an effect, the relations are linear and constant, and nothing acts within one step; "
    "otherwise it is a forecast, not an effect."
)


@dataclass(frozen=True, slots=True)
class Intervention:
    """Effects of do(x_t[cause] = value) on all series; arrays are (horizon + 1, N)."""

    effect: F64
    """Expected difference from the course without intervention, h steps after it."""
    low: F64
    high: F64
    """Pointwise interval of `effect` at `level`."""
    placebo: F64
    """The same quantity in reversed time, where nothing can have been caused."""
    placebo_low: F64
    placebo_high: F64
    """Pointwise interval of `placebo` at `level`."""
    shock: float
    """How far `value` is from the mean of the cause."""
    level: float
    stable: bool
    """Whether effects die out: all eigenvalues of the fitted model are inside the unit circle."""
    n: int
    """Embedded rows that the model rests on."""
    assumption: str = ASSUMPTION
    """What must hold for the effect to be causal."""

    @property
    def beyond_placebo(self) -> npt.NDArray[np.bool_]:
        """Where the interval leaves out zero and does not overlap the placebo's."""
        apart = (self.low > self.placebo_high) | (self.high < self.placebo_low)
        return apart & ((self.low > 0) | (self.high < 0))


def intervene(
    moments: LaggedMoments | SlidingMoments,
    lags: int,
    *,
    cause: int,
    value: float,
    horizon: int,
    level: float = 0.95,
) -> Intervention:
    """Return the effect of setting ``x_t[cause]`` to `value` at one step, over a horizon.

    A vector autoregression is fitted on the moments by least squares. At the step of the
    intervention only the cause differs, by ``value - mean``: the other series keep their values of
    that step. From then on the model runs freely. The interval is the delta method's for large
    samples, which leaves out the uncertainty of the mean.

    The *placebo* is the same computation with time reversed (the moments of reversed rows are
    those at hand, in another order). Reversal keeps variances, autocorrelations and correlations
    at one time, and turns the direction of what is lagged; an "effect" that is as large in
    reversed time comes from these and not from the direction of time.

    Sources: H. Lütkepohl, "New Introduction to Multiple Time Series Analysis", Springer 2005,
    section 3.7 (interval); S. Haufe, V. Nikulin, K.-R. Müller, G. Nolte, "A critical assessment of
    connectivity measures for EEG data", NeuroImage 64, 2013 (reversal); J. Pearl, "Causality",
    2nd edition, Cambridge 2009 (do).

    Args:
        moments: lagged moments of N series, or a sliding window's; `max_lag` at least `lags`.
        lags: order of the autoregression, at least 1.
        cause: index of the series that is set.
        value: what it is set to, in its own units.
        horizon: steps after the intervention, at least 0.
        level: coverage of the interval, in (0, 1).

    Raises:
        SingularSystemError: the fit is not unique: too few rows, a constant series, or series
            that are linearly dependent.
        ValueError: an argument is out of range.

    >>> import numpy as np
    >>> from state.moments import LaggedMoments
    >>> x = np.random.default_rng(0).standard_normal((2000, 2))
    >>> x[1:, 1] += 0.5 * x[:-1, 0]
    >>> told = intervene(LaggedMoments.from_rows(x, 1), 1, cause=0, value=2.0, horizon=1)
    >>> bool(told.low[1, 1] < 1.0 < told.high[1, 1]), told.beyond_placebo[1].tolist()
    (True, [False, True])
    """
    count = moments.n_series
    if not 1 <= lags <= moments.max_lag:
        raise ValueError(f"lags must be from 1 to {moments.max_lag}, not {lags}")
    if not 0 <= cause < count:
        raise ValueError(f"cause must be from 0 to {count - 1}, not {cause}")
    if not np.isfinite(value):
        raise ValueError(f"value must be finite, not {value}")
    if horizon < 0:
        raise ValueError(f"horizon must not be negative, not {horizon}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), not {level}")
    scatter = moments.scatter(lags)
    df = residual_df(scatter.n, count * lags)
    if constant_nodes(scatter).any():
        raise SingularSystemError("a constant series has no effects: leave it out")
    shock = value - float(scatter.mean[cause])
    backwards = np.arange((lags + 1) * count).reshape(lags + 1, count)[::-1].reshape(-1)
    reach = float(special.ndtri((1.0 + level) / 2.0))
    forward = _Autoregression(scatter.matrix, count, df)
    reverse = _Autoregression(scatter.matrix[np.ix_(backwards, backwards)], count, df)
    effect, error = forward.responses(cause, horizon)
    placebo, noise = reverse.responses(cause, horizon)
    effect, error = shock * effect, abs(shock) * reach * error
    placebo, noise = shock * placebo, abs(shock) * reach * noise
    return Intervention(
        effect,
        effect - error,
        effect + error,
        placebo,
        placebo - noise,
        placebo + noise,
        shock,
        level,
        forward.stable,
        scatter.n,
    )


class _Autoregression:
    """A vector autoregression fitted on the scatter of embedded rows."""

    def __init__(self, scatter: F64, count: int, df: int) -> None:
        scale = np.sqrt(np.diagonal(scatter))
        past, now = slice(count, None), slice(None, count)
        correlation = scatter[past, past] / np.outer(scale[past], scale[past])
        try:
            lower = np.linalg.cholesky(correlation)
        except np.linalg.LinAlgError:
            lower = np.zeros((1, 1))
        if float(np.diagonal(lower).min()) ** 2 <= LEAST_SHARE:
            raise SingularSystemError("the past values of the series are linearly dependent")
        root = np.linalg.solve(lower, np.eye(len(lower))) / scale[past]
        self.inverse: F64 = root.T @ root
        half = root @ scatter[past, now]
        self.slopes: F64 = (root.T @ half).T
        """(N, L*N): the coefficients of lag 1, lag 2, ... side by side."""
        self.noise: F64 = (scatter[now, now] - half.T @ half) / df
        size = len(lower)
        self.companion: F64 = np.zeros((size, size))
        self.companion[:count] = self.slopes
        self.companion[count:, :-count] = np.eye(size - count)

    @property
    def stable(self) -> bool:
        return bool(np.abs(np.linalg.eigvals(self.companion)).max() < 1.0)

    def responses(self, cause: int, horizon: int) -> tuple[F64, F64]:
        """Return responses (horizon + 1, N) to a unit change of the cause, and their errors.

        A change dA of the coefficients changes the response after h steps by the sum over
        m < h of Phi_m dA u_{h-1-m}: the m steps after, and the state u before, the changed step.
        """
        count = len(self.slopes)
        state = np.zeros(len(self.companion))
        state[cause] = 1.0
        power = np.eye(len(self.companion))
        states, after = [], []
        for _ in range(horizon + 1):
            states.append(state)
            after.append(power[:count, :count])
            state = self.companion @ state
            power = self.companion @ power
        u, phi = np.array(states), np.array(after)
        overlap = u @ self.inverse @ u.T
        error = np.zeros((horizon + 1, count))
        spread = np.einsum("mia,ab,nib->mni", phi, self.noise, phi, optimize=True)
        for h in range(1, horizon + 1):
            weights = overlap[h - 1 :: -1, h - 1 :: -1][:h, :h]
            error[h] = np.einsum("mn,mni->i", weights, spread[:h, :h])
        return u[:, :count], np.sqrt(np.maximum(error, 0.0))
