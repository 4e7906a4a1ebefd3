"""The sink that begins a QUIC link."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors import commits
from connectors.marks import KEY, Mark, check_opened, output
from connectors.quic import metrics
from connectors.quic.address import parse
from connectors.quic.connection import LIMITS, Limits
from connectors.quic.dialer import Dialer
from connectors.quic.identity import Identity
from connectors.quic.spool import Spool, SpoolConflict
from state.delivery import LinkError, Outbox
from state.items import ItemEncoder

_EVERYTHING = (1 << 63) - 1
_SMALL = 4096
"""Bytes that the worker may send itself, rather than hand over: a few datagrams."""


class SinkPosition(NamedTuple):
    """A sink's snapshot."""

    incarnation: int
    next: int
    received: int


class QuicSink(FixedPartitionedSink[Any, SinkPosition]):
    """Send a stream to the `QuicSource` of another dataflow, each item exactly once.

    Items are ``(key, item)`` with an Arrow RecordBatch, bytes, or anything that msgspec encodes;
    the key is not sent. Connect them with :func:`send`, which tells the other end when the stream
    is complete. One worker sends everything, in order of arrival.

    - *Lost link, lost peer*: frames wait in the spool, on disk, and go out when the peer is back.
    - *Back-pressure*: when the peer does not keep up and the spool holds `spool_limit` bytes, the
      sink blocks its worker, and so the flow's sources, until the peer has acknowledged some.
    - *Restart*: with recovery on, the flow produces again what came after its last snapshot. By
      default frames go out at once, so the flow must produce the same items again, in the same
      order: the spool compares, and an error says so if it does not. A flow that cannot promise
      this (several workers, several senders upstream, a live source) sets `hold`: frames then
      wait until a snapshot that covers them is durable. That costs up to one epoch.
    - *End*: the run waits up to `linger` until the peer has everything for good. So does one that
      was killed just before it heard of it, if it is started again when its peer has gone: nobody
      can tell it then.
    - *Failure*: when the flow fails or is stopped, what was not acknowledged stays in the spool.

    A spool belongs to one run, the life of a flow through all its restarts: begin a new run with
    an empty directory. It must be the same directory after a restart.

    Args:
        address: ``host:port`` of the peer's `QuicSource`.
        channel: Its channel.
        identity: Who this node is.
        peer: The name that the peer's certificate must carry.
        spool: Directory for unacknowledged frames; made when needed.
        part: Tells several sinks of one node into one channel apart.
        hold: Send only what a durable snapshot covers.
        spool_limit: Bytes of unacknowledged frames at which the sink blocks; with `hold` it may
            have an epoch's output more, which is not sent before the epoch's snapshot is durable.
        linger: How long the end of the run waits for the peer.
        limits: Sizes and times of the link.
    """

    def __init__(
        self,
        address: str,
        channel: str,
        *,
        identity: Identity,
        peer: str,
        spool: Path | str,
        part: str = "",
        hold: bool = False,
        spool_limit: int = 256 << 20,
        linger: timedelta = timedelta(minutes=5),
        limits: Limits = LIMITS,
    ) -> None:
        self.host, self.port = parse(address)
        self.channel = channel
        self.identity = identity
        self.peer = peer
        self.spool = Path(spool)
        self.part = part
        self.hold = hold
        self.spool_limit = spool_limit
        self.linger = linger
        self.limits = limits
        self.complete = threading.Event()
        """Set once the running sink has all items of its stream."""

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return [KEY]

    def build_part(
        self, step_id: str, for_part: str, resume_state: SinkPosition | None
    ) -> QuicSinkPartition:
        """Open the spool and begin to connect."""
        return QuicSinkPartition(self, resume_state)


