"""Sliding windows: overlapping, each the merge of a run of panes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.window.event_time import EPOCH, Window, WindowOut, split_late
from operators.window.on_grid import GridWindows, Rules, Runs
from state.mergeable import Foldable
from state.panes import panes_of

S = TypeVar("S", bound=Foldable)


@operator
def sliding(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], S],
    *,
    length: timedelta,
    every: timedelta,
    time: str = "time",
    align_to: datetime = EPOCH,
    lateness: timedelta = timedelta(0),
) -> WindowOut[Window[S]]:
    """Fold rows into windows ``[start, start + length)`` that start at every multiple of `every`.

    Rows are folded once, into panes as long as the greatest common divisor of `length` and
    `every`; a window is the merge of its panes in the order of time, at a constant number of
    merges per pane however many panes a window has.

    A window closes when the watermark of its key reaches its end; at the end of input all close,
    in order of time. Windows without any row are not emitted; panes without rows inside a window
    are, being identities, simply time that passes. A row behind the watermark counts in those of
    its windows that are still open when it arrives; *late* rows, all of whose windows are closed,
    go whole to `late`. Ordered states, duplicates and restarts are as in
    :func:`operators.window.tumbling`.

    >>> from datetime import UTC
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from state.aggregates import Aggregates
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
    >>> every = timedelta(seconds=2)
    >>> out = sliding("sums", up, volume, length=2 * every, every=every)
    >>> op.output("closed", out.closed, TestingSink(closed))
    >>> op.output("late", out.late, TestingSink(late))
    >>> run_main(flow)
    >>> for _, window in closed:
    ...     print(f"{window.start:%X} {window.end:%X}", window.state.table().to_pylist())
    11:59:58 12:00:02 [{'series': 'A', 'volume': 1.0}]
    12:00:00 12:00:04 [{'series': 'A', 'volume': 1.0}]
    12:00:02 12:00:06 [{'series': 'A', 'volume': 4.0}, {'series': 'B', 'volume': 2.0}]
    12:00:04 12:00:08 [{'series': 'B', 'volume': 2.0}]
    12:00:10 12:00:14 [{'series': 'A', 'volume': 8.0}]
    12:00:12 12:00:16 [{'series': 'A', 'volume': 8.0}]
    >>> [batch["size"].to_pylist() for _, batch in late]
    [[16.0]]

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        create: makes an empty state, all with the same parameters.
        length: of a window, in whole microseconds.
        every: between the starts of windows, at most `length`.
        time: name of the column of event times, a timestamp with a zone.
        align_to: a time at which a window starts; the window there has index 0.
        lateness: how far behind the newest row of its key a row may be and still count.

    Raises:
        ValueError: a parameter is out of range, or (stopping the flow) the time column of a batch
            is missing, not a timestamp with a zone, or has nulls.
    """
    rules = Rules.of(step_id, create(), length, every, time, align_to, lateness)

    def build(snapshot: bytes | None) -> GridWindows[Window[S]]:
        panes = panes_of(create)
        return GridWindows(
            rules, panes, lambda split: Runs(rules.grid, panes, create, split), snapshot
        )

    return split_late("split", op.stateful_batch("window", up, build))
