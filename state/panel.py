"""A stretch of a market: lagged moments of all series that were listed, and its alerts.

Series come and go: an index is listed years after another, an outage takes a feed away. A panel
is a list of *segments*, maximal stretches of rows over which the same series are present. Merging
appends the segments of what follows in time and joins the two that meet. Reading chooses the
series that are present in enough rows and joins the segments that hold all of them; stretches
without one of them break the run, as a missing row does.

A segment keeps either the :class:`~state.moments.LaggedMoments` of its series, in space that does
not grow with time, or its rows, which heteroskedasticity-robust tests need and from which the
moments are taken when the panel is read. Rows make results independent, to the last bit, of how
they were batched and merged; moments only up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from state.mergeable import Algebra, seal, unseal
from state.moments import LaggedMoments

F64 = npt.NDArray[np.float64]

MOST_LAGS = 4096
"""A panel of more lags is a mistake, or bytes that would cost memory when they are read."""


@dataclass(slots=True)
class _Segment:
    names: tuple[str, ...]
    content: LaggedMoments | F64
    """Moments, or rows (T, N); rows as well where no series is present (N = 0)."""

    @property
    def count(self) -> int:
        return len(self.content) if isinstance(self.content, np.ndarray) else self.content.rows

    def append(self, other: _Segment) -> None:
        if isinstance(self.content, LaggedMoments) and isinstance(other.content, LaggedMoments):
            self.content.merge(other.content)
        elif isinstance(self.content, np.ndarray) and isinstance(other.content, np.ndarray):
            self.content = np.concatenate([self.content, other.content])


@dataclass(frozen=True, slots=True)
class PanelView:
    """What a panel says about the series that cover enough of it."""

    names: tuple[str, ...]
    """The N chosen series, sorted."""
    moments: LaggedMoments | None
    """Their joint lagged moments; None where no series covers enough rows."""
    rows: F64
    """(T, N) rows with a row of NaN at each break, or no rows if the panel keeps none."""


class Panel:
    """The mergeable state behind one causal window: an ordered monoid.

    Args:
        max_lag: lags that the moments carry, at most `MOST_LAGS`; PCMCI over p lags wants 2p.
        keep_rows: keep rows instead of moments, as heteroskedasticity-robust tests need.
    """

    algebra: ClassVar[Algebra] = Algebra.ORDERED_MONOID

    def __init__(self, max_lag: int, *, keep_rows: bool = False) -> None:
        if not 1 <= max_lag <= MOST_LAGS:
            raise ValueError(f"max_lag must be from 1 to {MOST_LAGS}, not {max_lag}")
        self.max_lag = max_lag
        self.keep_rows = keep_rows
        self._segments: list[_Segment] = []
        self._span: tuple[int, int] | None = None
        self._alerts: list[tuple[int, str]] = []

    @property
    def span(self) -> tuple[int, int] | None:
        """Times of the first and last row, in microseconds since 1970, or None when empty."""
        return self._span

    @property
    def alerts(self) -> tuple[tuple[int, str], ...]:
        """(time in microseconds, series) of each alert, in order."""
        return tuple(self._alerts)

    def update(self, batch: pa.RecordBatch) -> None:
        """Append rows in the form of `state.schemas.SCORED`.

        Rows come in time order, and all rows of one time come in one batch. A null
        `log_return` means that the series is not present at that time.

        Raises:
            ValueError: times go backwards, or a (time, series) pair comes twice.
        """
        if not batch.num_rows:
            return
        times = batch["time"].cast(pa.int64()).to_numpy()
        if (np.diff(times) < 0).any() or (self._span and times[0] <= self._span[1]):
            raise ValueError("a panel takes whole time steps in time order")
        series = batch["series"].to_pylist()
        names = tuple(sorted(set(series)))
        column = {name: at for at, name in enumerate(names)}
        steps, row = np.unique(times, return_inverse=True)
        cell = row * len(names) + np.array([column[name] for name in series])
        if len(np.unique(cell)) != len(cell):
            raise ValueError("a panel takes each (time, series) pair once")
        matrix = np.full(len(steps) * len(names), np.nan)
        matrix[cell] = batch["log_return"].to_numpy(zero_copy_only=False)
        for segment in self._split(names, matrix.reshape(len(steps), len(names))):
            self._append(segment)
        self._span = (self._span[0] if self._span else int(steps[0]), int(steps[-1]))
        for at in np.flatnonzero(batch["alert"].to_numpy(zero_copy_only=False)):
            self._alerts.append((int(times[at]), series[at]))

    def merge(self, other: Self) -> None:
        """Append a panel that follows in time.

        Raises:
            ValueError: it does not follow, or keeps other lags or rows.
        """
        if (self.max_lag, self.keep_rows) != (other.max_lag, other.keep_rows):
            raise ValueError("panels with different max_lag or keep_rows do not merge")
        if other._span is None:
            return
        if self._span and other._span[0] <= self._span[1]:
            raise ValueError("a panel merges with one that follows it in time")
        for segment in other._segments:
            content = segment.content
            if isinstance(content, LaggedMoments):
                content = LaggedMoments.from_bytes(content.to_bytes())
            self._append(_Segment(segment.names, content))
        self._span = (self._span[0] if self._span else other._span[0], other._span[1])
        self._alerts.extend(other._alerts)

    def read(self, coverage: float = 0.8) -> PanelView:
        """Return the joint moments of the series present in at least this share of the rows."""
        total = sum(segment.count for segment in self._segments)
        present: dict[str, int] = {}
        for segment in self._segments:
            for name in segment.names:
                present[name] = present.get(name, 0) + segment.count
        chosen = tuple(sorted(n for n, rows in present.items() if rows >= coverage * total))
        if not chosen:
            return PanelView((), None, np.empty((0, 0)))
        gap = np.full((1, len(chosen)), np.nan)
        joint = LaggedMoments(len(chosen), self.max_lag)
        rows = [gap[:0]]
        for segment in self._segments:
            if not set(chosen) <= set(segment.names):
                joint.append(gap)
                rows.append(gap)
                continue
            at = [segment.names.index(name) for name in chosen]
            if isinstance(segment.content, LaggedMoments):
                joint.merge(segment.content.select(at))
            else:
                rows.append(segment.content[:, at])
        if self.keep_rows:
            joint = LaggedMoments.from_rows(np.concatenate(rows), self.max_lag)
        return PanelView(chosen, joint, np.concatenate(rows) if self.keep_rows else gap[:0])

    def _split(self, names: tuple[str, ...], matrix: F64) -> Iterator[_Segment]:
        """Cut rows into segments over which the same series are present."""
        present = ~np.isnan(matrix)
        changes = np.flatnonzero((present[1:] != present[:-1]).any(axis=1)) + 1
        for rows, here in zip(
            np.split(matrix, changes), present[[0, *changes.tolist()]], strict=True
        ):
            kept = rows[:, here]
            segment = tuple(name for name, there in zip(names, here, strict=True) if there)
            as_rows = self.keep_rows or not segment
            yield _Segment(
                segment, kept if as_rows else LaggedMoments.from_rows(kept, self.max_lag)
            )

    def _append(self, segment: _Segment) -> None:
        if self._segments and self._segments[-1].names == segment.names:
            self._segments[-1].append(segment)
        else:
            self._segments.append(segment)

    def to_bytes(self) -> bytes:
        """Return the panel as versioned bytes (MessagePack inside the common envelope)."""
        segments = [
            (
                segment.names,
                segment.count,
                segment.content.astype("<f8").tobytes()
                if isinstance(segment.content, np.ndarray)
                else segment.content.to_bytes(),
            )
            for segment in self._segments
        ]
        content = _PanelBytes(self.max_lag, self.keep_rows, self._span, self._alerts, segments)
        return seal("panel", 1, msgspec.msgpack.encode(content))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the panel that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged or inconsistent.
        """
        _, payload = unseal("panel", data, versions={1})
        try:
            content = msgspec.msgpack.decode(payload, type=_PanelBytes)
        except msgspec.DecodeError as error:
            raise ValueError(f"panel: {error}") from error
        if (content.span is None) != (not content.segments):
            raise ValueError("panel: a span without rows, or rows without a span")
        if content.span and content.span[0] > content.span[1]:
            raise ValueError("panel: it ends before it starts")
        panel = cls(content.max_lag, keep_rows=content.keep_rows)
        panel._segments = [panel._segment(*segment) for segment in content.segments]
        panel._span = content.span
        panel._alerts = content.alerts
        return panel

    def _segment(self, names: tuple[str, ...], count: int, part: bytes) -> _Segment:
        if list(names) != sorted(set(names)):
            raise ValueError("panel: the names of a segment are not sorted and distinct")
        if self.keep_rows or not names:
            if len(part) != 8 * count * len(names) or not 0 < count < 2**40:
                raise ValueError("panel: rows do not fit their header")
            rows = np.frombuffer(part, "<f8").reshape(count, len(names)).copy()
            if not np.isfinite(rows).all():
                raise ValueError("panel: a row that is kept holds what is not a number")
            return _Segment(names, rows)
        moments = LaggedMoments.from_bytes(part)
        header = (len(names), self.max_lag, count)
        if (moments.n_series, moments.max_lag, moments.rows) != header:
            raise ValueError("panel: moments do not fit their header")
        return _Segment(names, moments)


class _PanelBytes(msgspec.Struct, array_like=True):
    max_lag: int
    keep_rows: bool
    span: tuple[int, int] | None
    alerts: list[tuple[int, str]]
    segments: list[tuple[tuple[str, ...], int, bytes]]
