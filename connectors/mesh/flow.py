"""Meshes at the edges of a dataflow: what peers say comes in, what is said to them goes out.

    meshes = Meshes([QuicMesh("n1", "127.0.0.1:4433", identity=identity)])
    received = op.input("received", flow, meshes.source())      # ("n1", Received("n2", b"..."))
    ...
    op.output("send", sent, meshes.sink())                      # ("n1", Outgoing("n2", b"..."))

The key of an item is the local peer's name, so that one flow can run several peers, each as a key
of a stateful operator. Source and sink share sockets, so they are in one process; its workers may
be many. Messages are not in snapshots: what is on its way when a process dies is lost, as the
network may lose it, and the protocols above are made for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from connectors.mailbox import Mailbox
from connectors.mesh.mesh import Mesh
from connectors.quic.address import parse
from connectors.quic.loop import loop, run

log = logging.getLogger("braidflow.mesh")

_MOST = 4096
"""Messages handed to the flow at a time, at most."""
_WAITING, _WAITING_BYTES = 65_536, 256 << 20
"""What waits for the flow, at most, in messages and bytes: more is dropped and counted."""
_SHARE = 4
"""One peer may fill a quarter: one that floods does not keep the others out."""
_PAST = datetime.fromtimestamp(0, UTC)


class Received(NamedTuple):
    """A message that came."""

    peer: str
    """Who sent it."""
    data: bytes
    address: str = ""
    """Where the sender listens, as far as is known: ``host:port``."""


class Outgoing(NamedTuple):
    """A message to be sent."""

    peer: str
    """To whom: a name that the mesh knows, or ``name@host:port``."""
    data: bytes
    reliable: bool = True
    """Whether it is sent again when packets are lost."""


class _Waiting:
    """How much of each peer waits for the flow; any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = (0, 0)
        self._of: dict[str, tuple[int, int]] = {}

    def add(self, peer: str, size: int) -> bool:
        """Count a message of so many bytes, if there is room for it."""
        with self._lock:
            (messages, length), (own, own_length) = self._all, self._of.get(peer, (0, 0))
            if (
                max(messages, own * _SHARE) >= _WAITING
                or max(length, own_length * _SHARE) >= _WAITING_BYTES
            ):
                return False
            self._all = messages + 1, length + size
            self._of[peer] = own + 1, own_length + size
            return True

    def take(self, received: Iterable[tuple[str, Received]]) -> None:
        """Count messages no more."""
        with self._lock:
            messages, length = self._all
            for _, each in received:
                own, own_length = self._of[each.peer]
                size = len(each.data)
                messages, length = messages - 1, length - size
                if own == 1:
                    del self._of[each.peer]
                else:
                    self._of[each.peer] = own - 1, own_length - size
            self._all = messages, length


