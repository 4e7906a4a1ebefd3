"""A feedback edge: what leaves a flow at one place comes in again at another.

Bytewax's graphs have no cycles. A *loop* is a sink and a source over one queue for each worker,
in the memory of its process::

    loop = Loop("rank")
    back = loop.input("back", flow)                 # keyed items that came round
    ...
    loop.output("again", stream, outside=edges)     # keyed items that go round

An item under key k comes back on the worker that holds k, so that only what the flow itself
exchanges crosses the network. In ``mode="superstep"`` what is sent in one superstep comes back in
the next, everywhere at once: the bulk-synchronous iteration of Pregel. In ``mode="async"`` it
comes back as soon as it can.

**Who calls whom.** The source of partition p empties queue p into the flow; the sink of partition
p fills it. Each source also tells every sink, through the flow, how much it has emitted: a
:class:`_Vote`. The end of the outside input is told in the same way. Supersteps are the engine's
epochs, which begin everywhere only when the one before is finished everywhere, so a superstep
takes as long as an epoch: set the epoch interval to zero (``-s 0``). `async` loops go with any
interval, but end two to three epochs after their last item.

**The laws.**

    barrier    what is sent in superstep s is read in superstep s + 1, all of it and nothing else
    end        the loop ends when the outside input has ended and nothing was in the loop for one
               whole epoch after; all sources know it in the same epoch. Operators that emit by
               the clock alone do not hold it open
    restart    what was on its way is in the sinks' snapshots, and comes back exactly once

The engine begins an epoch when all before are stored, so at a sink's snapshot no source has read
on: what is in the queue is exactly what is on its way.

Source: Malewicz et al., "Pregel: A System for Large-Scale Graph Processing", SIGMOD 2010 (votes
to halt at barriers); Mattern, "Algorithms for distributed termination detection", Distributed
Computing 2, 1987 (a round in which nothing was sent, after one in which all had ended).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import KeyedStream, StatefulLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.marks import Mark, opening
from state.frames import Data, ItemDecoder, ItemEncoder, Kind, Schema
from state.routing import worker_of

Item = tuple[str, Any]
"""A key, and a RecordBatch, bytes, or what msgspec encodes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process is in its cluster.

    Args:
        process: its index.
        processes: how many there are.
        workers: worker threads in each.
    """

    process: int = 0
    processes: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.process < self.processes or self.workers < 1:
            raise ValueError(f"{self} is no place in a cluster")

    @classmethod
    def of_this_process(cls, arguments: Sequence[str] | None = None) -> Self:
        """Return the place that ``python -m bytewax.run`` was told, or its environment.

        >>> Place.of_this_process(["flow", "-i", "1", "-a", "localhost:1;localhost:2"])
        Place(process=1, processes=2, workers=1)
        """
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        setting = os.environ.get
        parser.add_argument("-i", "--process-id", default=setting("BYTEWAX_PROCESS_ID"))
        parser.add_argument("-a", "--addresses", default=setting("BYTEWAX_ADDRESSES"))
        parser.add_argument(
            "-w", "--workers-per-process", default=setting("BYTEWAX_WORKERS_PER_PROCESS")
        )
        known, _ = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
        processes = len((known.addresses or "one").split(";"))
        return cls(int(known.process_id or 0), processes, int(known.workers_per_process or 1))


class _Vote(NamedTuple):
    """A source's word on one epoch: how many items it emitted in it."""

    step: int
    part: str
    emitted: int


class _Ended(NamedTuple):
    """The outside input has ended."""


class LoopPosition(NamedTuple):
    """A sink's snapshot: what is on its way, and what was said."""

    items: list[tuple[str, int, int, bytes]]
    schemas: dict[int, bytes]
    votes: list[_Vote]
    ended: bool


