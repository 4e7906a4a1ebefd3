"""A group of peers on one event loop, each with a real socket of its own on loopback.

What `benchmarks.gossip` measures.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from connectors.mesh import Mesh, QuicMesh, UdpMesh
from connectors.quic import Identity
from connectors.quic.certificates import make_authority, make_node
from state.gossip import (
    Deliver,
    Event,
    Fact,
    Leave,
    Peer,
    Publish,
    Published,
    Received,
    Rejected,
    Send,
    Settings,
    Start,
    Status,
    Superseded,
    TakeSnapshot,
    Tick,
)

PAYLOAD = 100
"""Bytes of an update."""
LINGER = timedelta(seconds=10)
"""As in `jobs.gossip`: connections to those that are no neighbours are closed again."""
_PATIENCE = 120.0
_SAMPLE = 16
"""Of so many steps of a peer one is timed: asking for a thread's CPU time may cost more than it."""


class Disagreement(Exception):
    """A group did not form, or an update did not reach everyone in time, or more than once."""


class Member:
    """A peer and its socket."""

    def __init__(self, mesh: Mesh, got: Callable[[Member, tuple[str, int]], None]) -> None:
        self.mesh, self._got = mesh, got
        self.cpu = 0.0
        """Seconds of this thread's CPU in the protocol, from a sample of its steps."""
        # Not all peers' first steps, or all of one kind.
        self._steps = len(mesh.name) % _SAMPLE
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wake = float("inf")
        self._names: dict[str, str] = {}
        self.peer: Peer

    async def open(self) -> Fact:
        """Open the socket; return what others are told of this member."""
        await self.mesh.start()
        name = self.mesh.name
        return Fact(name, f"{name}@{self.mesh.address}", 1, 0, Status.ALIVE)

    def start(self, members: list[Fact], settings: Settings, seed: int) -> None:
        """Begin, in a group of `members`."""
        me = next(fact for fact in members if fact.name == self.mesh.name)
        self.peer = Peer(
            me.name,
            me.address,
            me.incarnation,
            rng=random.Random(f"{seed} {me.name}"),
            now=self._loop.time(),
            settings=settings,
            members=[fact for fact in members if fact is not me],
        )
        self.mesh.on_message = self._received
        self.step(Start(self._loop.time()))

    def step(self, event: Event) -> None:
        """Take in an event, and see to what follows."""
        self._steps += 1
        if self._steps % _SAMPLE:
            effects = self.peer.step(event)
            wake = self.peer.wake_at
        else:
            begin = time.thread_time()
            middle = time.thread_time()
            effects = self.peer.step(event)
            wake = self.peer.wake_at
            self.cpu += _SAMPLE * max(time.thread_time() - middle - (middle - begin), 0.0)
        for effect in effects:
            if isinstance(effect, Send):
                self.mesh.send(self._name(effect.to), effect.data, reliable=effect.reliable)
            elif isinstance(effect, Deliver):
                for update in effect.updates:
                    self._got(self, (update.origin, update.seq))
            elif isinstance(effect, Published):
                self._got(self, (effect.update.origin, effect.update.seq))
            elif isinstance(effect, Rejected | TakeSnapshot | Superseded):
                raise Disagreement(f"{self.mesh.name}: {effect}")
        if wake != self._wake:
            self._wake = wake
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(wake, self._tick) if wake < float("inf") else None

    async def stop(self) -> None:
        """Close the socket."""
        if self._timer is not None:
            self._timer.cancel()
        await self.mesh.stop()

    def _tick(self) -> None:
        # uvloop rounds to milliseconds, and may be early by one.
        now, self._timer, self._wake = max(self._loop.time(), self._wake), None, float("inf")
        self.step(Tick(now))

    def _received(self, sender: str, data: bytes) -> None:
        address = f"{sender}@{self.mesh.address_of(sender)}"
        self.step(Received(self._loop.time(), address, data))

    def _name(self, address: str) -> str:
        name = self._names.get(address)
        if name is None:
            name, _, place = address.partition("@")
            self.mesh.learn(name, place)
            self._names[address] = name
        return name


class Meter(NamedTuple):
    """What was counted up to some time."""

    at: float
    kinds: Counter[str]
    bytes: int
    state_cpu: float
    cpu: float
    payloads: int

    @property
    def messages(self) -> int:
        """Messages of all kinds."""
        return self.kinds.total()


