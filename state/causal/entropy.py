"""Transfer entropy of Gaussian series, from lagged moments alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from state.causal.linear import granger

if TYPE_CHECKING:
    from state.moments import LaggedMoments
    from state.sliding_moments import SlidingMoments

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TransferEntropyResult:
    """Transfer entropies of all ordered pairs; arrays are (N, N), indexed ``[cause, effect]``."""

    nats: F64
    """Transfer entropy per step, never negative; NaN on the diagonal and where `singular`."""
    p: F64
    """p values of the F test of "no transfer"; NaN where `nats` is."""
    singular: npt.NDArray[np.bool_]
    """Where nothing is defined, as in :class:`state.causal.linear.GrangerResult`."""
    n: int
    """Embedded rows that the estimates rest on."""


def transfer_entropy(
    moments: LaggedMoments | SlidingMoments, lags: int, *, conditional: bool = False
) -> TransferEntropyResult:
    """Return the transfer entropy between all ordered pairs of series, in nats.

    It is half the log ratio of the residual sums of squares without and with the cause's past:
    for jointly Gaussian series exactly the information that the cause's past adds about the
    effect, for others what a linear model sees of it. The estimate is biased upwards by about
    ``lags / (2 n)``. Since it is a monotone function of the Granger F, its p value is the
    F test's, which is exact for Gaussian residuals where the usual chi-squared one is asymptotic.

    Source: L. Barnett, A. Barrett, A. Seth, "Granger causality and transfer entropy are
    equivalent for Gaussian variables", Physical Review Letters 103, 238701, 2009.

    Args:
        moments: lagged moments of N series, or a sliding window's; `max_lag` at least `lags`.
        lags: length of the pasts, at least 1.
        conditional: condition on the past of all other series.

    Raises:
        SingularSystemError: fewer embedded rows than parameters, plus one.
        ValueError: `lags` is out of range.
    """
    test = granger(moments, lags, conditional=conditional)
    nats = 0.5 * np.log1p(test.f * test.df_num / test.df_den)
    return TransferEntropyResult(nats, test.p, test.singular, test.n)
