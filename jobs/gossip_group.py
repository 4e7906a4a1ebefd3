"""A group of peers in one process: edits at random peers, until all states are equal."""

from __future__ import annotations

import atexit
import hashlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource
from rich.console import Console
from rich.live import Live
from rich.table import Table

from connectors.mesh import Mesh, Meshes, QuicMesh, UdpMesh
from connectors.quic import Identity
from connectors.quic.certificates import make_authority, make_node
from jobs.gossip_network import LINGER, Command, connect
from jobs.gossip_outputs import write_document, write_feed, write_record
from jobs.gossip_settings import GossipSettings
from jobs.watch import Steps, Watch
from operators.gossip import Begin, Edit, Finish, Look, Refused, State
from state.gossip import Stopped

_LOOK = 0.1
"""Seconds between two looks at the group while it is edited."""
_LOOK_CLOSELY = 0.02
"""The same after the last edit."""


class Disagreement(Exception):
    """The peers did not reach the same state in time."""


class LocalGroup:
    """Makes the edits of a local group, and sees when its peers agree.

    They agree when every peer knows as many updates as were made, and all states are the same
    bytes: digests of a sample would not do.

    Args:
        meshes: The peers' sockets.
        edits: How many edits.
        rate: Edits in a second.
        seed: Of who edits what.
        patience: How long they may take to agree after the last edit.
        stream: Where progress is shown; a terminal gets a table.
    """

    def __init__(
        self,
        meshes: Meshes,
        *,
        edits: int,
        rate: float,
        seed: int,
        patience: timedelta,
        stream: TextIO = sys.stderr,
    ) -> None:
        self.names = sorted(meshes.by_name)
        self.states: dict[str, State] = {}
        self.refused: list[Refused] = []
        self.agreed_after: float | None = None
        """Seconds from the last edit until all states were seen to be equal."""
        self._meshes = meshes
        self._rate, self._patience = rate, patience.total_seconds()
        self._edits = list(_edits(random.Random(seed), self.names, edits))
        self._sent = 0
        self.stopped: set[str] = set()
        """Peers that have left."""
        self._stream = stream
        self._live: Live | None = None
        if stream.isatty():
            self._live = Live(
                console=Console(file=stream), refresh_per_second=8, get_renderable=self.table
            )

    # What the flow tells it

    def saw(self, item: tuple[str, Any]) -> None:
        """Take note of a state, a refusal or the end of a peer."""
        name, event = item
        if isinstance(event, State):
            self.states[name] = event
        elif isinstance(event, Refused):
            self.refused.append(event)
        elif isinstance(event, Stopped):
            self.stopped.add(name)

    # What it tells the flow

    def source(self) -> DynamicSource[Command]:
        """Return the source of commands."""
        return Steps(self.commands)

    def commands(self) -> Iterator[list[Command]]:
        """Yield what is to be done now, again and again until all have left.

        Raises:
            Disagreement: the peers took too long.
        """
        self._meshes.start()
        if self._live:
            self._live.start()
        yield self._begin()
        yield from self._edit()
        yield from self._agree()
        yield [(name, Finish()) for name in self.names]
        while len(self.stopped) < len(self.names):
            yield []
        self._meshes.finish()
        if self._live:
            self._live.stop()

    @property
    def agreed(self) -> bool:
        """Whether every peer knows every update and all states are the same bytes."""
        made = self._sent - len(self.refused)
        states = [self.states.get(name) for name in self.names]
        return all(state and sum(state.seen.values()) == made for state in states) and (
            len({state.state for state in states if state}) == 1
        )

    def table(self) -> Table:
        """Return what is shown."""
        table = Table(box=None, pad_edge=False, caption_justify="left")
        table.caption = f"{self._sent:,} of {len(self._edits):,} edits; {self._verdict()}"
        for title in ("peer", "updates known", "neighbours", "state", "bytes"):
            table.add_column(title, justify="left" if title in ("peer", "state") else "right")
        for name in self.names:
            state = self.states.get(name)
            if state is not None:
                known = sum(state.seen.values())
                size, near = f"{len(state.state):,}", str(len(state.neighbours))
                table.add_row(name, f"{known:,}", near, digest(state.state), size)
        return table

    def _verdict(self) -> str:
        if self.agreed_after is not None:
            return f"all equal, seen {self.agreed_after:.2f} s after the last edit"
        return f"{len({state.state for state in self.states.values()})} different states"

    def _begin(self) -> list[Command]:
        addresses = {name: f"{name}@{self._meshes.by_name[name].address}" for name in self.names}
        first = addresses[self.names[0]]
        now = int(time.time() * 1000)
        return [
            (name, Begin(addresses[name], now, () if addresses[name] == first else (first,)))
            for name in self.names
        ]

    def _edit(self) -> Iterator[list[Command]]:
        began = looked = said = time.monotonic()
        while self._sent < len(self._edits):
            now = time.monotonic()
            due = min(len(self._edits), int((now - began) * self._rate) + 1)
            commands: list[Command] = [*self._edits[self._sent : due]]
            self._sent = due
            if now - looked >= _LOOK:
                looked = now
                commands += self._look()
            if now - said >= 1 and not self._live:
                said = now
                self._say()
            yield commands

    def _agree(self) -> Iterator[list[Command]]:
        began = looked = time.monotonic()
        self.states.clear()
        yield self._look()
        while not self.agreed:
            now = time.monotonic()
            if now - began > self._patience:
                raise Disagreement(f"after {self._patience:.0f} s there are {self._verdict()}")
            if now - looked >= _LOOK_CLOSELY:
                looked = now
                yield self._look()
            yield []
        self.agreed_after = time.monotonic() - began
        if not self._live:
            self._say()

    def _look(self) -> list[Command]:
        return [(name, Look()) for name in self.names]

    def _say(self) -> None:
        text = f"gossip: {self._sent:,} of {len(self._edits):,} edits; {self._verdict()}"
        print(text, file=self._stream, flush=True)


