"""The two ends of a loop, as the engine runs them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.loop.queue import Ended, Item, Queue, Vote
from state.frames import Data, Kind, Schema
from state.items import ItemDecoder, ItemEncoder
from state.routing import worker_of

_LOOK: Final = timedelta(microseconds=100)
"""How soon an empty queue is looked at again."""

_PATIENCE: Final = 100
"""Epochs that votes may be late. They take two, or a few more if epochs are shorter than _LOOK."""

_MAX_ITEM: Final = (1 << 32) - 1
"""Bytes of a snapshotted item."""


@dataclass(slots=True)
class Edge:
    """What both ends know.

    Args:
        name: of the loop.
        parts: of all processes. Sorted as the engine sorts them, so that the index of a
            partition is that of its worker.
        queues: of this process.
        strict: whether what is sent waits for the next superstep.
        most: supersteps, if there is a limit.
        message: the type of items that are neither batches nor bytes.
        whole: whether both ends are in the flow.
    """

    name: str
    parts: list[str]
    queues: dict[str, Queue]
    strict: bool
    most: int | None
    message: Any
    whole: bool = False


class SourcePosition(NamedTuple):
    """A source's snapshot: the epoch that comes next, and the votes it has still to give."""

    epoch: int
    due: list[Vote]


class LoopSource(FixedPartitionedSource[Any, SourcePosition]):
    """Empties the queues of this process."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._built: set[str] = set()

    def list_parts(self) -> list[str]:
        """Name the partitions of this process."""
        return list(self._edge.queues)

    def build_part(
        self, step_id: str, for_part: str, resume_state: SourcePosition | None
    ) -> LoopSourcePartition:
        """Build a partition.

        Raises:
            ValueError: the loop has no output, or its flow has been run before.
        """
        name = self._edge.name
        if not self._edge.whole:
            raise ValueError(f"loop {name!r} has an input and no output: nothing can come round")
        if for_part in self._built:
            raise ValueError(f"loop {name!r} has been run: make its flow anew to run it again")
        self._built.add(for_part)
        return LoopSourcePartition(self._edge, for_part, resume_state)


class LoopSourcePartition(StatefulSourcePartition[Any, SourcePosition]):
    """Empties one queue into the flow, after the votes on the epochs before."""

    def __init__(self, edge: Edge, part: str, resume: SourcePosition | None) -> None:
        self._edge, self._part, self._queue = edge, part, edge.queues[part]
        self._resumed = resume is not None
        # The vote on no epoch has the sink snapshotted in the first one.
        start = resume or SourcePosition(0, [Vote(-1, part, 0, False)])
        self._epoch = start.epoch
        self._due = [vote._replace(ended=False) for vote in start.due]
        self._emitted = 0
        self._ended = False
        self._begun = self._idle = False

    def next_batch(self) -> list[Any]:
        """Take what is there: at the begin of an epoch with votes, and later if not strict."""
        if self._begun:
            items = [] if self._edge.strict else self._queue.take_new()
            self._emitted += len(items)
            self._idle = not items
            return items
        queue = self._queue
        self._check()
        most = self._edge.most
        if queue.silent or (most is not None and self._epoch >= most):
            queue.stop()
            raise StopIteration
        self._begun, self._idle = True, False
        self._ended = queue.ended
        votes, self._due = self._due, []
        items = queue.take()
        self._emitted = len(items)
        return [*votes, *items]

    def _check(self) -> None:
        """Check that the sink of this partition is in this process.

        Raises:
            ValueError: it is not, as far as can be told.
        """
        late = self._epoch - self._queue.settled > _PATIENCE
        if late or (self._resumed and not self._queue.restored):
            raise ValueError(
                f"loop {self._edge.name!r}: the votes of all of {self._edge.parts} do not come to "
                f"{self._part}: give Loop the place of each process in its cluster, and as many "
                "workers as when the flow began"
            )

    def next_awake(self) -> datetime | None:
        """Look again soon if there was nothing."""
        return datetime.now(UTC) + _LOOK if self._idle else None

    def snapshot(self) -> SourcePosition:
        """Count the epoch, and make out the vote on it.

        Raises:
            ValueError: the engine did not ask for a batch in a superstep.
        """
        # Called once at the end of each epoch, so that epochs are counted alike everywhere, even
        # those too short for the engine to ask for a batch.
        if not self._begun and self._edge.strict and not self._queue.stopped:
            raise ValueError(
                f"loop {self._edge.name!r}: an epoch interval above zero and below {_LOOK} cannot "
                "hold supersteps: set it to zero"
            )
        self._due.append(Vote(self._epoch, self._part, self._emitted, self._begun and self._ended))
        self._epoch += 1
        self._emitted = 0
        self._begun = False
        return SourcePosition(self._epoch, list(self._due))


class SinkPosition(NamedTuple):
    """A sink's snapshot: what is on its way, and the votes it has heard."""

    items: list[tuple[str, int, int, bytes]]
    schemas: dict[int, bytes]
    votes: list[Vote]
    settled: int


class LoopSink(FixedPartitionedSink[Any, SinkPosition]):
    """Fills the queues of this process."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._addresses = {key: index for index, key in enumerate(addresses(edge))}
        self._worker = functools.lru_cache(1 << 16)(worker_of)

    def list_parts(self) -> list[str]:
        """Name the partitions of this process."""
        return list(self._edge.queues)

    def part_fn(self, item_key: str) -> int:
        """Route an item to the partition of the worker that holds its key, words as they ask."""
        part = self._addresses.get(item_key)
        return self._worker(item_key, len(self._addresses)) if part is None else part

    def build_part(
        self, step_id: str, for_part: str, resume_state: SinkPosition | None
    ) -> LoopSinkPartition:
        """Build a partition; with a snapshot, put back what was on its way."""
        return LoopSinkPartition(self._edge, for_part, resume_state)


def addresses(edge: Edge) -> list[str]:
    """Return the keys under which words for each partition are sent.

    An item under such a key would go to that partition too, and no harm done.
    """
    return [f"\0{part}" for part in edge.parts]


class LoopSinkPartition(StatefulSinkPartition[Any, SinkPosition]):
    """Fills one queue."""

    def __init__(self, edge: Edge, part: str, resume: SinkPosition | None) -> None:
        self._name, self._queue = edge.name, edge.queues[part]
        if resume is not None:
            decoder = ItemDecoder(edge.message)
            for identity, body in resume.schemas.items():
                decoder.add_schema(Schema(identity, body))
            items = [
                (key, decoder.decode(Data(0, Kind(kind), schema, body)))
                for key, kind, schema, body in resume.items
            ]
            self._queue.restore(items, resume.votes, resume.settled)

    def write_batch(self, values: list[Item | Vote | Ended]) -> None:
        """Add to the queue."""
        for value in values:
            self._queue.add(value)

    def snapshot(self) -> SinkPosition:
        """Close the epoch.

        Raises:
            TypeError: an item is neither a batch nor bytes nor what msgspec encodes.
            ValueError: an item is too large, or a batch is not valid.
        """
        encoder = ItemEncoder(max_frame=_MAX_ITEM)
        items: list[tuple[str, int, int, bytes]] = []
        for key, item in self._queue.close_epoch():
            try:
                kind, schema, body = encoder.encode(item)
            except TypeError as error:
                raise TypeError(f"loop {self._name!r}, key {key!r}: {error}") from error
            except ValueError as error:
                raise ValueError(f"loop {self._name!r}, key {key!r}: {error}") from error
            items.append((key, int(kind), schema, body))
        queue = self._queue
        return SinkPosition(items, encoder.schemas, list(queue.votes), queue.settled)
