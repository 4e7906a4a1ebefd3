"""A process of `benchmarks.tree`: plays some of the hosts, each with a QUIC endpoint of its own.

The tree is that of a heap: host i > 0 sends to host (i - 1) // fan_in. Every edge is a connection
of `connectors.mesh` over loopback, whether its ends share a process or not. The parent process
speaks to this one in lines of JSON: it sets up a tree, runs rounds of it, and tears it down.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import asyncio
import base64
import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.tree_states import Theirs, leaves, ours, prepare
from connectors.mesh import QuicMesh
from connectors.quic import Identity, Limits
from state.product import Product

LIMITS = Limits(datagram=16_000)
_HELLO = b""


def name(host: int) -> str:
    """Return a host's name in its certificate."""
    return f"host-{host}"


def parent(host: int, fan_in: int) -> int:
    """Return to whom a host sends."""
    return (host - 1) // fan_in


def children(host: int, hosts: int, fan_in: int) -> list[int]:
    """Return who sends to a host."""
    return list(range(fan_in * host + 1, min(fan_in * (host + 1), hosts - 1) + 1))


def bottom_up(host: int, hosts: int, fan_in: int) -> Iterator[int]:
    """Yield the hosts of a subtree, each after its children."""
    for child in children(host, hosts, fan_in):
        yield from bottom_up(child, hosts, fan_in)
    yield host


def depth(host: int, fan_in: int) -> int:
    """Return how many edges there are from a host to the root."""
    return 0 if host == 0 else 1 + depth(parent(host, fan_in), fan_in)


class Host:
    """One host: its rows, its state, its endpoint."""

    def __init__(self, forest: Forest, number: int) -> None:
        self.forest, self.number = forest, number
        identity = Identity.load(forest.keys, name(number))
        self.mesh = QuicMesh(name(number), "127.0.0.1:0", identity=identity, limits=LIMITS)
        self.mesh.on_message = self.take
        self.children = children(number, forest.hosts, forest.fan_in)
        self.parent = name(parent(number, forest.fan_in))
        self.state: Any = None
        self.missing = 0

    def begin(self, side: str) -> None:
        """Be empty, and wait for the leaves and the children."""
        self.state = ours(self.number) if side == "ours" else Theirs()
        self.missing = 1 + len(self.children)

    def fold(self, rows: Any) -> None:
        """Merge the rows of the leaves."""
        begin = time.perf_counter()
        self.state.update(rows)
        self.forest.spent["update"] += time.perf_counter() - begin
        self._have()

    def take(self, peer: str, data: bytes) -> None:
        """Merge what a child knows."""
        if data == _HELLO:
            self.forest.greeted += 1
            return
        spent, kind = self.forest.spent, Product if isinstance(self.state, Product) else Theirs
        begin = time.perf_counter()
        other = kind.from_bytes(data)
        middle = time.perf_counter()
        self.state.merge(other)
        spent["serialisation"] += middle - begin
        spent["merges"] += time.perf_counter() - middle
        self.forest.messages += 1
        self.forest.bytes += len(data)
        self._have()

    def _have(self) -> None:
        self.missing -= 1
        if self.missing:
            return
        if self.number == 0:
            self.forest.done.set()
            return
        begin = time.perf_counter()
        data = self.state.to_bytes()
        self.forest.spent["serialisation"] += time.perf_counter() - begin
        self.mesh.send(self.parent, data)


class Forest:
    """The hosts of one process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.keys = Path(job["keys"])
        self.hosts: int = job["hosts"]
        self.fan_in: int = job["fan_in"]
        self.spent: dict[str, float] = {}
        self.messages = self.bytes = self.greeted = 0
        self.done = asyncio.Event()
        self.mine = {number: Host(self, number) for number in job["mine"]}
        # Subtree by subtree, children first, so that inner hosts need not all wait for the end.
        self.order = [n for n in bottom_up(0, self.hosts, self.fan_in) if n in self.mine]
        self._rows: dict[str, dict[int, Any]] = {}
        batches = {n: leaves(n, self.hosts, job["leaves"]) for n in self.mine}
        self._rows["ours"] = batches
        for rival in job["rivals"]:
            self._rows[rival] = {n: prepare(batch, rival) for n, batch in batches.items()}

    async def listen(self) -> dict[str, str]:
        """Open the sockets; return the addresses."""
        for host in self.mine.values():
            await host.mesh.start()
        return {name(number): host.mesh.address for number, host in self.mine.items()}

    async def connect(self, addresses: dict[str, str]) -> None:
        """Make a connection for every edge, before any clock starts."""
        for number, host in self.mine.items():
            if number:
                host.mesh.learn(host.parent, addresses[host.parent])
                host.mesh.send(host.parent, _HELLO)
                await asyncio.sleep(0.002)
        expected = sum(len(host.children) for host in self.mine.values())
        async with asyncio.timeout(120):
            while self.greeted < expected:
                await asyncio.sleep(0.01)
        # What the benchmark holds is no garbage of the tree's.
        gc.collect()
        gc.freeze()

    async def run(self, side: str, at: float) -> dict[str, Any]:
        """Run one round that begins at `at`, on the machine's monotonic clock."""
        self.spent = dict.fromkeys(("update", "merges", "serialisation"), 0.0)
        self.messages = self.bytes = 0
        self.done.clear()
        for host in self.mine.values():
            host.begin(side)
        rows = self._rows[side]
        gc.collect()
        await asyncio.sleep(at - time.monotonic() - 0.2)
        while time.monotonic() < at:
            await asyncio.sleep(0)
        for number in self.order:
            self.mine[number].fold(rows[number])
            await asyncio.sleep(0)
        root = self.mine.get(0)
        result: dict[str, Any] = {}
        if root is not None:
            await self.done.wait()
            result["seconds"] = time.monotonic() - at
            result["root"] = base64.b64encode(root.state.to_bytes()).decode()
        else:
            while any(host.missing for host in self.mine.values()):
                await asyncio.sleep(0.001)
        return result

    async def close(self) -> None:
        """Close the sockets."""
        await asyncio.gather(*(host.mesh.stop() for host in self.mine.values()))

    def counts(self) -> dict[str, Any]:
        """Return what the last round took."""
        return {"spent": self.spent, "messages": self.messages, "bytes": self.bytes}


async def serve() -> None:
    """Do what the parent process says until it has no more to say."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    forest: Forest | None = None
    while line := await reader.readline():
        order = json.loads(line)
        answer: Any = {}
        if order["do"] == "plant":
            forest = Forest(order)
            answer = await forest.listen()
        assert forest is not None
        if order["do"] == "connect":
            await forest.connect(order["addresses"])
        elif order["do"] == "run":
            answer = await forest.run(order["side"], order["at"])
        elif order["do"] == "counts":
            answer = forest.counts()
        elif order["do"] == "fell":
            await forest.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(serve())
    sys.stdout.flush()
    # The bindings of datasketches would list everything that is left at the exit.
    os._exit(0)