def digest(state: bytes) -> str:
    """Return a short name for the bytes of a state.

    >>> digest(b"")
    'e3b0c44298fc'
    """
    return hashlib.sha256(state).hexdigest()[:12]


def _edits(chance: random.Random, names: list[str], count: int) -> Iterator[tuple[str, Edit]]:
    """Yield edits of a document of all kinds, which no replica can refuse."""
    for number in range(count):
        kind = chance.choice(("put", "put", "add", "remove", "increment", "insert"))
        operation: dict[str, Any] = {"op": kind}
        if kind == "put":
            key = f"key-{chance.randrange(40)}"
            operation |= {"name": "settings", "key": key, "value": number}
        elif kind in ("add", "remove"):
            # Of what is not there nothing can be removed: so both begin with an addition.
            operation |= {"name": "tags", "element": chance.randrange(60)}
            operation["op"] = "add" if number < 4 * len(names) else kind
        elif kind == "increment":
            operation |= {"name": "votes", "by": chance.randint(-3, 5)}
        else:
            operation |= {"name": "notes", "index": 0, "text": f"{number} "}
        yield chance.choice(names), Edit(operation, f"edit {number}")


def group_flow(settings: GossipSettings, out: Path) -> Dataflow:
    """Build the flow of a local group."""
    names = [f"peer-{number:02}" for number in range(1, settings.peers + 1)]
    meshes = Meshes(_meshes(names, settings))
    group = LocalGroup(
        meshes,
        edits=settings.edits,
        rate=settings.rate,
        seed=settings.seed,
        patience=settings.patience,
    )

    def saw(item: tuple[str, Any]) -> None:
        group.saw(item)
        if len(group.stopped) == len(names):
            _finish(group, settings, out)

    flow = Dataflow("gossip")
    commands = op.input("commands", flow, group.source())
    document = connect(flow, meshes, commands, settings.round)
    write_feed(document, out)
    seen = op.merge("seen", document.states, document.refused, document.members)
    op.output("watch", seen, Watch(saw))
    return flow


def _meshes(names: list[str], settings: GossipSettings) -> Iterator[Mesh]:
    if settings.transport == "udp":
        for name in names:
            yield UdpMesh(name, "127.0.0.1:0")
        return
    # Keys of a group that lives as long as this process.
    directory = tempfile.TemporaryDirectory(prefix="gossip-")
    atexit.register(directory.cleanup)
    keys = Path(directory.name)
    make_authority(keys)
    for name in names:
        make_node(keys, name)
        identity = Identity.load(keys, name)
        yield QuicMesh(name, "127.0.0.1:0", identity=identity, peers=names, linger=LINGER)


def _finish(group: LocalGroup, settings: GossipSettings, out: Path) -> None:
    state = group.states[group.names[0]].state
    document = write_document(out, state)
    counts = {
        "edits": sum(group.states[group.names[0]].seen.values()),
        "refused": len(group.refused),
        "agreed_after_seconds": round(group.agreed_after or 0.0, 3),
        "state": digest(state),
        "bytes": len(state),
    }
    write_record(out, settings, counts)
    print(f"{len(group.names)} peers, {counts['edits']:,} edits, {len(document)} names")
    print(f"all states are the same {len(state):,} bytes ({counts['state']})")
    print(f"seen {counts['agreed_after_seconds']:.2f} s after the last edit")
    print(f"results: {out}")
