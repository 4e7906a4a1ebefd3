"""A million leaves, each with a state of its own, to one root: ``python -m benchmarks.tree``.

A leaf is a row (`benchmarks.tree_states`); hosts hold the rows of their leaves in columns. 64 hosts
form a tree of fan-in 8, each with a QUIC endpoint of its own and a connection to its parent, played
by two processes, one for each core. The clock starts when both processes have their rows and all
connections are made, and ends when the root has merged the last message: W - 1 of them, at a depth
of ceil(log_f W), and no host merges more than its fan-in.

The same tree with the states of `datasketches` takes turns with ours, over the same connections:
with a call for every leaf and sketch (``items``, of which the aim speaks), with all latencies of a
host in one call (``arrays``), and with sketches of its own for every leaf (``objects``; not beyond
a million). Messages cost both sides alike: 63 of them are more than half of our time at a million
leaves, so the ratio says less of the sketches there than at ten.

Then the tree grows, from 10^4 to 10^7 leaves and from 8 to 512 hosts, with ours alone.

Times are those of a machine that does nothing else. Where it does, a higher priority helps
(``chrt -r 5 python -m benchmarks.tree``), but not against others' use of caches and memory.

    python -m benchmarks.tree [--leaves 1000000] [--hosts 64] [--plot docs/tree.svg] [--quick]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import base64
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals import Timing, report
from benchmarks.tree_hosts import depth, name
from benchmarks.tree_states import RIVALS, Theirs, Truth
from connectors.quic.certificates import make_authority, make_node
from state.product import Product

PROCESSES = 2
FAN_IN = 8
MOST_OBJECTS = 1_000_000
"""Leaves of which each has sketches of the library, which take 2 kB."""
AIMS = {1_000_000: 0.100, 10_000_000: 0.600}
_SOON = 0.5
"""Seconds in which both processes hear when a round begins."""


class Tree:
    """Hosts in processes, connected and ready to run rounds.

    Args:
        hosts: how many.
        leaves: how many, over all hosts.
        rivals: which of `RIVALS` will run rounds as well.
        fan_in: children of a host.
    """

    def __init__(
        self, hosts: int, leaves: int, *, rivals: Sequence[str] = (), fan_in: int = FAN_IN
    ) -> None:
        self.hosts, self.leaves, self.fan_in = hosts, leaves, fan_in
        self._directory = tempfile.TemporaryDirectory(prefix="tree-")
        keys = Path(self._directory.name)
        make_authority(keys)
        for host in range(hosts):
            make_node(keys, name(host))
        command = [sys.executable, "-m", "benchmarks.tree_hosts"]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(PROCESSES)
        ]
        job = {"do": "plant", "keys": str(keys), "hosts": hosts, "leaves": leaves}
        job |= {"rivals": list(rivals), "fan_in": fan_in}
        # Neighbours in number, and so siblings, are in different processes.
        parts = [list(range(i, hosts, PROCESSES)) for i in range(PROCESSES)]
        found = self._ask([{**job, "mine": mine} for mine in parts])
        addresses = {host: address for part in found for host, address in part.items()}
        self._ask([{"do": "connect", "addresses": addresses}] * PROCESSES)

    def run(self, side: str) -> tuple[float, Product | Theirs, dict[str, float]]:
        """Run a round; return its seconds, what the root knows, and where the time went."""
        order = {"do": "run", "side": side, "at": time.monotonic() + _SOON}
        found = self._ask([order] * PROCESSES)
        counts = self._ask([{"do": "counts"}] * PROCESSES)
        seconds: float = found[0]["seconds"]
        data = base64.b64decode(found[0]["root"])
        spent = {
            step: statistics.mean(part["spent"][step] for part in counts)
            for step in ("update", "merges", "serialisation")
        }
        # What is not accounted for on a core: QUIC, the event loop, and waiting for each other.
        spent["transport"] = seconds - sum(spent.values())
        spent["messages"] = sum(part["messages"] for part in counts)
        spent["bytes"] = sum(part["bytes"] for part in counts)
        if spent["messages"] != self.hosts - 1:
            raise RuntimeError(f"{spent['messages']} messages, not {self.hosts - 1}")
        return seconds, (Product if side == "ours" else Theirs).from_bytes(data), spent

    def close(self) -> None:
        """End the processes."""
        self._ask([{"do": "fell"}] * PROCESSES)
        for process in self._processes:
            process.communicate(timeout=30)
        self._directory.cleanup()

    def _ask(self, orders: list[dict[str, Any]]) -> list[Any]:
        for process, order in zip(self._processes, orders, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("a process of the tree has ended")
            answers.append(json.loads(line))
        return answers


def levels(hosts: int, fan_in: int = FAN_IN) -> int:
    """Return how deep the tree is.

    >>> [levels(hosts) for hosts in (1, 8, 64, 512)]
    [0, 1, 2, 3]
    """
    return max(depth(host, fan_in) for host in range(hosts))


def compare(
    hosts: int, leaves: int, rounds: int
) -> tuple[dict[str, Timing], dict[str, dict[str, float]]]:
    """Run all sides in turn; return the times against each rival, and where each side's went."""
    truth = Truth(hosts, leaves)
    rivals = RIVALS if leaves <= MOST_OBJECTS else RIVALS[:-1]
    tree = Tree(hosts, leaves, rivals=rivals)
    times: dict[str, list[float]] = {side: [] for side in ("ours", *rivals)}
    splits: dict[str, list[dict[str, float]]] = {side: [] for side in times}
    equal = True
    for turn in range(rounds + 1):
        for side in times:
            seconds, root, split = tree.run(side)
            equal = equal and truth.agrees(root)
            if turn:  # the first one warms up
                times[side].append(seconds)
                splits[side].append(split)
    tree.close()
    medians = {
        side: {key: statistics.median(split[key] for split in found) for key in found[0]}
        for side, found in splits.items()
    }
    ours = tuple(times["ours"])
    return {rival: Timing(ours, tuple(times[rival]), equal) for rival in rivals}, medians


