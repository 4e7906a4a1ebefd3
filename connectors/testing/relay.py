"""A UDP relay that loses, repeats, reorders and delays datagrams, cuts links, and moves clients.

with UdpRelay(("127.0.0.1", port), loss=0.3, seed=7) as relay:
    connect(relay.address)          # instead of the server's
    relay.partition()               # nothing passes
    relay.heal()
    relay.change_addresses()        # as a router does that has forgotten its translations
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

Address = tuple[str, int]

_LARGEST = 65_536
_BUFFERED = 8 << 20
_BURST = 64
"""Datagrams taken from one socket before the others have their turn."""
_HELD = 0.01
"""How long, in seconds, a datagram waits to be overtaken."""


@dataclass(slots=True)
class Counts:
    """What became of the datagrams of one direction.

    Those that came in are ``forwarded - duplicated + lost``, and what is still held or delayed.
    """

    forwarded: int = 0
    """Sent on, copies included."""
    lost: int = 0
    """Dropped by chance, by a partition, or because a socket's buffer was full."""
    duplicated: int = 0
    """Sent twice."""
    reordered: int = 0
    """Overtaken by the one that came after."""


class UdpRelay:
    """Stand between UDP clients and a server, on a loopback port of its own.

    Runs in a thread of its own from entering the context to leaving it. Each client reaches the
    server from a port of its own, so that the server tells clients apart. Chance is drawn from the
    seed for each direction apart: the n-th datagram of a direction has the same fate in each run
    (with several clients, their datagrams come in an order that the seed does not know).

    Args:
        target: Where the server listens: host and port.
        loss: Probability that a datagram is dropped.
        duplicate: Probability that it is sent twice.
        reorder: Probability that it is held back until the next one of the same client and
            direction has passed, or for 10 ms if none comes.
        delay: Seconds that a datagram takes, in each direction.
        seed: Of chance.

    Raises:
        ValueError: a probability is not in [0, 1], or the delay is negative.
        OSError: on entering, if the target's host is unknown or no port is free.
    """

    def __init__(
        self,
        target: Address,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, chance in (("loss", loss), ("duplicate", duplicate), ("reorder", reorder)):
            if not 0 <= chance <= 1:
                raise ValueError(f"{name}={chance}: a probability, 0 to 1")
        if delay < 0:
            raise ValueError(f"delay={delay}: seconds, not negative")
        self.up = Counts()
        """What became of datagrams from clients to the server."""
        self.down = Counts()
        """What became of datagrams from the server to clients."""
        self._target = target
        self._loss, self._duplicate, self._reorder, self._delay = loss, duplicate, reorder, delay
        self._chances = [random.Random(f"{seed} {way}") for way in ("up", "down")]
        self._cut = False
        self._clients: dict[Address, _Client] = {}
        self._delayed: deque[tuple[float, _Way, bytes]] = deque()
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._socket: socket.socket

    @property
    def address(self) -> Address:
        """Where clients send to: host and port."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def counts(self) -> Counts:
        """The counts of both directions together."""
        up, down = self.up, self.down
        return Counts(
            up.forwarded + down.forwarded,
            up.lost + down.lost,
            up.duplicated + down.duplicated,
            up.reordered + down.reordered,
        )

    @property
    def clients(self) -> int:
        """How many clients have sent something."""
        return len(self._clients)

    def partition(self) -> None:
        """Let nothing pass, from when this returns; what is delayed is lost as it comes due."""
        self._call(partial(self._set_cut, True))

    def heal(self) -> None:
        """Let datagrams pass again."""
        self._call(partial(self._set_cut, False))

    def change_addresses(self) -> None:
        """Give each client another port towards the server; answers to the old one are lost."""
        self._call(self._move)

    def __enter__(self) -> Self:
        family, _, _, _, target = socket.getaddrinfo(*self._target, type=socket.SOCK_DGRAM)[0]
        self._family, self._resolved = family, target
        self._socket = _udp(family)
        try:
            self._socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.new_event_loop()
        self._loop.add_reader(self._socket, self._from_clients)
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for client in self._clients.values():
            client.close(self._loop)
        self._loop.remove_reader(self._socket)
        self._loop.close()
        self._socket.close()

    # In the relay's thread

    def _call(self, do: Callable[[], None]) -> None:
        """Run something in the relay's thread and wait for it."""

        async def run() -> None:
            do()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _set_cut(self, cut: bool) -> None:
        self._cut = cut

    def _move(self) -> None:
        for client in self._clients.values():
            client.close(self._loop)
            self._open(client)

    def _open(self, client: _Client) -> None:
        client.socket = _udp(self._family)
        client.socket.connect(self._resolved)
        client.up.send = client.socket.send
        self._loop.add_reader(client.socket, self._from_server, client)

    def _admit(self, address: Address) -> _Client:
        def send_down(data: bytes | memoryview) -> int:
            return self._socket.sendto(data, address)

        client = _Client(_Way(self.up, self._chances[0]), _Way(self.down, self._chances[1]))
        client.down.send = send_down
        self._open(client)
        self._clients[address] = client
        return client

    def _from_clients(self) -> None:
        receive, buffer, view, clients = (
            self._socket.recvfrom_into,
            self._buffer,
            self._view,
            self._clients,
        )
        for _ in range(_BURST):
            try:
                size, address = receive(buffer)
            except BlockingIOError:
                return
            client = clients.get(address) or self._admit(address)
            self._take(client.up, view[:size])

    def _from_server(self, client: _Client) -> None:
        receive, buffer, view, way = client.socket.recv_into, self._buffer, self._view, client.down
        for _ in range(_BURST):
            try:
                size = receive(buffer)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                # Nobody listens at the target, or nobody did when something was last sent.
                continue
            self._take(way, view[:size])

    def _take(self, way: _Way, data: memoryview) -> None:
        """Decide what becomes of a datagram."""
        counts, chance = way.counts, way.chance
        if self._cut or (self._loss and chance() < self._loss):
            counts.lost += 1
            return
        copies = 1
        if self._duplicate and chance() < self._duplicate:
            counts.duplicated += 1
            copies = 2
        if self._reorder and chance() < self._reorder and not way.held:
            way.held = [bytes(data)] * copies
            way.release = self._loop.call_later(_HELD, self._release, way)
            return
        for _ in range(copies):
            self._pass(way, data)
        if way.held:
            counts.reordered += 1
            self._release(way)

    def _release(self, way: _Way) -> None:
        assert way.release is not None
        way.release.cancel()
        held, way.held = way.held, []
        for data in held:
            self._pass(way, data)

    def _pass(self, way: _Way, data: bytes | memoryview) -> None:
        if not self._delay:
            self._send(way, data)
            return
        due = self._loop.time() + self._delay
        if not self._delayed:
            self._loop.call_at(due, self._deliver)
        self._delayed.append((due, way, bytes(data)))

    def _deliver(self) -> None:
        delayed = self._delayed
        now = self._loop.time()
        while delayed and delayed[0][0] <= now:
            _, way, data = delayed.popleft()
            self._send(way, data)
        if delayed:
            self._loop.call_at(delayed[0][0], self._deliver)

    def _send(self, way: _Way, data: bytes | memoryview) -> None:
        try:
            if self._cut:
                raise ConnectionAbortedError
            way.send(data)
        except OSError:
            # A full buffer, or the refusal of an earlier datagram: lost, as on any network.
            way.counts.lost += 1
        else:
            way.counts.forwarded += 1


class _Way:
    """One direction of one client."""

    __slots__ = ("chance", "counts", "held", "release", "send")

    def __init__(self, counts: Counts, chance: random.Random) -> None:
        self.counts = counts
        self.chance = chance.random
        self.held: list[bytes] = []
        self.release: asyncio.TimerHandle | None = None
        self.send: Callable[[bytes | memoryview], int]


class _Client:
    """A client's two ways, and the socket that stands for it at the server."""

    __slots__ = ("down", "socket", "up")

    def __init__(self, up: _Way, down: _Way) -> None:
        self.up = up
        self.down = down
        self.socket: socket.socket

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self.socket)
        self.socket.close()


def _udp(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, _BUFFERED)
    return made
