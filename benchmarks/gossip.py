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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from benchmarks.gossip_group import Group, Meter, quic, udp
from connectors.mesh import Mesh, QuicMesh
from state.gossip import Settings

AIM = 0.1
"""Seconds until 300 peers have an update."""
UDP = Settings(round=0.5, probe=5.0, probe_timeout=2.0, shuffle=30.0)
QUIC = Settings(round=0.5, probe=5.0, probe_timeout=2.0, shuffle=30.0)
"""Slower than usual, for all peers share a core, and over QUIC a probe of a distant member costs a
handshake of about 15 ms. News does not wait for rounds where nothing is lost."""
_UPKEEP = ("Digest", "Rows", "Sketch", "Spans", "Facts")
"""Messages that compare what peers know."""


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

    @classmethod
    def between(cls, a: Meter, b: Meter, peers: int) -> Cost:
        """Return what the time between two meters cost."""
        scale = peers * (b.at - a.at)
        messages = b.messages - a.messages
        upkeep = sum(b.kinds[kind] - a.kinds[kind] for kind in _UPKEEP)
        return cls(
            messages / scale,
            (b.bytes - a.bytes) / scale,
            upkeep / scale,
            (b.state_cpu - a.state_cpu) / max(messages, 1) * 1e6,
            (b.cpu - a.cpu) / max(messages, 1) * 1e6,
            (b.cpu - a.cpu) / (b.at - a.at),
        )


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

    @classmethod
    def between(
        cls, a: Meter, b: Meter, spreads: list[tuple[float, float]], idle: Cost, peers: int
    ) -> Convergence:
        """Return how the updates between two meters spread; `spreads` are a group's."""
        took = sorted(seconds for seconds, _ in spreads)
        upkeep = idle.messages * (b.at - a.at)
        return cls(
            statistics.median(cpu for _, cpu in spreads),
            statistics.median(took),
            took[min(len(took) - 1, int(0.99 * len(took)))],
            took[-1],
            (b.payloads - a.payloads) / len(took) / peers,
            ((b.messages - a.messages) / peers - upkeep) / len(took),
        )


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
    group, peers = Group(meshes, seed), len(meshes)
    chance = random.Random(seed)
    quic = isinstance(meshes[0], QuicMesh)
    # Five handshakes a peer, all at once, would time out.
    formed = await group.form(settings, one_by_one=quic)
    await asyncio.sleep(idle)  # the views settle
    with _no_collection():
        a = group.meter()
        await asyncio.sleep(idle)
        b = group.meter()
        idle_cost = Cost.between(a, b, peers)
        for _ in range(updates):
            group.publish()
            await group.everywhere()
            # At any point of the peers' rounds.
            await asyncio.sleep(chance.random() * settings.round)
        c = group.meter()
        alone = Convergence.between(b, c, group.spreads(), idle_cost, peers)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(updates):
            await asyncio.sleep(begin + number / rate - loop.time())
            group.publish()
        await group.everywhere()
        d = group.meter()
        stream = Convergence.between(c, d, group.spreads(), idle_cost, peers)
    connections = [len(mesh.connected()) for mesh in meshes if isinstance(mesh, QuicMesh)]
    figures = Figures(
        peers,
        updates,
        formed,
        statistics.mean(len(member.peer.neighbours) for member in group.members),
        statistics.mean(connections) if connections else None,
        idle_cost,
        alone,
        Cost.between(b, c, peers),
        stream,
        Cost.between(c, d, peers),
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
