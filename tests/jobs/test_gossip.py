"""The gossip job as a user runs it: a local group, real peers, and what is wrong with settings."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import init_db_dir

from connectors.mesh import Meshes, UdpMesh
from connectors.quic.certificates import make_authority, make_node
from jobs.gossip_group import Disagreement, LocalGroup
from jobs.gossip_settings import GossipSettings
from operators.gossip import Begin, Edit, Finish, Look, State
from state.gossip import Stopped

FLOW = [sys.executable, "-m", "bytewax.run", "jobs.gossip"]


def environment(**settings: object) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("GOSSIP_")}
    return plain | {f"GOSSIP_{name.upper()}": str(value) for name, value in settings.items()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def document(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "document.json").read_text()))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("transport", ["quic", "udp"])
def test_a_local_group_ends_equal(transport: str, tmp_path: Path) -> None:
    settings = environment(
        peers=4, edits=80, rate=400, transport=transport, out=tmp_path, round="50ms"
    )
    done = subprocess.run(FLOW, env=settings, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "4 peers, 80 edits, 4 names" in done.stdout
    assert "all states are the same" in done.stdout
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["edits"], record["refused"]) == (80, 0)
    assert not (tmp_path / "dead_letters.ndjson").exists()
    # Each peer's feed, followed from nothing, ends at the document that all have.
    ends = [replay(tmp_path, f"peer-{n:02}") for n in range(1, 5)]
    assert ends == [document(tmp_path)] * 4


def replay(directory: Path, peer: str) -> dict[str, Any]:
    """Return what a reader of a peer's feed knows at the end."""
    found: dict[str, Any] = {"settings": {}, "tags": set(), "notes": "", "votes": 0}
    for change in lines(directory / "changes.ndjson"):
        if change["peer"] != peer:
            continue
        name, path, new = change["name"], change["path"], change["new"]
        if name == "settings":
            found[name][path[0]] = new
        elif name == "tags":
            (found[name].add if new else found[name].discard)(path[0])
        elif name == "votes":
            found[name] = new
        else:
            text, at = found[name], path[0]
            found[name] = text[:at] + new + text[at + change["old"] :]
    return found | {"tags": sorted(found["tags"], key=repr)}


