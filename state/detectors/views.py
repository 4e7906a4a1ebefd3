"""Extreme values of six views of a series: its value, change, residual, shift, spread and mean."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec
import numpy as np

from state.detectors.detector import (
    F64,
    Array,
    check_sizes,
    fill_arrays,
    grown,
    load,
    rows_of,
    save,
    score_of,
)
from state.detectors.spot import Spot
from state.mergeable import seal, unseal

VIEWS = ("value", "change", "residual", "shift", "spread", "mean")
"""What is looked at, in the order of the columns inside."""

_MEDIAN, _SPREAD, _SHORT, _LONG = 25, 24, 12, 60
_ROWS = _SHORT + _LONG


class SpotViews:
    """Fire where SPOT's scores, averaged over six views of a series, reach `limit`.

    An anomaly of an unknown kind shows in one view or another: a spike in the change and in the
    residual against the median of the last 25 values, a new level in the mean of the last 24 and
    in the shift (mean of the last 12 less that of the 60 before), a flat or a noisy stretch in
    the logarithm of the standard deviation of the last 24. Each view has its own two-tailed
    :class:`Spot`; that several agree counts for more than how extreme one of them is.

    *Warm-up*: the first 71 + `calibrate` values of a series score 0.

    Args:
        limit: the mean of the views' scores that fires, in (0, 1). The default is what the
            labels of the Numenta benchmark's files would choose; see `benchmarks.nab`.
        risk: the tail probability at which a view's own score is 0.5.
        calibrate: values that each view's SPOT starts from.
        level: the quantile over which a view's excesses are counted.
        name: the name listed in alerts.
        series: the number of series, N.

    References:
        Siffer et al. (2017), as for :class:`Spot`. The mean over views is a plain linear opinion
        pool: Stone, M. (1961), The opinion pool, Annals of Mathematical Statistics 32(4).
        https://doi.org/10.1214/aoms/1177704873

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(1000, 1))
    >>> x[900:] += 6.0
    >>> scores = SpotViews(calibrate=400, series=1).update(x)[:, 0]
    >>> bool(scores[:900].max() < 0.5), bool(scores[905] >= 0.5)
    (True, True)
    """

    kind: ClassVar[str] = "spot-views"

    def __init__(
        self,
        limit: float = 0.45,
        *,
        risk: float = 1e-4,
        calibrate: int = 500,
        level: float = 0.9,
        name: str = "SPOT on views",
        series: int = 0,
    ) -> None:
        if not 0.0 < limit < 1.0:
            raise ValueError(f"limit must be between 0 and 1, not {limit}")
        self.limit = limit
        self.name = name
        self._spot = Spot(risk, calibrate=calibrate, level=level, series=series * len(VIEWS))
        self._arrays: dict[str, Array] = {
            "recent": np.zeros((_ROWS, series)),
            "seen": np.zeros(series, np.int64),
            "mean": np.zeros(series),
            "squares": np.zeros(series),
        }

    @property
    def series(self) -> int:
        """The number of series, N."""
        return int(self._arrays["seen"].shape[0])

    def update(self, x: F64) -> F64:
        """Take (T, N) rows in time order and return their (T, N) scores."""
        rows = rows_of(x, self.series)
        present = ~np.isnan(rows)
        views = np.full((*rows.shape, len(VIEWS)), np.nan)
        for t in range(len(rows)):
            self._look(rows[t], present[t], views[t])
        scores = self._spot.update(views.reshape(len(rows), self.series * len(VIEWS))).reshape(
            views.shape
        )
        return np.where(present, score_of(scores.mean(axis=2) / self.limit), 0.0)

    def _look(self, row: F64, present: Array, views: F64) -> None:
        a = self._arrays
        recent = a["recent"]
        row = np.where(present, row, 0.0)
        # Newest first.
        recent[:, present] = np.concatenate([row[None], recent[:-1]])[:, present]
        a["seen"] += present
        step = np.where(present, row - a["mean"], 0.0)
        a["mean"] += step / np.maximum(a["seen"], 1)
        a["squares"] += step * (row - a["mean"])
        ready = present & (a["seen"] >= _ROWS)
        if not ready.any():
            return
        # A spread below a thousandth of the usual one is "flat", however flat.
        usual = np.sqrt(np.maximum(a["squares"], 0.0) / np.maximum(a["seen"], 1))
        spread = recent[:_SPREAD].std(axis=0) + 1e-3 * usual + np.finfo(float).tiny
        seen = (
            row,
            np.abs(row - recent[1]),
            row - np.median(recent[:_MEDIAN], axis=0),
            recent[:_SHORT].mean(axis=0) - recent[_SHORT:].mean(axis=0),
            np.log(spread),
            recent[:_SPREAD].mean(axis=0),
        )
        views[ready] = np.stack(seen, axis=1)[ready]

    def grow(self, series: int) -> None:
        """Add series that start now, on the right."""
        self._arrays = {name: grown(array, series) for name, array in self._arrays.items()}
        self._spot.grow(series * len(VIEWS))

    def to_bytes(self) -> bytes:
        """Return parameters and state as versioned bytes."""
        own = save(self.kind, {"limit": self.limit, "name": self.name}, self.series, self._arrays)
        return seal(self.kind, 1, msgspec.msgpack.encode((own, self._spot.to_bytes())))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the detector that :meth:`to_bytes` wrote."""
        _, payload = unseal(cls.kind, data, versions={1})
        try:
            own, spot_bytes = msgspec.msgpack.decode(payload, type=tuple[bytes, bytes])
        except msgspec.DecodeError as error:
            raise ValueError(f"{cls.kind}: {error}") from None
        parameters, series, arrays = load(cls.kind, own)
        try:
            made = cls(**_checked(parameters))
        except TypeError as error:
            raise ValueError(f"{cls.kind}: {error}") from None
        check_sizes(cls.kind, arrays, made._arrays, series)
        made._spot = Spot.from_bytes(spot_bytes)
        if made._spot.series != series * len(VIEWS):
            raise ValueError(f"{cls.kind}: {made._spot.series} views do not fit {series} series")
        made._arrays = {name: grown(array, series) for name, array in made._arrays.items()}
        fill_arrays(cls.kind, arrays, made._arrays)
        return made


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    if parameters.keys() != {"limit", "name"}:
        raise ValueError(f"{SpotViews.kind}: unexpected parameters {sorted(parameters)}")
    return parameters
