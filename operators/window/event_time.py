"""Event time of one key: the watermark, and which rows came too late for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, filter_map_value

from state.mergeable import Mergeable
from state.schemas import TIME

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
S = TypeVar("S", bound=Mergeable)
X = TypeVar("X")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = -(2**62)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Window(Generic[S]):
    """A closed window."""

    index: int
    """Windows whose indices differ by 1 are consecutive; for sessions, the count of its key."""
    start: datetime
    end: datetime
    """The first instant after the window."""
    state: S
    """The rows of the window; shared with nobody."""


@dataclass(frozen=True, slots=True)
class WindowOut(Generic[X]):
    """The streams that a window operator returns."""

    closed: KeyedStream[X]
    """Closed windows, in order of time inside a key."""
    late: KeyedStream[pa.RecordBatch]
    """Whole rows that came too late for all their windows, in order of arrival."""


@dataclass(frozen=True, slots=True)
class Late:
    """Rows on their way to `WindowOut.late`."""

    rows: pa.RecordBatch


@operator
def split_late(step_id: str, up: KeyedStream[X | Late]) -> WindowOut[X]:
    """Split what a window logic emits into closed windows and late rows."""
    closed = filter_map_value("closed", up, lambda x: None if isinstance(x, Late) else x)
    late = filter_map_value("late", up, lambda x: x.rows if isinstance(x, Late) else None)
    return WindowOut(closed, late)


class Watermark:
    """The largest event time seen minus the lateness, as of every row.

    Everything here is by row, in the order of arrival, so that nothing depends on how rows are
    batched.
    """

    def __init__(self, lateness: int, newest: int | None = None) -> None:
        self.lateness = lateness
        self.newest = newest
        """Largest event time so far, in microseconds; None before the first row."""

    @property
    def value(self) -> int:
        """The watermark, in microseconds since 1970."""
        return _NEVER if self.newest is None else self.newest - self.lateness

    def advance(self, times: I64) -> I64:
        """Take rows in; return the largest event time before each of them."""
        before = np.empty_like(times)
        before[0] = _NEVER if self.newest is None else self.newest
        np.maximum(np.maximum.accumulate(times)[:-1], before[0], out=before[1:])
        self.newest = max(int(before[-1]), int(times[-1]))
        return before


def event_times(batch: pa.RecordBatch, column: str) -> I64:
    """Return a time column as microseconds since 1970.

    Raises:
        ValueError: the column is missing, not a timestamp, without zone or has nulls.
    """
    if column not in batch.schema.names:
        raise ValueError(f"windows need a column {column!r}, the batch has {batch.schema.names}")
    times = batch.column(column)
    if not pa.types.is_timestamp(times.type) or times.type.tz is None:
        raise ValueError(f"the time column {column!r} must be {TIME}, not {times.type}")
    if times.null_count:
        raise ValueError(f"the time column {column!r} has {times.null_count} null values")
    micros: I64 = times.cast(TIME).cast(pa.int64()).to_numpy()
    return micros


def microseconds(span: timedelta) -> int:
    """Return a time span in microseconds."""
    return span // _MICROSECOND


def since_epoch(instant: datetime) -> int:
    """Return an aware time in microseconds since 1970.

    Raises:
        ValueError: it has no zone.
    """
    if instant.tzinfo is None:
        raise ValueError(f"a time needs a zone: {instant}")
    return (instant - EPOCH) // _MICROSECOND


def as_time(micros: int) -> datetime:
    """Return microseconds since 1970 as a UTC time."""
    return EPOCH + timedelta(microseconds=micros)
