"""QUIC links between dataflows against what they could have been: `python -m benchmarks.quic_link`.

Both ends are processes of their own on loopback; transports take turns, and of the rounds the
median is shown, with the least and the most. Ours is measured from the source of one dataflow to
the sink of the other, through `QuicSink` with its spool on disk and `QuicSource`, with epochs of
0.5 s; the rivals (see `benchmarks.link_rivals`) move the same frames with nothing around them.

- latency: 100-byte frames, one every 3 ms, one way; for plain aioquic also there and back.
- rate: 100-byte frames as fast as they go, until the last has arrived.
- bulk: Arrow record batches of 1 MiB, encoded and decoded, until the last has arrived.
- loss: all three again, with fewer frames, over a loopback whose kernel drops packets each way
  (`benchmarks.lossy_loopback`). Frames come every 3 ms whether or not the last has arrived, so
  that later packets soon tell of a lost one; HTTP, which waits for each answer, waits for timers.
  Where this machine cannot drop packets, ours alone is measured, through a UDP relay that does.

Processes are not pinned, and small frames depend on where the scheduler puts the ends: with both
on one of two cores, HTTP, which waits for each answer, did 13,000 to 19,000 frames/s instead of
4,500. Compare within a run, and mind the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import lossy_loopback
from benchmarks.json_process import JsonProcess, ProcessFailed
from benchmarks.link_ends import ROWS, Job, Result
from connectors.quic.certificates import make_authority, make_node
from connectors.testing.relay import UdpRelay

GAP = 0.003
LOSSES = (0.01, 0.1, 0.3)
ADDED, LARGE, SMALL = 0.3, 60.0, 6.0
"""The aims: ms added to aioquic's round trip, MB/s with datagrams of 16,000 and 1,200 bytes."""
_PATIENCE = 60.0

Side = tuple[str, int]
"""A transport and its largest datagram."""


class _End(JsonProcess):
    """A process that does jobs."""

    def __init__(self, end: str) -> None:
        super().__init__("-m", "benchmarks.link_process", end, patience=_PATIENCE)

    def result(self, job: Job) -> Result:
        result = msgspec.json.decode(self.answer(), type=Result)
        if result.error:
            raise ProcessFailed(f"{job.transport}: {result.error}")
        return result


