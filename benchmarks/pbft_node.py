"""A replica or the client of `benchmarks.pbft`, as a process that takes orders as JSON lines.

An order is one of `Order`; each is answered with one line. A process serves one group after the
other, so that it need not be started for each. The event loop is uvloop's, on every transport.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import uvloop

from benchmarks.mesh_rivals import HttpsMesh, TlsMesh
from benchmarks.pbft_loop import ClientLoop, ReplicaLoop
from benchmarks.pbft_orders import (
    CLIENT,
    CLUSTER,
    FAILED,
    Answered,
    Ask,
    Begin,
    End,
    Order,
    Peers,
    Tell,
    Told,
)
from connectors.mesh import Mesh, QuicMesh
from connectors.quic import Identity
from connectors.vote_log import VoteLog
from state.identity import PrivateIdentity, Roster
from state.pbft import Client, Group, Replica
from state.pbft.keys import Keys
from state.pbft.machines.store import Store

if TYPE_CHECKING:
    from benchmarks.pbft_flow import ReplicaFlow

_orders = msgspec.json.Decoder(Order)


def identity(name: str) -> PrivateIdentity:
    """Return a peer's signing identity: of benchmarks, so not secret."""
    return PrivateIdentity.generate(name, hashlib.sha256(name.encode()).digest())


def make_mesh(begin: Begin) -> Mesh:
    """Make the peer's end of a transport."""
    if begin.transport in ("quic", "dataflow"):
        return QuicMesh(
            begin.name,
            begin.listen,
            begin.advertise,
            identity=Identity.load(Path(begin.keys), begin.name),
            peers=[*begin.replicas, CLIENT],
            limits=begin.limits,
        )
    kind = {"tls": TlsMesh, "https": HttpsMesh}[begin.transport]
    return kind(begin.name, begin.listen, keys=Path(begin.keys))


def make_keys(begin: Begin) -> Keys:
    """Return the peer's signing keys, and whom it knows."""
    roster = Roster(CLUSTER, 1, tuple(identity(name).public for name in begin.replicas))
    return Keys(identity(begin.name), roster, [identity(CLIENT).public])


def fail(error: BaseException) -> NoReturn:
    """End this process, and answer why to whoever waits for it, or for what depends on it."""
    while error.__cause__ is not None:
        error = error.__cause__
    traceback.print_exception(error)
    reason = " ".join("".join(traceback.format_exception_only(error)).split())
    sys.stdout.buffer.write(FAILED + reason.encode() + b"\n")
    sys.stdout.buffer.flush()
    os._exit(1)


class Node:
    """One process in one group."""

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        self.mesh = mesh = make_mesh(begin)
        self.flow: ReplicaFlow | None = None
        if begin.transport == "dataflow" and begin.name != CLIENT:
            from benchmarks.pbft_flow import ReplicaFlow

            assert isinstance(mesh, QuicMesh)
            self.flow = ReplicaFlow(mesh, fail)
        self.group = Group(CLUSTER, begin.replicas)
        self.replica: ReplicaLoop | None = None
        self.client: ClientLoop | None = None

    async def start(self) -> str:
        """Listen; return where."""
        if self.flow is None:
            await self.mesh.start()
        return self.mesh.address

    def peers(self, addresses: dict[str, str]) -> None:
        """Learn where all are; begin."""
        begin = self.begin
        if self.flow is not None:
            self.flow.learn(addresses)
        else:
            for name, address in addresses.items():
                if name != begin.name:
                    self.mesh.learn(name, address)
        keys = make_keys(begin)
        if begin.name == CLIENT:
            now = time.monotonic()
            client = Client(self.group, keys, first=1, now=now, settings=begin.settings)
            self.client = ClientLoop(client, self.mesh)
        else:
            log = VoteLog(
                Path(begin.logs) / begin.name / "votes", CLUSTER, begin.name, sync=begin.sync
            )
            machine = Store()
            replica = Replica(
                self.group, keys, machine, settings=begin.settings, clients=[CLIENT], log=log.read()
            )
            if self.flow is not None:
                self.flow.start(replica, machine, log)
            else:
                self.replica = ReplicaLoop(replica, machine, self.mesh, log)

    def told(self) -> Told:
        """Return how it is doing."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        told = Told(used.ru_utime + used.ru_stime, sent=self.mesh.counts.sent)
        replica = self.replica or self.flow
        if replica is not None:
            replica.tell(told)
        elif self.client is not None:
            told.notes = dict(self.client.notes)
        told.notes |= {"dropped": self.mesh.counts.dropped} if self.mesh.counts.dropped else {}
        return told

    async def end(self) -> None:
        """Close everything."""
        if self.flow is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.flow.close)
        else:
            if self.replica is not None:
                self.replica.close()
            await self.mesh.stop()
        shutil.rmtree(Path(self.begin.logs) / self.begin.name, ignore_errors=True)


async def serve() -> None:
    """Carry out orders until there are no more."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    node: Node | None = None
    while line := await orders.readline():
        order = _orders.decode(line)
        answer: Any = None
        if isinstance(order, Begin):
            gc.collect()
            node = Node(order)
            answer = await node.start()
        elif node is not None and isinstance(order, Peers):
            node.peers(order.addresses)
        elif node is not None and isinstance(order, Ask):
            assert node.client is not None
            try:
                answer = await node.client.ask(order.load)
            except TimeoutError as error:
                answer = Answered(error=f"{node.begin.transport}: {error}")
        elif node is not None and isinstance(order, Tell):
            answer = node.told()
        elif node is not None:
            assert isinstance(order, End)
            await node.end()
            node = None
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    if node is not None:
        await node.end()


def main() -> None:
    """Serve; what a process of `benchmarks.pbft_group` runs."""
    uvloop.run(serve())
