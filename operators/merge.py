"""Run any mergeable state: fold batches per key, pre-aggregate on the worker, merge states.

    combine        batches -> one state per key and arrival, no exchange
    merge_states   states, as bytes, -> one state per key
    fold           batches -> one state per key

By the laws of :mod:`state.mergeable`, ``merge_states(combine(x)) == fold(x)``; the first sends a
few states between workers where the second sends every batch.

States travel between steps as the bytes of ``to_bytes``: what is emitted never aliases what an
operator keeps, and nothing of ours is pickled. They are snapshotted as the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from state.mergeable import Foldable, Mergeable

F = TypeVar("F", bound=Foldable)
M = TypeVar("M", bound=Mergeable)

Emit = Literal["change", "eof"] | timedelta
"""When a keyed state is emitted: after each arrival that touched it, once at the end of input, or
at most once in this much system time while it changes (and at the end). Bytewax does not tell an
operator where an epoch ends, so there is no 'each epoch'."""


@operator
def combine(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], F],
) -> KeyedStream[bytes]:
    """Fold what arrives together into one state per key, on the worker where it arrived.

    Nothing is kept between arrivals, so there is nothing to snapshot and a restart loses nothing.

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        create: makes an empty state, all with the same parameters.

    Raises:
        TypeError: the state is ordered; pieces of one key from several workers have no order.
    """
    _refuse_ordered(step_id, create)

    def fold_together(items: list[tuple[str, pa.RecordBatch]]) -> Iterator[tuple[str, bytes]]:
        states: dict[str, F] = {}
        for key, batch in items:
            if key not in states:
                states[key] = create()
            states[key].update(batch)
        for key, state in states.items():
            yield key, state.to_bytes()

    return op.flat_map_batch("fold", up, fold_together)


@operator
def fold(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], F],
    *,
    emit: Emit = "change",
) -> KeyedStream[bytes]:
    """Fold all batches of a key into one state and emit it as bytes.

    Late and duplicate rows are the state's business: an idempotent one does not mind them.
    Folding never forgets a key; for state that ends, use `operators.window`. A restart resumes
    from the snapshot.

    Args:
        step_id: unique name of the step.
        up: batches under their key, in the order in which an ordered state wants them.
        create: makes an empty state.
        emit: see `Emit`; `"eof"` is for finite streams only.
    """
    kind = type(create())

    def build(snapshot: bytes | None) -> _Keeper[pa.RecordBatch]:
        state = create() if snapshot is None else kind.from_bytes(snapshot)
        return _Keeper(state, state.update, emit, resumed=snapshot is not None)

    return op.stateful_batch("fold", up, build)


@operator
def merge_states(
    step_id: str,
    up: KeyedStream[bytes],
    create: Callable[[], M],
    *,
    emit: Emit = "change",
) -> KeyedStream[bytes]:
    """Merge states that arrive as bytes into one state per key and emit it as bytes.

    Args:
        step_id: unique name of the step.
        up: the `to_bytes` of states, each to be counted once unless the state is idempotent.
        create: makes an empty state.
        emit: see `Emit`; `"eof"` is for finite streams only.

    Raises:
        TypeError: the state is ordered; states from several workers have no order.
        ValueError: an item is not the bytes of such a state (the flow stops).
    """
    _refuse_ordered(step_id, create)
    kind = type(create())

    def build(snapshot: bytes | None) -> _Keeper[bytes]:
        state = create() if snapshot is None else kind.from_bytes(snapshot)

        def take(data: bytes) -> None:
            state.merge(kind.from_bytes(data))

        return _Keeper(state, take, emit, resumed=snapshot is not None)

    return op.stateful_batch("merge", up, build)


def _refuse_ordered(step_id: str, create: Callable[[], Mergeable]) -> None:
    state = create()
    if state.algebra.ordered:
        raise TypeError(
            f"step {step_id}: {type(state).__name__} is an ordered state, and pieces of one key "
            "from several workers have no order; use fold or a window on one key"
        )


X = TypeVar("X")


class _Keeper(StatefulBatchLogic[X, bytes, bytes]):
    """One key's state: take items in, say when it is emitted, snapshot as bytes."""

    def __init__(
        self, state: Mergeable, take: Callable[[X], None], emit: Emit, *, resumed: bool
    ) -> None:
        self._state = state
        self._take = take
        self._emit = emit
        # What changed before the snapshot may not have been emitted yet.
        pending = resumed and isinstance(emit, timedelta)
        self._due: datetime | None = datetime.now(UTC) if pending else None

    @override
    def on_batch(self, values: list[X]) -> tuple[list[bytes], bool]:
        for value in values:
            self._take(value)
        if self._emit == "change":
            return [self._state.to_bytes()], StatefulBatchLogic.RETAIN
        if isinstance(self._emit, timedelta) and self._due is None:
            self._due = datetime.now(UTC) + self._emit
        return [], StatefulBatchLogic.RETAIN

    @override
    def on_notify(self) -> tuple[list[bytes], bool]:
        self._due = None
        return [self._state.to_bytes()], StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[bytes], bool]:
        if self._emit == "eof" or self._due is not None:
            self._due = None
            return [self._state.to_bytes()], StatefulBatchLogic.RETAIN
        return [], StatefulBatchLogic.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        return self._due

    @override
    def snapshot(self) -> bytes:
        return self._state.to_bytes()
