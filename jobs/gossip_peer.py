"""One real peer: operations from a file or standard input, edits of others from the network."""

from __future__ import annotations

import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.lines import Line, LinesSource
from connectors.mesh import Mesh, Meshes
from flows.gossip import MemberEvent
from jobs.gossip_network import Command, connect, make_mesh
from jobs.gossip_outputs import write_document, write_feed, write_record
from jobs.gossip_settings import GossipSettings
from jobs.watch import Watch
from operators.gossip import Begin, Edit, Expel, Finish, Look, Refused, State
from state.gossip import MemberDown, MemberLeft, MemberSuspected, MemberUp, Stopped

Position = tuple[int, int]

_SAVE = 1.0
"""Seconds between two copies of the document."""


def peer_flow(settings: GossipSettings, out: Path) -> Dataflow:
    """Build the flow of one peer.

    Raises:
        ValueError: an address or a certificate cannot be used.
        OSError: a file cannot be read.
    """
    assert settings.name is not None
    assert settings.listen is not None
    mesh = make_mesh(
        settings.transport, settings.name, settings.listen, settings.advertise, keys=settings.keys
    )
    meshes = Meshes([mesh])
    life = _Life(settings, mesh, meshes, out)
    flow = Dataflow("gossip")
    commands = op.input("operations", flow, _Operations(life))
    document = connect(flow, meshes, commands, settings.round)
    write_feed(document, out)
    seen = op.merge("seen", document.states, document.refused, document.members)
    op.output("watch", op.map("event", seen, lambda item: item[1]), Watch(life.saw))
    return flow


class _Expel(msgspec.Struct, forbid_unknown_fields=True):
    """The one operation that is on the group and not on the document."""

    op: Literal["expel"]
    member: str


class _Life:
    """What a peer does from its begin to its end."""

    def __init__(self, settings: GossipSettings, mesh: Mesh, meshes: Meshes, out: Path) -> None:
        assert settings.name is not None
        self.name = settings.name
        self.path = settings.path
        self.stay = settings.stay
        self.stopped = False
        self._settings, self._mesh, self._meshes, self._out = settings, mesh, meshes, out
        self._operations = self._refused = 0
        self._state: State | None = None
        self._asked = False

    def begin(self) -> Begin:
        """Open the socket and leave in good order when the process is asked to end.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._meshes.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        print(f"gossip: {self.name}@{self._mesh.address} begins", file=sys.stderr, flush=True)
        address = f"{self.name}@{self._mesh.address}"
        return Begin(address, int(time.time() * 1000), tuple(self._settings.bootstrap))

    @property
    def asked_to_end(self) -> bool:
        """Whether there was a signal."""
        return self._asked

    def command(self, line: Line) -> Edit | Expel:
        """Return the operation that a line holds."""
        self._operations += 1
        where = f"line {line.number}"
        try:
            operation = msgspec.json.decode(line.data)
            if isinstance(operation, dict) and operation.get("op") == "expel":
                return Expel(msgspec.convert(operation, _Expel).member, where)
            return Edit(operation, where)
        except msgspec.DecodeError as error:
            text = line.data.decode(errors="replace")
            return Edit(f"{text} ({error})", where)

    def saw(self, event: Any) -> None:
        """Take note of what happened; at the end write what is left."""
        if isinstance(event, State):
            self._state = event
            write_document(self._out, event.state)
        elif isinstance(event, Refused):
            self._refused += 1
            print(f"gossip: {event.origin or event.source}: {event.reason}", file=sys.stderr)
        elif isinstance(event, Stopped):
            counts = {"operations": self._operations, "refused": self._refused}
            write_record(self._out, self._settings, counts)
            print(f"gossip: {self.name} has left; results: {self._out}", file=sys.stderr)
            self.stopped = True
            self._meshes.finish()
        else:
            print(f"gossip: {said(event)}", file=sys.stderr, flush=True)

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print("gossip: leaving (once more to stop at once)", file=sys.stderr, flush=True)


def said(event: MemberEvent) -> str:
    """Return in words who came or went."""
    words = {
        MemberUp: "is up",
        MemberSuspected: "does not answer",
        MemberDown: "is down",
        MemberLeft: "has left",
    }
    assert not isinstance(event, Stopped)
    return f"{event.member.address} {words[type(event)]}"


class _Operations(FixedPartitionedSource[Command, Position]):
    """Begin, then the lines as edits, and at the end of the peer's time its leave."""

    def __init__(self, life: _Life) -> None:
        self._life = life

    def list_parts(self) -> list[str]:
        return ["operations"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Position | None
    ) -> StatefulSourcePartition[Command, Position]:
        life = self._life
        source = LinesSource(life.path, wait=timedelta(0))
        return _OperationsPartition(life, source.build_part(step_id, for_part, resume_state))


class _OperationsPartition(StatefulSourcePartition[Command, Position]):
    def __init__(self, life: _Life, lines: StatefulSourcePartition[Line, Position]) -> None:
        self._life, self._lines = life, lines
        self._begun = False
        self._leave_at: float | None = None
        self._left = False
        self._ended = False
        self._saved = time.monotonic()

    def next_batch(self) -> list[Command]:
        life, now = self._life, time.monotonic()
        if not self._begun:
            self._begun = True
            return [(life.name, life.begin())]
        if life.stopped:
            raise StopIteration
        if self._left:
            return []
        if life.asked_to_end or (self._leave_at is not None and now >= self._leave_at):
            self._left = True
            return [(life.name, Look()), (life.name, Finish())]
        commands: list[Command] = []
        if now - self._saved >= _SAVE:
            self._saved = now
            commands.append((life.name, Look()))
        if not self._ended:
            try:
                for line in self._lines.next_batch():
                    if line.data.strip():
                        commands.append((life.name, life.command(line)))
            except StopIteration:
                self._ended = True
                if life.stay is not None:
                    self._leave_at = now + life.stay.total_seconds()
        return commands

    def snapshot(self) -> Position:
        return self._lines.snapshot()

    def close(self) -> None:
        self._lines.close()
