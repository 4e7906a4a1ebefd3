"""Run a telemetry tree as processes on this machine: one root, its regions, their leaves.

    python -m jobs.telemetry_tree

The nodes are `python -m jobs.telemetry` with `TELEMETRY_ROLE` and so on, linked by QUIC over
loopback with keys made for the occasion; `TELEMETRY_...` settings of the input and the answers
hold for all of them. Everything is in one directory under `runs/telemetry-tree/`, or `--out`:

    keys/           the authority and the nodes' certificates
    NAME.pid        of each node, while it runs: `kill -9 $(cat .../leaf-3.pid)` is made good
    NAME.log        what it says on standard error
    NAME/           its snapshots, and what its parent has not acknowledged
    answer/         the root's results

A node that is killed is started again and goes on from its snapshot; one that fails by itself a
few times ends the run. The exit code is 0 if the root gave its answer.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobs.settings import fail
from jobs.telemetry_settings import TelemetrySettings

_INPUT = ("source", "path", "agents", "seed", "period", "limit", "every", "window")
_FAILURES = 3
"""So often a node may fail by itself."""
_GRACE = 5.0
"""Seconds that nodes have to end by themselves once the root has answered. One that is started
again after its parent has ended cannot hear from it that all is well, and would wait long."""
_EPOCH = "250ms"


@dataclass(frozen=True, slots=True)
class Node:
    """A process of the tree: its name, and its settings as environment variables."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)


def plan(
    directory: Path, settings: TelemetrySettings, *, regions: int = 3, leaves: int = 9
) -> list[Node]:
    """Return the nodes of a tree in `directory`, the root first; addresses are free UDP ports.

    Leaf i reports share i of the agents, and sends to region (i - 1) * regions // leaves + 1.
    """
    names = [f"region-{i + 1}" for i in range(regions)]
    ports = dict(zip(["root", *names], _free_ports(1 + regions), strict=True))
    below: dict[str, list[str]] = {name: [] for name in names}
    shared = {f"TELEMETRY_{name.upper()}": _text(getattr(settings, name)) for name in _INPUT}
    shared = {name: value for name, value in shared.items() if value}
    width = len(str(leaves))

    def node(name: str, role: str, parent: str | None, **more: str) -> Node:
        known = {"role": role, "name": name, "keys": str(directory / "keys"), "epoch": _EPOCH}
        known["recovery"] = str(directory / name / "snapshots")
        if name in ports:
            known["listen"] = f"127.0.0.1:{ports[name]}"
        if parent is not None:
            known["parent"] = f"127.0.0.1:{ports[parent]}"
            known["parent_name"] = parent
            known["spool"] = str(directory / name / "spool")
        named = {f"TELEMETRY_{key.upper()}": value for key, value in {**known, **more}.items()}
        return Node(name, {**shared, **named})

    last = []
    for i in range(leaves):
        # Padded, since children are merged in the order of their names.
        name, parent = f"leaf-{i + 1:0{width}d}", names[i * regions // leaves]
        below[parent].append(name)
        last.append(node(name, "leaf", parent, slice=f"{i + 1}/{leaves}"))
    root = node(
        "root",
        "root",
        None,
        children=",".join(names),
        out=str(directory / "answer"),
        hosts=str(leaves),
        exact=str(settings.source in ("generated", "file") and settings.exact is not False),
        confidence=str(settings.confidence),
        top=str(settings.top),
    )
    inner = [node(name, "region", "root", children=",".join(below[name])) for name in names]
    return [root, *inner, *last]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, timedelta):
        return f"{value / timedelta(milliseconds=1):.3f}ms"
    return "" if value is None else str(value)


def _free_ports(count: int) -> list[int]:
    """Return UDP ports of loopback that were free just now, all different."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Supervisor:
    """Starts the processes of a tree, and starts those anew that were killed.

    Args:
        directory: where their files go.
        nodes: what to run; the first is the root, whose standard output is passed on.
    """

    def __init__(self, directory: Path, nodes: Sequence[Node]) -> None:
        self._directory = directory
        self._nodes = {node.name: node for node in nodes}
        self._root = nodes[0].name
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._failures: dict[str, int] = {}
        self._answered: float | None = None
        self.restarts = 0
        """How many processes were started again."""

    def start(self) -> None:
        """Make keys and snapshot directories where there are none, and start all nodes."""
        from jobs.keys import make_keys
        from jobs.telemetry import recovery_directory

        missing = [n for n in self._nodes if not (self._directory / "keys" / f"{n}.pem").exists()]
        if missing:
            make_keys(self._directory / "keys", missing)
        for name in self._nodes:
            (self._directory / name).mkdir(parents=True, exist_ok=True)
            recovery_directory(self._directory / name / "snapshots")
            self._spawn(name)

    def _spawn(self, name: str) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "jobs.telemetry"],
                env={**_without_settings(), **self._nodes[name].settings},
                stdin=subprocess.DEVNULL,
                stdout=None if name == self._root else log,
                stderr=None if name == self._root and sys.stderr.isatty() else log,
            )
        (self._directory / f"{name}.pid").write_text(f"{self._running[name].pid}\n")

    def poll(self) -> int | None:
        """Start anew what was killed; return the exit code once the root has ended, else None."""
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            (self._directory / f"{name}.pid").unlink(missing_ok=True)
            del self._running[name]
            if code == 0:
                if name == self._root:
                    self._answered = time.monotonic()
                continue
            if code > 0:
                self._failures[name] = self._failures.get(name, 0) + 1
                if code == 2 or self._failures[name] >= _FAILURES:
                    self.stop()
                    print(
                        f"telemetry-tree: {name} failed with exit code {code}: see "
                        f"{self._directory / name}.log",
                        file=sys.stderr,
                    )
                    return 1
            why = f"failed with {code}" if code > 0 else f"was killed ({_signal(-code)})"
            print(f"telemetry-tree: {name} {why}: starting it again", file=sys.stderr)
            self.restarts += 1
            self._spawn(name)
        if self._answered is None:
            return None if self._running else 1
        if self._running and time.monotonic() - self._answered < _GRACE:
            return None
        self.stop()
        return 0

    def stop(self) -> None:
        """End what still runs."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in self._running:
            (self._directory / f"{name}.pid").unlink(missing_ok=True)
        self._running.clear()

    def run(self) -> int:
        """Run the tree to its end and return the exit code."""
        try:
            self.start()
            while (code := self.poll()) is None:
                time.sleep(0.05)
            return code
        finally:
            self.stop()


def _without_settings() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("TELEMETRY_")}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.telemetry_tree",
        description="Run a telemetry tree as processes linked by QUIC over loopback.",
    )
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--leaves", type=int, default=9)
    parser.add_argument("--out", type=Path, help="directory; by default runs/telemetry-tree/<time>")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.regions <= chosen.leaves:
        parser.error("there must be at least one region, and a leaf for each")
    try:
        settings = TelemetrySettings.load()
        if settings.role != "local":
            raise ValueError("TELEMETRY_ROLE is set by the tree itself: leave it unset")
    except ValueError as error:
        fail("telemetry-tree", error)
    out = chosen.out or Path("runs/telemetry-tree") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    out = out.resolve()
    nodes = plan(out, settings, regions=chosen.regions, leaves=chosen.leaves)
    # Ended by a signal, the children must end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return Supervisor(out, nodes).run()


if __name__ == "__main__":
    sys.exit(main())
