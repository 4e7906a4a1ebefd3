"""Apply a costly pure function on any worker and keep the order of the results.

Keyed state lives on one worker per key. Where the costly part of a step needs no state, its items
may leave for whichever worker is free: each item of a key gets a number, travels, is mapped, and
is put back in order behind the others. On one worker nothing travels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

X = TypeVar("X")
Y = TypeVar("Y")


@operator
def ordered_map(
    step_id: str,
    up: KeyedStream[X],
    mapper: Callable[[X], Y],
) -> KeyedStream[Y]:
    """Map the items of every key on any worker, in parallel; emit results in the items' order.

    Args:
        step_id: unique name of the step.
        up: items that pickle well (bytes): with several workers they cross between them.
        mapper: a pure function; it may run again after a restart. What it returns is
            snapshotted while it waits for its turn.
    """
    numbered = op.stateful_map("number", up, _number)
    spread = op.redistribute("spread", numbered)
    mapped = op.map_value("map", spread, lambda item: (item[0], mapper(item[1])))
    return op.stateful_batch("order", mapped, _InOrder[Y])


def _number(next_number: int | None, item: X) -> tuple[int, tuple[int, X]]:
    number = next_number or 0
    return number + 1, (number, item)


class _InOrder(StatefulBatchLogic[tuple[int, Y], Y, tuple[int, dict[int, Y]]]):
    """Hold results back until all before them are out."""

    def __init__(self, snapshot: tuple[int, dict[int, Y]] | None) -> None:
        self._next, self._waiting = snapshot or (0, {})

    @override
    def on_batch(self, values: list[tuple[int, Y]]) -> tuple[list[Y], bool]:
        self._waiting.update(values)
        out = []
        while self._next in self._waiting:
            out.append(self._waiting.pop(self._next))
            self._next += 1
        return out, StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> tuple[int, dict[int, Y]]:
        return self._next, dict(self._waiting)