@dataclass(slots=True)
class Figures:
    """What was measured of one side: a figure for each round."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    trip50: list[float] = field(default_factory=list)
    trip99: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    """Frames per second."""
    bulk: list[float] = field(default_factory=list)
    """1e6 bytes of Arrow batches per second."""


class Bench:
    """Two ends and where their files are."""

    def __init__(self, sink: _End, source: _End, directory: Path) -> None:
        self._sink, self._source, self._directory = sink, source, directory
        self._jobs = 0
        make_authority(directory / "keys")
        for name in ("root", "leaf"):
            make_node(directory / "keys", name)
        self.lost = 0.0
        """Which part of the datagrams of the last transfer was dropped on purpose."""
        self.equal = True
        """Whether all frames of all transfers came as they were sent."""

    def transfer(self, side: Side, *, loss: float | None = None, **what: Any) -> Result:
        """Do one transfer and return what both ends say."""
        self._jobs += 1
        transport, datagram = side
        job = Job(
            transport=transport,
            datagram=datagram,
            keys=str(self._directory / "keys"),
            spool=str(self._directory / f"spool{self._jobs}"),
            **what,
        )
        self._source.give(job)
        line = json.loads(self._source.answer())
        if line.get("error"):
            raise ProcessFailed(f"{transport}: {line['error']}")
        port = line["port"]
        with ExitStack() as stack:
            relay = UdpRelay(("127.0.0.1", port), loss=loss or 0.0, seed=self._jobs)
            if loss is not None:
                port = stack.enter_context(relay).address[1]
            sending = msgspec.structs.replace(job, port=port)
            self._sink.give(sending)
            sent = self._sink.result(sending)
            result = self._source.result(job)
            counts = relay.counts
            self.lost = counts.lost / max(1, counts.lost + counts.forwarded)
        result.begin, result.round_trips = sent.begin, sent.round_trips
        self.equal = self.equal and result.in_order
        return result

    def measure(
        self, what: str, figures: Figures, side: Side, count: int, loss: float | None = None
    ) -> None:
        """Measure ``latency`` in milliseconds, ``rate`` or ``bulk``, and note it in `figures`."""
        result = self.transfer(
            side,
            count=count,
            gap=GAP if what == "latency" else 0.0,
            large=what == "bulk",
            loss=loss,
        )
        frames = count / ((result.last - result.begin) / 1e9)
        if what == "rate":
            figures.rate.append(frames)
        elif what == "bulk":
            figures.bulk.append(frames * ROWS * 8 / 1e6)
        else:
            for values, p50, p99 in (
                (result.latencies, figures.p50, figures.p99),
                (result.round_trips, figures.trip50, figures.trip99),
            ):
                if values:
                    p50.append(float(np.percentile(values, 50)) / 1e3)
                    p99.append(float(np.percentile(values, 99)) / 1e3)


def spread(values: Sequence[float], digits: int) -> str:
    """Format the median with the least and the most.

    >>> spread([3.0, 1.0, 2.0], 1)
    '2.0 (1.0..3.0)'
    """
    if not values:
        return "-"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f}..{most:,.{digits}f})"


def _name(side: Side) -> str:
    transport, datagram = side
    return f"{transport} {datagram}" if transport in ("braidflow", "aioquic") else transport


LATENCY: list[Side] = [("braidflow", 1200), ("aioquic", 1200), ("tcp", 0), ("http", 0)]
RATE: dict[Side, int] = {
    ("braidflow", 1200): 20_000,
    ("braidflow", 16_000): 20_000,
    ("aioquic", 1200): 20_000,
    ("aioquic", 16_000): 20_000,
    ("tcp", 0): 100_000,
    ("http", 0): 3_000,
}
BULK: dict[Side, int] = {
    ("braidflow", 1200): 12,
    ("braidflow", 16_000): 64,
    ("aioquic", 1200): 12,
    ("aioquic", 16_000): 64,
    ("tcp", 0): 128,
    ("http", 0): 128,
}
UNDER_LOSS = {"latency": 500, "rate": 2000, "bulk": 4}
"""How often each is done where packets are lost."""
TOO_LATE = "all frames had been made when the first one arrived"
Table = dict[Side, Figures]


def measure(bench: Bench, rounds: int, scale: float) -> Table:
    """Run every transport in turn, `rounds` times."""
    table = defaultdict[Side, Figures](Figures)
    for _ in range(rounds):
        for side in LATENCY:
            bench.measure("latency", table[side], side, int(500 * scale))
        for side, count in RATE.items():
            bench.measure("rate", table[side], side, int(count * scale))
        for side, count in BULK.items():
            bench.measure("bulk", table[side], side, max(4, int(count * scale)))
    return table


class UnderLoss(msgspec.Struct, kw_only=True):
    """What was measured while packets were lost.

    Args:
        lost: Which part of them really was, each way.
        table: Figures by the name of a side.
        failed: Sides that did not finish something in a minute, or too late to be measured: what,
            and how it ended.
        reason: Why only ours was measured, and through a relay; empty if all were.
    """

    lost: float
    table: dict[str, Figures]
    failed: dict[str, str] = {}
    reason: str = ""


def under_loss(scale: float) -> UnderLoss:
    """Measure every transport over this process' lossy loopback."""
    found = UnderLoss(lost=0.0, table={})
    steps = [(side, what, count) for side in LATENCY for what, count in UNDER_LOSS.items()]
    while steps:
        with ExitStack() as stack:
            bench = _ends(stack)
            while steps:
                side, what, count = steps.pop(0)
                figures = found.table.setdefault(_name(side), Figures())
                try:
                    bench.measure(what, figures, side, max(1, int(count * scale)))
                except ProcessFailed as error:
                    found.failed[f"{_name(side)}, {what}"] = str(error)
                    break  # and go on with new ends
    found.lost = lossy_loopback.lost()
    return found


def at_loss(bench: Bench, loss: float, scale: float) -> UnderLoss:
    """Measure every transport where the kernel drops packets; or ours, where a relay does."""
    patience = 2 * _PATIENCE * len(LATENCY) * len(UNDER_LOSS)
    arguments = ["--under-loss", str(scale)]
    try:
        said = lossy_loopback.run("benchmarks.quic_link", arguments, loss=loss, patience=patience)
    except lossy_loopback.CannotLose as error:
        side, figures = LATENCY[0], Figures()
        for what in ("rate", "latency"):
            bench.measure(what, figures, side, int(UNDER_LOSS[what] * scale), loss)
        found = UnderLoss(lost=bench.lost, table={_name(side): figures}, reason=str(error))
    else:
        found = msgspec.json.decode(said.splitlines()[-1], type=UnderLoss)
    for name, figures in found.table.items():
        if not figures.p50:
            found.failed.setdefault(f"{name}, latency", TOO_LATE)
    return found


