"""Session windows: rows of one key until a gap in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeAlias, TypeVar

import bytewax.operators as op
import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from operators.window.event_time import (
    I64,
    Late,
    Watermark,
    Window,
    WindowOut,
    as_time,
    event_times,
    microseconds,
    split_late,
)
from state.mergeable import Foldable

S = TypeVar("S", bound=Foldable)
Key: TypeAlias = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class Session(Window[S]):
    """A closed session; `index` counts the sessions that its shard has closed."""

    by: Key
    """The values of the key columns."""


@operator
def session(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], S],
    *,
    by: str | Sequence[str],
    gap: timedelta,
    time: str = "time",
    lateness: timedelta = timedelta(0),
) -> WindowOut[Session[S]]:
    """Fold the rows of each key (say, a user) into sessions that a pause of `gap` ends.

    A session runs from its first row to `gap` after its last, that instant not included: a row
    exactly `gap` later starts a new one. It closes when the watermark of the shard reaches its
    end; at the end of input all close, in order of their ends. Rows that come out of order but
    not late may extend a session at either side and join two into one.

    *Late* is each row behind the watermark, even if the session it would fall in is still open:
    only so do sessions depend on the rows alone and not on when others closed. Such rows go whole
    to `late`. With an *ordered* state, so does a row with a time before that of a row already
    seen in its shard. Rows of a session that arrive together are folded in the order of time.
    Restarts are as in :func:`operators.window.tumbling`.

    >>> from datetime import UTC, datetime
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
    >>> span = timedelta(seconds=5)
    >>> out = session("runs", up, volume, by="series", gap=span, lateness=span)
    >>> op.output("closed", out.closed, TestingSink(closed))
    >>> op.output("late", out.late, TestingSink(late))
    >>> run_main(flow)
    >>> for _, run in closed:
    ...     print(run.by, f"{run.start:%X} {run.end:%X}", run.state.table()["volume"].to_pylist())
    ('A',) 12:00:01 12:00:07 [5.0]
    ('B',) 12:00:04 12:00:09 [2.0]
    ('A',) 12:00:12 12:00:17 [8.0]
    >>> [batch["size"].to_pylist() for _, batch in late]
    [[16.0]]

    Args:
        step_id: unique name of the step.
        up: batches under their shard.
        create: makes an empty state, all with the same parameters.
        by: column or columns whose values tell sessions apart: text, integers, booleans; null is
            a key of its own.
        gap: the pause that ends a session, in whole microseconds.
        time: name of the column of event times, a timestamp with a zone.
        lateness: how far behind the newest row of its shard a row may be and still count.

    Raises:
        ValueError: a parameter is out of range, or (stopping the flow) a column of a batch is
            missing or of the wrong type, or the time column has nulls.
    """
    if gap <= timedelta(0) or lateness < timedelta(0):
        raise ValueError(f"step {step_id}: sessions need gap > 0 and lateness >= 0")
    columns = (by,) if isinstance(by, str) else tuple(by)
    if not columns:
        raise ValueError(f"step {step_id}: sessions need at least one key column")

    def build(snapshot: bytes | None) -> _Sessions[S]:
        return _Sessions(create, columns, time, microseconds(gap), microseconds(lateness), snapshot)

    return split_late("split", op.stateful_batch("window", up, build))


@dataclass(slots=True)
class _Open(Generic[S]):
    first: int
    last: int
    state: S


class _Saved(msgspec.Struct, array_like=True):
    newest: int | None
    count: int
    sessions: list[tuple[Key, int, int, bytes]]


class _Sessions(StatefulBatchLogic[pa.RecordBatch, Session[S] | Late, bytes]):
    """The sessions of one shard."""

    def __init__(
        self,
        create: Callable[[], S],
        by: tuple[str, ...],
        time: str,
        gap: int,
        lateness: int,
        snapshot: bytes | None,
    ) -> None:
        self._create = create
        self._by = by
        self._time = time
        self._gap = gap
        empty = create()
        self._ordered = empty.algebra.ordered
        saved = _Saved(None, 0, [])
        if snapshot is not None:
            saved = msgspec.msgpack.decode(snapshot, type=_Saved)
        self._watermark = Watermark(lateness, saved.newest)
        self._count = saved.count
        self._open: dict[Key, list[_Open[S]]] = {}
        for key, first, last, data in saved.sessions:
            self._open.setdefault(key, []).append(_Open(first, last, type(empty).from_bytes(data)))

    @override
    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[Session[S] | Late], bool]:
        out: list[Session[S] | Late] = []
        for batch in values:
            if batch.num_rows:
                out.extend(self._take(batch))
        return out, StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[Session[S] | Late], bool]:
        ends = [s.last + self._gap for sessions in self._open.values() for s in sessions]
        if not ends:
            return [], StatefulBatchLogic.RETAIN
        # What is closed stays closed if input continues in a later execution.
        self._watermark.newest = max(ends) + self._watermark.lateness
        return list(self._close()), StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> bytes:
        sessions = [
            (key, s.first, s.last, s.state.to_bytes())
            for key, sessions in self._open.items()
            for s in sessions
        ]
        return msgspec.msgpack.encode(_Saved(self._watermark.newest, self._count, sessions))

    def _take(self, batch: pa.RecordBatch) -> Iterator[Session[S] | Late]:
        times = event_times(batch, self._time)
        newest = self._watermark.advance(times)
        limit = newest if self._ordered else newest - self._watermark.lateness
        late = times < limit
        if late.any():
            yield Late(batch.filter(pa.array(late)))
            batch, times = batch.filter(pa.array(~late)), times[~late]
        for key, first, last, rows in self._runs(batch, times):
            self._join(key, first, last, rows)
        yield from self._close()

    def _runs(
        self, batch: pa.RecordBatch, times: I64
    ) -> Iterator[tuple[Key, int, int, pa.RecordBatch]]:
        """Split rows into the sessions that they would make by themselves."""
        if not batch.num_rows:
            return
        frame = _keys(batch, self._by).with_columns(
            pl.Series("#time", times), pl.int_range(pl.len(), dtype=pl.Int64).alias("#row")
        )
        frame = frame.sort([*self._by, "#time", "#row"])
        other_key = pl.any_horizontal(pl.col(c).ne_missing(pl.col(c).shift(1)) for c in self._by)
        pause = (pl.col("#time").diff() >= self._gap).fill_null(True)
        starts = np.flatnonzero(frame.select(other_key | pause).to_series().to_numpy())
        ends = np.append(starts[1:], len(frame))
        batch = batch.take(frame["#row"].to_arrow())
        sorted_times = frame["#time"].to_numpy()
        keys = frame[starts].select(self._by).rows()
        for key, start, end in zip(keys, starts.tolist(), ends.tolist(), strict=True):
            rows = batch.slice(start, end - start)
            yield key, int(sorted_times[start]), int(sorted_times[end - 1]), rows

    def _join(self, key: Key, first: int, last: int, rows: pa.RecordBatch) -> None:
        sessions = self._open.setdefault(key, [])
        near = [s for s in sessions if first - s.last < self._gap and s.first - last < self._gap]
        if len(near) == 1 and near[0].last <= first:
            near[0].state.update(rows)
            near[0].last = last
            return
        new = _Open(first, last, self._create())
        new.state.update(rows)
        far = [s for s in sessions if all(s is not n for n in near)]
        parts = sorted([*near, new], key=lambda s: s.first)
        whole = parts[0]
        for part in parts[1:]:
            whole.state.merge(part.state)
            whole.last = max(whole.last, part.last)
        self._open[key] = [*far, whole]

    def _close(self) -> Iterator[Session[S]]:
        limit = self._watermark.value - self._gap
        closed = [
            (s.last, s.first, key, s)
            for key, sessions in self._open.items()
            for s in sessions
            if s.last <= limit
        ]
        closed.sort(key=lambda c: (c[0], c[1], [(k is not None, k) for k in c[2]]))
        for _, _, key, s in closed:
            left = [other for other in self._open[key] if other is not s]
            if left:
                self._open[key] = left
            else:
                del self._open[key]
            start, end = as_time(s.first), as_time(s.last + self._gap)
            yield Session(self._count, start, end, s.state, key)
            self._count += 1


def _keys(batch: pa.RecordBatch, by: Sequence[str]) -> pl.DataFrame:
    for name in by:
        if name not in batch.schema.names:
            raise ValueError(f"sessions need a column {name!r}, the batch has {batch.schema.names}")
    frame = pl.DataFrame(batch.select(list(by)))
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    for name, dtype in frame.schema.items():
        if not (dtype.is_integer() or dtype in (pl.String, pl.Boolean)):
            raise ValueError(f"the key column {name!r} must be text or integers, not {dtype}")
    return frame
