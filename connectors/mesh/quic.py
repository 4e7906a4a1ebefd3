"""A mesh over QUIC: every pair of peers that speaks has one connection with mutual TLS.

A peer dials another when it first has something to say, and again when the connection is lost. Each
end opens one unidirectional stream for reliable messages, each with its length before it (u32,
little-endian); the others go as datagrams (RFC 9221), or on the stream if they do not fit in one.
The first message of who dialled says where it listens, as ``host:port``.
When both dial at once, the connection that the peer with the smaller name has dialled stays.

What is sent in one turn of the event loop leaves together.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections import deque
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from aioquic.asyncio.server import QuicServer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch

from connectors.mesh.mesh import Mesh, Place, bound
from connectors.quic.connection import Code, Connection, Limits
from connectors.quic.identity import Identity, PeerCertificate

log = logging.getLogger("braidflow.mesh")

ALPN = "braidflow-mesh/1"
_LENGTH = struct.Struct("<I")
_DATAGRAM_ROOM = 64
"""Bytes of a packet that are not a datagram's message: headers, tag, frame type and length."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_HANDSHAKE = 5.0
_GRACE = 0.25
"""Seconds for what is under way on a connection that gives way to another."""
_ACK_DELAY = 0.015
"""Seconds in which peers are told what has come, if nothing else is said: less than the 25 ms that
they reckon with (RFC 9000, 18.2), so that what is said takes it along."""
_ACK_AFTER = 8
"""Packets that are acknowledged at once: who sends much must not wait."""
_EARLY = 64
"""Datagrams kept that have overtaken the first message."""
_OF_DIALLED, _OF_ACCEPTED = 2, 3
"""The first unidirectional stream of either end (RFC 9000, 2.1)."""


class QuicMesh(Mesh):
    """One peer's end of a mesh over QUIC.

    Args:
        name: Who this peer is: the name in its certificate.
        listen: ``host:port`` to listen on; port 0 takes a free one.
        advertise: ``host:port`` where others reach it, if that is another one.
        identity: Its key and certificate.
        peers: The names that may connect; None takes any of the cluster's authority.
        limits: Sizes and times; `window` bounds what may wait for one peer, in bytes, and `frame`
            is the largest message.
        linger: A connection that carries no message for so long is closed, until there is one
            again; None keeps it. Where peers of a large group speak to few of them at a time.

    Raises:
        ValueError: the identity is another's, or `listen` is not ``host:port``.
    """

    def __init__(
        self,
        name: str,
        listen: str,
        advertise: str | None = None,
        *,
        identity: Identity,
        peers: Collection[str] | None = None,
        limits: Limits | None = None,
        linger: timedelta | None = None,
    ) -> None:
        super().__init__(name, listen, advertise)
        if identity.name != name:
            raise ValueError(f"{name!r} cannot use the certificate of {identity.name!r}")
        self.identity = identity
        self.allowed = peers
        self.limits = limits or Limits()
        self.linger = float("inf") if linger is None else linger.total_seconds()
        self._peers: dict[str, _Peer] = {}
        self._links: set[_Link] = set()
        self._server: QuicServer | None = None
        self._stopped = False

    def _bound(self) -> Place:
        assert self._server is not None
        assert self._server._transport is not None, "start it first"
        host, port = self._server._transport.get_extra_info("sockname")[:2]
        return host, port

    async def start(self) -> None:
        """Listen."""
        configuration = self.configure(self.identity.server_configuration(alpn=ALPN))
        _, self._server = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: QuicServer(configuration=configuration, create_protocol=self._accept),
            sock=bound(self._listen),
        )

    async def stop(self) -> None:
        """Close all connections, and the socket when the peers have heard of it."""
        self._stopped = True
        for peer in self._peers.values():
            peer.stop()
        links = list(self._links)
        for link in links:
            link.end(Code.DONE, f"{self.name} leaves")
        if self._links:
            told = [asyncio.ensure_future(link.wait_closed()) for link in self._links]
            _, deaf = await asyncio.wait(told, timeout=1)
            for waiting in deaf:
                waiting.cancel()
            for link in list(self._links):
                link.hang_up()
        if self._server is not None:
            self._server.close()

    def send(self, to: str, message: bytes, *, reliable: bool = True) -> None:
        """Send a message on the peer's connection, or queue it and dial."""
        if len(message) > self.limits.frame:
            raise ValueError(
                f"a message of {len(message)} bytes: the largest is {self.limits.frame}"
            )
        if self._stopped:
            self.counts.dropped += 1
            return
        self.peer(to).send(message, reliable)

    def connected(self) -> list[str]:
        """Return the peers to which there is a connection."""
        return [name for name, peer in self._peers.items() if peer.link is not None]

    # For its parts

    def peer(self, name: str) -> _Peer:
        """Return what is known of a peer."""
        if name not in self._peers:
            self._peers[name] = _Peer(self, name)
        return self._peers[name]

    def place(self, name: str) -> tuple[str, int] | None:
        """Return where a peer listens."""
        return self._places.get(name)

    def configure(self, configuration: QuicConfiguration) -> QuicConfiguration:
        """Set limits, and take datagrams."""
        self.limits.apply(configuration)
        configuration.max_datagram_frame_size = 65_536
        return configuration

    def make(self, quic: Any, *, dialled: str | None, **rest: Any) -> _Link:
        """Return a connection that was dialled to a peer, or accepted."""
        allowed = self.allowed if dialled is None else [dialled]
        link = _Link(quic, identity=self.identity, allowed=allowed, limits=self.limits, **rest)
        link.mesh, link.dialled = self, dialled is not None
        link.introduced = link.dialled
        self._links.add(link)
        return link

    def forget(self, link: _Link) -> None:
        """Let go of a connection that has ended."""
        self._links.discard(link)

    def _accept(self, quic: Any, **rest: Any) -> _Link:
        self.identity.accept(quic)
        return self.make(quic, dialled=None, **rest)


