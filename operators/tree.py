"""An aggregation tree inside a flow: the answer over many leaves, at a fan-in's cost per node.

A tree over W leaves with fan-in f has depth ceil(log_f W). Every leaf, and every node, sends its
parent its whole state so far; a node keeps the newest state of each child and emits the merge of
all. So where :func:`operators.merge.merge_states` *adds* what arrives, each state to be counted
once, a tree *replaces*: a leaf may tell its state again and again, whatever the state's algebra.

Per emission a node decodes the children that changed and merges all of its children: what was
merged cannot be taken out again. Its snapshot is the bytes of its children.

Source: Madden et al., "TAG: a Tiny AGgregation Service for Ad-Hoc Sensor Networks", OSDI 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import bytewax.operators as op
import msgspec
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.keeper import Emit, Keeper
from operators.shard import shard_names
from state.mergeable import Mergeable

M = TypeVar("M", bound=Mergeable)

ROOT = "root"
"""The key of what a tree emits."""


@operator
def tree_merge(
    step_id: str,
    up: KeyedStream[bytes],
    create: Callable[[], M],
    *,
    leaves: Sequence[str] | int,
    fan_in: int = 8,
    emit: Emit = "change",
) -> KeyedStream[bytes]:
    """Merge the newest state of every leaf, level by level, and emit the whole as bytes.

    The levels are steps of their own, `level_1` next to the leaves to `level_d` at the root, and
    so have their own metrics and their own nodes in the drawn graph.

    - *Late, twice*: a leaf's newer state replaces its older one; states of one leaf must come in
      order.
    - *Missing*: a leaf that has said nothing counts as empty.
    - *End*: with `emit="eof"`, each level emits when the one below has, and before its own end.
    - *Restart*: a node resumes with the states of its children.

    Args:
        step_id: unique name of the step.
        up: the `to_bytes` of each leaf's whole state, under the leaf's name.
        create: makes an empty state.
        leaves: the names of the leaves, neighbours next to each other; or their number, if they
            are called "0", "1", ...
        fan_in: most children of a node.
        emit: see `operators.merge.Emit`; each level waits as long as it says.

    Returns:
        The merged states, as bytes, under the key `ROOT`.

    Raises:
        TypeError: the state is ordered.
        ValueError: there are no leaves, two of one name, or a fan-in below 2; when running, a
            leaf that is not in `leaves`, or bytes that are no such state (the flow stops).
    """
    names = [str(i) for i in range(leaves)] if isinstance(leaves, int) else list(leaves)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"step {step_id}: a tree needs leaves, each with a name of its own")
    if fan_in < 2:
        raise ValueError(f"step {step_id}: a fan-in of {fan_in} makes no tree; at least 2")
    empty = create()
    if empty.algebra.ordered:
        raise TypeError(
            f"step {step_id}: {type(empty).__name__} is an ordered state, and leaves have no order"
        )

    def build(snapshot: bytes | None) -> Keeper[tuple[str, bytes]]:
        node = _Node(create, snapshot)
        return Keeper(node.take, node.whole, node.save, emit, resumed=snapshot is not None)

    level, children, stream = 0, names, up
    while not level or len(children) > 1:
        level += 1
        count = -(-len(children) // fan_in)
        parents = (ROOT,) if count == 1 else shard_names(count)
        parent_of = {child: parents[i // fan_in] for i, child in enumerate(children)}
        routed = op.map(f"to_level_{level}", stream, _router(step_id, parent_of))
        stream = op.stateful_batch(f"level_{level}", routed, build)
        children = list(parents)
    return stream


def _router(
    step_id: str, parent_of: dict[str, str]
) -> Callable[[tuple[str, bytes]], tuple[str, tuple[str, bytes]]]:
    def route(item: tuple[str, bytes]) -> tuple[str, tuple[str, bytes]]:
        if item[0] not in parent_of:
            raise ValueError(f"step {step_id}: {item[0]!r} is not a leaf of the tree")
        return parent_of[item[0]], item

    return route


class _Node(Generic[M]):
    """The newest state of each child."""

    def __init__(self, create: Callable[[], M], snapshot: bytes | None) -> None:
        self._create = create
        self._kind = type(create())
        self._bytes: dict[str, bytes] = {}
        self._states: dict[str, M] = {}
        if snapshot is not None:
            self._bytes = msgspec.msgpack.decode(snapshot, type=dict[str, bytes])

    def take(self, item: tuple[str, bytes]) -> None:
        child, data = item
        self._bytes[child] = data
        # Decoded when it is needed: a newer one may replace it before.
        self._states.pop(child, None)

    def whole(self) -> bytes:
        total = self._create()
        # In the order of names, so that what is emitted does not depend on who came first.
        for child, data in sorted(self._bytes.items()):
            if child not in self._states:
                self._states[child] = self._kind.from_bytes(data)
            total.merge(self._states[child])
        return total.to_bytes()

    def save(self) -> bytes:
        return msgspec.msgpack.encode(self._bytes)
