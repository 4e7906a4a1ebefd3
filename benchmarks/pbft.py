"""Byzantine agreement over QUIC against TCP+TLS and HTTPS: `python -m benchmarks.pbft`.

The same replicas (`state.pbft`) run over three transports that take turns: QUIC, messages over TCP
with TLS, and HTTP/1.1 over TLS (see `benchmarks.mesh_rivals`). Each replica is a process of its
own, and so is the client; all links have mutual TLS 1.3. One machine and its loopback: what is
measured is what agreement costs the processors and the disk, not a network's delay.

- Requests go to the key-value store that ships with the library, operations of about 30 bytes.
  A client signs a request of 1, 100 or 1000 of them (Ed25519).
- Authentication: Ed25519 on requests, proposals and view changes, one MAC for each bundle of other
  messages; in the rows "signed votes" each PREPARE and COMMIT has a signature besides.
- Protocols: "tentative" (the default: answers when prepared, commits travel with later messages),
  "committed" (all three phases before the answer), "fast" (answers to the proposal, all n equal).
- Each replica writes its votes to a log on the disk, `fdatasync` before it sends them; in the rows
  "no fdatasync" it leaves that to the kernel. Where the disk takes milliseconds, or is shared, it
  is most of the latency, of all transports alike.
- latency: one request of one operation in flight. Rates: several in flight; operations answered a
  second. CPU: processor time of all processes together, for each request, which unlike wall time
  hardly depends on who else uses the machine; "others" is the share of the processors that they
  had. Limit: the rate at which the replicas' and the client's processor time fills all cores.
- "dataflow": replicas as users run them, `operators.pbft` in a Bytewax flow fed by
  `connectors.mesh.Meshes`; the other rows have replicas right on the mesh.
- loss: every UDP link through a relay that drops 10 % of the datagrams, each way. ``--loss 0.1``
  measures nothing but all three transports over a loopback whose kernel drops packets
  (`benchmarks.lossy_loopback`), without `fdatasync` and in datagrams of 1,200 bytes.

After each measurement all replicas must have the same state by the same batches, and states and
answers must be the same over all transports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import lossy_loopback
from benchmarks.pbft_group import Pool, Running, equal
from benchmarks.pbft_load import Load
from benchmarks.quic_link import spread
from connectors.quic import Limits
from state.pbft import Settings

DATAGRAM = 16_000
LOSS = 0.1
BATCHES = (1, 100, 1000)
TRANSPORTS = {"quic": "QUIC", "tls": "TCP+TLS", "https": "HTTPS", "dataflow": "QUIC, dataflow"}
AIMS = {
    "n4_p50_ms": 10.0,
    "n4_rate_100": 20_000.0,
    "n4_rate_1000": 70_000.0,
    "n7_fast_p50_ms": 10.0,
    "n7_p50_ms": 20.0,
    "n4_loss_p99_ms": 200.0,
}


class Side(NamedTuple):
    """What is measured."""

    n: int
    transport: str
    mode: str = "tentative"
    signed: bool = False
    sync: bool = True
    loss: float = 0.0
    datagram: int = DATAGRAM
    batches: tuple[int, ...] = BATCHES

    @property
    def settings(self) -> Settings:
        """The protocol's."""
        return Settings(
            tentative=self.mode != "committed",
            fast=self.mode == "fast",
            votes="signature" if self.signed else "mac",
        )

    @property
    def label(self) -> str:
        """What makes it differ, for people."""
        notes = [self.mode]
        notes += ["signed votes"] * self.signed + ["no fdatasync"] * (not self.sync)
        notes += [f"datagrams of {self.datagram}"] * (self.datagram != DATAGRAM)
        notes += [f"{self.loss:.0%} loss"] * (self.loss > 0)
        return ", ".join(notes)

    @property
    def name(self) -> str:
        """The same, for the JSON line."""
        return f"n={self.n} {TRANSPORTS[self.transport]} {self.label}"