class _Peer:
    """What waits for one peer, and its connection."""

    def __init__(self, mesh: QuicMesh, name: str) -> None:
        self.link: _Link | None = None
        self._mesh = mesh
        self._name = name
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._queued = 0
        self._dialling: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0

    def send(self, message: bytes, reliable: bool) -> None:
        if self.link is not None:
            if self.link.backlog + len(message) > self._mesh.limits.window and self.link.backlog:
                self._mesh.counts.dropped += 1
            else:
                self.link.put(message, reliable)
            return
        self._queue.append((message, reliable))
        self._queued += len(message)
        while self._queued > self._mesh.limits.window and len(self._queue) > 1:
            self._drop()
        if self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def up(self, link: _Link) -> None:
        """Use a connection whose peer is verified, or see whether the one in use still works."""
        old = self.link
        if old is None or old.ended is not None or self._better(link, old):
            self._use(link)
        else:
            # Both dialled, and the peer will choose the old one as well. Or it has died and come
            # back, and the old one is silent.
            old.probe()
            loop = asyncio.get_running_loop()
            loop.call_later(_GRACE, self._choose, old, link, loop.time())

    def _choose(self, old: _Link, new: _Link, since: float) -> None:
        if new.ended is not None:
            return
        if old is not self.link:
            self.up(new)
        elif old.heard < since:
            self._use(new)
        else:
            new.end(Code.REPLACED, "another connection is in use")

    def _use(self, link: _Link) -> None:
        old, self.link = self.link, link
        if old is None:
            self._mesh.on_up(self._name)
        else:
            old.give_way()
        while self._queue:
            link.put(*self._queue.popleft())
        self._queued = 0

    def down(self, link: _Link) -> None:
        """Go without a connection that has ended."""
        if link is self.link:
            self.link = None
            if asyncio.get_running_loop().time() - link.since > _HANDSHAKE:
                self._pause = _FIRST_PAUSE
            self._mesh.on_down(self._name)

    def stop(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        while self._queue:
            self._drop()

    def _better(self, new: _Link, old: _Link) -> bool:
        """Return whether both ends will choose `new`: the newer one of two of one dialler."""
        ours = self._mesh.name < self._name
        return new.dialled == old.dialled or new.dialled == ours

    def _drop(self) -> None:
        message, _ = self._queue.popleft()
        self._queued -= len(message)
        self._mesh.counts.dropped += 1

    async def _dial(self) -> None:
        """Connect, or drop what waits; a peer that hangs up is not dialled again at once."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(self._not_before - loop.time())
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._not_before = loop.time() + self._pause * random.uniform(0.5, 1.0)
            place = self._mesh.place(self._name)
            if place is None:
                log.info("%s: nobody knows where it is", self._name)
            elif self.link is None:
                await self._dial_once(*place)
        finally:
            self._dialling = None
        if self.link is None:
            while self._queue:
                self._drop()
            self._mesh.on_down(self._name)

    async def _dial_once(self, host: str, port: int) -> None:
        """Connect; return when the peer is verified, or it is clear that it will not be."""
        mesh, loop = self._mesh, asyncio.get_running_loop()
        configuration = mesh.configure(
            mesh.identity.client_configuration(server_name=self._name, alpn=ALPN)
        )
        link = mesh.make(QuicConnection(configuration=configuration), dialled=self._name)
        try:
            async with asyncio.timeout(_HANDSHAKE):
                family, *_, place = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
                await loop.create_datagram_endpoint(
                    lambda: link, local_addr=("::" if family == socket.AF_INET6 else "0.0.0.0", 0)
                )
                link.connect(place)
                await link.settled.wait()
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: a host that is no name
            link.end(Code.DONE, "no answer")
            log.info(
                "%s at %s:%d cannot be reached: %s", self._name, host, port, error or "timeout"
            )


class _Link(Connection):
    """A connection of a mesh."""

    mesh: QuicMesh
    dialled: bool
    since = 0.0
    """When the peer was verified, by the loop's clock."""
    introduced = False
    """Whether it is known where the peer listens."""
    heard = 0.0
    """When the last packet came, by the loop's clock."""
    _flushing = False
    _unanswered = 0
    """Packets that came since there is something to acknowledge."""
    _stream = -1
    _room = 0

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.settled = asyncio.Event()
        """The peer is verified, or the connection has ended."""
        self._used = self._loop.time()
        self._received = bytearray()
        self._early: list[bytes] = []

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer to take them."""
        waiting = len(self._quic._datagrams_pending) * self._room
        stream = self._quic._streams.get(self._stream)
        if stream is not None:
            waiting += stream.sender._buffer_stop - stream.sender._buffer_start
        return waiting

    def put(self, message: bytes, reliable: bool) -> None:
        """Send a message with whatever else is sent in this turn of the loop."""
        if self.ended is not None:
            self.mesh.counts.dropped += 1
            return
        if reliable or len(message) > self._room:
            data = _LENGTH.pack(len(message)) + message
            self._quic.send_stream_data(self._stream, data)
        else:
            self._quic.send_datagram_frame(message)
        self.mesh.counts.sent += 1
        self._used = self._loop.time()
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def give_way(self) -> None:
        """Close when what is under way has arrived: another connection is in use."""
        self._loop.call_later(_GRACE, self.end, Code.REPLACED, "another connection is in use")

    def probe(self) -> None:
        """Ask the peer for a sign of life."""
        self._quic.send_ping(1)
        self.transmit()

    def end(self, code: Code, reason: str) -> None:
        """Close the connection; where not a packet went out, there is no one to tell why."""
        if self._transport is not None and self._quic._network_paths:
            super().end(code, reason)
            return
        self.ended = code, reason
        self.hang_up()

    def hang_up(self) -> None:
        """Let go of a connection, and of its own socket if it was dialled."""
        self.mesh.forget(self)
        if self.dialled and self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        """Note that the peer lives."""
        self.heard = self._loop.time()
        # What is said soon takes the answer along, unless something waits for room.
        self.pause = 0.0 if self.peer is None or self.backlog else _ACK_DELAY
        if self.peer is not None:
            space = self._quic._spaces[Epoch.ONE_RTT]
            self._unanswered = 0 if space.ack_at is None else self._unanswered + 1
            if self._unanswered >= _ACK_AFTER:
                self._unanswered, self.pause, space.ack_at = 0, 0.0, self.heard
        super().datagram_received(data, addr)

    def verified(self, peer: PeerCertificate) -> None:
        """Find the stream and the size of datagrams; tell the mesh."""
        quic = self._quic
        self.since = self._loop.time()
        quic._ack_delay = _ACK_DELAY
        self._stream = quic.get_next_available_stream_id(is_unidirectional=True)
        self._room = quic._max_datagram_size - _DATAGRAM_ROOM
        if self.dialled:
            self.put(self.mesh.address.encode(), reliable=True)
            self.mesh.counts.sent -= 1
        self.mesh.peer(peer.name).up(self)
        self.settled.set()

    def quic_event_received(self, event: events.QuicEvent) -> None:
        """Hand over datagrams; leave the rest to the connection."""
        if not isinstance(event, events.DatagramFrameReceived):
            super().quic_event_received(event)
        elif self.peer is not None and self.ended is None:
            if self.introduced:
                self._hand_over(event.data)
            elif len(self._early) < _EARLY:
                self._early.append(event.data)

    def _decode(self, event: events.StreamDataReceived) -> None:
        if event.stream_id != (_OF_ACCEPTED if self.dialled else _OF_DIALLED):
            self.end(Code.FRAME, f"stream {event.stream_id} is not one of this protocol")
            return
        received = self._received
        received += event.data
        start = 0
        while len(received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received, start)
            if length > self.mesh.limits.frame:
                self.end(Code.FRAME, f"a message of {length} bytes")
                return
            end = start + _LENGTH.size + length
            if len(received) < end:
                break
            message = bytes(received[start + _LENGTH.size : end])
            (self._hand_over if self.introduced else self._introduce)(message)
            if self.ended is not None:
                return
            start = end
        del received[:start]

    def _hand_over(self, message: bytes) -> None:
        assert self.peer is not None
        self.mesh.counts.received += 1
        self._used = self._loop.time()
        self.mesh.on_message(self.peer.name, message)

    def _introduce(self, message: bytes) -> None:
        """Note where the peer says that it listens."""
        assert self.peer is not None
        try:
            self.mesh.learn(self.peer.name, message.decode())
        except ValueError:
            self.end(Code.FRAME, "the first message is no address")
        else:
            self.introduced = True
            for early in self._early:
                self._hand_over(early)
            self._early.clear()

    def terminated(self, code: int, reason: str) -> None:
        """Tell the mesh; close a dialled connection's own socket."""
        if self.peer is not None:
            self.mesh.peer(self.peer.name).down(self)
        elif code == Code.PEER:
            self.mesh.counts.refused += 1
        self.mesh.forget(self)
        self.settled.set()
        if self.dialled and self._transport is not None:
            self._transport.close()

    def _keep_alive(self) -> None:
        if self.since and self._loop.time() - self._used > self.mesh.linger:
            self.end(Code.DONE, "nothing to say")
        else:
            super()._keep_alive()

    def _flush(self) -> None:
        self._flushing = False
        if self.peer is not None:
            space, now = self._quic._spaces[Epoch.ONE_RTT], self._loop.time()
            if space.ack_at is not None and space.ack_at <= now + _ACK_DELAY / 2:
                # aioquic would send it alone, later.
                space.ack_at = now
        self.transmit()
