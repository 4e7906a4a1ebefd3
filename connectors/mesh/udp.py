"""A mesh of bare datagrams: for one machine, or one trusted network.

A datagram is the sender's name, its length before it in one byte, and the message. Nothing is
authenticated, encrypted or sent again: `reliable` makes no difference.
"""

from __future__ import annotations

import asyncio

from connectors.mesh.mesh import Mesh
from connectors.quic.address import Place, bound

_LARGEST = 65_507
"""Bytes of UDP payload that IPv4 carries."""


class UdpMesh(Mesh):
    """One peer's end of a mesh of datagrams.

    Raises:
        ValueError: the name is longer than 255 bytes, or `listen` is not ``host:port``.
    """

    def __init__(self, name: str, listen: str, advertise: str | None = None) -> None:
        super().__init__(name, listen, advertise)
        self._head = _head(name)
        self._transport: asyncio.DatagramTransport | None = None

    def _bound(self) -> Place:
        assert self._transport is not None, "start it first"
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    async def start(self) -> None:
        """Listen."""
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Protocol(self), sock=bound(self._listen)
        )

    async def stop(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    def send(self, to: str, message: bytes, *, reliable: bool = True) -> None:
        """Send a message as one datagram."""
        datagram = self._head + message
        if len(datagram) > _LARGEST:
            raise ValueError(f"a message of {len(message)} bytes does not fit a datagram")
        place = self._places.get(to)
        if place is None or self._transport is None or self._transport.is_closing():
            self.counts.dropped += 1
            return
        self.counts.sent += 1
        self._transport.sendto(datagram, place)

    def take(self, datagram: bytes, place: Place) -> None:
        """Hand over a datagram's message; the sender can be answered where it came from."""
        length = datagram[0] if datagram else 0
        try:
            name = datagram[1 : 1 + length].decode()
        except UnicodeDecodeError:
            name = ""
        if not name or len(datagram) < 1 + length:
            self.counts.refused += 1
            return
        self._places[name] = place
        self.counts.received += 1
        self.on_message(name, datagram[1 + length :])


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, mesh: UdpMesh) -> None:
        self._mesh = mesh

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._mesh.take(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """Go on: nobody listens where a datagram went, which its sender may not rely on."""


def _head(name: str) -> bytes:
    encoded = name.encode()
    if not 1 <= len(encoded) <= 255:
        raise ValueError(f"a name of 1 to 255 bytes is wanted, not {name!r}")
    return bytes([len(encoded)]) + encoded
