"""Three market monitors on different feeds end with the same alerts, though one is killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from connectors.quic.certificates import make_authority, make_node

FEEDS = {"ann": "S&P 500", "bob": "NASDAQ", "cat": "WTI"}


class Monitor:
    """A monitor's process, and what it left behind."""

    def __init__(self, name: str, place: Path, addresses: dict[str, str], *arguments: str) -> None:
        self.name, self.out, self.log = name, place / name, place / f"{name}.log"
        self.arguments = arguments
        others = [f"{other}@{at}" for other, at in addresses.items() if other != name]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MARKET_")}
        self.settings = plain | {
            "MARKET_SERIES": FEEDS[name],
            "MARKET_OUT": str(self.out),
            "MARKET_GOSSIP_NAME": name,
            "MARKET_GOSSIP_LISTEN": addresses[name],
            "MARKET_GOSSIP_KEYS": str(place / "keys"),
            "MARKET_GOSSIP_BOOTSTRAP": ",".join(others),
            "MARKET_GOSSIP_MONITORS": ",".join(FEEDS),
            "MARKET_GOSSIP_STAY": "4m",
            "MARKET_GOSSIP_ROUND": "100ms",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> None:
        command = [sys.executable, "-m", "bytewax.run", "jobs.market", *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**self.settings, **more}, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        assert self.process is not None
        assert self.process.wait(timeout=200) == 0, self.log.read_text()

    def alerts(self) -> list[str]:
        """Return the monitor's own alerts, as it shares them."""
        path = self.out / "alerts.ndjson"
        lines = path.read_text().splitlines() if path.exists() else []
        return [f'{line[:-1]},"monitor":"{self.name}"}}' for line in lines]

    def shared(self) -> bytes:
        path = self.out / "shared_alerts.ndjson"
        return path.read_bytes() if path.exists() else b""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_authority(tmp_path / "keys")
    for name in FEEDS:
        make_node(tmp_path / "keys", name)
    return tmp_path


@pytest.fixture
def addresses() -> dict[str, str]:
    with ExitStack() as stack:
        found = {}
        for name in FEEDS:
            free = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            free.bind(("127.0.0.1", 0))
            found[name] = f"127.0.0.1:{free.getsockname()[1]}"
    return found


@pytest.fixture
def started() -> Iterator[list[Monitor]]:
    monitors: list[Monitor] = []
    try:
        yield monitors
    finally:
        for monitor in monitors:
            if monitor.process is not None and monitor.process.poll() is None:
                monitor.kill()


def until(ready: Callable[[], bool], monitors: Iterable[Monitor], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        well = all(m.process is not None and m.process.poll() is None for m in monitors)
        if not well or time.monotonic() > end:
            pytest.fail("\n".join(m.log.read_text()[-2000:] for m in monitors))
        time.sleep(0.02)


@pytest.mark.parametrize("resumed", [False, True], ids=["anew", "resumed"])
def test_all_end_with_the_same_alerts(
    resumed: bool, place: Path, addresses: dict[str, str], started: list[Monitor]
) -> None:
    arguments: list[str] = []
    if resumed:
        (place / "recovery").mkdir()
        init_db_dir(place / "recovery", 1)
        arguments = ["-r", str(place / "recovery"), "-s", "1", "-b", "0"]
    monitors = {
        name: Monitor(name, place, addresses, *(arguments if name == "ann" else ()))
        for name in FEEDS
    }
    started += monitors.values()
    ann = monitors["ann"]
    # Slow enough to be killed in the middle: nineteen years in some ten seconds.
    ann.start(MARKET_SPEED="6e7")
    monitors["bob"].start()
    monitors["cat"].start()
    # The others know of an alert of hers, and wait for her.
    until(lambda: b'"ann"' in monitors["bob"].shared(), monitors.values())
    ann.kill()
    known = {name: monitor.shared() for name, monitor in monitors.items()}
    ann.start()
    for monitor in monitors.values():
        monitor.end()
    expected = "".join(
        f"{line}\n" for line in sorted(line for m in monitors.values() for line in m.alerts())
    ).encode()
    assert len(known["bob"]) < len(expected)
    assert {name: monitor.shared() == expected for name, monitor in monitors.items()} == (
        dict.fromkeys(FEEDS, True)
    )
    assert {json.loads(line)["monitor"] for line in expected.splitlines()} == set(FEEDS)
    assert "not known" not in ann.log.read_text()


def test_a_monitor_alone_leaves_when_its_stay_is_over(
    place: Path, addresses: dict[str, str], started: list[Monitor]
) -> None:
    cat = Monitor("cat", place, addresses)
    started.append(cat)
    cat.start(MARKET_GOSSIP_STAY="1s")
    cat.end()
    assert cat.shared().decode().splitlines() == sorted(cat.alerts()) != []
    assert "not known to have the same alerts: ann, bob" in cat.log.read_text()