class Loop:
    """A feedback edge of one flow.

    Args:
        name: names its partitions; one loop of a name in a flow.
        mode: ``"superstep"`` or ``"async"``.
        place: where this process is in the cluster; by default what `bytewax.run` was told. The
            number of workers is part of a loop's life: what is on its way cannot be resumed on
            another number.
        most: ends the loop after so many supersteps; what is still on its way is dropped.
        message: the type of items that are neither batches nor bytes, after a restart.

    Raises:
        ValueError: the mode is unknown or `most` is not positive.
    """

    def __init__(
        self,
        name: str,
        *,
        mode: Literal["superstep", "async"] = "superstep",
        place: Place | None = None,
        most: int | None = None,
        message: Any = Any,
    ) -> None:
        if mode not in ("superstep", "async"):
            raise ValueError(f"loop {name!r}: mode {mode!r} is neither 'superstep' nor 'async'")
        if most is not None and most < 1:
            raise ValueError(f"loop {name!r}: at least one superstep, not {most}")
        self.name = name
        self._place = place or Place.of_this_process()
        self._strict = mode == "superstep"
        self._most = most
        self._message = message
        workers = self._place.processes * self._place.workers
        # Sorted as the engine sorts them, so that a partition's index is a worker's.
        self._parts = [f"{name}-{index:05d}" for index in range(workers)]
        first = self._place.process * self._place.workers
        self._queues = {
            part: _Queue(workers) for part in self._parts[first : first + self._place.workers]
        }
        self._votes: KeyedStream[Any] | None = None
        self._closed = False

    def input(self, step_id: str, flow: Dataflow) -> KeyedStream[Any]:
        """Return the stream of items that come round.

        Raises:
            ValueError: the loop has its input already.
        """
        if self._votes is not None:
            raise ValueError(f"loop {self.name!r} has two inputs")
        source = _Source(self._queues, strict=self._strict, most=self._most)
        back = op.input(step_id, flow, source)
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
            ValueError: the loop has no input, or has its output already.
        """
        if self._votes is None or self._closed:
            state = "two outputs" if self._closed else "no input before its output"
            raise ValueError(f"loop {self.name!r} has {state}")
        self._closed = True
        begun = op.map(f"{step_id}_begin", opening(f"{step_id}_open", up.flow()), _to_one)
        rest = op.flat_map(f"{step_id}_rest", outside, _nothing)
        ends = op.stateful(f"{step_id}_end", op.merge(f"{step_id}_until", begun, rest), _End)
        told = op.flat_map(f"{step_id}_tell", op.key_rm(f"{step_id}_ended", ends), self._to_all)
        items = op.map(f"{step_id}_items", up, _with_key)
        every = op.merge(f"{step_id}_all", items, self._votes, told)
        op.output(step_id, every, _Sink(self._queues, self._parts, self._message))

    def _to_all(self, word: _Vote | _Ended) -> list[tuple[str, _Vote | _Ended]]:
        return [(f"\0{index}", word) for index in range(len(self._parts))]


def _is_vote(item: Any) -> bool:
    return isinstance(item, _Vote)


def _with_key(item: Item) -> tuple[str, Item]:
    return item[0], item


def _nothing(item: Any) -> Iterable[tuple[str, bool]]:
    return ()


def _to_one(mark: Mark) -> tuple[str, bool]:
    return "end", True


class _End(StatefulLogic[bool, _Ended, bool]):
    """Says when there is no more input anywhere in the cluster."""

    def __init__(self, resume: bool | None) -> None:
        """Keep nothing: to be there at the end is all."""

    def on_item(self, value: bool) -> tuple[list[_Ended], bool]:
        return [], False

    def on_eof(self) -> tuple[list[_Ended], bool]:
        return [_Ended()], False

    def snapshot(self) -> bool:
        return True


class _Queue:
    """What is on its way in one partition.

    The sink's worker adds, and closes an epoch at its snapshot; the source's worker takes. They
    may be two threads. The source of an epoch runs when the sink has closed the one before, so
    only what is added and not closed is touched by both: a deque, item by item.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._added: deque[Item] = deque()
        self._heard: list[_Vote | _Ended] = []
        self._ready: deque[Item] = deque()
        self.votes: list[_Vote] = []
        self.ended = False
        self.restored = False

    def restore(self, items: list[Item], votes: list[_Vote], ended: bool) -> None:
        """Put back what a snapshot held."""
        self._ready = deque(items)
        self.votes, self.ended, self.restored = votes, ended, True

    def add(self, item: Item | _Vote | _Ended) -> None:
        if isinstance(item, _Vote | _Ended):
            self._heard.append(item)
        else:
            self._added.append(item)

    def close_epoch(self) -> list[Item]:
        """Let all that was added be read in the next epoch; return what is on its way."""
        self._ready += self._added
        self._added.clear()
        self.votes += [word for word in self._heard if isinstance(word, _Vote)]
        self.ended = self.ended or any(isinstance(word, _Ended) for word in self._heard)
        self._heard.clear()
        return list(self._ready)

    def take(self) -> list[Item]:
        """Return what earlier epochs have added."""
        taken, self._ready = list(self._ready), deque()
        return taken

    def take_new(self) -> list[Item]:
        """Return what this epoch has added so far."""
        return [self._added.popleft() for _ in range(len(self._added))]

    def quiet(self, step: int) -> bool:
        """Whether no source emitted anything in epoch `step`; forget what was said before."""
        said = [vote for vote in self.votes if vote.step == step]
        self.votes = [vote for vote in self.votes if vote.step >= step]
        return len(said) == self._workers and not any(vote.emitted for vote in said)