class Group:
    """A group of peers on one event loop."""

    def __init__(self, meshes: list[Mesh], seed: int) -> None:
        self._chance = random.Random(seed)
        self._now = 0.0, 0.0
        self._seed = seed
        self._lacking: dict[tuple[str, int], int] = {}
        self._published: dict[tuple[str, int], tuple[float, float]] = {}
        self._spreads: list[tuple[float, float]] = []
        self._all = asyncio.Event()
        self._got: set[tuple[str, tuple[str, int]]] = set()
        self.members = [Member(mesh, self._has) for mesh in meshes]

    async def form(self, settings: Settings, *, one_by_one: bool) -> float:
        """Start all peers; return after how many seconds all had two neighbours or more.

        Args:
            settings: of all.
            one_by_one: a peer starts when the one before has links, and knows only those before
                it; otherwise all start at once and know all.
        """
        members = [await member.open() for member in self.members]
        begin = time.monotonic()
        for number, member in enumerate(self.members):
            member.start(members[: number + 1] if one_by_one else members, settings, self._seed)
            if one_by_one:
                await self._linked(self.members[max(0, number - 1) : number + 1], min(number, 2))
        await self._linked(self.members, 2)
        return time.monotonic() - begin

    async def _linked(self, members: list[Member], least: int) -> None:
        end = time.monotonic() + _PATIENCE
        while not all(len(member.peer.neighbours) >= least for member in members):
            if time.monotonic() > end:
                raise Disagreement(f"no group after {_PATIENCE:.0f} s")
            await asyncio.sleep(0.01)

    def publish(self) -> None:
        """Make an update at a random peer."""
        member = self._chance.choice(self.members)
        self._all.clear()
        # uvloop's clock stands still within a turn, and shows whole milliseconds.
        self._now = time.perf_counter(), time.process_time()
        now = asyncio.get_running_loop().time()
        member.step(Publish(now, self._chance.randbytes(PAYLOAD)))

    async def everywhere(self) -> None:
        """Wait until every peer has every update."""
        if self._lacking:
            try:
                await asyncio.wait_for(self._all.wait(), _PATIENCE)
            except TimeoutError:
                raise Disagreement(f"after {_PATIENCE:.0f} s: {self._lacking} lack it") from None

    def _has(self, member: Member, dot: tuple[str, int]) -> None:
        mark = (member.mesh.name, dot)
        if mark in self._got:
            raise Disagreement(f"{member.mesh.name} got {dot} twice")
        self._got.add(mark)
        if dot not in self._published:
            self._published[dot] = self._now
            self._lacking[dot] = len(self.members)
        self._lacking[dot] -= 1
        if not self._lacking[dot]:
            del self._lacking[dot]
            began, used = self._published[dot]
            self._spreads.append((time.perf_counter() - began, time.process_time() - used))
            if not self._lacking:
                self._all.set()

    def meter(self) -> Meter:
        """Return what was counted so far."""
        kinds: Counter[str] = Counter()
        size = payloads = 0
        for member in self.members:
            counted = member.peer.statistics()
            kinds.update(counted.messages_sent)
            size += counted.bytes_sent
            payloads += counted.payloads.sent
        cpu = sum(member.cpu for member in self.members)
        return Meter(time.monotonic(), kinds, size, cpu, time.process_time(), payloads)

    def spreads(self) -> list[tuple[float, float]]:
        """Return how long updates took that got everywhere since the last call.

        Returns:
            Seconds, and seconds of this process's CPU, from publication until the last peer had it.
        """
        found, self._spreads = self._spreads, []
        return found

    async def stop(self) -> None:
        """Leave, and close the sockets."""
        for member in self.members:
            member.step(Leave(asyncio.get_running_loop().time()))
        await asyncio.gather(*(member.stop() for member in self.members))

    def agree(self) -> bool:
        """Whether all know the same updates, each of which came exactly once."""
        prints = {member.peer.fingerprint() for member in self.members}
        return len(prints) == 1 and len(self._got) == len(self._published) * len(self.members)


def udp(peers: int) -> list[Mesh]:
    """Return meshes of bare datagrams."""
    return [UdpMesh(f"p{number}", "127.0.0.1:0") for number in range(peers)]


def quic(peers: int, keys: Path) -> list[Mesh]:
    """Return meshes over QUIC, with keys of their own."""
    made: list[Mesh] = []
    make_authority(keys)
    for number in range(peers):
        name = f"p{number}"
        make_node(keys, name)
        identity = Identity.load(keys, name)
        made.append(QuicMesh(name, "127.0.0.1:0", identity=identity, linger=LINGER))
    return made
