"""A mesh over QUIC: every pair of peers that speaks has one connection with mutual TLS.

What goes over a connection is in :mod:`connectors.mesh.link`; when there is one, and which of two
stays, in :mod:`connectors.mesh.peer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration

from connectors.mesh.link import ALPN, Link
from connectors.mesh.mesh import Mesh
from connectors.mesh.peer import Peer
from connectors.quic.address import Place, bound
from connectors.quic.connection import Code, Limits
from connectors.quic.identity import Identity


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
        self._peers: dict[str, Peer] = {}
        self._links: set[Link] = set()
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

    def peer(self, name: str) -> Peer:
        """Return what is known of a peer."""
        if name not in self._peers:
            self._peers[name] = Peer(self, name)
        return self._peers[name]

    def place(self, name: str) -> tuple[str, int] | None:
        """Return where a peer listens."""
        return self._places.get(name)

    def configure(self, configuration: QuicConfiguration) -> QuicConfiguration:
        """Set limits, and take datagrams."""
        self.limits.apply(configuration)
        configuration.max_datagram_frame_size = 65_536
        return configuration

    def make(self, quic: Any, *, dialled: str | None, **rest: Any) -> Link:
        """Return a connection that was dialled to a peer, or accepted."""
        link = Link(quic, mesh=self, dialled=dialled, **rest)
        self._links.add(link)
        return link

    def forget(self, link: Link) -> None:
        """Let go of a connection that has ended."""
        self._links.discard(link)

    def _accept(self, quic: Any, **rest: Any) -> Link:
        self.identity.accept(quic)
        return self.make(quic, dialled=None, **rest)
