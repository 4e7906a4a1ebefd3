"""Falls within a number of steps: the rule people mean by "down 5 % in two weeks"."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from state.detectors.columns import ColumnDetector
from state.detectors.detector import F64, Array, score_of


class FallWithin(ColumnDetector):
    """Fire where a price is `limit` below its highest price of the last `steps` steps.

    Takes log returns. The statistic is the fall from the highest of the last `steps` + 1 prices
    to the present one, as a fraction of that highest price, in units of `limit`. There is no
    warm-up: a fall is counted from the first return on. Every step is judged on its own; an
    ensemble's refractory period turns a run of them into one alert. Costs O(`steps`) per value.

    Args:
        limit: the fall that fires, in (0, 1).
        steps: how far back the highest price is looked for.
        name: the name listed in alerts.
        series: the number of series, N.

    References:
        Lunde, A. and Timmermann, A. (2004), Duration dependence in stock prices: an analysis of
        bull and bear markets, Journal of Business & Economic Statistics 22(3): filter rules on
        falls from a running maximum. https://doi.org/10.1198/073500104000000136

    >>> import numpy as np
    >>> rule = FallWithin(0.10, steps=2, series=1)
    >>> prices = np.array([100.0, 100.0, 94.0, 90.0, 89.0, 88.0])
    >>> rule.update(np.diff(np.log(prices))[:, None])[:, 0].round(3)
    array([0.   , 0.375, 0.5  , 0.347, 0.182])
    """

    kind: ClassVar[str] = "fall-within"

    def __init__(
        self, limit: float, steps: int, *, name: str = "fall within", series: int = 0
    ) -> None:
        if not 0.0 < limit < 1.0:
            raise ValueError(f"limit must be between 0 and 1, not {limit}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self.limit = limit
        self.steps = steps
        super().__init__(name, series, {"limit": limit, "steps": steps})

    def _layout(self, series: int) -> dict[str, Array]:
        return {"returns": np.zeros((self.steps, series))}

    def _step(self, row: F64, present: Array) -> F64:
        recent = self._arrays["returns"]
        # Newest first, so that running sums are the moves over the last 1, 2, ... steps.
        shifted = np.concatenate([row[None], recent[:-1]])
        recent[:, present] = shifted[:, present]
        move = np.minimum(np.cumsum(recent, axis=0).min(axis=0), 0.0)
        # A fall of exactly the limit counts, though logarithms round.
        return score_of(np.abs(np.expm1(move)) / self.limit * (1.0 + 1e-12))