def grow(hosts: int, leaves: int, rounds: int) -> dict[str, float]:
    """Return our median time of a tree and where it went."""
    tree = Tree(hosts, leaves)
    found = [tree.run("ours") for _ in range(rounds + 1)][1:]
    tree.close()
    split = {key: statistics.median(each[2][key] for each in found) for key in found[0][2]}
    seconds = [each[0] for each in found]
    return {"hosts": hosts, "leaves": leaves, "depth": levels(hosts), **split} | {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
    }


def show(row: dict[str, float]) -> None:
    """Print a row of the table."""
    parts = "".join(
        f"{row[key] * 1e3:>11.1f}"
        for key in ("seconds", "update", "merges", "serialisation", "transport")
    )
    size = row["bytes"] / max(row["messages"], 1) / 1e3
    print(
        f"{row['leaves']:>11,}{row['hosts']:>7}{row['depth']:>7}{row['messages']:>10.0f}"
        f"{size:>10.1f}{parts}"
    )


_SERIES = (
    ("seconds", "#1f5fa8", "to the root"),
    ("update", "#c05a1a", "folding leaves"),
    ("serialisation", "#3d8b45", "serialisation"),
    ("merges", "#8a5aa8", "merges"),
    ("transport", "#777777", "transport and waiting"),
)
"""What is drawn: a key of a row, its colour, its name."""