class Meshes:
    """The meshes of the peers of one process.

    Args:
        meshes: One for each local peer.
        wait: How long the worker waits for messages in one go; meanwhile its other steps stand
            still.

    Raises:
        ValueError: two have the same name.
    """

    def __init__(
        self, meshes: Iterable[Mesh], *, wait: timedelta = timedelta(milliseconds=2)
    ) -> None:
        every = list(meshes)
        self.by_name = {mesh.name: mesh for mesh in every}
        if len(self.by_name) != len(every):
            raise ValueError("two local peers have the same name")
        self.dropped = 0
        """Messages that came when too many waited for the flow, or too many of their sender."""
        self._wait = wait.total_seconds()
        self._inbox = Mailbox[tuple[str, Received]]()
        self._waiting = _Waiting()
        self._finished = False
        self._started = False

    def source(self) -> MeshSource:
        """Return the source of what comes."""
        return MeshSource(self)

    def sink(self) -> MeshSink:
        """Return the sink of what goes out."""
        return MeshSink(self)

    def finish(self) -> None:
        """End the source; any thread may call it."""
        self._finished = True

    def start(self) -> None:
        """Open the sockets, which the source does when the flow begins; a second call does nothing.

        Every mesh learns where the others of this process are.

        Raises:
            OSError: an address cannot be listened on.
        """
        if not self._started:
            self._started = True
            try:
                run(self._start())
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Close the sockets; say what was dropped."""
        if self._started:
            self._started = False
            run(self._stop())
            if self.dropped:
                log.warning("%d messages were dropped: the flow did not keep up", self.dropped)

    def take(self) -> list[tuple[str, Received]]:
        """Return what has come, or nothing after a short wait.

        Raises:
            StopIteration: it was told to finish.
        """
        if self._finished:
            raise StopIteration
        inbox, taken = self._inbox, []
        with contextlib.suppress(queue.Empty):
            taken.append(inbox.get(self._wait))
            while len(taken) < _MOST:
                taken.append(inbox.get(0))
        self._waiting.take(taken)
        return taken

    def send(self, items: list[tuple[str, Outgoing]]) -> None:
        """Send messages of local peers.

        Raises:
            ValueError: there is no such local peer, or an address is none.
        """
        unknown = {name for name, _ in items} - self.by_name.keys()
        if unknown:
            raise ValueError(f"no mesh of this process is called {sorted(unknown)}")
        for _, outgoing in items:
            _, at, address = outgoing.peer.partition("@")
            if at:
                parse(address)
        loop().call_soon_threadsafe(self._send, items)

    def _send(self, items: list[tuple[str, Outgoing]]) -> None:
        for name, (peer, data, reliable) in items:
            mesh = self.by_name[name]
            peer, at, address = peer.partition("@")
            if at:
                mesh.learn(peer, address)
            mesh.send(peer, data, reliable=reliable)

    async def _start(self) -> None:
        for mesh in self.by_name.values():
            mesh.on_message = self._into_inbox(mesh)
            await mesh.start()
        for mesh in self.by_name.values():
            for other in self.by_name.values():
                if other is not mesh:
                    mesh.learn(other.name, other.address)

    async def _stop(self) -> None:
        await asyncio.gather(*(mesh.stop() for mesh in self.by_name.values()))

    def _into_inbox(self, mesh: Mesh) -> Callable[[str, bytes], None]:
        inbox, name = self._inbox, mesh.name

        def put(peer: str, data: bytes) -> None:
            if self._waiting.add(peer, len(data)):
                inbox.put((name, Received(peer, data, mesh.address_of(peer))))
            else:
                self.dropped += 1

        return put


class MeshSource(FixedPartitionedSource[tuple[str, Received], None]):
    """What peers say to the local ones; see `Meshes`."""

    def __init__(self, meshes: Meshes) -> None:
        self._meshes = meshes

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return ["mesh"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: None
    ) -> StatefulSourcePartition[tuple[str, Received], None]:
        """Open the sockets."""
        self._meshes.start()
        return _SourcePartition(self._meshes)


class _SourcePartition(StatefulSourcePartition[tuple[str, Received], None]):
    def __init__(self, meshes: Meshes) -> None:
        self._meshes = meshes

    def next_batch(self) -> list[tuple[str, Received]]:
        return self._meshes.take()

    def next_awake(self) -> datetime:
        # `take` waits; the engine would add a millisecond after each batch that is empty.
        return _PAST

    def snapshot(self) -> None:
        return None

    def close(self) -> None:
        self._meshes.stop()


class MeshSink(DynamicSink[tuple[str, Outgoing]]):
    """What the local peers say; see `Meshes`."""

    def __init__(self, meshes: Meshes) -> None:
        self._meshes = meshes

    def build(
        self, step_id: str, worker_index: int, worker_count: int
    ) -> StatelessSinkPartition[tuple[str, Outgoing]]:
        """Build a partition for any worker of the process."""
        return _SinkPartition(self._meshes)


class _SinkPartition(StatelessSinkPartition[tuple[str, Outgoing]]):
    def __init__(self, meshes: Meshes) -> None:
        self._meshes = meshes

    def write_batch(self, items: list[tuple[str, Outgoing]]) -> None:
        self._meshes.send(items)