_RIVALS = ("quic", "tls", "https")
SIDES = [
    *(Side(4, transport) for transport in _RIVALS),
    *(Side(4, transport, sync=False) for transport in _RIVALS),
    Side(4, "dataflow", sync=False, batches=(100, 1000)),
    *(Side(4, transport, "fast", sync=False, batches=()) for transport in _RIVALS),
    Side(4, "quic", "committed", sync=False, batches=()),
    Side(4, "quic", signed=True, sync=False, batches=(100,)),
    Side(4, "quic", sync=False, datagram=1200, batches=(100,)),
    *(Side(7, transport, sync=False) for transport in _RIVALS),
    *(Side(7, transport, "fast", sync=False, batches=(100,)) for transport in _RIVALS),
    Side(7, "quic", "committed", sync=False, batches=()),
    Side(7, "quic", batches=()),
    Side(7, "quic", "fast", batches=()),
    Side(4, "quic", sync=False, loss=LOSS, batches=()),
]
QUICK = [
    *(Side(4, transport, batches=(100,)) for transport in _RIVALS),
    Side(4, "dataflow", batches=()),
    Side(7, "quic", "fast", sync=False, batches=()),
    Side(4, "quic", loss=LOSS, batches=()),
]
LOSSY = [Side(4, t, sync=False, datagram=1200, batches=()) for t in _RIVALS]
_LANES = {1: 64, 100: 32, 1000: 16}
_REQUESTS = {1: 640, 100: 320, 1000: 64}
_LATENCY = 150
_WARM = 20


@dataclass(slots=True)
class Figures:
    """What was measured of one side: a figure for each round."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Milliseconds for a request of one operation, one in flight."""
    others: list[float] = field(default_factory=list)
    """Which part of the processors others used meanwhile."""
    messages: list[float] = field(default_factory=list)
    """Of such a request."""
    rates: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Operations a second, by the operations of a request."""
    limits: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The same, if all cores did nothing else."""
    latencies: list[float] = field(default_factory=list)
    """Of all rounds, milliseconds."""
    phases: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    notes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lost: list[float] = field(default_factory=list)


def disk(directory: Path, times: int = 100) -> float:
    """Return how many milliseconds an `fdatasync` of 400 more bytes takes there, the median."""
    took = []
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(times):
            file.write(bytes(400))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
    return 1000 * statistics.median(took)


def busy() -> float:
    """Return the processor seconds that all of the machine has used since it started."""
    fields = Path("/proc/stat").read_text().split()[1:9]
    used = sum(map(int, fields)) - int(fields[3]) - int(fields[4])
    return used / os.sysconf("SC_CLK_TCK")


