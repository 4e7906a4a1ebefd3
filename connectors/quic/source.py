"""The source that ends QUIC links."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors import commits
from connectors.quic import listener, metrics
from connectors.quic.address import parse
from connectors.quic.connection import LIMITS, Limits
from connectors.quic.identity import Identity
from connectors.quic.inlet import Inlet
from state.delivery import Position

_PAST = datetime.fromtimestamp(0, UTC)
_MOST = 1024
"""Items handed to the flow at a time, at most."""


class Received(msgspec.Struct, frozen=True):
    """An item that came over a link.

    Args:
        sender: The name in the sender's certificate; ``name/part`` when its sink has a part.
        item: What it sent: a RecordBatch, bytes, or what msgspec made of a message.
    """

    sender: str
    item: Any


class QuicSource(FixedPartitionedSource[Received, dict[str, Position]]):
    """Take in what the `QuicSink`s of other dataflows send to one channel, each item exactly once.

    One worker of the cluster listens. Items of one sender keep their order; items of several
    senders come as they arrive.

    - *Acknowledgement*: a sender is told that an item is safe when a snapshot that covers it is
      durable; until then it keeps the item. With recovery on, a killed flow goes on after its
      last snapshot, and senders send the rest again. Without recovery an item counts as safe one
      epoch after it was handed on, and a restart begins with whatever senders still keep; it is
      refused if some of it is gone.
    - *Back-pressure*: each sender may have `limits.window` bytes on the way into the flow.
    - *Strangers*: who has no certificate of the cluster's authority, or is not in `peers`, is
      refused and logged. Malformed or oversized frames end that connection and harm no other.
    - *End*: when all senders in `expect` have ended and all they sent is covered by a durable
      snapshot. Without `expect`, never.

    Args:
        listen: ``host:port`` to listen on, UDP. Sources of one process may share it.
        channel: What senders call it.
        identity: Who this node is.
        peers: Names that may connect; None for anyone with a certificate of the cluster.
        expect: Senders (see `Received`) that must end for the stream to end.
        message: Type of items that are neither batches nor bytes; others are refused.
        schema: Schema that batches must have; None for any.
        wait: How long the worker waits for items in one go; meanwhile its other steps stand
            still.
        limits: Sizes and times of the links.
    """

    def __init__(
        self,
        listen: str,
        channel: str,
        *,
        identity: Identity,
        peers: Collection[str] | None,
        expect: Iterable[str] | None = None,
        message: Any = Any,
        schema: pa.Schema | None = None,
        wait: timedelta = timedelta(milliseconds=2),
        limits: Limits = LIMITS,
    ) -> None:
        self.host, self.port = parse(listen)
        self.channel = channel
        self.identity = identity
        self.peers = None if peers is None else frozenset(peers)
        self.expect = None if expect is None else frozenset(expect)
        self.message = message
        self.schema = schema
        self.wait = wait
        self.limits = limits
        strangers = {name.partition("/")[0] for name in self.expect or ()} - (
            self.peers if self.peers is not None else set()
        )
        if self.peers is not None and strangers:
            raise ValueError(f"expected senders {sorted(strangers)} are not among the peers")

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return [self.channel]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Position] | None
    ) -> QuicSourcePartition:
        """Begin to listen."""
        return QuicSourcePartition(self, resume_state or {})


class QuicSourcePartition(StatefulSourcePartition[Received, dict[str, Position]]):
    """A channel that is listened on."""

    def __init__(self, source: QuicSource, positions: dict[str, Position]) -> None:
        self._source = source
        self._inlet = Inlet(
            source.channel,
            f"{source.host}:{source.port}",
            positions,
            peers=source.peers,
            message=source.message,
            schema=source.schema,
            limits=source.limits,
        )
        self._wait = source.wait.total_seconds()
        self._snapshotted = bool(positions)
        self._ended = False
        self._place = (source.host, source.port)
        listener.listen(self._place, source.identity, source.limits, self._inlet)
        metrics.watch_source(self._inlet)

    def next_batch(self) -> list[Received]:
        """Return what has come, or nothing after a short wait."""
        inlet = self._inlet
        if self._snapshotted:
            # The engine asks again only when the epoch of the snapshot has been stored.
            self._snapshotted = False
            commits.observed()
            inlet.committed()
        expect = self._source.expect
        if expect is not None and inlet.inbox.ended(expect):
            self._ended = True
            raise StopIteration
        return [Received(sender, item) for sender, item in inlet.take(_MOST, self._wait)]

    def next_awake(self) -> datetime:
        """Ask again at once: the wait is in `next_batch`, where an arrival ends it."""
        return _PAST

    def snapshot(self) -> dict[str, Position]:
        """Return how far each sender was taken."""
        self._snapshotted = True
        return self._inlet.inbox.snapshot()

    def close(self) -> None:
        """Let senders hear that they have ended, and stop listening."""
        metrics.forget_source(self._inlet)
        listener.leave(self._place, self._inlet, farewell=self._ended)
