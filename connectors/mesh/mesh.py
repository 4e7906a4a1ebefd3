"""What all meshes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from connectors.quic.address import Place, host_port, parse


@dataclass(slots=True)
class Counts:
    """What became of a mesh's messages."""

    sent: int = 0
    """Handed to the network; whether they arrived is not known."""
    received: int = 0
    """Handed over."""
    dropped: int = 0
    """Not sent: the peer was unknown, out of reach or too slow, or the message too large."""
    refused: int = 0
    """Datagrams that were no message, and connections of peers that may not connect."""


class Mesh(ABC):
    """One peer's end of a mesh.

    Args:
        name: Who this peer is.
        listen: ``host:port`` to listen on; port 0 takes a free one.
        advertise: ``host:port`` where others reach it, if that is another one.

    Attributes:
        on_message: Called with the sender's name and the message.
        on_up: Called with a peer's name when a connection to it begins.
        on_down: Called with a peer's name when its connection has ended or could not be made.
        counts: What became of the messages.
    """

    def __init__(self, name: str, listen: str, advertise: str | None = None) -> None:
        self.name = name
        self.counts = Counts()
        self.on_message: Callable[[str, bytes], None] = lambda peer, message: None
        self.on_up: Callable[[str], None] = lambda peer: None
        self.on_down: Callable[[str], None] = lambda peer: None
        self._listen = parse(listen)
        self._advertise = advertise and host_port(parse(advertise))
        self._places: dict[str, Place] = {}

    @property
    def address(self) -> str:
        """Where others reach it, as ``host:port``; known once it has started."""
        return self._advertise or host_port(self._bound())

    @abstractmethod
    def _bound(self) -> Place:
        """Return where it listens."""

    def address_of(self, peer: str) -> str:
        """Return where a peer listens, as ``host:port``, or nothing if that is not known."""
        place = self._places.get(peer)
        return host_port(place) if place else ""

    @abstractmethod
    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Say goodbye and close."""

    def learn(self, peer: str, address: str) -> None:
        """Note where a peer listens.

        Raises:
            ValueError: `address` is not ``host:port``.
        """
        self._places[peer] = parse(address)

    @abstractmethod
    def send(self, to: str, message: bytes, *, reliable: bool = True) -> None:
        """Send a message to a peer, or drop and count it; never wait.

        Args:
            to: The peer's name.
            message: Any bytes, up to the mesh's largest.
            reliable: Send it again when packets are lost.

        Raises:
            ValueError: the message is larger than the mesh carries.
        """
