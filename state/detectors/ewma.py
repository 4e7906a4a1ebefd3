"""A z-score against a robust exponentially weighted level and scale."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from state.detectors.columns import ColumnDetector
from state.detectors.detector import F64, Array, score_of

_CUT = 2.0
# Makes the mean of the bounded loss 1 under a normal distribution at this cut.
_LOSS_SCALE = 2.52


class RobustEwma(ColumnDetector):
    """Fire where a value is `limit` robust standard deviations from its smoothed level.

    Level and scale are smoothed exponentially; a value moves the level by at most two of the
    present standard deviations, and the scale through a bounded loss, so one outlier changes
    neither much. The score of a value uses the level and scale from before it.

    *Warm-up*: the first `warmup` values of a series score 0; level and scale start from their
    median and their median absolute deviation. A series that was constant so far scores 1 at its
    first change, and its scale then recovers by at most a factor of about 1 + 1.5 `scale_decay`
    per step.

    Args:
        limit: standard deviations at which it fires.
        decay: weight of the newest value in the level, in (0, 1].
        scale_decay: weight of the newest value in the squared scale, in (0, 1].
        tail: "lower", "upper" or "both".
        warmup: values before the first score, at least 2.
        name: the name listed in alerts.
        series: the number of series, N.

    References:
        Roberts, S. W. (1959), Control chart tests based on geometric moving averages,
        Technometrics 1(3). https://doi.org/10.1080/00401706.1959.10489860
        Gelper, S., Fried, R. and Croux, C. (2010), Robust forecasting with exponential and
        Holt-Winters smoothing, Journal of Forecasting 29(3), equations 8 to 11.
        https://doi.org/10.1002/for.1125

    >>> import numpy as np
    >>> quiet = np.tile([1.0, -1.0], 30)
    >>> ewma = RobustEwma(4.0, warmup=20, series=1)
    >>> scores = ewma.update(np.append(quiet, [1.0, 15.0])[:, None])[:, 0]
    >>> bool(scores[:-1].max() < 0.5), bool(scores[-1] > 0.5)
    (True, True)
    """

    kind: ClassVar[str] = "robust-ewma"

    def __init__(
        self,
        limit: float = 4.0,
        *,
        decay: float = 0.05,
        scale_decay: float = 0.05,
        tail: str = "both",
        warmup: int = 50,
        name: str = "robust EWMA",
        series: int = 0,
    ) -> None:
        if not limit > 0.0:
            raise ValueError(f"limit must be positive, not {limit}")
        if not (0.0 < decay <= 1.0 and 0.0 < scale_decay <= 1.0):
            raise ValueError(f"decays must be in (0, 1], not {decay} and {scale_decay}")
        if tail not in ("lower", "upper", "both"):
            raise ValueError(f"tail must be lower, upper or both, not {tail!r}")
        if warmup < 2:
            raise ValueError(f"warmup must be at least 2, not {warmup}")
        self.limit = limit
        self.decay = decay
        self.scale_decay = scale_decay
        self.tail = tail
        self.warmup = warmup
        parameters: dict[str, float | int | str] = {
            "limit": limit,
            "decay": decay,
            "scale_decay": scale_decay,
            "tail": tail,
            "warmup": warmup,
        }
        super().__init__(name, series, parameters)

    def _layout(self, series: int) -> dict[str, Array]:
        return {
            "seen": np.zeros(series, np.int64),
            "first": np.zeros((self.warmup, series)),
            "level": np.zeros(series),
            "scale": np.zeros(series),
        }

    def _step(self, row: F64, present: Array) -> F64:
        a = self._arrays
        level, scale = a["level"], a["scale"]
        ready = present & (a["seen"] >= self.warmup)
        # A constant history has scale 0; any change is then infinitely surprising.
        floor = 1e-12 * (np.abs(level) + np.finfo(float).tiny)
        residual = row - level
        z = residual / np.maximum(scale, floor)
        z[residual == 0.0] = 0.0
        side = np.abs(z) if self.tail == "both" else (z if self.tail == "upper" else -z)
        scores = np.where(ready, score_of(np.maximum(side, 0.0) / self.limit), 0.0)

        inside = np.abs(z) <= _CUT
        loss = _LOSS_SCALE * np.where(inside, 1.0 - (1.0 - (z / _CUT) ** 2) ** 3, 1.0)
        variance = np.maximum(scale, floor) ** 2
        smoothed = np.sqrt(variance * (1.0 + self.scale_decay * (loss - 1.0)))
        moved = level + self.decay * np.clip(z, -_CUT, _CUT) * np.maximum(scale, floor)
        a["scale"] = np.where(ready & ~((scale == 0.0) & (z == 0.0)), smoothed, scale)
        a["level"] = np.where(ready, moved, level)
        self._warm(row, present & ~ready)
        return scores

    def _warm(self, row: F64, warming: Array) -> None:
        if not warming.any():
            return
        a = self._arrays
        at = np.flatnonzero(warming)
        a["first"][a["seen"][at], at] = row[at]
        a["seen"][at] += 1
        for column in at[a["seen"][at] == self.warmup]:
            first = a["first"][:, column]
            middle = np.median(first)
            a["level"][column] = middle
            # More than half equal values have no median deviation, but may have a mean one.
            spread = 1.4826 * np.median(np.abs(first - middle))
            a["scale"][column] = spread or np.sqrt(np.pi / 2) * np.abs(first - middle).mean()
