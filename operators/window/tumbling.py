"""Tumbling windows: each row in exactly one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.window.event_time import (
    EPOCH,
    Window,
    WindowOut,
    split_late,
)
from operators.window.on_grid import GridWindows, OneByOne, Rules, Tables
from state.aggregates import Aggregates
from state.mergeable import Foldable
from state.panes import panes_of

S = TypeVar("S", bound=Foldable)


@operator
def tumbling(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], S],
    *,
    length: timedelta,
    time: str = "time",
    align_to: datetime = EPOCH,
    lateness: timedelta = timedelta(0),
) -> WindowOut[Window[S]]:
    """Fold rows into consecutive windows ``[start, start + length)`` of event time.

    A window closes, and is emitted, when the watermark of its key reaches its end; at the end of
    input all close, in order of time. *Late* rows, whose window is closed, go whole to `late`.
    *Empty* windows are not emitted. *Duplicate* rows are the state's business. A *restart*
    resumes from a snapshot of the open windows; rows of windows that the end of an earlier
    execution's input closed are late.

    Rows of a window are folded in the order of arrival. For an *ordered* state that must be the
    order of time inside a key: a row with a time before that of a row already seen goes to `late`
    (equal times are fine), and `lateness` only delays closing.

    >>> from datetime import UTC
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from state.aggregations import Sum
    >>> def at(second: int) -> datetime:
    ...     return datetime(2024, 1, 1, 12, 0, second, tzinfo=UTC)
    >>> ticks = pa.record_batch({
    ...     "time": pa.array([at(1), at(4), at(2), at(12), at(3)], pa.timestamp("us", "UTC")),
    ...     "series": ["A", "B", "A", "A", "B"],
    ...     "size": [1.0, 2.0, 4.0, 8.0, 16.0]})
    >>> flow, closed, late = Dataflow("demo"), [], []
    >>> up = op.input("ticks", flow, TestingSource([("shard-0", ticks)]))
    >>> def volume() -> Aggregates:
    ...     return Aggregates("series", {"volume": Sum("size")})
    >>> out = tumbling("bars", up, volume, length=timedelta(seconds=10))
    >>> op.output("closed", out.closed, TestingSink(closed))
    >>> op.output("late", out.late, TestingSink(late))
    >>> run_main(flow)
    >>> for _, window in closed:
    ...     print(f"{window.start:%X} {window.end:%X}", window.state.table().to_pylist())
    12:00:00 12:00:10 [{'series': 'A', 'volume': 5.0}, {'series': 'B', 'volume': 2.0}]
    12:00:10 12:00:20 [{'series': 'A', 'volume': 8.0}]
    >>> [batch["size"].to_pylist() for _, batch in late]
    [[16.0]]

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        create: makes an empty state, all with the same parameters.
        length: of a window, in whole microseconds.
        time: name of the column of event times, a timestamp with a zone.
        align_to: a time at which a window starts; the window there has index 0.
        lateness: how far behind the newest row of its key a row may be and still count.

    Raises:
        ValueError: a parameter is out of range, or (stopping the flow) the time column of a batch
            is missing, not a timestamp with a zone, or has nulls.
    """
    rules = Rules.of(step_id, create(), length, length, time, align_to, lateness)

    def build(snapshot: bytes | None) -> GridWindows[Window[S]]:
        panes = panes_of(create)
        return GridWindows(rules, panes, lambda _: OneByOne(rules.grid, panes), snapshot)

    return split_late("split", op.stateful_batch("window", up, build))


@operator
def tumbling_aggregate(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], Aggregates],
    *,
    length: timedelta,
    time: str = "time",
    align_to: datetime = EPOCH,
    lateness: timedelta = timedelta(0),
) -> WindowOut[pa.RecordBatch]:
    """Aggregate rows by key columns in tumbling windows; emit tables instead of objects.

    The same windows as of :func:`tumbling`, but all that close at one arrival come as one batch:
    `window_start`, `window_end` (UTC, microseconds), the key columns, the aggregates; sorted by
    window and key. Arrivals that close no window emit nothing.

    >>> from datetime import UTC
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from state.aggregations import Sum
    >>> def at(second: int) -> datetime:
    ...     return datetime(2024, 1, 1, 12, 0, second, tzinfo=UTC)
    >>> ticks = pa.record_batch({
    ...     "time": pa.array([at(1), at(4), at(2), at(12), at(3)], pa.timestamp("us", "UTC")),
    ...     "series": ["A", "B", "A", "A", "B"],
    ...     "size": [1.0, 2.0, 4.0, 8.0, 16.0]})
    >>> flow, closed, late = Dataflow("demo"), [], []
    >>> up = op.input("ticks", flow, TestingSource([("shard-0", ticks)]))
    >>> def volume() -> Aggregates:
    ...     return Aggregates("series", {"volume": Sum("size")})
    >>> out = tumbling_aggregate("bars", up, volume, length=timedelta(seconds=10))
    >>> op.output("closed", out.closed, TestingSink(closed))
    >>> op.output("late", out.late, TestingSink(late))
    >>> run_main(flow)
    >>> for _, table in closed:
    ...     print(table.select(["series", "volume"]).to_pylist())
    [{'series': 'A', 'volume': 5.0}, {'series': 'B', 'volume': 2.0}]
    [{'series': 'A', 'volume': 8.0}]
    >>> [batch["size"].to_pylist() for _, batch in late]
    [[16.0]]

    Args:
        step_id: unique name of the step.
        up: batches under their key, the shard.
        create: makes empty aggregates.
        length: of a window, in whole microseconds.
        time: name of the column of event times, a timestamp with a zone.
        align_to: a time at which a window starts.
        lateness: how far behind the newest row of its shard a row may be and still count.

    Raises:
        ValueError: as :func:`tumbling`.
    """
    rules = Rules.of(step_id, create(), length, length, time, align_to, lateness)

    def build(snapshot: bytes | None) -> GridWindows[pa.RecordBatch]:
        panes = create().panes()
        return GridWindows(rules, panes, lambda _: Tables(rules.grid, panes), snapshot)

    return split_late("split", op.stateful_batch("window", up, build))
