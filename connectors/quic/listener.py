"""The listening end: one UDP socket for all channels of a process at one address."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aioquic.asyncio.server import QuicServer

from connectors.quic.address import Place, bound, host_port
from connectors.quic.connection import ALPN, Code, Connection, Limits
from connectors.quic.identity import Identity
from connectors.quic.inlet import Feed, Inlet
from connectors.quic.loop import loop, run
from connectors.quic.verification import PeerCertificate
from state.delivery import LinkError
from state.frames import End, Frame, Hello

log = logging.getLogger("braidflow.quic")

_ANSWER = 0.001
"""Seconds until a datagram is acknowledged, as with aioquic: its items reach the flow first."""
_GOODBYE = 10.0
"""Seconds that senders get to hear that they have ended: one that was killed may be back."""


def listen(place: Place, identity: Identity, limits: Limits, inlet: Inlet) -> None:
    """Let senders reach `inlet` at `place`.

    Raises:
        ValueError: another source listens there with another identity or the same channel.
        OSError: the address cannot be listened on.
    """
    run(_listen(place, identity, limits, inlet))


def leave(place: Place, inlet: Inlet, *, farewell: bool) -> None:
    """Stop serving `inlet`; with the last one, stop listening.

    Args:
        place: Where.
        inlet: What was served.
        farewell: Give senders time to hear that they have ended, and to hang up.
    """
    run(_leave(place, inlet, _GOODBYE if farewell else 0.0))


class _Accepted(Connection):
    listening: _Listening
    _inlet: Inlet | None = None
    _feed: Feed | None = None

    def verified(self, peer: PeerCertificate) -> None:
        self.pause = _ANSWER

    def frame_received(self, frame: Frame) -> None:
        if self._feed is not None:
            self._feed.take_in(frame)
            if isinstance(frame, End):
                self.send(self._feed.session.replies())
        elif isinstance(frame, Hello):
            self._begin(frame)
        else:
            raise LinkError(f"a link begins with Hello, not {type(frame).__name__}")

    def _begin(self, hello: Hello) -> None:
        inlet = self.listening.inlets.get(hello.channel)
        if inlet is None:
            self.end(Code.CHANNEL, f"there is no channel {hello.channel!r} here")
            return
        assert self.peer is not None
        if inlet.peers is not None and self.peer.name not in inlet.peers:
            log.warning("%s may not use channel %r", self.peer.name, hello.channel)
            self.end(Code.PEER, f"{self.peer.name} may not use channel {hello.channel!r}")
            return
        self._feed = inlet.admit(self, hello)
        self._inlet = inlet
        self.send(self._feed.session.welcome())

    def terminated(self, code: int, reason: str) -> None:
        if self._inlet is not None:
            self._inlet.leave(self)
        log.info("link from %s ended: %s", self.name, reason)


class _Listening:
    """A socket and its channels."""

    def __init__(self, identity: Identity, limits: Limits) -> None:
        self.identity = identity
        self.limits = limits
        self.inlets: dict[str, Inlet] = {}
        self._server: QuicServer

    async def start(self, place: Place) -> None:
        configuration = self.limits.apply(self.identity.server_configuration(alpn=ALPN))
        _, self._server = await loop().create_datagram_endpoint(
            lambda: QuicServer(configuration=configuration, create_protocol=self.accept),
            sock=bound(place),
        )

    def accept(self, quic: Any, **rest: Any) -> _Accepted:
        self.identity.accept(quic)
        link = _Accepted(quic, identity=self.identity, allowed=None, limits=self.limits, **rest)
        link.listening = self
        return link

    def stop(self) -> None:
        self._server.close()


_listening: dict[Place, _Listening] = {}


async def _listen(place: Place, identity: Identity, limits: Limits, inlet: Inlet) -> None:
    listening = _listening.get(place)
    if listening is None:
        listening = _Listening(identity, limits)
        await listening.start(place)
        _listening[place] = listening
    elif listening.identity != identity or listening.limits != limits:
        raise ValueError(f"{host_port(place)}: another source listens there, set up differently")
    if inlet.channel in listening.inlets:
        raise ValueError(f"{host_port(place)}: channel {inlet.channel!r} is taken")
    listening.inlets[inlet.channel] = inlet


async def _leave(place: Place, inlet: Inlet, patience: float) -> None:
    listening = _listening[place]
    until = loop().time() + patience
    while inlet.links and loop().time() < until:
        await asyncio.sleep(0.01)
    del listening.inlets[inlet.channel]
    for link in inlet.links:
        link.end(Code.CHANNEL, f"channel {inlet.channel!r} is closed")
    if not listening.inlets:
        del _listening[place]
        listening.stop()
