"""Tumbling and sliding windows: one logic over panes, and how it hands windows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from bytewax.operators import StatefulBatchLogic
from typing_extensions import override

from operators.window.event_time import (
    I64,
    Late,
    Mask,
    Watermark,
    Window,
    as_time,
    event_times,
    microseconds,
    since_epoch,
)
from operators.window.grid import Grid
from state.aggregates import AggregatePanes
from state.mergeable import Foldable
from state.panes import Panes
from state.schemas import TIME
from state.two_stacks import TwoStacks

S = TypeVar("S", bound=Foldable)
X = TypeVar("X")
X_co = TypeVar("X_co", covariant=True)


class Closer(Protocol[X_co]):
    """Makes what is emitted of windows that close."""

    def touched(self, panes: I64) -> None:
        """Take note that rows were folded into these panes."""

    def close(self, first: int, end: int) -> Iterator[X_co]:
        """Emit windows `first` up to, not including, `end`. Their panes are all there."""

    @property
    def split(self) -> int | None:
        """What a snapshot keeps of it."""


class OneByOne(Generic[S]):
    """Tumbling windows: the state of each pane is a window."""

    split: int | None = None

    def __init__(self, grid: Grid, panes: Panes[S]) -> None:
        self._grid = grid
        self._panes = panes

    def touched(self, panes: I64) -> None:
        """Nothing is kept of a pane."""

    def close(self, first: int, end: int) -> Iterator[Window[S]]:
        """Hand the states over; the panes forget them next."""
        numbers = self._panes.numbers()
        numbers = numbers[numbers < end]
        for pane, state in zip(numbers.tolist(), self._panes.states(numbers), strict=True):
            grid = self._grid
            yield Window(pane, as_time(grid.start(pane)), as_time(grid.end(pane)), state)


class Runs(Generic[S]):
    """Sliding windows: merges of runs of panes."""

    def __init__(
        self, grid: Grid, panes: Panes[S], create: Callable[[], S], split: int | None
    ) -> None:
        self._grid = grid
        self._panes = panes
        self._stacks = TwoStacks(create, split)

    @property
    def split(self) -> int | None:
        """Where the newer of the two stacks starts."""
        return self._stacks.split

    def touched(self, panes: I64) -> None:
        """Forget merges that the panes were in."""
        self._stacks.touched(int(panes.min()))

    def close(self, first: int, end: int) -> Iterator[Window[S]]:
        """Merge the panes of each window that has any."""
        grid = self._grid
        numbers = self._panes.numbers()
        numbers = numbers[numbers < (end - 1) * grid.step + grid.width]
        states = dict(zip(numbers.tolist(), self._panes.states(numbers), strict=True))
        window = first
        while window < end:
            low = window * grid.step
            at = int(np.searchsorted(numbers, low))
            if at == len(numbers):
                return
            pane = int(numbers[at])
            if pane >= low + grid.width:
                window = grid.first_window(pane)
                continue
            state = self._stacks.query(low, low + grid.width, states)
            yield Window(window, as_time(grid.start(window)), as_time(grid.end(window)), state)
            window += 1


class Tables:
    """Tumbling windows of aggregates: all that close together, as one batch."""

    split: int | None = None

    def __init__(self, grid: Grid, panes: AggregatePanes) -> None:
        self._grid = grid
        self._panes = panes

    def touched(self, panes: I64) -> None:
        """Nothing is kept of a pane."""

    def close(self, first: int, end: int) -> Iterator[pa.RecordBatch]:
        """Emit one batch, if any pane is there."""
        table = self._panes.table(end)
        if not table.num_rows:
            return
        start = table.column(0).to_numpy() * self._grid.every + self._grid.origin
        times = [pa.array(t).cast(TIME) for t in (start, start + self._grid.length)]
        names = ["window_start", "window_end", *table.schema.names[1:]]
        yield pa.RecordBatch.from_arrays([*times, *table.columns[1:]], names=names)


class Saved(msgspec.Struct, array_like=True):
    """The snapshot of one key."""

    newest: int | None
    closed: int | None
    split: int | None
    panes: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of one step."""

    grid: Grid
    time: str
    lateness: int
    ordered: bool

    @classmethod
    def of(
        cls,
        step_id: str,
        state: Foldable,
        length: timedelta,
        every: timedelta,
        time: str,
        align_to: datetime,
        lateness: timedelta,
    ) -> Rules:
        """Check the parameters of a step.

        Raises:
            ValueError: one is out of range.
        """
        if not timedelta(0) < every <= length:
            raise ValueError(f"step {step_id}: windows need 0 < every <= length")
        if lateness < timedelta(0):
            raise ValueError(f"step {step_id}: lateness must not be negative, not {lateness}")
        grid = Grid(since_epoch(align_to), microseconds(length), microseconds(every))
        return cls(grid, time, microseconds(lateness), state.algebra.ordered)