class _SourcePosition(NamedTuple):
    """A source's snapshot."""

    step: int
    emitted: int
    outside: int | None


class _Source(FixedPartitionedSource[Any, _SourcePosition]):
    def __init__(self, queues: dict[str, _Queue], *, strict: bool, most: int | None) -> None:
        self._queues = queues
        self._strict = strict
        self._most = most

    def list_parts(self) -> list[str]:
        return list(self._queues)

    def build_part(
        self, step_id: str, for_part: str, resume_state: _SourcePosition | None
    ) -> _SourcePartition:
        queue = self._queues[for_part]
        return _SourcePartition(for_part, queue, self._strict, self._most, resume_state)


class _SourcePartition(StatefulSourcePartition[Any, _SourcePosition]):
    """Empties one queue into the flow.

    An epoch's vote is given at the first call of the next one, when its count is known. The loop
    is over when the vote on an epoch that began after the outside had ended is zero everywhere.
    """

    def __init__(
        self,
        part: str,
        queue: _Queue,
        strict: bool,
        most: int | None,
        resume: _SourcePosition | None,
    ) -> None:
        self._part, self._queue, self._strict, self._most = part, queue, strict, most
        self._wait = resume is not None
        start = resume or _SourcePosition(-1, 0, None)
        self._step, self._emitted, self._outside = start
        self._begun = False

    def next_batch(self) -> list[Any]:
        if self._wait and not self._queue.restored:
            # The engine hands the sink its snapshot in the first epoch after a restart.
            return []
        self._wait = False
        if not self._begun:
            return self._begin()
        return [] if self._strict else self._count_in(self._queue.take_new())

    def _begin(self) -> list[Any]:
        """Start an epoch: tell of the one before, see what has been told of the one before it."""
        queue = self._queue
        told = self._step - 1
        quiet = queue.quiet(told)
        if self._outside is None and queue.ended:
            self._outside = self._step
        if self._outside is not None and told > self._outside and quiet:
            raise StopIteration
        if self._most is not None and self._step + 1 >= self._most:
            raise StopIteration
        vote = _Vote(self._step, self._part, self._emitted)
        self._begun = True
        self._step += 1
        self._emitted = 0
        return [vote, *self._count_in(queue.take())]

    def _count_in(self, items: list[Item]) -> list[Item]:
        self._emitted += len(items)
        return items

    def snapshot(self) -> _SourcePosition:
        self._begun = False
        return _SourcePosition(self._step, self._emitted, self._outside)


class _Sink(FixedPartitionedSink[Any, LoopPosition]):
    def __init__(self, queues: dict[str, _Queue], parts: list[str], message: Any) -> None:
        self._queues = queues
        self._parts = parts
        self._message = message

    def list_parts(self) -> list[str]:
        return list(self._queues)

    def part_fn(self, item_key: str) -> int:
        if item_key.startswith("\0"):
            return int(item_key[1:])
        return worker_of(item_key, len(self._parts))

    def build_part(
        self, step_id: str, for_part: str, resume_state: LoopPosition | None
    ) -> _SinkPartition:
        return _SinkPartition(self._queues[for_part], self._message, resume_state)


class _SinkPartition(StatefulSinkPartition[Any, LoopPosition]):
    """Fills one queue."""

    def __init__(self, queue: _Queue, message: Any, resume: LoopPosition | None) -> None:
        self._queue = queue
        if resume is not None:
            decoder = ItemDecoder(message)
            for identity, body in resume.schemas.items():
                decoder.add_schema(Schema(identity, body))
            items = [
                (key, decoder.decode(Data(0, Kind(kind), schema, body)))
                for key, kind, schema, body in resume.items
            ]
            queue.restore(items, list(resume.votes), resume.ended)

    def write_batch(self, values: list[Any]) -> None:
        for value in values:
            self._queue.add(value)

    def snapshot(self) -> LoopPosition:
        encoder = ItemEncoder()
        encoded = [(key, encoder.encode(item)) for key, item in self._queue.close_epoch()]
        items = [(key, int(kind), schema, body) for key, (kind, schema, body) in encoded]
        return LoopPosition(items, encoder.schemas, list(self._queue.votes), self._queue.ended)
