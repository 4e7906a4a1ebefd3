"""States that travel up the tree whole, each replacing the one before: a node's newest counts.

A leaf's state only grows, and what it sends is always all it knows of a window. So a message that
comes twice, or again after a restart, changes nothing, and one that is lost is made good by the
next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import bytewax.operators as op
import msgspec
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from flows.telemetry_state import Telemetry

Clock = Callable[[], float]
"""Seconds of a clock that never goes back."""


class Part(msgspec.Struct, frozen=True):
    """All that a node knows of one window.

    Args:
        window: number of the window; None for all windows in one state.
        node: who knows it.
        events: how many events it covers: of two parts of a node, the one with more is newer.
        state: a `Telemetry` of that window, as bytes.
        last: whether the node's input has ended.
    """

    window: int | None
    node: str
    events: int
    state: bytes
    last: bool = False


@operator
def observe(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[int], Telemetry],
    *,
    nodes: Mapping[str, int],
    every: timedelta,
    whole: bool = False,
    clock: Clock = time.monotonic,
) -> KeyedStream[Part]:
    """Fold each node's EVENTS and tell what it knows of the windows that changed.

    Windows that changed are told when rows come and `every` has passed since they were last told,
    and all windows once more, as the last, when the input ends. A restart goes on from the
    snapshot, and tells anew what had not been told then.

    Args:
        step_id: unique name of the step.
        up: EVENTS under the name of their node.
        create: makes the empty state of a node, by number.
        nodes: the number of each node.
        every: least time between two tellings before the end.
        whole: tell all windows in one part whenever one changed.
        clock: replaced in tests.
    """

    def named(item: tuple[str, pa.RecordBatch]) -> tuple[str, tuple[str, pa.RecordBatch]]:
        if item[0] not in nodes:
            raise ValueError(f"step {step_id}: {item[0]!r} is not one of {len(nodes)} nodes")
        return item[0], item

    def build(snapshot: bytes | None) -> _Observer:
        return _Observer(create, nodes, every.total_seconds(), whole, clock, snapshot)

    return op.stateful_batch("observe", op.map("name", up, named), build)


class _ObserverSaved(msgspec.Struct, array_like=True):
    node: str
    changed: list[int]
    state: bytes


class _Observer(StatefulBatchLogic[tuple[str, pa.RecordBatch], Part, bytes]):
    def __init__(
        self,
        create: Callable[[int], Telemetry],
        numbers: Mapping[str, int],
        every: float,
        whole: bool,
        clock: Clock,
        snapshot: bytes | None,
    ) -> None:
        self._create = create
        self._numbers = numbers
        self._every = every
        self._whole = whole
        self._clock = clock
        self._told = clock()
        self._node = ""
        self._changed: set[int] = set()
        self._state: Telemetry | None = None
        if snapshot is not None:
            saved = msgspec.msgpack.decode(snapshot, type=_ObserverSaved)
            self._node, self._changed = saved.node, set(saved.changed)
            self._state = create(numbers[saved.node])
            self._state.merge(Telemetry.from_bytes(saved.state))

    @override
    def on_batch(self, values: list[tuple[str, pa.RecordBatch]]) -> tuple[list[Part], bool]:
        if self._state is None:
            self._node = values[0][0]
            self._state = self._create(self._numbers[self._node])
        for _, batch in values:
            self._changed.update(self._state.fold(batch))
        if self._clock() - self._told < self._every:
            return [], StatefulBatchLogic.RETAIN
        self._told = self._clock()
        return self._tell(self._state, self._changed, last=False), StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[Part], bool]:
        assert self._state is not None
        return self._tell(self._state, self._state.windows, last=True), StatefulBatchLogic.RETAIN

    def _tell(self, state: Telemetry, windows: Iterable[int], *, last: bool) -> list[Part]:
        if self._whole:
            events = sum(map(state.events, state.windows))
            parts = [Part(None, self._node, events, state.to_bytes(), last)]
        else:
            parts = [
                Part(w, self._node, state.events(w), state.only(w).to_bytes(), last)
                for w in sorted(windows)
            ]
        self._changed.clear()
        return parts

    @override
    def snapshot(self) -> bytes:
        assert self._state is not None
        saved = _ObserverSaved(self._node, sorted(self._changed), self._state.to_bytes())
        return msgspec.msgpack.encode(saved)


@operator
def newest(
    step_id: str,
    up: KeyedStream[Part],
    *,
    node: str,
    every: timedelta,
    whole: bool = False,
    clock: Clock = time.monotonic,
) -> KeyedStream[Part]:
    """Merge the newest parts of a node's children, window by window, and tell what changed.

    Children are merged in the order of their names, so the merged state does not depend on who
    was first. Parts that are not newer than what is known are dropped: duplicates, replays, and
    those that were overtaken. What changed is told as by :func:`observe`; at the end of input all
    windows are told as the last. A restart goes on from the snapshot.

    Args:
        step_id: unique name of the step.
        up: parts of children, under one key for all of a node.
        node: the name in the parts that are told.
        every: least time between two tellings before the end.
        whole: tell all windows in one part whenever one changed.
        clock: replaced in tests.

    Raises:
        ValueError: a state is damaged, or does not merge with those of other children (the flow
            stops).
    """

    def build(snapshot: bytes | None) -> _Newest:
        return _Newest(node, every.total_seconds(), whole, clock, snapshot)

    return op.stateful_batch("merge", up, build)


class _NewestSaved(msgspec.Struct, array_like=True):
    changed: list[int]
    parts: list[Part]


class _Newest(StatefulBatchLogic[Part, Part, bytes]):
    def __init__(
        self, node: str, every: float, whole: bool, clock: Clock, snapshot: bytes | None
    ) -> None:
        self._node = node
        self._whole = whole
        self._every = every
        self._clock = clock
        self._told = clock()
        self._changed: set[int] = set()
        self._parts: dict[int, dict[str, Part]] = {}
        if snapshot is not None:
            saved = msgspec.msgpack.decode(snapshot, type=_NewestSaved)
            self._changed = set(saved.changed)
            for part in saved.parts:
                self._take(part)

    @override
    def on_batch(self, values: list[Part]) -> tuple[list[Part], bool]:
        for part in values:
            if self._take(part):
                assert part.window is not None
                self._changed.add(part.window)
        if not self._changed or self._clock() - self._told < self._every:
            return [], StatefulBatchLogic.RETAIN
        self._told = self._clock()
        return self._tell(self._changed, last=False), StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[Part], bool]:
        return self._tell(self._parts, last=True), StatefulBatchLogic.RETAIN

    def _take(self, part: Part) -> bool:
        """Keep a part if it is news."""
        if part.window is None:
            raise ValueError(f"{part.node} sent a part of no window")
        children = self._parts.setdefault(part.window, {})
        if part.node in children and part.events <= children[part.node].events:
            return False
        children[part.node] = part
        return True

    def _tell(self, windows: Iterable[int], *, last: bool) -> list[Part]:
        told = {w: self._merged(w) for w in sorted(self._parts if self._whole else windows)}
        self._changed.clear()
        if not self._whole:
            return [
                Part(w, self._node, state.events(w), state.to_bytes(), last)
                for w, state in told.items()
            ]
        first, *rest = told.values()
        for state in rest:
            first.merge(state)
        events = sum(first.events(w) for w in told)
        return [Part(None, self._node, events, first.to_bytes(), last)]

    def _merged(self, window: int) -> Telemetry:
        merged: Telemetry | None = None
        for node, part in sorted(self._parts[window].items()):
            try:
                state = Telemetry.from_bytes(part.state)
                if state.windows != [window]:
                    raise ValueError(f"a part of window {window} holds {state.windows}")
                if merged is None:
                    merged = state
                else:
                    merged.merge(state)
            except ValueError as error:
                raise ValueError(f"{self._node}: what {node} sent: {error}") from None
        assert merged is not None
        return merged

    @override
    def snapshot(self) -> bytes:
        parts = [
            self._parts[window][node]
            for window in sorted(self._parts)
            for node in sorted(self._parts[window])
        ]
        return msgspec.msgpack.encode(_NewestSaved(sorted(self._changed), parts))