class Bench:
    """Measures sides one after the other."""

    def __init__(self, pool: Pool, scale: float) -> None:
        self._pool = pool
        self._scale = scale
        self._outcomes: dict[tuple[object, ...], set[tuple[str, ...]]] = defaultdict(set)
        self.equal = True
        """Whether the replicas of every group agreed."""

    @property
    def alike(self) -> bool:
        """Whether states and answers were the same over all transports."""
        return all(len(outcomes) == 1 for outcomes in self._outcomes.values())

    def measure(self, side: Side, figures: Figures) -> None:
        """Run a group through all that is to be measured of a side."""
        with Running(
            self._pool,
            side.n,
            side.transport,
            side.settings,
            limits=Limits(datagram=side.datagram),
            sync=side.sync,
            loss=side.loss,
        ) as group:
            # Connections are made, and views that were given up meanwhile do not count.
            outcome = [group.ask(Load(_WARM, 1, 1, "w")).results]
            before = group.settled()
            outcome.append(self._latency(group, figures))
            for batch in side.batches:
                outcome.append(self._rate(group, figures, batch))
            told = group.settled()
            self.equal = self.equal and equal(told, self._pool.names[: side.n])
            outcome.append(told[self._pool.names[0]].state)
            if side.loss:
                figures.lost.append(group.lost)
        self._outcomes[side.batches].add(tuple(outcome))
        rates = {batch: round(figures.rates[batch][-1]) for batch in side.batches}
        print(
            f"{side.name}: p50 {figures.p50[-1]:.1f} ms, p99 {figures.p99[-1]:.1f} ms, "
            f"operations/s {rates}, others {figures.others[-1]:.0%}",
            file=sys.stderr,
        )
        for name, each in told.items():
            for what, count in each.notes.items():
                figures.notes[what] += count - before[name].notes.get(what, 0)

    def _latency(self, group: Running, figures: Figures) -> str:
        load = Load(max(30, int(_LATENCY * self._scale)), 1, 1, "l")
        (before, sent), all_before = group.spent(), busy()
        begin = time.monotonic()
        answered = group.ask(load)
        (after, sent_after), all_after = group.spent(), busy()
        cores = os.cpu_count() or 1
        others = all_after - all_before - (after - before)
        figures.others.append(max(0.0, others / (time.monotonic() - begin) / cores))
        milliseconds = [1000 * each for each in answered.latencies]
        figures.latencies += milliseconds
        figures.p50.append(float(np.percentile(milliseconds, 50)))
        figures.p99.append(float(np.percentile(milliseconds, 99)))
        figures.cpu.append(1000 * (after - before) / load.requests)
        figures.messages.append((sent_after - sent) / load.requests)
        for phase, count in answered.phases.items():
            figures.phases[phase] += count
        return answered.results

    def _rate(self, group: Running, figures: Figures, batch: int) -> str:
        lanes = _LANES[batch]
        load = Load(max(lanes, int(_REQUESTS[batch] * self._scale)), batch, lanes, f"b{batch}.")
        before, _ = group.spent()
        answered = group.ask(load)
        after, _ = group.spent()
        operations = load.requests * batch
        figures.rates[batch].append(operations / answered.seconds)
        figures.limits[batch].append(operations * (os.cpu_count() or 1) / (after - before))
        return answered.results


def _thousands(values: Sequence[float]) -> str:
    return spread([value / 1000 for value in values], 1)


def _print_table(table: dict[Side, Figures], n: int) -> None:
    print(
        f"\nn={n}\n| transport | mode | p50 ms | p99 ms | CPU ms | others | messages | "
        + " | ".join(f"{batch}: 1000/s | limit" for batch in BATCHES)
        + " |"
    )
    print("| " + " | ".join(["---"] * (7 + 2 * len(BATCHES))) + " |")
    for side, at in table.items():
        if side.n == n:
            columns = [TRANSPORTS[side.transport], side.label, spread(at.p50, 1)]
            columns += [spread(at.p99, 1), spread(at.cpu, 1), spread(at.others, 2)]
            columns.append(spread(at.messages, 1))
            for batch in BATCHES:
                columns += [
                    _thousands(at.rates.get(batch, [])),
                    _thousands(at.limits.get(batch, [])),
                ]
            print(f"| {' | '.join(columns)} |")


def _aims(table: dict[Side, Figures]) -> dict[str, float]:
    """Return what QUIC comes to, with and without waiting for the disk."""
    found: dict[str, float] = {}
    for side, at in table.items():
        if side.transport != "quic" or side.signed or side.datagram != DATAGRAM:
            continue
        tail = "" if side.sync else "_nosync"
        p50 = statistics.median(at.p50)
        if side.loss:
            found[f"n4_loss_p99_ms{tail}"] = float(np.percentile(at.latencies, 99))
        elif side.mode == "fast":
            found[f"n{side.n}_fast_p50_ms{tail}"] = p50
        elif side.mode == "tentative":
            found[f"n{side.n}_p50_ms{tail}"] = p50
            for batch in side.batches:
                rates = at.rates[batch]
                found[f"n{side.n}_rate_{batch}{tail}"] = statistics.median(rates)
        else:
            found[f"n{side.n}_committed_p50_ms{tail}"] = p50
    return found


