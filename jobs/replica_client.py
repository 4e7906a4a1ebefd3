"""One real client: operations from a file or standard input, answers as lines."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow

from connectors.files.atomic import replacing
from connectors.lines import Line, LinesSource
from connectors.mesh import Meshes, Outgoing
from flows.consensus import asked
from jobs.machines import MACHINES
from jobs.membership import Membership
from jobs.replica_board import Latencies
from jobs.replica_node import protocol
from jobs.replica_numbers import claim
from jobs.replica_settings import ReplicaSettings
from jobs.replica_workload import Unanswered
from jobs.watch import Once, Steps, Watch
from operators.pbft import Begin
from operators.pbft_client import Ask, Refused
from state.pbft import Answer, Client

ANSWERS, DEAD_LETTERS = "answers.ndjson", "dead_letters.ndjson"
_ANYWHERE = "0.0.0.0:0"


def client_flow(settings: ReplicaSettings, out: Path) -> Dataflow:
    """Build the flow of one client.

    Raises:
        ValueError: an address or a key cannot be used.
        OSError: a file cannot be read.
    """
    assert settings.name is not None
    assert settings.keys is not None
    member = Membership.load(settings.keys, settings.name, settings.roster, settings.clients)
    mesh = member.mesh(
        settings.listen or _ANYWHERE,
        settings.advertise,
        settings.peers,
        datagram=settings.datagram,
    )
    meshes = Meshes([mesh])
    life = _Life(settings, meshes, out)

    def client(name: str, first: int, now: float) -> Client:
        first = claim(out, name, first)
        return Client(member.group, member.keys, first=first, now=now, settings=protocol(settings))

    flow = Dataflow("replica")
    result = asked(
        op.input("begin", flow, Once([(member.name, Begin(member.name))], life.begin)),
        op.input("operations", flow, Steps(life.asks)),
        op.input("network", flow, meshes.source()),
        client,
        outgoing=Outgoing,
    )
    op.output("send", result.say, meshes.sink())
    op.output("write_answers", result.answers, Watch(life.answered, life.ended))
    op.output("write_events", result.events, Watch(life.refused))
    return flow


class _Life:
    """What a client does from its begin to its end.

    A line is an operation, or a list of them that are carried out together. So many are under way
    as `REPLICA_WINDOW` allows; those are carried out in any order.
    """

    def __init__(self, settings: ReplicaSettings, meshes: Meshes, out: Path) -> None:
        assert settings.name is not None
        self._name, self._settings, self._meshes, self._out = settings.name, settings, meshes, out
        self._machine = MACHINES[settings.machine]
        self._waiting: dict[int, tuple[float, Any]] = {}
        """When each line was asked, and what it says."""
        self._latencies = Latencies()
        self._refused = 0
        self._asked_to_end = False

    def begin(self) -> None:
        """Open the files; end when the process is asked to."""
        self._answers = (self._out / ANSWERS).open("ab")
        self._dead = (self._out / DEAD_LETTERS).open("ab")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)

    def asks(self) -> Iterator[list[tuple[str, Ask]]]:
        """Yield what the lines ask, and end when all is answered.

        Raises:
            Unanswered: a line was not answered in time.
        """
        lines = LinesSource(self._settings.path, wait=timedelta(0)).build_part("", "", None)
        read: deque[Line] = deque()
        ended = False
        while not self._asked_to_end and (self._waiting or read or not ended):
            asks: list[tuple[str, Ask]] = []
            while read and len(self._waiting) < self._settings.window:
                asks += self._ask(read.popleft())
            if not read and not ended:
                try:
                    read += lines.next_batch()
                except StopIteration:
                    ended = True
            oldest = next(iter(self._waiting.values()), None)
            patience = self._settings.patience.total_seconds()
            if oldest is not None and time.monotonic() - oldest[0] > patience:
                raise Unanswered(f"line {next(iter(self._waiting))} has waited {patience:.0f} s")
            yield asks
        self._meshes.finish()

    def _ask(self, line: Line) -> Iterator[tuple[str, Ask]]:
        if not line.data.strip():
            return
        try:
            said = msgspec.json.decode(line.data)
            each = said if isinstance(said, list) else [said]
            operations = [self._machine.operation(words) for words in each]
        except ValueError as error:
            self._refuse(line.number, line.data.decode(errors="replace"), str(error))
            return
        self._waiting[line.number] = time.monotonic(), said
        yield self._name, Ask(operations, line.number)

    def answered(self, item: tuple[str, Answer]) -> None:
        """Write an answer down, and print it."""
        _, answer = item
        assert isinstance(answer.token, int)
        _, said = self._waiting.pop(answer.token)
        results = [self._machine.result(data) for data in answer.results]
        self._latencies.add(answer.seconds, time.monotonic())
        row = {
            "line": answer.token,
            "operations": said,
            "results": results,
            "number": answer.number,
            "seq": answer.seq,
            "view": answer.view,
            "phase": answer.phase.name.lower(),
            "ms": round(1000 * answer.seconds, 3),
        }
        data = msgspec.json.encode(row) + b"\n"
        self._answers.write(data)
        self._answers.flush()
        sys.stdout.write(data.decode())
        sys.stdout.flush()

    def refused(self, item: tuple[str, Any]) -> None:
        """Note a line that cannot be asked; say what a replica said that makes no sense."""
        _, event = item
        if isinstance(event, Refused):
            assert isinstance(event.token, int)
            _, said = self._waiting.pop(event.token)
            self._refuse(event.token, said, event.reason)
        else:
            print(f"replica: {event.sender}: {event.reason}", file=sys.stderr, flush=True)

    def _refuse(self, line: int, content: Any, reason: str) -> None:
        self._refused += 1
        print(f"replica: line {line}: {reason}", file=sys.stderr, flush=True)
        row = {"line": line, "content": content, "reason": reason}
        self._dead.write(msgspec.json.encode(row) + b"\n")

    def ended(self) -> None:
        """Write the record of this life."""
        self._answers.close()
        self._dead.close()
        answers, latencies = len(self._latencies.seconds), self._latencies
        half, most = (round(1000 * latencies.percentile(share), 3) for share in (0.5, 0.99))
        record = {
            "job": "replica",
            "settings": self._settings.model_dump(mode="json"),
            "answers": answers,
            "refused": self._refused,
            "latency_ms": {"p50": half, "p99": most} if answers else {},
        }
        with replacing(self._out / "run.json") as file:
            file.write(json.dumps(record, indent=2).encode() + b"\n")
        text = f"replica: {answers:,} answered, {self._refused:,} refused"
        text += f", p50 {half:.1f} ms, p99 {most:.1f} ms" if answers else ""
        print(f"{text}; results: {self._out}", file=sys.stderr, flush=True)

    def _end(self, number: int, frame: object) -> None:
        self._asked_to_end = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