class QuicSinkPartition(StatefulSinkPartition[Any, SinkPosition]):
    """The spool and the connection of a running sink."""

    def __init__(self, sink: QuicSink, resume: SinkPosition | None) -> None:
        self._sink = sink
        self._opened = resume is not None
        self._total: int | None = None
        self._settled = False
        self._spool = Spool(sink.spool)
        try:
            self._snapshotted = self._resume(resume)
            self._encoder = ItemEncoder(sink.limits.frame, self._spool.schemas)
            self._dialer = Dialer(
                sink.host,
                sink.port,
                peer=sink.peer,
                identity=sink.identity,
                outbox=self._outbox,
                limits=sink.limits,
            )
        except BaseException:
            self._spool.close()
            raise
        self._epoch_done = False
        if sink.hold:
            commits.listen(self)
        metrics.watch_sink(sink.channel, self._dialer, self._spool)
        self._dialer.wake()

    def _resume(self, resume: SinkPosition | None) -> int:
        spool = self._spool
        start = resume.next if resume else 0
        self._received = resume.received if resume else 0
        self._ended = False
        if resume and resume.incarnation != spool.incarnation:
            raise LinkError(
                f"{self._sink.spool}: not the spool that this flow had before the restart; frames "
                "that the peer has not acknowledged would be lost"
            )
        if self._sink.hold:
            # Nothing beyond a durable snapshot was sent, and this is the last of them.
            spool.cut(max(start, spool.first))
        self._outbox = Outbox(spool, self._sink.channel, self._sink.part)
        spool.rewind(start)
        self._outbox.release(start if self._sink.hold else _EVERYTHING)
        return start

    def write_batch(self, values: list[Any]) -> None:
        """Append items to the spool; send them, or hold them; at the end, wait for the peer.

        Raises:
            LinkError: the link cannot go on, or the peer stayed away at the end.
            SpoolConflict: after a restart the flow did not produce the same items again.
            TypeError: an item is of a type that cannot be sent.
            OSError: the spool cannot be written.
        """
        self._dialer.check()
        if self._epoch_done:
            # A sink is written to in an epoch only when the one before is durable.
            self.committed()
        size = 0
        for value in values:
            if isinstance(value, Mark):
                self._marked(value)
                continue
            size += self._append(value)
        self._dialer.wake(small=0 < size <= _SMALL)
        complete = self._total == self._received
        if complete:
            self._sink.complete.set()
        if complete and not self._ended and (self._settled or not self._sink.hold):
            # Not in close(): what is raised there, the engine turns into a panic.
            self._finish()
        else:
            self._make_room()

    def _marked(self, mark: Mark) -> None:
        self._opened = True
        self._settled = self._settled or mark.settled
        self._total = self._total if mark.total is None else mark.total

    def _append(self, item: pa.RecordBatch | bytes | Any) -> int:
        kind, schema, body = self._encoder.encode(item)
        if schema and schema not in self._spool.schemas:
            self._spool.add_schema(schema, self._encoder.schemas[schema])
        self._spool.append(kind, schema, body)
        self._received += 1
        self._ended = False
        return len(body)

    def _finish(self) -> None:
        spool = self._spool
        if spool.cursor < spool.next:
            raise SpoolConflict(
                f"{self._sink.spool}: {spool.next} items were sent before the restart, and the "
                f"flow has now ended after {spool.cursor}: it did not produce the same items again"
            )
        self._ended = True
        self._dialer.finish(spool.next)
        self._linger()

    def _make_room(self) -> None:
        spool, limit = self._spool, self._sink.spool_limit
        if spool.held > limit:
            outbox = self._outbox
            self._dialer.wait(lambda: spool.held <= limit or spool.first >= outbox.released)

    def committed(self) -> None:
        """Let frames go that the last snapshot covers: it is durable."""
        self._epoch_done = False
        if self._sink.hold:
            self._outbox.release(self._snapshotted)
            self._dialer.wake()

    def snapshot(self) -> SinkPosition:
        """Return where the sink is, when everything before is on the disk.

        Raises:
            ValueError: the stream did not come through :func:`connectors.marks.output`.
        """
        check_opened(self._opened, f"channel {self._sink.channel!r}")
        self._spool.sync()
        self._snapshotted = self._spool.cursor
        self._epoch_done = True
        return SinkPosition(self._spool.incarnation, self._snapshotted, self._received)

    def close(self) -> None:
        """Hang up; what the peer has not acknowledged stays in the spool."""
        self._dialer.close()
        metrics.forget_sink(self._dialer)
        self._spool.close()

    def _linger(self) -> None:
        outbox, spool = self._outbox, self._spool
        seconds = self._sink.linger.total_seconds()
        if not self._dialer.wait(lambda: outbox.ended, seconds) and spool.first < spool.next:
            raise LinkError(
                f"{self._sink.peer} at {self._sink.host}:{self._sink.port} has not acknowledged "
                f"{spool.next - spool.first} frames in {seconds:g} s; they are in "
                f"{self._sink.spool} and go out when the flow is resumed"
            )


@operator
def send(step_id: str, up: KeyedStream[Any], sink: QuicSink) -> None:
    """Send a stream over a link, and tell the other end when it is complete."""
    output("send", up, sink, sink.complete if sink.hold else None)
