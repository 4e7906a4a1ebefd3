"""A loop as a flow connects it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream, StatefulLogic

from connectors.loop.ends import Edge, LoopSink, LoopSource, addresses
from connectors.loop.place import Place
from connectors.loop.queue import Ended, Item, Queue, Vote
from connectors.marks import Mark, opening


class Loop:
    """A feedback edge of one flow; the laws are in :mod:`connectors.loop`.

    A flow may have several loops. Two of one name do not mix: each has queues of its own.

    Args:
        name: for messages, and the names of its partitions.
        mode: ``"superstep"`` or ``"async"``.
        place: where this process is in the cluster; by default what `bytewax.run` was told. The
            number of workers is part of a loop's life: what is on its way cannot be resumed on
            another number.
        max_supersteps: ends the loop after so many, counted from the begin of the flow's life;
            what is on its way then, and what is sent later, is dropped.
        message: the type of items that are neither batches nor bytes, for a restart.

    Raises:
        ValueError: the mode is unknown, or the limit is not positive or not of supersteps.

    >>> from datetime import timedelta
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> flow, loop, seen = Dataflow("halve"), Loop("halves", place=Place()), []
    >>> numbers = op.input("numbers", flow, TestingSource([("n", 20)]))
    >>> every = op.merge("every", numbers, loop.input("back", flow))
    >>> halves = op.map_value("half", every, lambda n: n // 2)
    >>> loop.output("again", op.filter_value("some", halves, bool), outside=numbers)
    >>> op.output("see", every, TestingSink(seen))
    >>> run_main(flow, epoch_interval=timedelta(0))
    >>> seen
    [('n', 20), ('n', 10), ('n', 5), ('n', 2), ('n', 1)]
    """

    def __init__(
        self,
        name: str,
        *,
        mode: Literal["superstep", "async"] = "superstep",
        place: Place | None = None,
        max_supersteps: int | None = None,
        message: Any = Any,
    ) -> None:
        if mode not in ("superstep", "async"):
            raise ValueError(f"loop {name!r}: mode {mode!r} is neither 'superstep' nor 'async'")
        if max_supersteps is not None and (max_supersteps < 1 or mode == "async"):
            raise ValueError(
                f"loop {name!r}: max_supersteps={max_supersteps} must be at least 1, and an async "
                "loop has none"
            )
        self.name = name
        place = place or Place.of_this_process()
        parts = [f"{name}-{index:05d}" for index in range(place.processes * place.workers)]
        first = place.process * place.workers
        queues = {part: Queue(parts) for part in parts[first : first + place.workers]}
        self._edge = Edge(name, parts, queues, mode == "superstep", max_supersteps, message)
        self._addresses = addresses(self._edge)
        self._votes: KeyedStream[Any] | None = None

    def input(self, step_id: str, flow: Dataflow) -> KeyedStream[Any]:
        """Return the stream of items that come round.

        Raises:
            ValueError: the loop has its input already.
        """
        if self._votes is not None:
            raise ValueError(f"loop {self.name!r} has two inputs")
        back = op.input(step_id, flow, LoopSource(self._edge))
        split = op.branch(f"{step_id}_votes", back, _is_vote)
        self._votes = op.flat_map(f"{step_id}_tell", split.trues, self._to_all)
        items: Stream[Any] = split.falses
        return items

    def output(self, step_id: str, up: KeyedStream[Any], *, outside: Stream[Any]) -> None:
        """Send a stream round; the loop can end once `outside` has.

        Args:
            step_id: unique name of the step.
            up: the items that go round.
            outside: all that comes into the loop from elsewhere.

        Raises:
            ValueError: the loop has no input in this flow, or has its output already.
        """
        if self._votes is None:
            raise ValueError(f"loop {self.name!r} has no input before its output")
        if self._edge.whole:
            raise ValueError(f"loop {self.name!r} has two outputs")
        if not self._votes.flow() is up.flow() is outside.flow():
            raise ValueError(f"loop {self.name!r} has its input in another flow than its output")
        self._edge.whole = True
        begun = op.map(f"{step_id}_begin", opening(f"{step_id}_open", up.flow()), _to_one)
        rest = op.flat_map(f"{step_id}_rest", outside, _nothing)
        ends = op.stateful(f"{step_id}_end", op.merge(f"{step_id}_until", begun, rest), _End)
        told = op.flat_map(f"{step_id}_tell", op.key_rm(f"{step_id}_ended", ends), self._to_all)
        items = op.map(f"{step_id}_items", up, _with_key)
        every = op.merge(f"{step_id}_all", items, self._votes, told)
        op.output(step_id, every, LoopSink(self._edge))

    def _to_all(self, word: Vote | Ended) -> list[tuple[str, Vote | Ended]]:
        return [(address, word) for address in self._addresses]


def _is_vote(item: Any) -> bool:
    return isinstance(item, Vote)


def _with_key(item: Item) -> tuple[str, Item]:
    return item[0], item


def _nothing(item: Any) -> Iterable[tuple[str, bool]]:
    return ()


def _to_one(mark: Mark) -> tuple[str, bool]:
    return "end", True


class _End(StatefulLogic[bool, Ended, bool]):
    """Says when there is no more input anywhere in the cluster."""

    def __init__(self, resume: bool | None) -> None:
        """Keep nothing: to be there at the end is all."""

    def on_item(self, value: bool) -> tuple[list[Ended], bool]:
        return [], False

    def on_eof(self) -> tuple[list[Ended], bool]:
        return [Ended()], False

    def snapshot(self) -> bool:
        return True
