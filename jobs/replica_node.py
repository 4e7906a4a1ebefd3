"""One replica: its keys, its log, its links, and what it leaves for people to read."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow

from connectors.files.atomic import replacing
from connectors.mesh import Meshes, Outgoing
from connectors.vote_log import VoteLog
from flows.consensus import Row, replicated
from jobs.committed import CommittedFile
from jobs.machines import MACHINES
from jobs.membership import Membership
from jobs.replica_board import Board, event_text
from jobs.replica_settings import ReplicaSettings
from jobs.watch import Once, Watch
from operators.pbft import Begin
from state.pbft import Replica, Settings, Standing
from state.pbft.byzantine import BEHAVIOURS, Actor

COMMITTED, EVENTS, STANDING = "committed.ndjson", "events.ndjson", "standing.json"
_REJECTIONS = 100
"""Refused messages of a peer that are written down; further ones are counted."""


def protocol(settings: ReplicaSettings) -> Settings:
    """Return the settings of the protocol, which all members of a group share."""
    return Settings(
        timeout=settings.timeout.total_seconds(), fast=settings.fast, votes=settings.votes
    )


def node_flow(settings: ReplicaSettings, out: Path) -> Dataflow:
    """Build the flow of one replica.

    Raises:
        ValueError: an address, a key or a log cannot be used.
        OSError: a file cannot be read.
    """
    assert settings.name is not None
    assert settings.keys is not None
    assert settings.listen is not None
    member = Membership.load(settings.keys, settings.name, settings.roster, settings.clients)
    if member.name not in member.group.members:
        raise ValueError(f"the roster has no replica {member.name!r}")
    mesh = member.mesh(
        settings.listen, settings.advertise, settings.peers, datagram=settings.datagram
    )
    meshes = Meshes([mesh])
    life = _Life(settings, meshes, out)
    machine = MACHINES[settings.machine]
    flow = Dataflow("replica")
    begin = op.input("begin", flow, Once([(member.name, Begin(member.name))], life.begin))
    result = replicated(
        begin,
        op.input("network", flow, meshes.source()),
        _maker(settings, member),
        _opener(settings, member),
        outgoing=Outgoing,
        operation=machine.words,
        result=machine.result,
    )
    op.output("send", result.say, meshes.sink())
    op.output("write_committed", result.committed, Watch(life.committed))
    op.output("write_events", result.events, Watch(life.happened))
    op.output("write_standing", result.standing, Watch(life.stands, life.ended))
    return flow


def _maker(
    settings: ReplicaSettings, member: Membership
) -> Callable[[str, Sequence[bytes]], Actor]:
    machine, behaviour = MACHINES[settings.machine], settings.byzantine

    def make(name: str, records: Sequence[bytes]) -> Actor:
        replica = Replica(
            member.group,
            member.keys,
            machine.make(),
            settings=protocol(settings),
            clients=member.clients,
            log=records,
        )
        if behaviour is None:
            return replica
        return BEHAVIOURS[behaviour](replica, member.keys, random.Random(settings.seed))

    return make


def _opener(settings: ReplicaSettings, member: Membership) -> Callable[[str], VoteLog]:
    def open_log(name: str) -> VoteLog:
        assert settings.log is not None
        return VoteLog(settings.log, member.group.cluster, name, sync=settings.sync)

    return open_log


class _Life:
    """What a replica does besides the protocol: from its begin to its end."""

    def __init__(self, settings: ReplicaSettings, meshes: Meshes, out: Path) -> None:
        assert settings.name is not None
        self._name = settings.name
        self._settings, self._meshes, self._out = settings, meshes, out
        self._rejected: Counter[str] = Counter()
        self._evidence: Counter[str] = Counter()
        self._last: dict[str, Any] = {}

    def begin(self) -> None:
        """Open the socket and the files, and end in good order when the process is asked to.

        Raises:
            ValueError: a file is not what it should be.
            OSError: the address cannot be listened on, or a file not written.
        """
        self._file = CommittedFile(self._out / COMMITTED)
        self._events = (self._out / EVENTS).open("ab")
        self._meshes.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        address = self._meshes.by_name[self._name].address
        print(f"replica: {self._name}@{address} begins", file=sys.stderr, flush=True)
        self._board = Board([self._name])
        if self._settings.byzantine:
            self._board.mark(self._name, self._settings.byzantine)

    def committed(self, item: tuple[str, Row]) -> None:
        """Write a batch down."""
        self._file.write(item[1])

    def happened(self, item: tuple[str, Row]) -> None:
        """Write an event down, and say it if it matters."""
        _, row = item
        kind = row["event"]
        if kind == "Rejected":
            self._rejected[row["sender"]] += 1
            if self._rejected[row["sender"]] > _REJECTIONS:
                return
        elif kind == "Evidence":
            self._evidence[row["accused"]] += 1
        text = event_text(row)
        if text is not None:
            self._board.note(text)
        self._events.write(msgspec.json.encode({"time": time.time(), **row}) + b"\n")
        self._events.flush()

    def stands(self, item: tuple[str, Standing]) -> None:
        """Leave it where others find it."""
        self._last = msgspec.structs.asdict(item[1])
        self._board.stands(self._name, self._last)
        path = self._out / STANDING
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(
            msgspec.json.encode({"replica": self._name, "pid": os.getpid(), **self._last})
        )
        new.replace(path)

    def ended(self) -> None:
        """Write the record of this life."""
        self._board.close()
        self._file.close()
        self._events.close()
        record = {"job": "replica", "settings": self._settings.model_dump(mode="json")}
        counts = {"rejected": dict(self._rejected), "evidence": dict(self._evidence)}
        with replacing(self._out / "run.json") as file:
            file.write(json.dumps({**record, **counts, "standing": self._last}, indent=2).encode())
        print(f"replica: {self._name} has ended; results: {self._out}", file=sys.stderr)

    def _end(self, number: int, frame: object) -> None:
        self._meshes.finish()
        signal.signal(signal.SIGINT, signal.default_int_handler)
