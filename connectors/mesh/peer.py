"""What waits for one peer of a mesh, and which connection takes it there.

A peer dials another when it first has something to say, and again when the connection is lost; one
that hangs up is not dialled again at once. When both dial at once, the connection that the peer
with the smaller name has dialled stays, unless it is silent: its other end may have died and come
back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from typing import TYPE_CHECKING

from aioquic.quic.connection import QuicConnection

from connectors.mesh.link import ALPN, GRACE, Link
from connectors.quic.connection import Code

if TYPE_CHECKING:
    from connectors.mesh.quic import QuicMesh

log = logging.getLogger("braidflow.mesh")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_HANDSHAKE = 5.0


class Peer:
    """What waits for one peer, and its connection.

    Args:
        mesh: Whose.
        name: The peer's.
    """

    def __init__(self, mesh: QuicMesh, name: str) -> None:
        self.link: Link | None = None
        """The connection in use."""
        self._mesh = mesh
        self._name = name
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._queued = 0
        self._dialling: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0

    def send(self, message: bytes, reliable: bool) -> None:
        """Send a message, or queue it and dial; of what is too much, the oldest is dropped."""
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

    def up(self, link: Link) -> None:
        """Use a connection whose peer is verified, or see whether the one in use still works."""
        old = self.link
        if old is None or old.ended is not None or self._better(link, old):
            self._use(link)
        else:
            # Both dialled, and the peer will choose the old one as well. Or it has died and come
            # back, and the old one is silent.
            old.probe()
            loop = asyncio.get_running_loop()
            loop.call_later(GRACE, self._choose, old, link, loop.time())

    def down(self, link: Link) -> None:
        """Go without a connection that has ended."""
        if link is self.link:
            self.link = None
            if asyncio.get_running_loop().time() - link.since > _HANDSHAKE:
                self._pause = _FIRST_PAUSE
            self._mesh.on_down(self._name)

    def stop(self) -> None:
        """Dial no more, and drop what waits."""
        if self._dialling is not None:
            self._dialling.cancel()
        while self._queue:
            self._drop()

    def _choose(self, old: Link, new: Link, since: float) -> None:
        if new.ended is not None:
            return
        if old is not self.link:
            self.up(new)
        elif old.heard < since:
            self._use(new)
        else:
            new.end(Code.REPLACED, "another connection is in use")

    def _use(self, link: Link) -> None:
        old, self.link = self.link, link
        if old is None:
            self._mesh.on_up(self._name)
        else:
            old.give_way()
        while self._queue:
            link.put(*self._queue.popleft())
        self._queued = 0

    def _better(self, new: Link, old: Link) -> bool:
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
                log.debug("%s: nobody knows where it is", self._name)
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
            if link.peer is None and link.ended is not None:
                log.warning("%s at %s:%d: %s", self._name, host, port, link.ended[1])
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: a host that is no name
            link.end(Code.DONE, "no answer")
            why = str(error) or "timeout"
            log.info("%s at %s:%d cannot be reached: %s", self._name, host, port, why)
