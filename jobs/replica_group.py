"""A group of replicas on this machine, each a process with keys of its own, and their clients."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow

from connectors.files.atomic import replacing
from connectors.mesh import Meshes, Outgoing
from flows.consensus import asked
from jobs.committed import Audit, audit, read
from jobs.machines import MACHINES
from jobs.membership import Membership, make_members
from jobs.processes import Node, Processes, free_ports, in_words
from jobs.replica_board import Board, event_text
from jobs.replica_node import COMMITTED, EVENTS, STANDING, protocol
from jobs.replica_settings import ReplicaSettings
from jobs.replica_workload import WORKLOADS, Lane, Unanswered
from jobs.settings import SettingsError
from jobs.watch import Once, Steps, Watch
from operators.pbft import Begin
from operators.pbft_client import Ask
from state.pbft import Answer, Client

Asks = Iterator[list[tuple[str, Ask]]]

_DATAGRAM = 16_000
"""Bytes that loopback carries."""
_POLL = 0.1
"""Seconds between two looks at the processes."""
_SETTLE = 3.0
"""Seconds that replicas have to commit what is answered, and to catch up."""


class Disagreement(Exception):
    """Replicas have committed different batches, or clients were told what was not committed."""


def plan(out: Path, settings: ReplicaSettings) -> tuple[list[Node], list[str]]:
    """Return the processes of a group, and where each listens, as ``name@host:port``.

    The first misbehaves if one is to: it leads the first view.
    """
    names = [f"r{i + 1}" for i in range(settings.replicas)]
    ports = free_ports(len(names))
    peers = [f"{name}@127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)]
    nodes = []
    for name, peer in zip(names, peers, strict=True):
        known = {
            "role": "replica",
            "name": name,
            "machine": settings.machine,
            "listen": peer.partition("@")[2],
            "peers": ",".join(peers),
            "keys": out / name / "keys",
            "log": out / name / "votes",
            "out": out / name,
            "sync": settings.sync,
            "timeout": f"{settings.timeout / timedelta(milliseconds=1)}ms",
            "fast": settings.fast,
            "votes": settings.votes,
            "datagram": _DATAGRAM,
            "seed": settings.seed,
        }
        if name == names[0] and settings.byzantine is not None:
            known["byzantine"] = settings.byzantine
        nodes.append(Node(name, {f"REPLICA_{k.upper()}": str(v) for k, v in known.items()}))
    return nodes, peers


def group_flow(settings: ReplicaSettings, out: Path) -> Dataflow:
    """Build the flow of a local group's clients, which starts the replicas and ends them.

    Raises:
        SettingsError: the directory has a group already.
        OSError: it cannot be written.
    """
    if (out / "r1").exists():
        raise SettingsError(f"REPLICA_OUT={out} has a group already, which is gone: take another")
    nodes, peers = plan(out, settings)
    users = [f"c{i + 1}" for i in range(settings.users)]
    names = [node.name for node in nodes]
    keys = make_members(out, names, users, cluster=out.name)
    members = {user: Membership.load(keys[user], user) for user in users}
    meshes = Meshes(
        [member.mesh("127.0.0.1:0", None, peers, datagram=_DATAGRAM) for member in members.values()]
    )
    group = LocalGroup(settings, out, nodes, users, meshes)

    def client(name: str, first: int, now: float) -> Client:
        member = members[name]
        return Client(member.group, member.keys, first=first, now=now, settings=protocol(settings))

    flow = Dataflow("replica")
    result = asked(
        op.input("begin", flow, Once([(user, Begin(user)) for user in users])),
        op.input("workload", flow, Steps(group.asks)),
        op.input("network", flow, meshes.source()),
        client,
        outgoing=Outgoing,
    )
    op.output("send", result.say, meshes.sink())
    op.output("write_answers", result.answers, Watch(group.answered))
    op.output("write_events", result.events, Watch(group.refused))
    return flow


@dataclass(slots=True)
class _Asking:
    """A lane of the workload, and its next request."""

    user: str
    lane: Lane
    operations: list[bytes]


class LocalGroup:
    """Starts replicas, has clients ask them, shows how they are, and compares their logs.

    Args:
        settings: The job's.
        out: Where everything goes.
        nodes: The replicas' processes.
        users: The clients' names.
        meshes: The clients' links.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        out: Path,
        nodes: list[Node],
        users: list[str],
        meshes: Meshes,
    ) -> None:
        self.names = [node.name for node in nodes]
        self._settings, self._out, self._meshes = settings, out, meshes
        self._machine = MACHINES[settings.machine]
        self._processes = Processes(
            out, nodes, run="jobs.replica:run", prefix="REPLICA_", warm="jobs.replica_warm"
        )
        self._workload = WORKLOADS[settings.machine](settings.batch)
        self._lanes: list[_Asking] = []
        for user in users:
            for number in range(settings.window):
                name = f"{user}.{number}" if settings.window > 1 else user
                lane = self._workload.lane(name, random.Random(f"{settings.seed} {name}"))
                self._lanes.append(_Asking(user, lane, next(lane)))
        self._idle = deque(range(len(self._lanes)))
        self._waiting: dict[int, float] = {}
        """Since when lanes wait for an answer."""
        self._answers: dict[tuple[str, int], tuple[int, list[Any]]] = {}
        self._phases: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._evidence: dict[str, set[str]] = {}
        self._transfers: dict[str, set[int]] = {name: set() for name in self.names}
        self._read: Counter[str] = Counter()
        self._standings: dict[str, dict[str, Any]] = {}
        self._board: Board
        self._asked = 0
        self._polled = 0.0

    @property
    def _correct(self) -> list[str]:
        return self.names[1:] if self._settings.byzantine else self.names

    # What the flow tells it

    def answered(self, item: tuple[str, Answer]) -> None:
        """Note an answer, and have its lane make its next request."""
        user, answer = item
        number = answer.token
        assert isinstance(number, int)
        asking = self._lanes[number]
        results = [self._machine.result(data) for data in answer.results]
        self._answers[user, answer.number] = answer.seq, results
        self._phases[answer.phase.name.lower()] += 1
        self._board.answered(answer.seconds)
        asking.operations = asking.lane.send(answer.results)
        del self._waiting[number]
        self._idle.append(number)

    def refused(self, item: tuple[str, Any]) -> None:
        """Count what replicas said to a client that makes no sense."""
        self._rejected[item[1].sender] += 1

    # What it tells the flow

    def asks(self) -> Asks:
        """Yield what is to be asked now, again and again until all is answered.

        Raises:
            Unanswered: a request was not answered in time.
            Disagreement: the replicas' logs are not the same.
        """
        self._board = Board(self.names, self._settings.requests)
        if self._settings.byzantine:
            self._board.mark(self.names[0], self._settings.byzantine)
        try:
            # Not in this thread: while one source keeps the worker, the epochs of the others run
            # apart, and each time then waits as long.
            with ThreadPoolExecutor(1) as starter:
                starting = starter.submit(self._processes.start)
                while not starting.done():
                    yield []
                starting.result()
            pid = _short(self._processes.pid_file(self.names[-1]))
            self._board.hint(f"{len(self.names)} processes; kill any: kill -9 $(cat {pid})")
            yield from self._wait(lambda: len(self._standings) == len(self.names))
            began = time.monotonic()
            yield from self._ask(began)
            took = time.monotonic() - began
            yield from self._wait(self._settled, _SETTLE)
        finally:
            self._processes.stop()
            self._board.close()
        self._poll()
        self._finish(took)
        self._meshes.finish()

    def _wait(self, ready: Callable[[], bool], patience: float | None = None) -> Asks:
        seconds = self._settings.patience.total_seconds() if patience is None else patience
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                if patience is None:
                    raise Unanswered(f"after {seconds:.0f} s not all replicas have begun")
                return
            self._poll()
            yield []

    def _ask(self, began: float) -> Asks:
        rate, total = self._settings.rate, self._settings.requests
        patience = self._settings.patience.total_seconds()
        while len(self._answers) < total:
            now = time.monotonic()
            due = min(total, int((now - began) * rate) + 1) if rate else total
            asks: list[tuple[str, Ask]] = []
            while self._idle and self._asked < due:
                number = self._idle.popleft()
                asking = self._lanes[number]
                asks.append((asking.user, Ask(asking.operations, number)))
                self._waiting[number] = now
                self._asked += 1
            oldest = next(iter(self._waiting.values()), now)
            if now - oldest > patience:
                raise Unanswered(f"a request has waited for {patience:.0f} s")
            self._poll()
            yield asks

    def _settled(self) -> bool:
        """Return whether all that is answered is final at every correct replica."""
        last = max((seq for seq, _ in self._answers.values()), default=0)
        return all(self._standings.get(name, {}).get("final", 0) >= last for name in self._correct)

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled < _POLL:
            return
        self._polled = now
        for name, code, again in self._processes.poll():
            self._board.down(name)
            text = "starting it again" if again else "it is not needed any more"
            self._board.note(f"{name} {in_words(code)}: {text}")
        for name in self.names:
            path = self._out / name / STANDING
            if path.exists():
                standing = msgspec.json.decode(path.read_bytes())
                if standing != self._standings.get(name):
                    self._standings[name] = standing
                    self._board.stands(name, standing)
            self._read_events(name)
        self._board.say()

    def _read_events(self, name: str) -> None:
        path = self._out / name / EVENTS
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[name])
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read[name] += len(line)
                row = msgspec.json.decode(line)
                text = event_text(row)
                if text is not None:
                    self._board.note(f"{name}: {text}")
                if row["event"] == "Transferred":
                    self._transfers[name].add(row["seq"])
                if row["event"] == "Evidence":
                    self._evidence.setdefault(text or "", set()).add(name)

    def _finish(self, took: float) -> None:
        logs = {name: read(self._out / name / COMMITTED) for name in self._correct}
        for name in self.names:
            self._read_events(name)
        found = audit(logs, self._answers, self._transfers)
        latencies = self._board.latencies
        milliseconds = {
            f"p{share}": round(1000 * latencies.percentile(share / 100), 3)
            for share in (50, 90, 99)
        }
        record = {
            "job": "replica",
            "settings": self._settings.model_dump(mode="json"),
            "seconds": round(took, 3),
            "answers": len(self._answers),
            "requests_per_second": round(len(self._answers) / took, 1),
            "latency_ms": milliseconds,
            "phases": dict(self._phases),
            "restarts": self._processes.restarts,
            "batches": found.batches,
            "last": found.last,
            "left_out": found.left_out,
            "evidence": {text: sorted(names) for text, names in self._evidence.items()},
            "refused_by_clients": dict(self._rejected),
            "faults": found.faults,
            "finished": datetime.now(UTC).isoformat(),
        }
        with replacing(self._out / "run.json") as file:
            file.write(json.dumps(record, indent=2).encode() + b"\n")
        self._print(record, found)
        if found.faults:
            raise Disagreement("; ".join(found.faults[:3]))

    def _print(self, record: dict[str, Any], found: Audit) -> None:
        latency = ", ".join(
            f"{name} {value:.1f} ms" for name, value in record["latency_ms"].items()
        )
        print(f"{record['answers']:,} requests answered in {record['seconds']:.1f} s: {latency}")
        ends = ", ".join(f"{name} {last:,}" for name, last in found.last.items())
        print(f"{found.batches:,} batches committed, the logs agree ({ends})")
        for text, names in record["evidence"].items():
            print(f"{text} ({', '.join(names)})")
        if not record["evidence"]:
            print("no evidence of misbehaviour")
        print(f"results: {_short(self._out)}")
        sys.stdout.flush()


def _short(path: Path) -> Path:
    """Return a path as users need it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