def _ends(stack: ExitStack) -> Bench:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return Bench(stack.enter_context(_End("sink")), stack.enter_context(_End("source")), directory)


def _print_latency(table: dict[str, Figures]) -> None:
    print("| transport | p50 ms | p99 ms | round trip p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- |")
    for side, at in table.items():
        if at.p50:
            columns = (spread(values, 2) for values in (at.p50, at.p99, at.trip50, at.trip99))
            print(f"| {side} | {' | '.join(columns)} |")


def _print_rates(table: dict[str, Figures]) -> None:
    print("\n| transport | frames of 100 bytes a second | Arrow batches of 1 MiB, MB/s |")
    print("| --- | --- | --- |")
    for side, at in table.items():
        print(f"| {side} | {spread(at.rate, 0)} | {spread(at.bulk, 1)} |")


def _json(table: dict[str, Figures]) -> dict[str, dict[str, list[float]]]:
    return {
        side: {
            name: [round(value, 4) for value in values]
            for name in Figures.__slots__
            if (values := getattr(at, name))
        }
        for side, at in table.items()
    }


def _verdict(added: float) -> str:
    return f"{added:+.2f} ms, {'met' if added <= ADDED else 'MISSED'}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(prog="benchmarks.quic_link", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--under-loss", type=float, metavar="SCALE", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.under_loss:
        print(msgspec.json.encode(under_loss(chosen.under_loss)).decode())
        return
    rounds, scale = (1, 0.2) if chosen.quick else (3, 1.0)
    begin = time.monotonic()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        bench = _ends(stack)
        sides = measure(bench, rounds, scale)
        lossy = {f"{loss:.0%}": at_loss(bench, loss, scale) for loss in LOSSES}
    table = {_name(side): figures for side, figures in sides.items()}

    print(f"{rounds} rounds, {os.cpu_count()} cores, load {load:.1f} at the start")
    print("\nOne way, 100 bytes every 3 ms")
    _print_latency(table)
    _print_rates(table)
    for chance, found in lossy.items():
        print(f"\nAt {chance} loss, {found.lost:.1%} really; one way, 100 bytes every 3 ms")
        _print_latency(found.table)
        _print_rates(found.table)
        for what, how in found.failed.items():
            print(f"{what}: {how}")
        if found.reason:
            print(f"the others: the kernel cannot be made to lose packets here: {found.reason}")

    ours, plain = sides["braidflow", 1200], sides["aioquic", 1200]
    one_way, trip = statistics.median(ours.p50), statistics.median(plain.trip50)
    plain_one_way = statistics.median(plain.p50)
    at_16000, at_1200 = (
        statistics.median(sides["braidflow", size].bulk) for size in (16_000, 1200)
    )
    print(
        f"\nOurs one way {one_way:.2f} ms, plain aioquic one way {plain_one_way:.2f} ms and "
        f"there and back {trip:.2f} ms (aim: at most {ADDED} ms added)\n"
        f"  like with like, one way: {_verdict(one_way - plain_one_way)}\n"
        f"  against half of its round trip: {_verdict(one_way - trip / 2)}\n"
        f"  against all of its round trip, a weaker test: {_verdict(one_way - trip)}"
    )
    print(f"MB/s: {at_16000:.1f} at 16,000 (aim {LARGE:g}), {at_1200:.1f} at 1,200 (aim {SMALL:g})")
    print(f"frames {'as sent' if bench.equal else 'NOT AS SENT'}; {time.monotonic() - begin:.0f} s")
    line = {
        "name": "quic_link",
        "ours": one_way,
        "theirs": trip,
        "unit": "ms",
        "equal": bench.equal,
        "rounds": rounds,
        "added_one_way_ms": one_way - plain_one_way,
        "added_to_round_trip_ms": one_way - trip,
        "added_to_half_round_trip_ms": one_way - trip / 2,
        "mb_s_16000": at_16000,
        "mb_s_1200": at_1200,
        "target": {"added_ms": ADDED, "mb_s_16000": LARGE, "mb_s_1200": SMALL},
        "load": load,
        "figures": _json(table),
        "under_loss": {
            chance: {
                "lost": found.lost,
                "figures": _json(found.table),
                "failed": found.failed,
                "reason": found.reason,
            }
            for chance, found in lossy.items()
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