class Peer:
    """A real peer as a process."""

    def __init__(
        self, name: str, port: int, out: Path, *arguments: str, **settings: object
    ) -> None:
        settings = {"name": name, "listen": f"127.0.0.1:{port}", "round": "50ms", **settings}
        self.out = out
        self.process = subprocess.Popen(
            [*FLOW, *arguments],
            env=environment(out=out, **settings),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, *operations: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        for operation in operations:
            self.process.stdin.write(json.dumps(operation) + "\n")
        self.process.stdin.flush()

    def until(self, said: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if said in line:
                return
        raise AssertionError(f"{said!r} was not said")

    def until_document(self, expected: dict[str, Any]) -> None:
        """Wait for a copy of the document, which is written once a second."""
        for _ in range(200):
            if (self.out / "document.json").exists() and document(self.out) == expected:
                return
            time.sleep(0.1)
        raise AssertionError(f"{document(self.out)} is not {expected}")

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, said

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_real_peers_over_quic(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    make_authority(keys)
    for name in ("ann", "bob"):
        make_node(keys, name)
    port = free_port()
    ann = Peer("ann", port, tmp_path / "ann", keys=keys)
    ann.until("begins")
    contact = f"ann@127.0.0.1:{port}"
    bob = Peer("bob", free_port(), tmp_path / "bob", keys=keys, bootstrap=contact)
    bob.until(f"{contact} is up")
    ann.write({"op": "put", "name": "m", "key": "k", "value": [1, {"a": None}]})
    bob.write({"op": "increment", "name": "n", "by": -2}, {"op": "fly"}, {"op": "add", "name": "m"})
    expected = {"m": {"k": [1, {"a": None}]}, "n": -2}
    ann.until_document(expected)
    bob.until_document(expected)
    bob.end()
    ann.until("bob@")
    ann.end()
    refused = lines(tmp_path / "bob" / "dead_letters.ndjson")
    assert [(row["origin"], row["operation"]) for row in refused] == [
        ("line 2", {"op": "fly"}),
        ("line 3", {"op": "add", "name": "m"}),
    ]
    changes = lines(tmp_path / "ann" / "changes.ndjson")
    assert {change["name"] for change in changes} == {"m", "n"}
    assert json.loads((tmp_path / "bob" / "run.json").read_text())["operations"] == 3


def test_a_member_that_is_gone_is_expelled(tmp_path: Path) -> None:
    ann_port, bob_port = free_port(), free_port()
    contact = f"ann@127.0.0.1:{ann_port}"
    ann = Peer("ann", ann_port, tmp_path / "ann", transport="udp")
    ann.until("begins")
    bob = Peer("bob", bob_port, tmp_path / "bob", transport="udp", bootstrap=contact)
    ann.until("bob@")
    cat = Peer("cat", free_port(), tmp_path / "cat", transport="udp", bootstrap=contact)
    gone = f"bob@127.0.0.1:{bob_port}"
    cat.until(f"{gone} is up")
    bob.kill()
    ann.write({"op": "expel", "member": "bob"}, {"op": "expel", "member": "zoe"}, {"op": "expel"})
    cat.until(f"{gone} has left")
    cat.end()
    ann.end()
    unknown, malformed = lines(tmp_path / "ann" / "dead_letters.ndjson")
    assert (unknown["origin"], unknown["operation"]) == ("line 2", "zoe")
    assert unknown["reason"] == "'zoe' is no other member"
    assert malformed["operation"] == '{"op": "expel"} (Object missing required field `member`)'


def test_who_cannot_be_reached_is_named(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    make_authority(keys)
    make_node(keys, "ann")
    nobody = f"127.0.0.1:{free_port()}"
    ann = Peer("ann", free_port(), tmp_path / "ann", keys=keys, bootstrap=f"bob@{nobody}")
    ann.until(f"gossip: bob at {nobody} cannot be reached: timeout")
    ann.end()


def test_a_killed_peer_comes_back_with_what_it_had(tmp_path: Path) -> None:
    """SIGKILL of the only one that has the edits; resumed, it tells a peer that came later."""
    (tmp_path / "recovery").mkdir()
    init_db_dir(tmp_path / "recovery", 1)
    operations = tmp_path / "operations.ndjson"
    operations.write_text(
        "".join(
            json.dumps({"op": "put", "name": "m", "key": f"k{n}", "value": n}) + "\n"
            for n in range(50)
        )
    )
    port = free_port()
    arguments = ("-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0")
    settings: dict[str, object] = {"transport": "udp", "path": operations}
    ann = Peer("ann", port, tmp_path / "ann", *arguments, **settings)
    expected = {"m": {f"k{n}": n for n in range(50)}}
    ann.until_document(expected)
    time.sleep(2.5)  # a snapshot or two
    ann.kill()
    ann = Peer("ann", port, tmp_path / "ann", *arguments, **settings)
    ann.until("begins")
    contact = f"ann@127.0.0.1:{port}"
    bob = Peer("bob", free_port(), tmp_path / "bob", transport="udp", bootstrap=contact)
    bob.until_document(expected)
    bob.end()
    ann.end()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"listen": "127.0.0.1:1"}, "GOSSIP_LISTEN is for a real peer: GOSSIP_NAME names it"),
        ({"name": "a"}, "GOSSIP_NAME needs GOSSIP_LISTEN"),
        ({"name": "a", "listen": "127.0.0.1:1"}, "GOSSIP_NAME needs GOSSIP_KEYS, or"),
        ({"name": "a#1", "listen": "127.0.0.1:1", "transport": "udp"}, "without # and @"),
        (
            {"name": "a", "listen": "127.0.0.1:1", "transport": "udp", "bootstrap": "b"},
            "GOSSIP_BOOTSTRAP: 'b' is not name@host:port",
        ),
        ({"peers": 0}, "GOSSIP_PEERS"),
        (
            {"name": "a", "listen": "127.0.0.1:1", "transport": "udp", "edits": 9},
            "GOSSIP_EDITS is for the local group, not a peer that GOSSIP_NAME names",
        ),
    ],
)
def test_wrong_settings(
    settings: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("GOSSIP_"):
            monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(f"GOSSIP_{name.upper()}", str(value))
    with pytest.raises(ValueError, match=problem):
        GossipSettings.load()


def test_an_address_in_use_and_missing_keys(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        peer = Peer("a", port, tmp_path / "a", transport="udp")
        _, said = peer.process.communicate("", timeout=30)
    assert peer.process.returncode == 1
    assert f"gossip: OSError: [Errno 98] 127.0.0.1:{port}: Address already in use" in said
    peer = Peer("a", free_port(), tmp_path / "a", keys=tmp_path / "nowhere")
    _, said = peer.process.communicate("", timeout=30)
    assert peer.process.returncode == 2
    assert str(tmp_path / "nowhere") in said


def look_at_two_states(group: LocalGroup, commands: Iterator[list[Any]]) -> None:
    for asked in commands:
        assert all(isinstance(command, Look) for _, command in asked)
        group.saw(("a", State(b"one", {"a#1": 3}, ())))
        group.saw(("b", State(b"two", {"a#1": 3}, ())))


def test_a_group_that_does_not_agree_says_so() -> None:
    meshes = Meshes([UdpMesh("a", "127.0.0.1:0"), UdpMesh("b", "127.0.0.1:0")])
    said = io.StringIO()
    group = LocalGroup(
        meshes, edits=3, rate=1e6, seed=0, patience=timedelta(seconds=0.1), stream=said
    )
    commands = group.commands()
    assert [(name, type(command)) for name, command in next(commands)] == [
        ("a", Begin),
        ("b", Begin),
    ]
    edits = [command for command in next(commands) if isinstance(command[1], Edit)]
    while len(edits) < 3:
        edits += [command for command in next(commands) if isinstance(command[1], Edit)]
    group.saw(("a", State(b"one", {"a#1": 3}, ())))
    group.saw(("b", State(b"two", {"a#1": 3}, ())))
    assert not group.agreed, "the states differ"
    with pytest.raises(Disagreement, match="2 different states"):
        look_at_two_states(group, commands)
    group.saw(("a", State(b"one", {"a#1": 2}, ())))
    group.saw(("b", State(b"one", {"a#1": 2}, ())))
    assert not group.agreed, "equal, but an update is missing everywhere"
    group.saw(("a", State(b"one", {"a#1": 2, "b#1": 1}, ())))
    group.saw(("b", State(b"one", {"a#1": 2, "b#1": 1}, ("a@x",))))
    assert group.agreed
    assert group.table().row_count == 2
    meshes.stop()


def test_a_group_ends_when_all_have_left() -> None:
    meshes = Meshes([UdpMesh("a", "127.0.0.1:0")])
    group = LocalGroup(
        meshes, edits=1, rate=1, seed=0, patience=timedelta(seconds=5), stream=io.StringIO()
    )
    finished = False
    for asked in group.commands():
        for name, command in asked:
            if isinstance(command, Look):
                group.saw((name, State(b"one", {"a#1": 1}, ())))
            elif isinstance(command, Finish):
                finished = True
                group.saw((name, Stopped()))
    assert finished
    with pytest.raises(StopIteration):
        meshes.take()
    meshes.stop()
