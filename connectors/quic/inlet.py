"""One channel of a listener: sessions put items in, a worker takes them out."""

from __future__ import annotations

import queue
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from connectors.mailbox import Mailbox
from connectors.quic.connection import Code, Connection, Limits
from connectors.quic.loop import loop
from state.delivery import Arrival, Inbox, LinkError, Position, Session
from state.frames import Data, Frame, Hello, Schema
from state.items import ItemDecoder


class Inlet:
    """What arrived for one channel, on its way to the flow.

    The worker takes and commits; the loop's thread does the rest.
    """

    def __init__(
        self,
        channel: str,
        address: str,
        positions: Mapping[str, Position],
        *,
        peers: Collection[str] | None,
        message: Any,
        schema: pa.Schema | None,
        limits: Limits,
    ) -> None:
        self.channel = channel
        self.address = address
        self.peers = peers
        self.inbox = Inbox(positions, window=limits.window)
        self.frames = 0
        self.bytes = 0
        self._links: dict[str, Connection] = {}
        self._message = message
        self._schema = schema
        self._limits = limits
        self._arrivals = Mailbox[tuple[Arrival, Any]]()
        self._taken = 0
        self._poked = False

    @property
    def depth(self) -> int:
        """How many items wait for the flow."""
        return len(self._arrivals)

    # Called by the worker

    def take(self, most: int, wait: float) -> list[tuple[str, Any]]:
        """Return sender and item of up to `most` arrivals; wait for the first."""
        taken: list[tuple[str, Any]] = []
        try:
            arrival, item = self._arrivals.get(wait)
            while True:
                self.inbox.taken(arrival)
                if arrival.size is not None:
                    self._taken += arrival.size
                    taken.append((arrival.session.sender, item))
                if len(taken) >= most:
                    break
                arrival, item = self._arrivals.get(0)
        except queue.Empty:
            pass
        if self._taken >= self._limits.window // 4:
            self.poke()
        return taken

    def committed(self) -> None:
        """Tell senders what is safe: the last snapshot is durable."""
        if self.inbox.committed():
            self.poke()

    def poke(self) -> None:
        """Send replies where they are due."""
        self._taken = 0
        if not self._poked:
            self._poked = True
            loop().call_soon_threadsafe(self._reply)

    # In the loop's thread

    def admit(self, link: Connection, hello: Hello) -> Feed:
        """Begin a link; an older one of the same sender is closed.

        Raises:
            LinkError: the sender cannot go on from where it is, or its node has too many.
        """
        sender = f"{link.name}/{hello.part}" if hello.part else link.name
        known = self.inbox.senders()
        most = self._limits.parts
        if sender not in known and sum(s.partition("/")[0] == link.name for s in known) >= most:
            raise LinkError(f"{link.name} sends {most} parts already, as many as it may")
        session = self.inbox.admit(sender, hello)
        older = self._links.get(sender)
        if older is not None:
            older.end(Code.REPLACED, f"{sender} has connected again")
        self._links[sender] = link
        return Feed(self, session, ItemDecoder(self._message, self._schema))

    def leave(self, link: Connection) -> None:
        """Forget a connection that has ended."""
        self._links = {name: kept for name, kept in self._links.items() if kept is not link}

    def arrived(self, arrival: Arrival, item: Any) -> None:
        """Put an item on its way."""
        self.frames += 1
        self.bytes += arrival.size or 0
        self._arrivals.put((arrival, item))

    def _reply(self) -> None:
        self._poked = False
        for sender, link in self._links.items():
            link.send(self.inbox.sessions[sender].replies())

    @property
    def links(self) -> list[Connection]:
        """The connections that are up."""
        return list(self._links.values())


class Feed:
    """One connection's frames on their way into an inlet."""

    def __init__(self, inlet: Inlet, session: Session, items: ItemDecoder) -> None:
        self._inlet = inlet
        self._items = items
        self.session = session

    def take_in(self, frame: Frame) -> None:
        """Decode a frame and put it on its way.

        Raises:
            FrameError: it is malformed.
            LinkError: it is out of order.
        """
        if isinstance(frame, Schema):
            self._items.add_schema(frame)
            return
        # Decoded first: what cannot be decoded must not count as received.
        item = self._items.decode(frame) if isinstance(frame, Data) else None
        arrival = self.session.receive(frame)
        if arrival is not None:
            self._inlet.arrived(arrival, item)
