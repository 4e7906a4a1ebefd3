"""Real replicas over QUIC and a real client: loss, kill -9, partitions, a liar.

Whatever happens, what the client was told is in the logs, once, and the logs are the same.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from connectors.testing import UdpRelay
from jobs.committed import audit
from jobs.membership import make_members
from state.pbft import Settings

FLOW = [sys.executable, "-m", "bytewax.run", "jobs.replica"]
NAMES = ["r1", "r2", "r3", "r4"]
_BYZANTINE = "equivocate"


class Peer:
    """A process, a replica that others reach through a relay, or the client."""

    def __init__(self, name: str, directory: Path, keys: Path, **settings: object) -> None:
        self.name, self.directory = name, directory
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {"NAME": name, "KEYS": keys, "OUT": directory / name, **settings}

    def start(self) -> None:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("REPLICA_")}
        given = {f"REPLICA_{name}": str(value) for name, value in self._settings.items()}
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                FLOW, env=plain | given, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.said()

    def said(self) -> str:
        return (self.directory / f"{self.name}.log").read_text()

    def standing(self) -> dict[str, Any]:
        path = self.directory / self.name / "standing.json"
        return json.loads(path.read_bytes()) if path.exists() else {"final": 0, "view": 0}

    def committed(self) -> list[dict[str, Any]]:
        """Return its log; a batch may be final in one view here and in a later one there."""
        lines = (self.directory / self.name / "committed.ndjson").read_text().splitlines()
        return [{**json.loads(line), "view": None} for line in lines]

    def transferred(self) -> list[int]:
        """Return after which batches it was sent the state."""
        lines = (self.directory / self.name / "events.ndjson").read_text().splitlines()
        events = map(json.loads, lines)
        return [event["seq"] for event in events if event["event"] == "Transferred"]


class Group:
    """Four replicas, each behind a relay, and a client."""

    def __init__(self, directory: Path, stack: ExitStack, **liar: object) -> None:
        keys = make_members(directory / "secret", NAMES, ["me"], cluster="test")
        ports = [free_port() for _ in NAMES]
        self.relays = {
            name: stack.enter_context(UdpRelay(("127.0.0.1", port), loss=0.03, seed=port))
            for name, port in zip(NAMES, ports, strict=True)
        }
        peers = ",".join(
            f"{name}@127.0.0.1:{relay.address[1]}" for name, relay in self.relays.items()
        )
        self.peers = {
            name: Peer(
                name,
                directory,
                keys[name],
                ROLE="replica",
                LISTEN=f"127.0.0.1:{port}",
                ADVERTISE=f"127.0.0.1:{self.relays[name].address[1]}",
                PEERS=peers,
                LOG=directory / name / "votes",
                **(liar if name == "r1" else {}),
            )
            for name, port in zip(NAMES, ports, strict=True)
        }
        self.client = Peer(
            "me", directory, keys["me"], ROLE="client", PEERS=peers, WINDOW=4, PATIENCE="120s"
        )
        self.answers: list[dict[str, Any]] = []
        self.asked = 0
        stack.callback(self.stop)
        for peer in (*self.peers.values(), self.client):
            peer.start()

    def ask(self, *words: Any) -> None:
        for each in words:
            self.asked += 1
            self.write(json.dumps(each).encode())

    def write(self, line: bytes) -> None:
        assert self.client.process is not None
        assert self.client.process.stdin is not None
        self.client.process.stdin.write(line + b"\n")
        self.client.process.stdin.flush()

    def put(self, count: int) -> None:
        first = self.asked
        self.ask(
            *({"op": "put", "key": f"k{n}", "value": f"v{n}"} for n in range(first, first + count))
        )

    def answered(self) -> int:
        path = self.client.directory / self.client.name / "answers.ndjson"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        self.answers += map(json.loads, lines[len(self.answers) :])
        return len(self.answers)

    def wait(self, count: int, what: str) -> None:
        self.until(lambda: self.answered() >= count, what)

    def until(self, ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, f"{what}: {self.state()}"
            time.sleep(0.02)

    def state(self) -> str:
        logs = {name: peer.said()[-800:] for name, peer in self.peers.items()}
        standings = {name: peer.standing() for name, peer in self.peers.items()}
        return f"{self.answered()} of {self.asked}, {standings}, {logs}, {self.client.said()}"

    def stop(self) -> None:
        for peer in (*self.peers.values(), self.client):
            if peer.process is not None and peer.process.poll() is None:
                peer.kill()

    def finish(self, *correct: str) -> None:
        """End all, and compare the logs with one another and with what was answered."""
        assert self.client.process is not None
        assert self.client.process.stdin is not None
        self.client.process.stdin.close()
        self.wait(self.asked, "not all was answered")
        assert self.client.process.wait(30) == 0, self.client.said()
        last = max(answer["seq"] for answer in self.answers)
        self.until(
            lambda: all(self.peers[name].standing()["final"] >= last for name in correct),
            "not all have what was answered",
        )
        for peer in self.peers.values():
            peer.end()
        everything: dict[int, dict[str, Any]] = {}
        logs = {name: self.peers[name].committed() for name in correct}
        assert not audit(logs, transfers={n: self.peers[n].transferred() for n in correct}).faults
        for name in correct:
            for batch in logs[name]:
                assert everything.setdefault(batch["seq"], batch) == batch, name
        executed: dict[int, tuple[int, Any, Any]] = {}
        for seq, batch in everything.items():
            for request in batch["requests"]:
                if request["results"] is not None:
                    assert request["number"] not in executed, "executed twice"
                    executed[request["number"]] = seq, request["operations"], request["results"]
        assert len(self.answers) == self.asked == len(executed)
        for answer in self.answers:
            asked = answer["operations"]
            asked = asked if isinstance(asked, list) else [asked]
            assert executed[answer["number"]] == (answer["seq"], asked, answer["results"])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_group_that_is_treated_badly(tmp_path: Path, stack: ExitStack) -> None:
    # An earlier life of the client began when its clock was ahead.
    numbers = tmp_path / "me" / "me.numbers"
    numbers.parent.mkdir()
    numbers.write_text("3000000000000000")
    group = Group(tmp_path, stack)
    peers, relays = group.peers, group.relays
    group.put(20)
    group.wait(20, "a group that was left alone")

    # A backup dies, and comes back with its log while the others go on.
    peers["r3"].kill()
    group.put(20)
    group.wait(30, "without r3")
    peers["r3"].start()
    group.wait(40, "with r3 on its way back")

    # The leader dies: another takes over, and it comes back as one of the others.
    leader = NAMES[group.peers["r2"].standing()["view"] % 4]
    peers[leader].kill()
    group.put(20)
    group.wait(60, f"without {leader}, who led")
    peers[leader].start()

    # Nobody can agree with half of the group, and nothing is lost in the meantime.
    for name in ("r3", "r4"):
        relays[name].partition()
    group.put(10)
    time.sleep(1.5)
    for name in ("r3", "r4"):
        relays[name].heal()
    group.wait(70, "after a partition")

    # The power fails: all die at once, amid requests.
    group.put(10)
    group.wait(73, "before the power fails")
    for name in NAMES:
        peers[name].kill()
    for name in NAMES:
        peers[name].start()
    group.wait(80, "when all are back")
    group.ask(*({"op": "get", "key": f"k{n}"} for n in range(10)))
    group.ask([{"op": "get", "key": "k0"}, {"op": "put", "key": "k0", "value": "last"}])
    group.write(b"what?")
    group.finish(*NAMES)
    (letter,) = (tmp_path / "me" / "dead_letters.ndjson").read_text().splitlines()
    assert json.loads(letter)["content"] == "what?"
    (both,) = [a["results"] for a in group.answers if isinstance(a["operations"], list)]
    assert [each["result"] for each in both] == ["found", "written"]
    assert min(answer["number"] for answer in group.answers) == 3_000_000_000_000_000
    assert int(numbers.read_text()) > max(answer["number"] for answer in group.answers)
    group.answers = [a for a in group.answers if isinstance(a["operations"], dict)]
    found = {answer["operations"]["key"]: answer["results"] for answer in group.answers[-10:]}
    assert found == {f"k{n}": [{"result": "found", "value": f"v{n}"}] for n in range(10)}


def test_a_group_with_a_liar_whose_others_are_killed(tmp_path: Path, stack: ExitStack) -> None:
    group = Group(tmp_path, stack, BYZANTINE=_BYZANTINE)
    group.put(10)
    group.wait(10, "with a liar")
    chance = random.Random(1)
    for turn in range(3):
        # With a liar and one that is down there is no quorum, until that one is back.
        victim = group.peers[chance.choice(NAMES[1:])]
        victim.kill()
        group.put(10)
        time.sleep(0.3)
        victim.start()
        group.wait(10 * (turn + 2), f"with a liar, and {victim.name} back")
    group.finish(*NAMES[1:])
    events = (tmp_path / "r2" / "events.ndjson").read_text().splitlines()
    accused = {row["accused"] for row in map(json.loads, events) if row["event"] == "Evidence"}
    assert accused <= {"r1"}


@pytest.mark.parametrize("how", ["killed", pytest.param("paused", marks=pytest.mark.soak), "wiped"])
def test_one_that_is_far_behind_gets_the_state(how: str, tmp_path: Path, stack: ExitStack) -> None:
    group = Group(tmp_path, stack)
    peers, behind = group.peers, group.peers["r3"]
    group.put(10)
    group.wait(10, "a group that was left alone")
    assert behind.process is not None
    if how == "paused":
        behind.process.send_signal(signal.SIGSTOP)
    else:
        behind.kill()
    left = behind.standing()["final"]
    # What it lacks is forgotten: two checkpoints' slots are all that may be under way.
    while peers["r2"].standing()["stable"] < left + 2 * Settings().checkpoint:
        group.put(50)
        group.wait(group.asked, f"with r3 {how}")
    if how == "paused":
        behind.process.send_signal(signal.SIGCONT)
    else:
        if how == "wiped":
            (behind.directory / "r3" / "votes").unlink()
        behind.start()

    group.until(lambda: bool(behind.transferred()), "r3 gets the state")
    assert behind.transferred()[-1] > left + Settings().checkpoint
    if how != "wiped":  # who has forgotten its votes counts as the one that may be faulty
        peers["r2"].kill()
    group.ask(*({"op": "get", "key": f"k{n}"} for n in range(0, group.asked, 20)))
    group.put(20)
    group.wait(group.asked, f"without r2, with r3 that was {how}")
    if how != "wiped":
        peers["r2"].start()
    group.finish(*NAMES)
    gap = {batch["seq"] for batch in peers["r2"].committed()}
    gap -= {batch["seq"] for batch in behind.committed()}
    assert len(gap) > Settings().checkpoint, "they came as a state, and not one by one"
