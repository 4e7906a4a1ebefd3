"""Extreme-value thresholds: SPOT, and DSPOT for streams that drift."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from state.detectors.columns import ColumnDetector
from state.detectors.detector import F64, Array, score_of
from state.detectors.pareto import fit_pareto


class Spot(ColumnDetector):
    """Fire where a value is so extreme that its tail probability is at most `risk`.

    Excesses over a high quantile follow a generalised Pareto distribution, whatever the values
    themselves follow (Pickands, Balkema, de Haan). It is fitted by maximum likelihood to the
    first `calibrate` values and again at every new excess. The statistic is
    ``log(p) / log(risk)`` with p the probability of a value at least as extreme; values below
    the quantile score 0. Values that fire teach the detector nothing, as in the paper.

    With `depth` > 0 this is DSPOT: what is judged is a value minus the mean of the last `depth`
    values that did not fire.

    *Warm-up*: the first `depth` + `calibrate` values of a series score 0.
    *Memory*: the most recent `peaks` excesses of each tail are kept and fitted; the paper keeps
    all, which a stream that does not end cannot.
    *Hard ends*: a tail that stops abruptly (a uniform one: shape below -1/2) is taken for a
    longer one, so it fires less often than `risk`.

    Args:
        risk: the tail probability that fires; with both tails, of each.
        calibrate: values to start from, at least 20.
        level: the quantile over which excesses are counted.
        tail: "lower", "upper" or "both".
        depth: values in DSPOT's moving average; 0 for SPOT.
        peaks: excesses kept per tail.
        name: the name listed in alerts.
        series: the number of series, N.

    References:
        Siffer, A., Fouque, P.-A., Termier, A. and Largouet, C. (2017), Anomaly detection in
        streams with extreme value theory, KDD 2017. https://doi.org/10.1145/3097983.3098144

    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(size=(2000, 1))
    >>> x[1800] = -6.0
    >>> scores = Spot(1e-4, calibrate=1000, tail="lower", series=1).update(x)
    >>> np.flatnonzero(scores[:, 0] >= 0.5)
    array([1800])
    """

    kind: ClassVar[str] = "spot"

    def __init__(
        self,
        risk: float = 1e-3,
        *,
        calibrate: int = 250,
        level: float = 0.95,
        tail: str = "both",
        depth: int = 0,
        peaks: int = 256,
        name: str = "SPOT",
        series: int = 0,
    ) -> None:
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be between 0 and 1, not {level}")
        if not 0.0 < risk < 1.0 - level:
            raise ValueError(f"risk must be between 0 and 1 - level, not {risk}")
        if calibrate < 20:
            raise ValueError(f"calibrate must be at least 20, not {calibrate}")
        if depth < 0:
            raise ValueError(f"depth must not be negative, not {depth}")
        if peaks < 10:
            raise ValueError(f"peaks must be at least 10, not {peaks}")
        signs = {"lower": [-1.0], "upper": [1.0], "both": [1.0, -1.0]}
        if tail not in signs:
            raise ValueError(f"tail must be lower, upper or both, not {tail!r}")
        self._signs = np.array(signs[tail])[:, None]
        self.risk = risk
        self.calibrate = calibrate
        self.level = level
        self.tail = tail
        self.depth = depth
        self.peaks = peaks
        parameters: dict[str, float | int | str] = {
            "risk": risk,
            "calibrate": calibrate,
            "level": level,
            "tail": tail,
            "depth": depth,
            "peaks": peaks,
        }
        super().__init__(name, series, parameters)

    def _layout(self, series: int) -> dict[str, Array]:
        tails = len(self._signs)
        return {
            "seen": np.zeros(series, np.int64),
            "first": np.zeros((self.calibrate, series)),
            "window": np.zeros((self.depth, series)),
            "filled": np.zeros(series, np.int64),
            "count": np.zeros(series, np.int64),
            "threshold": np.zeros((tails, series)),
            "shape": np.zeros((tails, series)),
            "scale": np.ones((tails, series)),
            "excesses": np.zeros((tails, self.peaks, series)),
            "excess_count": np.zeros((tails, series), np.int64),
        }

    def tail_probability(self, values: F64) -> F64:
        """Return (tails, N) estimates of P(a value at least as extreme); 1 below the quantile."""
        a = self._arrays
        over = self._signs * values - a["threshold"]
        shape, scale = a["shape"], a["scale"]
        above = np.maximum(over, 0.0) / scale
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            bent = np.exp(-np.log(np.maximum(1.0 + shape * above, 0.0)) / shape)
            beyond = np.where(np.abs(shape) < 1e-8, np.exp(-above), bent)
            p = a["excess_count"] / a["count"] * beyond
        return np.where(over > 0.0, p, 1.0)

    def _step(self, row: F64, present: Array) -> F64:
        a = self._arrays
        values = row
        centred = present & (a["filled"] >= self.depth)
        if self.depth:
            values = row - a["window"].mean(axis=0)
        ready = centred & (a["seen"] >= self.calibrate)
        u = np.log(self.tail_probability(values)) / np.log(self.risk)
        scores = np.where(ready, score_of(np.maximum(u, 0.0).max(axis=0)), 0.0)
        fires = ready & (u >= 1.0).any(axis=0)
        normal = ready & ~fires
        a["count"][normal] += 1
        over = self._signs * values - a["threshold"]
        for tail, column in np.argwhere((over > 0.0) & normal):
            self._add(tail, column, over[tail, column])
        self._warm(values, centred & ~ready)
        if self.depth:
            at = np.flatnonzero(present & ~fires)
            a["window"][a["filled"][at] % self.depth, at] = row[at]
            a["filled"][at] += 1
        return scores

    def _add(self, tail: int, column: int, excess: float) -> None:
        a = self._arrays
        a["excesses"][tail, a["excess_count"][tail, column] % self.peaks, column] = excess
        a["excess_count"][tail, column] += 1
        self._fit(tail, column)

    def _fit(self, tail: int, column: int) -> None:
        a = self._arrays
        kept = min(int(a["excess_count"][tail, column]), self.peaks)
        if kept:
            fit = fit_pareto(np.ascontiguousarray(a["excesses"][tail, :kept, column]))
            a["shape"][tail, column], a["scale"][tail, column] = fit

    def _warm(self, values: F64, warming: Array) -> None:
        if not warming.any():
            return
        a = self._arrays
        at = np.flatnonzero(warming)
        a["first"][a["seen"][at], at] = values[at]
        a["seen"][at] += 1
        for column in at[a["seen"][at] == self.calibrate]:
            a["count"][column] = self.calibrate
            for tail, sign in enumerate(self._signs[:, 0]):
                first = sign * a["first"][:, column]
                threshold = np.quantile(first, self.level)
                over = (first - threshold)[first > threshold]
                a["threshold"][tail, column] = threshold
                kept = over[-self.peaks :]
                a["excesses"][tail, : len(kept), column] = kept
                # With ties at the quantile nothing may lie above it: the first one to come is
                # then judged by an exponential tail as wide as the values are spread.
                a["excess_count"][tail, column] = len(kept)
                a["scale"][tail, column] = first.std() or 1e-12 * (1.0 + abs(threshold))
                self._fit(tail, column)
