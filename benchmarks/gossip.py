"""Gossip over real sockets: ``python -m benchmarks.gossip``.

All peers of a group are in this process, on one event loop, each with a socket of its own on
loopback: 300 over UDP, 100 over QUIC with mutual TLS. They know of each other, and find about five
neighbours each. Then, for each group:

- idle: what the group costs while there is nothing new (digests, probes, shuffles, cuts);
- alone: updates of 100 bytes at random peers, each when the last one is everywhere: the time until
  the last peer has it, payloads that were sent for each peer, messages, and what a message costs in
  `Peer.step` (CPU of the protocol alone) and altogether (sockets, event loop, cryptography);
- stream: the same at a fixed rate, whether the last one is everywhere or not.

At the end every peer must have got every update exactly once. All peers wait for one core: a time
is hardly less than the CPU time that is shown beside it, and much more where other processes run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import uvloop

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

AIM = 0.1
"""Seconds until 300 peers have an update."""
PAYLOAD = 100
"""Bytes of an update."""
LINGER = timedelta(seconds=10)
"""As in `jobs.gossip`: connections to those that are no neighbours are closed again."""
UDP = Settings(round=0.5, probe=5.0, probe_timeout=2.0, shuffle=30.0)
QUIC = Settings(round=0.5, probe=5.0, probe_timeout=2.0, shuffle=30.0)
"""Slower than usual, for all peers share a core, and over QUIC a probe of a distant member costs a
handshake of about 15 ms. News does not wait for rounds where nothing is lost."""
_PATIENCE = 120.0
_SAMPLE = 16
"""Of so many steps of a peer one is timed: asking for a thread's CPU time may cost more than it."""
_UPKEEP = ("Digest", "Rows", "Sketch", "Spans", "Facts")
"""Messages that compare what peers know."""


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


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stretch of time cost."""

    messages: float
    """For each peer and second."""
    bytes: float
    """Likewise."""
    upkeep: float
    """Likewise: messages that compare what peers know, the rest being news, probes and views."""
    state_us: float
    """CPU of the protocol for each message, microseconds."""
    all_us: float
    """CPU of the process for each message."""
    busy: float
    """CPU of the process for each second."""


@dataclass(frozen=True, slots=True)
class Convergence:
    """Seconds from an update's publication until the last peer had it."""

    cpu: float
    """Median of the CPU time that this process used meanwhile: what is left where no others run."""
    p50: float
    p99: float
    max: float
    copies: float
    """Payloads sent for each update and peer."""
    messages: float
    """Messages sent for each update and peer beyond those of an idle group."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one group."""

    peers: int
    updates: int
    formed: float
    """Seconds until all had two neighbours or more."""
    links: float
    """Neighbours of a peer."""
    connections: float | None
    """Open QUIC connections of a peer, at the end."""
    idle: Cost
    alone: Convergence
    alone_cost: Cost
    stream: Convergence
    stream_cost: Cost


class Group:
    """A group of peers on one event loop."""

    def __init__(self, meshes: list[Mesh], seed: int) -> None:
        self._chance = random.Random(seed)
        self._now = 0.0, 0.0
        self._seed = seed
        self._lacking: dict[tuple[str, int], int] = {}
        self._published: dict[tuple[str, int], tuple[float, float]] = {}
        self.took: list[float] = []
        self.cpu: list[float] = []
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
            self.took.append(time.perf_counter() - began)
            self.cpu.append(time.process_time() - used)
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

    def cost(self, a: Meter, b: Meter) -> Cost:
        """Return what the time between two meters cost."""
        scale = len(self.members) * (b.at - a.at)
        messages = b.messages - a.messages
        upkeep = sum(b.kinds[kind] - a.kinds[kind] for kind in _UPKEEP)
        return Cost(
            messages / scale,
            (b.bytes - a.bytes) / scale,
            upkeep / scale,
            (b.state_cpu - a.state_cpu) / max(messages, 1) * 1e6,
            (b.cpu - a.cpu) / max(messages, 1) * 1e6,
            (b.cpu - a.cpu) / (b.at - a.at),
        )

    def convergence(self, a: Meter, b: Meter, idle: Cost) -> Convergence:
        """Return how the updates since the last call spread."""
        took, self.took = sorted(self.took), []
        cpu, self.cpu = self.cpu, []
        upkeep = idle.messages * (b.at - a.at)
        return Convergence(
            statistics.median(cpu),
            statistics.median(took),
            took[min(len(took) - 1, int(0.99 * len(took)))],
            took[-1],
            (b.payloads - a.payloads) / len(took) / len(self.members),
            ((b.messages - a.messages) / len(self.members) - upkeep) / len(took),
        )

    async def stop(self) -> None:
        """Leave, and close the sockets."""
        for member in self.members:
            member.step(Leave(asyncio.get_running_loop().time()))
        await asyncio.gather(*(member.stop() for member in self.members))

    def agree(self) -> bool:
        """Whether all know the same updates, each of which came exactly once."""
        prints = {member.peer.fingerprint() for member in self.members}
        return len(prints) == 1 and len(self._got) == len(self._published) * len(self.members)


