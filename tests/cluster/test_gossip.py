"""Five real peers over QUIC: loss, a partition that heals, kills, and a newcomer; all end equal."""

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

from connectors.quic.certificates import make_authority, make_node
from connectors.testing import UdpRelay

FLOW = [sys.executable, "-m", "bytewax.run", "jobs.gossip"]
NAMES = ["ann", "bob", "cat", "dan", "eve"]


class Peer:
    """A process that others reach through a relay."""

    def __init__(self, name: str, directory: Path, relay: UdpRelay, port: int) -> None:
        self.name = name
        self.directory, self.relay, self.port = directory, relay, port
        self.contact = f"{name}@127.0.0.1:{relay.address[1]}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def out(self) -> Path:
        return self.directory / self.name

    def start(self, *bootstrap: str) -> None:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("GOSSIP_")}
        settings = {
            "GOSSIP_NAME": self.name,
            "GOSSIP_LISTEN": f"127.0.0.1:{self.port}",
            "GOSSIP_ADVERTISE": f"127.0.0.1:{self.relay.address[1]}",
            "GOSSIP_BOOTSTRAP": ",".join(bootstrap),
            "GOSSIP_KEYS": str(self.directory / "keys"),
            "GOSSIP_OUT": str(self.out),
            "GOSSIP_ROUND": "100ms",
        }
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                FLOW, env=plain | settings, stdin=subprocess.PIPE, stderr=log
            )

    def write(self, **operation: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(operation).encode() + b"\n")
        self.process.stdin.flush()

    def document(self) -> dict[str, Any] | None:
        path = self.out / "document.json"
        return json.loads(path.read_text()) if path.exists() else None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0, (self.directory / f"{self.name}.log").read_text()


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[dict[str, Peer]]:
    keys = tmp_path / "keys"
    keys.mkdir()
    make_authority(keys)
    with ExitStack() as stack:
        made = {}
        for number, name in enumerate(NAMES):
            make_node(keys, name)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            relay = stack.enter_context(UdpRelay(("127.0.0.1", port), loss=0.1, seed=number))
            made[name] = Peer(name, tmp_path, relay, port)
        try:
            yield made
        finally:
            for peer in made.values():
                if peer.process is not None and peer.process.poll() is None:
                    peer.kill()


def until(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2, 3))])
def test_a_group_that_is_treated_badly(seed: int, peers: dict[str, Peer]) -> None:
    chance = random.Random(seed)
    expected: dict[str, Any] = {}

    def edit(name: str) -> None:
        key = f"{name}-{len(expected)}"
        expected[key] = chance.randrange(1000)
        peers[name].write(op="put", name="m", key=key, value=expected[key])

    def all_know(*names: str) -> None:
        until(
            lambda: all(peers[name].document() == {"m": expected} for name in names),
            f"seed {seed}: not all of {names} know {len(expected)} entries: "
            f"{ {name: len((peers[name].document() or {}).get('m', ())) for name in names} }",
        )

    first = peers["ann"].contact
    for name in NAMES[:4]:
        peers[name].start(*([] if name == "ann" else [first]))
    for _ in range(5):
        for name in NAMES[:4]:
            edit(name)
    all_know(*NAMES[:4])

    # One is cut off; both sides go on, and it heals.
    peers["bob"].relay.partition()
    for name in NAMES[:4]:
        edit(name)
    time.sleep(2)
    peers["bob"].relay.heal()
    all_know(*NAMES[:4])

    # One dies without a word and comes back with nothing, as another incarnation.
    peers["cat"].kill()
    for name in ("ann", "bob", "dan"):
        edit(name)
    peers["cat"].start(first)
    # A newcomer learns all, from one that is not the first.
    peers["eve"].start(peers["dan"].contact)
    edit("eve")
    edit("cat")
    all_know(*NAMES)

    # The first leaves in good order; the others do not need it.
    peers["ann"].end()
    for name in NAMES[1:]:
        edit(name)
    all_know(*NAMES[1:])
    for name in NAMES[1:]:
        peers[name].end()
    assert all((peer.out / "run.json").exists() for peer in peers.values())
