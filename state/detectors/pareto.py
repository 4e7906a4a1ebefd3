"""Maximum likelihood for the generalised Pareto distribution, by Grimshaw's reduction."""

from __future__ import annotations

import numpy as np

from state.detectors.detector import F64

SHAPES = (-0.5, 1.5)
"""Where the shape is looked for: below -1/2 the likelihood is not regular, and above 1.5 a
tail is heavier than any that a limit could be set on."""

_FEWEST = 5


def fit_pareto(excesses: F64) -> tuple[float, float]:
    """Return (shape, scale) of a generalised Pareto distribution for excesses over a threshold.

    Grimshaw's reduction: at a maximum the shape is ``mean(log(1 + theta * y))`` with
    ``theta = shape / scale``, which leaves one unknown. Its profile likelihood is evaluated on a
    grid of ``log(1 + theta * max(y))`` that zooms in on the best point. Fewer than five
    excesses, or excesses that are all equal, are too little for a likelihood: they give the
    moments' estimate with shape 0, which is an exponential tail of the same mean.

    Args:
        excesses: (n,) positive numbers, n >= 1.

    References:
        Grimshaw, S. D. (1993), Computing maximum likelihood estimates for the generalized
        Pareto distribution, Technometrics 35(2). https://doi.org/10.1080/00401706.1993.10485040

    >>> import numpy as np
    >>> u = np.random.default_rng(0).uniform(size=20_000)
    >>> shape, scale = fit_pareto(2.0 * (u**-0.3 - 1.0) / 0.3)
    >>> round(shape, 1), round(scale, 1)
    (0.3, 2.0)
    """
    mean = float(excesses.mean())
    largest = float(excesses.max())
    if len(excesses) < _FEWEST or largest == excesses.min():
        return 0.0, mean
    low, high = -7.0, 12.0
    best = (0.0, mean)
    reached = -np.log(mean) - 1.0
    for points in (40, 16, 16, 16):
        grid = np.linspace(low, high, points)
        theta = np.expm1(grid) / largest
        with np.errstate(divide="ignore", invalid="ignore"):
            shape = np.log1p(theta[:, None] * excesses).mean(axis=1)
            scale = shape / theta
            likelihood = -np.log(scale) - shape - 1.0
        outside = (shape < SHAPES[0]) | (shape > SHAPES[1]) | ~np.isfinite(likelihood)
        likelihood[outside] = -np.inf
        at = int(likelihood.argmax())
        if likelihood[at] > reached:
            reached = likelihood[at]
            best = (float(shape[at]), float(scale[at]))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, points - 1)]
    return best