def _verdict(name: str, value: float) -> str:
    aim = AIMS[name.removesuffix("_nosync")]
    met = value >= aim if "rate" in name else value <= aim
    return f"{name}: {value:,.1f} (aim {aim:,.0f}), {'met' if met else 'MISSED'}"


def _rounded(figures: Figures) -> dict[str, Any]:
    plain: dict[str, Any] = {
        name: [round(value, 3) for value in getattr(figures, name)]
        for name in ("p50", "p99", "cpu", "others", "messages", "lost")
    }
    for name in ("rates", "limits"):
        plain[name] = {str(k): [round(x) for x in v] for k, v in getattr(figures, name).items()}
    return plain | {"phases": dict(figures.phases), "notes": dict(figures.notes)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(prog="benchmarks.pbft", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of a few sides")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="sides whose name has this in it")
    parser.add_argument("--logs", type=Path, help="where the vote logs go, if not to /tmp")
    parser.add_argument("--loss", type=float, help="part of the packets that the kernel drops")
    parser.add_argument("--over-loss", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.loss is not None:
        again = ["--over-loss", "--rounds", str(chosen.rounds), "--only", chosen.only]
        again += ["--quick"] * chosen.quick
        try:
            print(lossy_loopback.run("benchmarks.pbft", again, loss=chosen.loss, patience=3600))
        except lossy_loopback.CannotLose as error:
            parser.error(f"the kernel cannot be made to lose packets here: {error}")
        return
    choice = LOSSY if chosen.over_loss else QUICK if chosen.quick else SIDES
    sides = [side for side in choice if chosen.only in side.name]
    if not sides:
        parser.error(f"no side has {chosen.only!r} in its name: {[side.name for side in SIDES]}")
    rounds, scale = (1, 0.1) if chosen.quick else (chosen.rounds, 1.0)
    begin, load = time.monotonic(), os.getloadavg()[0]
    table: dict[Side, Figures] = {side: Figures() for side in sides}
    with (
        tempfile.TemporaryDirectory(dir=chosen.logs) as directory,
        Pool(Path(directory), max(side.n for side in sides)) as pool,
    ):
        bench = Bench(pool, scale)
        flush = disk(pool.directory)
        for _ in range(rounds):
            for side in sides:
                bench.measure(side, table[side])
    print(
        f"{rounds} rounds, {os.cpu_count()} cores, load {load:.1f} at the start, "
        f"{os.getloadavg()[0]:.1f} at the end"
    )
    for n in sorted({side.n for side in sides}):
        _print_table(table, n)
    for side, at in table.items():
        if at.lost:
            print(
                f"{side.name}: {statistics.mean(at.lost):.1%} of the datagrams were dropped; "
                f"p99 of all {len(at.latencies)} requests "
                f"{np.percentile(at.latencies, 99):.1f} ms"
            )
        if any(at.notes.values()):
            print(f"{side.name}: {dict(at.notes)}")
    if chosen.over_loss:
        print(f"the kernel dropped {lossy_loopback.lost():.1%} of the packets")
    print(f"fdatasync of 400 bytes: {flush:.1f} ms, median, before the replicas used the disk")
    found = _aims(table)
    for name, value in found.items():
        if name.removesuffix("_nosync") in AIMS and not chosen.over_loss:
            print(_verdict(name, value))
    print(
        f"replicas {'agree' if bench.equal else 'DO NOT AGREE'}, transports "
        f"{'agree' if bench.alike else 'DO NOT AGREE'}; {time.monotonic() - begin:.0f} s"
    )
    print(
        json.dumps(
            {
                "name": "pbft",
                "rounds": rounds,
                "cores": os.cpu_count(),
                "fdatasync_ms": round(flush, 2),
                "load": [load, os.getloadavg()[0]],
                "equal": bench.equal and bench.alike,
                "found": {name: round(value, 2) for name, value in found.items()},
                "target": AIMS,
                "sides": {side.name: _rounded(at) for side, at in table.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
