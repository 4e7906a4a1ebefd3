"""Run any mergeable state: fold batches per key, pre-aggregate on the worker, merge states.

    combine        batches -> one state per key and arrival, no exchange
    merge_states   states, as bytes, -> one state per key
    fold           batches -> one state per key
    tree_merge     the newest state of each leaf -> one state, level by level (operators.tree)

By the laws of :mod:`state.mergeable`, ``merge_states(combine(x)) == fold(x)``; the first sends a
few states between workers where the second sends every batch.

States travel between steps as the bytes of ``to_bytes``: what is emitted never aliases what an
operator keeps, and nothing of ours is pickled. They are snapshotted as the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.keeper import Emit, Keeper
from operators.tree import tree_merge
from state.mergeable import Foldable, Mergeable

__all__ = ["Emit", "combine", "fold", "merge_states", "tree_merge"]

F = TypeVar("F", bound=Foldable)
M = TypeVar("M", bound=Mergeable)


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

    def build(snapshot: bytes | None) -> Keeper[pa.RecordBatch]:
        state = create() if snapshot is None else kind.from_bytes(snapshot)
        return Keeper(
            state.update, state.to_bytes, state.to_bytes, emit, resumed=snapshot is not None
        )

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

    def build(snapshot: bytes | None) -> Keeper[bytes]:
        state = create() if snapshot is None else kind.from_bytes(snapshot)

        def take(data: bytes) -> None:
            state.merge(kind.from_bytes(data))

        return Keeper(take, state.to_bytes, state.to_bytes, emit, resumed=snapshot is not None)

    return op.stateful_batch("merge", up, build)


def _refuse_ordered(step_id: str, create: Callable[[], Mergeable]) -> None:
    state = create()
    if state.algebra.ordered:
        raise TypeError(
            f"step {step_id}: {type(state).__name__} is an ordered state, and pieces of one key "
            "from several workers have no order; use fold or a window on one key"
        )
