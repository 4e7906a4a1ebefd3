"""One connection of a mesh: how messages travel on it, and when it says what has come.

Each end opens one unidirectional stream for reliable messages, each with its length before it (u32,
little-endian); the others go as datagrams (RFC 9221), or on the stream if they do not fit in one.
The first message of who dialled says where it listens, as ``host:port``.

What is sent in one turn of the event loop leaves together.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

from aioquic.quic import events
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch

from connectors.quic.connection import Code, Connection
from connectors.quic.verification import PeerCertificate

if TYPE_CHECKING:
    from connectors.mesh.quic import QuicMesh

ALPN = "braidflow-mesh/1"
GRACE = 0.25
"""Seconds for what is under way on a connection that gives way to another."""
_LENGTH = struct.Struct("<I")
_DATAGRAM_ROOM = 64
"""Bytes of a packet that are not a datagram's message: headers, tag, frame type and length."""
_ACK_DELAY = 0.015
"""Seconds in which peers are told what has come, if nothing else is said: less than the 25 ms that
they reckon with (RFC 9000, 18.2), so that what is said takes it along."""
_ACK_AFTER = 8
"""Packets that are acknowledged at once: who sends much must not wait."""
_EARLY = 64
"""Datagrams kept that have overtaken the first message."""
_OF_DIALLED, _OF_ACCEPTED = 2, 3
"""The first unidirectional stream of either end (RFC 9000, 2.1)."""


class Link(Connection):
    """A connection of a mesh.

    Args:
        quic: aioquic's.
        mesh: Whose.
        dialled: The peer to which it was dialled; None if it was accepted.
    """

    since = 0.0
    """When the peer was verified, by the loop's clock."""
    heard = 0.0
    """When the last packet came, by the loop's clock."""
    _flushing = False
    _unanswered = 0
    """Packets that came since there is something to acknowledge."""
    _stream = -1
    _room = 0

    def __init__(
        self, quic: QuicConnection, *, mesh: QuicMesh, dialled: str | None, **rest: Any
    ) -> None:
        allowed = mesh.allowed if dialled is None else [dialled]
        super().__init__(quic, identity=mesh.identity, allowed=allowed, limits=mesh.limits, **rest)
        self.mesh = mesh
        self.dialled = dialled is not None
        self.introduced = self.dialled
        """Whether it is known where the peer listens."""
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
        self._loop.call_later(GRACE, self.end, Code.REPLACED, "another connection is in use")

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
