"""Several detectors that vote, and a refractory period after each alert."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from state.detectors.detector import F64, FIRES, Detector, grown, rows_of
from state.detectors.drawdown import FallWithin
from state.detectors.ewma import RobustEwma
from state.detectors.spot import Spot
from state.detectors.views import SpotViews
from state.mergeable import seal, unseal

_KIND = "ensemble"
BUILT_IN: tuple[type[Detector], ...] = (Spot, RobustEwma, FallWithin, SpotViews)


@dataclass(frozen=True, slots=True)
class Detection:
    """What an ensemble says about (T, N) rows."""

    score: F64
    """(T, N) in [0, 1]."""
    fired: npt.NDArray[np.bool_]
    """(T, N, D): which members reached their limits."""
    alert: npt.NDArray[np.bool_]
    """(T, N): where enough members fired and no alert was raised shortly before."""


class Ensemble:
    """Raise an alert where at least `votes` members fire, then be silent for a while.

    The score is the `votes`-th largest of the members' scores, so it is at least 0.5 exactly
    where `votes` members fire. After an alert on a series, its next `refractory` values raise
    none, whatever they score; missing values do not count. An ensemble is a `Detector` itself.

    Args:
        members: detectors with distinct names and equally many series.
        votes: members that must fire together.
        refractory: values of a series without an alert after one.
        name: the name listed in alerts where an ensemble is a member of another.

    Raises:
        ValueError: no members, names or sizes that do not fit, or votes that cannot be reached.

    >>> import numpy as np
    >>> rule = Ensemble([FallWithin(0.05, 1, name="day", series=1)], refractory=2)
    >>> falls = np.log1p([[-0.06], [-0.07], [-0.01], [-0.06]])
    >>> rule.detect(falls).alert[:, 0]
    array([ True, False, False,  True])
    """

    def __init__(
        self,
        members: Sequence[Detector],
        *,
        votes: int = 1,
        refractory: int = 0,
        name: str = "ensemble",
    ) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        if len({m.name for m in members}) != len(members):
            raise ValueError(f"members share a name: {[m.name for m in members]}")
        if len({m.series for m in members}) != 1:
            raise ValueError(f"members differ in series: {[m.series for m in members]}")
        if not 1 <= votes <= len(members):
            raise ValueError(f"votes must be between 1 and {len(members)}, not {votes}")
        if refractory < 0:
            raise ValueError(f"refractory must not be negative, not {refractory}")
        self.members = tuple(members)
        self.votes = votes
        self.refractory = refractory
        self.name = name
        self._silent = np.zeros(self.series, np.int64)

    @property
    def series(self) -> int:
        """The number of series, N."""
        return self.members[0].series

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members, in the order of `Detection.fired`."""
        return tuple(m.name for m in self.members)

    def detect(self, x: F64) -> Detection:
        """Take (T, N) rows in time order and return scores, votes and alerts."""
        rows = rows_of(x, self.series)
        scores = np.stack([m.update(rows) for m in self.members], axis=2)
        score = np.sort(scores, axis=2)[:, :, -self.votes]
        fired = scores >= FIRES
        wanted = score >= FIRES
        present = ~np.isnan(rows)
        alert = np.zeros(rows.shape, np.bool_)
        for t in range(len(rows)):
            alert[t] = wanted[t] & (self._silent == 0)
            counted = np.where(present[t], np.maximum(self._silent - 1, 0), self._silent)
            self._silent = np.where(alert[t], self.refractory, counted)
        return Detection(score, fired, alert)

    def update(self, x: F64) -> F64:
        """Take (T, N) rows in time order and return their (T, N) scores."""
        return self.detect(x).score

    def grow(self, series: int) -> None:
        """Add series that start now, on the right."""
        self._silent = grown(self._silent, series)
        for member in self.members:
            member.grow(series)

    def to_bytes(self) -> bytes:
        """Return parameters and state as versioned bytes."""
        saved = _Saved(
            self.name,
            self.votes,
            self.refractory,
            self._silent.tobytes(),
            [(type(m).__name__, m.to_bytes()) for m in self.members],
        )
        return seal(_KIND, 1, msgspec.msgpack.encode(saved))

    @classmethod
    def from_bytes(cls, data: bytes, kinds: Iterable[type[Detector]] = ()) -> Self:
        """Return the ensemble that :meth:`to_bytes` wrote.

        Args:
            data: the bytes.
            kinds: classes of members beside those of this package.

        Raises:
            ValueError: `data` is malformed, or a member is of a class that is not known.
        """
        _, payload = unseal(_KIND, data, versions={1})
        classes: list[type[Detector]] = [*BUILT_IN, cls, *kinds]
        known = {kind.__name__: kind for kind in classes}
        try:
            saved = msgspec.msgpack.decode(payload, type=_Saved)
            members = [known[kind].from_bytes(part) for kind, part in saved.members]
        except msgspec.DecodeError as error:
            raise ValueError(f"{_KIND}: {error}") from None
        except KeyError as error:
            raise ValueError(f"{_KIND}: a member of the unknown class {error}") from None
        except RecursionError:
            raise ValueError(f"{_KIND}: ensembles within ensembles, too deep to read") from None
        made = cls(members, votes=saved.votes, refractory=saved.refractory, name=saved.name)
        if len(saved.silent) != made._silent.nbytes:
            raise ValueError(f"{_KIND}: refractory counters do not fit {made.series} series")
        made._silent = np.frombuffer(saved.silent, np.int64).copy()
        return made


class _Saved(msgspec.Struct, array_like=True):
    name: str
    votes: int
    refractory: int
    silent: bytes
    members: list[tuple[str, bytes]]


def crash_ensemble() -> Ensemble:
    """Return the default for falls of daily prices: takes log returns, rests for 10 steps.

    Three members must agree: the price is 5 % below its highest of the last 10 steps, and the
    last return is among the lowest 2 % by extreme value theory and more than one robust
    standard deviation below its level. There are no alerts in the first 250 returns of a series.

    The numbers were chosen on daily S&P 500 and NASDAQ, 1999 to 2018, about three alerts a year;
    `benchmarks.market_detection` says what they are worth. Other time grids want others.
    """
    return Ensemble(
        [
            Spot(2e-2, calibrate=250, level=0.95, tail="lower", name="extreme fall"),
            RobustEwma(1.0, decay=0.02, scale_decay=0.05, tail="lower", name="robust EWMA"),
            FallWithin(0.05, steps=10, name="fall within 10 steps"),
        ],
        votes=3,
        refractory=10,
    )