class GridWindows(StatefulBatchLogic[pa.RecordBatch, X | Late, bytes]):
    """The windows of one key."""

    def __init__(
        self,
        rules: Rules,
        panes: Panes[Any],
        closer: Callable[[int | None], Closer[X]],
        snapshot: bytes | None,
    ) -> None:
        self._rules = rules
        self._grid = rules.grid
        self._panes = panes
        saved = Saved(None, None, None, b"")
        if snapshot is not None:
            saved = msgspec.msgpack.decode(snapshot, type=Saved)
            panes.load(saved.panes)
        self._watermark = Watermark(rules.lateness, saved.newest)
        self._closed = saved.closed
        """All windows below are closed; None before the first row."""
        self._closer = closer(saved.split)

    @override
    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[X | Late], bool]:
        out: list[X | Late] = []
        for batch in values:
            if batch.num_rows:
                out.extend(self._take(batch))
        return out, StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[X | Late], bool]:
        numbers = self._panes.numbers()
        if not len(numbers):
            return [], StatefulBatchLogic.RETAIN
        last = self._grid.last_window(int(numbers[-1]))
        out: list[X | Late] = list(self._close(last + 1))
        # What is closed stays closed if input continues in a later execution.
        self._watermark.newest = self._grid.end(last) + self._rules.lateness
        return out, StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> bytes:
        saved = Saved(
            self._watermark.newest, self._closed, self._closer.split, self._panes.to_bytes()
        )
        return msgspec.msgpack.encode(saved)

    def _take(self, batch: pa.RecordBatch) -> Iterator[X | Late]:
        times = event_times(batch, self._rules.time)
        newest = self._watermark.advance(times)
        panes = self._grid.panes_at(times)
        cuts: list[tuple[int, int]] = []
        # Only rows behind the newest can have windows that are closed.
        behind = np.flatnonzero(times < newest)
        if len(behind):
            closed = self._grid.closed_at(newest[behind] - self._rules.lateness)
            late: Mask = self._grid.last_window(panes[behind]) < closed
            if self._rules.ordered:
                late[:] = True
            if late.any():
                gone, behind, closed = behind[late], behind[~late], closed[~late]
                yield Late(batch.take(pa.array(gone)))
                kept = np.ones(len(times), np.bool_)
                kept[gone] = False
                batch, panes = batch.filter(pa.array(kept)), panes[kept]
                behind -= np.searchsorted(gone, behind)
            cuts = self._cuts(behind, panes[behind], closed)
        start = 0
        for cut, end in cuts:
            self._fold(batch.slice(start, cut - start), panes[start:cut])
            yield from self._close(end)
            start = cut
        self._fold(batch.slice(start), panes[start:])
        yield from self._close(self._grid.closed_at(self._watermark.value))

    def _cuts(self, rows: I64, panes: I64, closed: I64) -> list[tuple[int, int]]:
        """Return rows before which windows close that would otherwise take them in, and up to what.

        A row behind the watermark may be too late for some of its windows and in time for others.
        """
        partly = np.flatnonzero(self._grid.first_window(panes) < closed)
        ends, at = np.unique(closed[partly], return_index=True)
        return [
            (cut, end)
            for cut, end in zip(rows[partly][at].tolist(), ends.tolist(), strict=True)
            if self._closed is None or end > self._closed
        ]

    def _fold(self, batch: pa.RecordBatch, panes: I64) -> None:
        if batch.num_rows:
            self._panes.update(batch, panes)
            self._closer.touched(panes)

    def _close(self, end: int) -> Iterator[X]:
        numbers = self._panes.numbers()
        first = end if self._closed is None else self._closed
        if self._closed is None and len(numbers):
            first = self._grid.first_window(int(numbers[0]))
        upto = (end - 1) * self._grid.step + self._grid.width
        if first < end and len(numbers) and int(numbers[0]) < upto:
            yield from self._closer.close(first, end)
            self._panes.discard(end * self._grid.step)
        self._closed = end if self._closed is None else max(end, self._closed)