async def measure(
    meshes: list[Mesh],
    settings: Settings,
    *,
    updates: int,
    rate: float,
    idle: float,
    seed: int,
) -> tuple[Figures, bool]:
    """Form a group and measure it; return the figures, and whether all was right.

    Args:
        meshes: the sockets.
        settings: of all peers.
        updates: how many alone, and how many in the stream.
        rate: updates of the stream in a second.
        idle: seconds of each stretch without updates.
        seed: of chance.
    """
    group = Group(meshes, seed)
    chance = random.Random(seed)
    quic = isinstance(meshes[0], QuicMesh)
    # Five handshakes a peer, all at once, would time out.
    formed = await group.form(settings, one_by_one=quic)
    await asyncio.sleep(idle)  # the views settle
    with _no_collection():
        a = group.meter()
        await asyncio.sleep(idle)
        b = group.meter()
        idle_cost = group.cost(a, b)
        for _ in range(updates):
            group.publish()
            await group.everywhere()
            # At any point of the peers' rounds.
            await asyncio.sleep(chance.random() * settings.round)
        c = group.meter()
        alone = group.convergence(b, c, idle_cost)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(updates):
            await asyncio.sleep(begin + number / rate - loop.time())
            group.publish()
        await group.everywhere()
        d = group.meter()
        stream = group.convergence(c, d, idle_cost)
    connections = [len(mesh.connected()) for mesh in meshes if isinstance(mesh, QuicMesh)]
    figures = Figures(
        len(meshes),
        updates,
        formed,
        statistics.mean(len(member.peer.neighbours) for member in group.members),
        statistics.mean(connections) if connections else None,
        idle_cost,
        alone,
        group.cost(b, c),
        stream,
        group.cost(c, d),
    )
    right = group.agree()
    await group.stop()
    return figures, right


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector of cyclic garbage out, whose pauses grow with the peers of a process."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


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


def show(name: str, found: Figures) -> None:
    """Print a group's figures."""
    linked = f"{found.links:.1f} neighbours each"
    if found.connections is not None:
        linked += f", {found.connections:.1f} connections at the end"
    print(f"{found.peers} peers over {name}: linked after {found.formed:.1f} s, {linked}")
    idle = found.idle
    print(
        f"  idle    {idle.messages:.1f} messages ({idle.upkeep:.1f} compare), {idle.bytes:,.0f} "
        "bytes a second and peer"
    )
    for title, spread, cost in (
        ("alone", found.alone, found.alone_cost),
        ("stream", found.stream, found.stream_cost),
    ):
        p50, p99, most = (1e3 * x for x in (spread.p50, spread.p99, spread.max))
        print(
            f"  {title:7} everywhere after {p50:.1f} ms (p50), {p99:.1f} (p99), {most:.1f} (max) "
            f"over {found.updates}, {1e3 * spread.cpu:.1f} ms of CPU (p50); "
            f"{spread.copies:.2f} payloads, {spread.messages:.1f} messages a peer"
        )
        print(
            f"          a message: {cost.state_us:.1f} us of CPU in the protocol, "
            f"{cost.all_us:.1f} in all; the process used {cost.busy:.0%} of a core"
        )


def main() -> None:
    """Print the figures and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gossip")
    parser.add_argument("--udp", type=int, default=300, help="peers over UDP")
    parser.add_argument("--quic", type=int, default=100, help="peers over QUIC")
    parser.add_argument("--updates", type=int, default=50, help="of each kind")
    parser.add_argument("--rate", type=float, default=5.0, help="updates a second of the stream")
    parser.add_argument("--idle", type=float, default=3.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: dict[str, Figures] = {}
    equal = True
    with tempfile.TemporaryDirectory(prefix="gossip-") as keys:
        for name, count, make, settings in (
            ("UDP", options.udp, udp, UDP),
            ("QUIC", options.quic, lambda peers: quic(peers, Path(keys)), QUIC),
        ):
            if count:
                figures, right = uvloop.run(
                    measure(
                        make(count),
                        settings,
                        updates=options.updates,
                        rate=options.rate,
                        idle=options.idle,
                        seed=options.seed,
                    )
                )
                show(name, figures)
                found[name.lower()] = figures
                equal = equal and right
    nearest = found.get("udp") or found["quic"]
    line = {
        "name": f"an update at all of {nearest.peers} peers",
        "ours": nearest.alone.p50,
        "max": nearest.alone.max,
        "unit": "s",
        "target": AIM,
        "met": nearest.alone.p50 < AIM,
        "cpu": nearest.alone.cpu,
        "equal": equal,
        "groups": {name: asdict(figures) for name, figures in found.items()},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
