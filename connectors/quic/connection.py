"""One QUIC connection between two nodes: the peer is verified, then frames come and go.

A connection carries one link on its first bidirectional stream. Until the peer's certificate has
been checked nothing that it sends is looked at. A connection ends with a :class:`Code` and a
reason that both ends log.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from connectors.quic.datagrams import Datagrams
from connectors.quic.identity import Identity
from connectors.quic.verification import PeerCertificate, PeerRefused, verify_peer
from state.delivery import LinkError
from state.frames import Decoder, Frame, FrameError, encode

log = logging.getLogger("braidflow.quic")

ALPN = "braidflow/1"
_STREAM = 0
_CRYPTO = range(0x100, 0x200)
"""Errors of the TLS handshake (RFC 9000, 20.1)."""


class Code(enum.IntEnum):
    """Why a connection ended: an application error code of RFC 9000, 20.2, or `LOST`."""

    LOST = -1
    """The transport gave up: silence, or an error of its own. Never sent."""
    DONE = 0
    PEER = 1
    """The peer is not one that may connect. It may try again, with other keys."""
    CHANNEL = 2
    """There is no such channel, or not yet."""
    REPLACED = 3
    """A newer connection of the same sender took over."""
    FRAME = 4
    """Malformed or oversized frames. The same frames would be refused again."""
    STATE = 5
    """An end lost its state or broke the protocol: the link cannot go on."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and times of a link.

    Args:
        datagram: Largest UDP payload sent, bytes: 1200 passes everywhere; up to 16,000 on loopback
            or where jumbo frames are known to pass (there is no path-MTU discovery).
        window: Bytes that may be on their way to the receiving flow, for each sender.
        frame: Largest frame accepted, bytes.
        parts: How many senders a node may be for one channel (see `QuicSink.part`), those that are
            gone among them: how far each was taken is kept for ever.
        idle: A connection that hears nothing for so long is given up and made anew.
    """

    datagram: int = 1200
    window: int = 4 << 20
    frame: int = 64 << 20
    parts: int = 64
    idle: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        if not 1200 <= self.datagram <= 16_000:
            raise ValueError(f"datagram={self.datagram}: 1200 to 16000 bytes")
        if min(self.window, self.frame, self.parts) < 1:
            raise ValueError("window, frame and parts must be positive")

    def apply(self, configuration: QuicConfiguration) -> QuicConfiguration:
        """Set the limits in `configuration` and return it."""
        configuration.max_datagram_size = self.datagram
        configuration.idle_timeout = self.idle.total_seconds()
        configuration.max_stream_data = configuration.max_data = max(1 << 20, self.window)
        return configuration


LIMITS = Limits()
"""The defaults."""


class Connection(Datagrams):
    """A verified, framed connection; subclasses say what frames mean."""

    def __init__(
        self,
        quic: QuicConnection,
        *,
        identity: Identity,
        allowed: Collection[str] | None,
        limits: Limits,
        **rest: Any,
    ) -> None:
        super().__init__(quic, **rest)
        self._identity = identity
        self._allowed = allowed
        self._decoder = Decoder(limits.frame)
        self._idle = limits.idle.total_seconds()
        self._alive: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.peer: PeerCertificate | None = None
        self.lost: int = 0
        """Packets declared lost, and sent again where they carried data."""
        self.ended: tuple[int, str] | None = None
        """The code and reason with which the connection ended."""
        _count_losses(quic, self)

    # What subclasses do

    def verified(self, peer: PeerCertificate) -> None:
        """Go on: the peer is who its certificate says."""

    def frame_received(self, frame: Frame) -> None:
        """Take in a frame.

        Raises:
            LinkError: it breaks the link's protocol.
            FrameError: it is malformed.
        """

    def terminated(self, code: int, reason: str) -> None:
        """Clean up: the connection has ended."""

    # What they call

    def send(self, frames: Iterable[Frame]) -> int:
        """Send frames in order; return their bytes."""
        data = b"".join(map(encode, frames))
        if data and self.ended is None:
            with self.lock:
                self._quic.send_stream_data(_STREAM, data)
                self.transmit()
        return len(data)

    def end(self, code: Code, reason: str) -> None:
        """Close the connection and tell the peer why."""
        if self.ended is None:
            self.ended = code, reason
            self.close(error_code=code, reason_phrase=reason[:512])

    @property
    def round_trip(self) -> float:
        """The smoothed round-trip time in seconds."""
        return float(self._quic._loss._rtt_smoothed)

    # What aioquic calls

    def quic_event_received(self, event: events.QuicEvent) -> None:
        """Verify the peer, decode frames, note the end."""
        if isinstance(event, events.StreamDataReceived):
            if self.peer is not None and self.ended is None:
                self._decode(event)
        elif isinstance(event, events.HandshakeCompleted):
            self._verify()
        elif isinstance(event, events.ConnectionTerminated):
            for timer in (self._alive, self._expiry):
                if timer is not None:
                    timer.cancel()
            if self.ended is None:
                self.ended = _code(event), event.reason_phrase or "connection lost"
            self.terminated(*self.ended)

    def _decode(self, event: events.StreamDataReceived) -> None:
        if event.stream_id != _STREAM:
            self.end(Code.FRAME, f"stream {event.stream_id}: a connection carries one link")
            return
        try:
            for frame in self._decoder.feed(event.data):
                self.frame_received(frame)
                if self.ended is not None:
                    return
            if event.end_stream:
                self._decoder.finish()
        except FrameError as error:
            log.warning("frame from %s refused: %s", self.name, error)
            self.end(Code.FRAME, str(error))
        except LinkError as error:
            log.warning("link with %s ended: %s", self.name, error)
            self.end(Code.STATE, str(error))
        except Exception as error:
            # Whatever a peer's bytes set off ends its own connection, not the process's loop.
            log.exception("frames from %s ended their connection", self.name)
            self.end(Code.FRAME, f"{type(error).__name__} while a frame was read")

    @property
    def name(self) -> str:
        """The peer's name, or where it is as long as that is unknown."""
        return self.peer.name if self.peer else str(self._quic._network_paths[0].addr[:2])

    def _verify(self) -> None:
        now = datetime.now(UTC)
        try:
            peer = verify_peer(self._quic, self._identity.authorities, self._allowed, now)
        except PeerRefused as error:
            log.warning("peer at %s refused: %s", self.name, error)
            self.end(Code.PEER, str(error))
            return
        self.peer = peer
        self._check_expiry()
        self._keep_alive()
        self.verified(peer)

    def _check_expiry(self) -> None:
        assert self.peer is not None
        left = (self.peer.not_after - datetime.now(UTC)).total_seconds()
        if left <= 0:
            self.end(Code.PEER, f"the certificate of {self.peer.name} has expired")
        else:
            # The wall clock may be set: look again once a minute.
            self._expiry = self._loop.call_later(min(left, 60.0), self._check_expiry)

    def _keep_alive(self) -> None:
        with self.lock:
            self._quic.send_ping(0)
            self.transmit()
        self._alive = self._loop.call_later(self._idle / 3, self._keep_alive)


def _code(event: events.ConnectionTerminated) -> int:
    """Return why a connection ended: the transport's errors have numbers that `Code` has too."""
    if event.frame_type is None:
        return event.error_code
    return Code.PEER if event.error_code in _CRYPTO else Code.LOST


def _count_losses(quic: QuicConnection, connection: Connection) -> None:
    """Count lost packets: aioquic keeps no count of its own."""
    recovery = quic._loss
    detected = recovery._on_packets_lost

    def counting(*, packets: Iterable[Any], **rest: Any) -> None:
        lost = list(packets)
        connection.lost += len(lost)
        detected(packets=lost, **rest)

    recovery._on_packets_lost = counting  # type: ignore[method-assign]
