"""Random time series whose causal links are known, for measuring causal discovery.

Every system is acyclic between series and stationary: a series is a stable first-order
autoregression of its own past, plus its noise, plus earlier values of series that come before it
in a hidden random order. So each series is one linear filter of what precedes it, and nothing
feeds back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BURN_IN = 500
"""Rows thrown away at the start: with a coefficient of .9, .9**500 of the start is left."""

RESPONSES: tuple[Callable[[Floats], Floats], ...] = (
    lambda v: v,
    lambda v: np.minimum(v * v, 9.0) - 1.0,
    lambda v: np.abs(v) - math.sqrt(2 / math.pi),
    lambda v: np.tanh(2.0 * v),
)
"""How a cause acts on an effect in a nonlinear system. Two of the four are even functions, which
no test of a linear relation can see; all grow slowly enough for moments to exist."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What to generate.

    Attributes:
        series: observed series.
        rows: rows of each.
        links_per_series: mean number of causes of a series.
        effect: range of the size of a link, in units of a noise of variance 1; signs are random.
        autocorrelation: coefficient of a series on its own last value.
        max_lag: links act at a lag of 1..max_lag, one lag per link.
        noise: "gaussian", or "garch": GARCH(1, 1) with Student t noise of 4 degrees.
        nonlinear: draw each link's response from `RESPONSES` instead of the identity.
        hidden: unobserved series, each a root that drives `children` observed ones.
        children: observed series driven by each hidden one.
    """

    series: int = 20
    rows: int = 5000
    links_per_series: float = 1.5
    effect: tuple[float, float] = (0.15, 0.4)
    autocorrelation: float = 0.3
    max_lag: int = 3
    noise: str = "gaussian"
    nonlinear: bool = False
    hidden: int = 0
    children: int = 3


@dataclass(frozen=True, slots=True)
class System:
    """One draw: `x` (rows, series), and `lag` (series, series), [cause, effect], 0 for no link.

    Links from a hidden series are not part of `lag`: what it makes two observed series share is
    not a link between them, and a method that reports one is wrong.
    """

    x: Floats
    lag: npt.NDArray[np.int64]

    @property
    def truth(self) -> Bools:
        """Whether there is a link, at any lag, (series, series)."""
        linked: Bools = self.lag > 0
        return linked


def generate(setting: Setting, seed: int) -> System:
    """Draw a system; the same setting and seed give the same one.

    >>> system = generate(Setting(series=3, rows=5, links_per_series=1.0), seed=1)
    >>> system.x.shape, int(system.truth.sum())
    ((5, 3), 3)
    """
    rng = np.random.default_rng(seed)
    total = setting.series + setting.hidden
    lag = _links(setting, rng)
    size = rng.uniform(*setting.effect, lag.shape) * rng.choice((-1.0, 1.0), lag.shape)
    response = rng.integers(len(RESPONSES) if setting.nonlinear else 1, size=lag.shape)
    length = setting.rows + BURN_IN
    noise = _garch(rng, length, total) if setting.noise == "garch" else None
    if noise is None:
        noise = rng.standard_normal((length, total))

    x = np.empty((length, total))
    for effect in range(total):
        driven = noise[:, effect]
        for cause in np.flatnonzero(lag[:, effect]):
            by = int(lag[cause, effect])
            act = RESPONSES[response[cause, effect]]
            driven[by:] += size[cause, effect] * act(x[:-by, cause])
        x[:, effect] = signal.lfilter([1.0], [1.0, -setting.autocorrelation], driven)

    # Hidden series come first in causal order; the observed ones are shuffled out of it.
    shown = setting.hidden + rng.permutation(setting.series)
    return System(np.ascontiguousarray(x[BURN_IN:, shown]), lag[np.ix_(shown, shown)])


def _links(setting: Setting, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw the lag of every link, in causal order; 0 is no link."""
    n, total = setting.series, setting.series + setting.hidden
    pairs = np.argwhere(np.triu(np.ones((n, n), np.bool_), 1)) + setting.hidden
    wanted = round(setting.links_per_series * n)
    if wanted > len(pairs) or setting.children > n:
        raise ValueError(f"{n} series have room for {len(pairs)} links and {n} children")
    lag = np.zeros((total, total), np.int64)
    cause, effect = rng.choice(pairs, wanted, replace=False).T
    lag[cause, effect] = rng.integers(1, setting.max_lag + 1, wanted)
    for driver in range(setting.hidden):
        children = setting.hidden + rng.choice(n, setting.children, replace=False)
        lag[driver, children] = rng.integers(1, setting.max_lag + 1, setting.children)
    return lag


def _garch(rng: np.random.Generator, length: int, width: int) -> Floats:
    """Return GARCH(1, 1) noise of variance 1 driven by t(4): bursts and fat tails, as returns."""
    shock = rng.standard_t(4, (length, width)) / math.sqrt(2.0)
    noise = np.empty((length, width))
    variance = np.ones(width)
    for t in range(length):
        noise[t] = np.sqrt(variance) * shock[t]
        variance = 0.05 + 0.10 * noise[t] ** 2 + 0.85 * variance
    return noise
