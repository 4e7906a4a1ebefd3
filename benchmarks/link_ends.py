"""What `benchmarks.quic_link` sends, what it notes on arrival, and our dataflows at both ends.

A small frame is 100 bytes: when it was made (`time.monotonic_ns`, which processes of one Linux
machine share), its number, padding. A large one is an Arrow record batch of 1 MiB.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
import numpy as np
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from prometheus_client import REGISTRY

from connectors.quic import Identity, Limits, QuicSink, QuicSource, Received, send

EPOCH = timedelta(seconds=0.5)
SMALL = 100
ROWS = 1 << 17
"""Of 8 bytes: 1 MiB."""
TOGETHER = 256
"""Small frames written at a time when there is no pause between them, on every transport."""
_STAMP = struct.Struct("<qq")
_BATCHES = [
    pa.record_batch({"x": np.arange(ROWS, dtype=np.int64) * 8 + first}) for first in range(8)
]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer.

    Args:
        transport: ``braidflow``, ``aioquic``, ``tcp`` or ``http``.
        keys: Directory of certificates; the sender is ``leaf`` and the receiver ``root``.
        spool: An empty directory.
        large: Send record batches of 1 MiB rather than 100 bytes.
        count: Frames, besides a first one that opens the connection.
        gap: Seconds between frames; 0 sends as fast as the transport takes them.
        datagram: Largest QUIC datagram, bytes.
        port: Where the sending end finds the receiving one, or a relay.
    """

    transport: str
    keys: str
    spool: str
    large: bool = False
    count: int
    gap: float = 0.0
    datagram: int = 1200
    port: int = 0

    @property
    def total(self) -> int:
        """Frames, the first one included."""
        return self.count + 1

    def item(self, number: int) -> Any:
        """Make the item of a number: bytes or a record batch."""
        if self.large:
            return _BATCHES[number % 8]
        return _STAMP.pack(time.monotonic_ns(), number).ljust(SMALL, b".")

    def body(self, number: int) -> bytes | pa.Buffer:
        """Make the bytes of a number's item, for transports that carry only bytes."""
        item = self.item(number)
        if not self.large:
            return bytes(item)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, item.schema) as writer:
            writer.write_batch(item)
        return sink.getvalue()

    def read(self, body: Any) -> Any:
        """Return the item of what :meth:`body` made."""
        return pa.ipc.open_stream(body).read_next_batch() if self.large else body


class Result(msgspec.Struct, kw_only=True):
    """What an end says about a job; ``begin`` is of the sender, the rest of the receiver.

    Args:
        begin: When the first frame after the opening one was made, ns.
        last: When the last frame was there, ns.
        in_order: Every frame came, once, in order, with what it should hold.
        latencies: One-way, microseconds, of frames made after the first one arrived.
        round_trips: Of an echo, microseconds; only of ``aioquic``.
        error: Why the end failed; empty if it did not.
    """

    begin: int = 0
    last: int = 0
    in_order: bool = True
    latencies: list[float] = []
    round_trips: list[float] = []
    error: str = ""


class Arrivals:
    """What the receiving end has got."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._number = 0
        self._first = 0
        self._stamps: list[tuple[int, int]] = []
        self.result = Result()

    @property
    def complete(self) -> bool:
        """Whether all frames are there."""
        return self._number >= self._job.total

    def take(self, item: Any) -> None:
        """Note an item."""
        now = time.monotonic_ns()
        number = self._number
        self._number += 1
        if self._job.large:
            good = item.num_rows == ROWS and item.column(0)[ROWS - 1].as_py() == (
                (ROWS - 1) * 8 + number % 8
            )
        else:
            made, told = _STAMP.unpack_from(item)
            good = told == number and len(item) == SMALL
            if not number:
                self._first = now
            elif made > self._first:
                self._stamps.append((made, now))
        self.result.in_order = self.result.in_order and good
        self.result.last = now

    def finish(self) -> Result:
        """Return the result."""
        self.result.in_order = self.result.in_order and self._number == self._job.total
        if self._job.gap:
            self.result.latencies = [(now - made) / 1e3 for made, now in self._stamps]
        return self.result


def say(value: object) -> None:
    """Answer with a line."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def free_port(kind: socket.SocketKind) -> int:
    """Return a port that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def runs(first: int, end: int, length: int) -> Iterator[range]:
    """Yield the numbers from `first` to `end` in ranges of `length`."""
    for at in range(first, end, length):
        yield range(at, min(at + length, end))


# Whole dataflows


class _Frames(DynamicSource[Any]):
    """The first frame; once the link is up, the others."""

    def __init__(self, job: Job, place: dict[str, str]) -> None:
        self.job, self.place = job, place
        self.result = Result()

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _FramesPart:
        return _FramesPart(self)


class _FramesPart(StatelessSourcePartition[Any]):
    def __init__(self, frames: _Frames) -> None:
        self._frames = frames
        self._numbers: Iterator[range] = iter([range(1)])
        self._up = False
        job = frames.job
        self._gap = timedelta(seconds=job.gap or 0.0)
        self._next = datetime.now(UTC)

    def next_batch(self) -> Iterable[Any]:
        job = self._frames.job
        numbers = next(self._numbers, None)
        if numbers is None:
            if self._up:
                raise StopIteration
            self._next = datetime.now(UTC) + timedelta(milliseconds=20)
            if REGISTRY.get_sample_value("braidflow_link_connections_total", self._frames.place):
                self._up = True
                together = 1 if job.gap or job.large else TOGETHER
                self._numbers = runs(1, job.total, together)
            return []
        if self._up:
            self._next = datetime.now(UTC) + self._gap
            if not self._frames.result.begin:
                self._frames.result.begin = time.monotonic_ns()
        return [job.item(number) for number in numbers]

    def next_awake(self) -> datetime:
        return self._next


class _Take(DynamicSink[Received]):
    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _TakePart:
        return _TakePart(self)


class _TakePart(StatelessSinkPartition[Received]):
    def __init__(self, take: _Take) -> None:
        self._take = take.arrivals.take

    def write_batch(self, items: list[Received]) -> None:
        for got in items:
            self._take(got.item)


class _Telling(QuicSource):
    """Says its port once it listens."""

    def build_part(self, *args: Any, **rest: Any) -> Any:
        part = super().build_part(*args, **rest)
        say({"port": self.port})
        return part


def braidflow_sink(job: Job) -> Result:
    """Send from a dataflow."""
    flow = Dataflow("sender")
    address = f"127.0.0.1:{job.port}"
    place = {"channel": "frames", "address": address, "peer": "root", "direction": "out"}
    frames = _Frames(job, place)
    stream = op.key_on("key", op.input("frames", flow, frames), lambda _: "k")
    sink = QuicSink(
        address,
        "frames",
        identity=Identity.load(Path(job.keys), "leaf"),
        peer="root",
        spool=job.spool,
        limits=Limits(datagram=job.datagram),
    )
    send("out", stream, sink)
    run_main(flow, epoch_interval=EPOCH)
    return frames.result


def braidflow_source(job: Job) -> Result:
    """Receive into a dataflow."""
    flow = Dataflow("receiver")
    arrivals = Arrivals(job)
    source = _Telling(
        f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
        "frames",
        identity=Identity.load(Path(job.keys), "root"),
        peers=["leaf"],
        expect=["leaf"],
        limits=Limits(datagram=job.datagram),
    )
    op.output("out", op.input("in", flow, source), _Take(arrivals))
    run_main(flow, epoch_interval=EPOCH)
    return arrivals.finish()


ENDS: dict[str, Callable[[Job], Result]] = {"sink": braidflow_sink, "source": braidflow_source}
