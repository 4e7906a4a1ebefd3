"""Run a telemetry tree as processes on this machine: one root, its regions, their leaves.

    python -m jobs.telemetry_tree

The nodes do what `python -m jobs.telemetry` does with `TELEMETRY_ROLE` and so on, linked by QUIC
over loopback with keys made for the occasion; `TELEMETRY_...` settings of the input and the
answers hold for all of them. Everything is in one directory, `runs/telemetry-tree/<time>/` or
`--out`:

    keys/           the authority and the nodes' certificates
    NAME.pid        of each node, while it runs: `kill -9 $(cat .../leaf-3.pid)` is made good
    NAME.log        what it says on standard error
    NAME/           its snapshots, what its parent has not acknowledged, rows it could not use
    answer/         the root's results

A node that is killed is started again and goes on from its snapshot; one that fails by itself a
few times ends the run, and no node outlives this process. The exit code is 0 if the root gave its
answer.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobs.processes import Failed, Node, Processes, free_ports, in_words
from jobs.settings import fail
from jobs.telemetry_settings import TelemetrySettings

_INPUT = ("source", "path", "agents", "seed", "period", "rate", "limit", "every", "window")
_GRACE = 5.0
"""Seconds that nodes have to end by themselves once the root has answered. One that is started
again after its parent has ended cannot hear from it that all is well, and would wait long."""
_EPOCH = "250ms"
_IDLE = "3s"
"""On one machine, silence soon means that the peer was killed."""


def plan(
    directory: Path,
    settings: TelemetrySettings,
    *,
    regions: int = 3,
    leaves: int = 9,
    seconds: float = 10.0,
) -> list[Node]:
    """Return the nodes of a tree in `directory`, the root first; addresses are free UDP ports.

    Leaf i reports share i of the agents, and sends to region (i - 1) * regions // leaves + 1.

    Args:
        directory: where the nodes' files go.
        settings: of the input and the answers.
        regions: how many children the root has.
        leaves: how many there are, in all.
        seconds: how long generated events come in, if no rate is set, so that there is time to
            watch, and to kill; 0 is as fast as they can be made.
    """
    if settings.source == "generated" and settings.rate is None and seconds:
        settings = settings.model_copy(update={"rate": settings.agents / leaves / seconds})
    names = [f"region-{i + 1}" for i in range(regions)]
    ports = dict(zip(["root", *names], free_ports(1 + regions), strict=True))
    below: dict[str, list[str]] = {name: [] for name in names}
    shared = {f"TELEMETRY_{name.upper()}": _text(getattr(settings, name)) for name in _INPUT}
    shared = {name: value for name, value in shared.items() if value}
    width = len(str(leaves))

    def node(name: str, role: str, parent: str | None, **more: str) -> Node:
        known = {"role": role, "name": name, "keys": str(directory / "keys"), "epoch": _EPOCH}
        known |= {"recovery": str(directory / name / "snapshots"), "idle": _IDLE}
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
        share = f"{i + 1}/{leaves}"
        last.append(node(name, "leaf", parent, slice=share, out=str(directory / name)))
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


class Supervisor:
    """Starts the processes of a tree, and starts those anew that were killed.

    Args:
        directory: where their files go.
        nodes: what to run; the first is the root, whose standard output is passed on.
    """

    def __init__(self, directory: Path, nodes: Sequence[Node]) -> None:
        self._directory = directory
        self._names = [node.name for node in nodes]
        self._root = nodes[0].name
        # The root speaks for the tree; its live table needs the terminal.
        root = replace(nodes[0], stdout=True, stderr=sys.stderr.isatty())
        self._processes = Processes(
            directory,
            [root, *nodes[1:]],
            run="jobs.telemetry:run",
            prefix="TELEMETRY_",
            warm="jobs.telemetry_warm",
        )
        self._answered: float | None = None

    @property
    def restarts(self) -> int:
        """How many processes were started again."""
        return self._processes.restarts

    def start(self) -> None:
        """Make keys where there are none, and start all nodes."""
        from jobs.keys import make_keys

        keys = self._directory / "keys"
        missing = [name for name in self._names if not (keys / f"{name}.pem").exists()]
        if missing:
            make_keys(keys, missing)
        for name in self._names:
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        self._processes.start()

    def poll(self) -> int | None:
        """Start anew what was killed; return the exit code once the root has ended, else None."""
        try:
            ended = self._processes.poll()
        except Failed as error:
            self.stop()
            print(f"telemetry-tree: {error}", file=sys.stderr)
            return 1
        for name, code, again in ended:
            if again:
                text = f"telemetry-tree: {name} {in_words(code)}: starting it again"
                print(text, file=sys.stderr)
            elif name == self._root:
                self._answered = time.monotonic()
        if self._answered is None:
            return None if self._processes.running else 1
        if self._processes.running and time.monotonic() - self._answered < _GRACE:
            return None
        self.stop()
        return 0

    def stop(self) -> None:
        """End what still runs."""
        self._processes.stop()

    def run(self) -> int:
        """Run the tree to its end and return the exit code."""
        try:
            self.start()
            while (code := self.poll()) is None:
                time.sleep(0.05)
            return code
        finally:
            self.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.telemetry_tree",
        description="Run a telemetry tree as processes linked by QUIC over loopback.",
    )
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--leaves", type=int, default=9)
    parser.add_argument("--out", type=Path, help="directory; by default runs/telemetry-tree/<time>")
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="how long generated events come in (default 10; 0: as fast as they can be made)",
    )
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
    nodes = plan(
        out, settings, regions=chosen.regions, leaves=chosen.leaves, seconds=chosen.seconds
    )
    victim = out / f"{nodes[-1].name}.pid"
    print(
        f"telemetry-tree: {len(nodes)} processes; kill any of them: kill -9 $(cat {victim})",
        file=sys.stderr,
    )
    # Ended by a signal, the children must end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return Supervisor(out, nodes).run()


if __name__ == "__main__":
    sys.exit(main())