def plot(path: Path, by_leaves: list[dict[str, float]], by_hosts: list[dict[str, float]]) -> None:
    """Draw both growths as SVG, on logarithmic axes."""
    parts = [
        _panel(70, "leaves, on 64 hosts", by_leaves, "leaves"),
        _panel(470, "hosts, with a million leaves", by_hosts, "hosts"),
    ]
    for i, (_, colour, label) in enumerate(_SERIES):
        parts.append(f'<path d="M{70 + 140 * i} 15h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{94 + 140 * i}" y="19">{label}</text>')
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 350" '
        'font-family="sans-serif" font-size="12">\n'
        '<rect width="820" height="350" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(left: int, title: str, rows: list[dict[str, float]], key: str) -> str:
    low, high = math.log10(rows[0][key]), math.log10(rows[-1][key])

    def x(value: float) -> float:
        return left + 300 * (math.log10(value) - low) / (high - low)

    def y(seconds: float) -> float:
        return 290 - 75 * math.log10(max(seconds * 1e3, 1))  # 1 ms to 2 s

    drawn = [f'<text x="{left + 150}" y="335" text-anchor="middle">{title}</text>']
    for power in range(4):
        at = y(10**power / 1e3)
        drawn.append(f'<path d="M{left} {at:.0f}h300" stroke="#ddd"/>')
        drawn.append(
            f'<text x="{left - 6}" y="{at + 4:.0f}" text-anchor="end">{10**power:,} ms</text>'
        )
    for row in rows:
        drawn.append(
            f'<text x="{x(row[key]):.0f}" y="312" text-anchor="middle">{row[key]:,.0f}</text>'
        )
    for name_, colour, _ in _SERIES:
        points = " ".join(f"{x(row[key]):.1f},{y(row[name_]):.1f}" for row in rows)
        drawn.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        drawn += [
            f'<circle cx="{x(row[key]):.1f}" cy="{y(row[name_]):.1f}" r="3" fill="{colour}"/>'
            for row in rows
        ]
    return "\n".join(drawn)


def main() -> None:
    """Print the comparison, the growth and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tree")
    parser.add_argument("--leaves", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot", type=Path, help="draw the growth there, as SVG")
    parser.add_argument("--quick", action="store_true", help="no growth")
    options = parser.parse_args()
    timings, splits = compare(options.hosts, options.leaves, options.rounds)
    timing = timings["items"]
    print("ms".rjust(46))
    print(
        "     leaves  hosts  depth  messages  kB each      total     leaves     merges"
        "  serialis.  transport"
    )
    sides = {"ours": timing.ours} | {rival: each.theirs for rival, each in timings.items()}
    shape = {"hosts": options.hosts, "leaves": options.leaves, "depth": levels(options.hosts)}
    for side, seconds in sides.items():
        show(shape | splits[side] | {"seconds": statistics.median(seconds)})
        print(f"    {side}: {min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f} ms")
    ratios = {rival: statistics.median(each.ratios) for rival, each in timings.items()}
    against = ", ".join(f"{rival} {ratio:.1f}x" for rival, ratio in ratios.items())
    print(f"against {against}; load {os.getloadavg()[0]:.1f}")
    by_leaves, by_hosts = [], []
    if not options.quick:
        sizes = [10**4, 10**5, 10**6, 10**7]
        for leaves in sizes:
            by_leaves.append(grow(options.hosts, leaves, 5))
            show(by_leaves[-1])
        for hosts in (8, 16, 32, 64, 128, 256, 512):
            by_hosts.append(grow(hosts, options.leaves, 5))
            show(by_hosts[-1])
    if options.plot:
        plot(options.plot, by_leaves, by_hosts)
    aim = AIMS.get(options.leaves)
    ours = statistics.median(timing.ours)
    large = next((row["seconds"] for row in by_leaves if row["leaves"] == 10**7), None)
    report(
        f"a tree of {options.hosts} hosts and {options.leaves:,} leaves",
        timing,
        target=5.0,
        ratios=ratios,
        target_seconds=aim,
        met_seconds=None if aim is None else ours <= aim,
        seconds_10m=large,
        met_10m=None if large is None else large <= AIMS[10_000_000],
        messages=options.hosts - 1,
        depth=math.ceil(math.log(options.hosts, FAN_IN)),
        split=splits,
        growth=[*by_leaves, *by_hosts],
    )


if __name__ == "__main__":
    main()
