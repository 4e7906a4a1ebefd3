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
