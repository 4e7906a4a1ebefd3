"""QUIC links between dataflows against what they could have been: `python -m benchmarks.quic_link`.

Both ends are processes of their own on loopback; transports take turns, and of the rounds the
median is shown, with the least and the most. Ours is measured from the source of one dataflow to
the sink of the other, through `QuicSink` with its spool on disk and `QuicSource`, with epochs of
0.5 s; the rivals (see `benchmarks.link_rivals`) move the same frames with nothing around them.

- latency: 100-byte frames, one every 3 ms, one way; for plain aioquic also there and back.
- rate: 100-byte frames as fast as they go, until the last has arrived.
- bulk: Arrow record batches of 1 MiB, encoded and decoded, until the last has arrived.
- loss: ours again through a UDP relay that drops datagrams, each way: latency, and the rate of
  a short run (the relay costs time too, and Reno gives way to every loss). Frames keep coming every
  3 ms, so that later packets soon tell of a lost one; a caller that waits for each answer waits
  for timers instead (plain aioquic's echo at 30 %: p99 of seconds). TCP would need the kernel
  to drop packets (``tc netem`` in a network namespace of its own); where it cannot, that is said.

Processes are not pinned, and small frames depend on where the scheduler puts the ends: with both
on one of two cores, HTTP, which waits for each answer, did 13,000 to 19,000 frames/s instead of
4,500. Compare within a run, and mind the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
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

from benchmarks.json_process import JsonProcess, ProcessFailed
from benchmarks.link_ends import ROWS, Job, Result
from connectors.quic.certificates import make_authority, make_node
from connectors.testing.relay import UdpRelay

GAP = 0.003
LOSSES = (0.01, 0.1, 0.3)
ADDED, LARGE, SMALL = 0.3, 60.0, 6.0
"""The aims: ms added to aioquic's round trip, MB/s with datagrams of 16,000 and 1,200 bytes."""
_PATIENCE = 90.0

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
    """Frames, or 1e6 bytes, per second."""
    lost: list[float] = field(default_factory=list)
    """Which part of the datagrams the relay really dropped."""


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

    def latency(self, figures: Figures, side: Side, count: int, loss: float | None = None) -> None:
        """Measure latencies in milliseconds."""
        result = self.transfer(side, count=count, gap=GAP, loss=loss)
        if loss is not None:
            figures.lost.append(self.lost)
        for values, p50, p99 in (
            (result.latencies, figures.p50, figures.p99),
            (result.round_trips, figures.trip50, figures.trip99),
        ):
            if values:
                p50.append(float(np.percentile(values, 50)) / 1e3)
                p99.append(float(np.percentile(values, 99)) / 1e3)

    def rate(
        self,
        figures: Figures,
        side: Side,
        count: int,
        *,
        large: bool = False,
        loss: float | None = None,
    ) -> None:
        """Measure frames a second, or megabytes a second of large ones."""
        result = self.transfer(side, count=count, large=large, loss=loss)
        frames = count / ((result.last - result.begin) / 1e9)
        figures.rate.append(frames * ROWS * 8 / 1e6 if large else frames)


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
Table = dict[Side, Figures]


def measure(
    bench: Bench, rounds: int, scale: float
) -> tuple[Table, Table, Table, dict[str, Table]]:
    """Run every transport in turn, `rounds` times."""
    latency, rate, bulk = (defaultdict[Side, Figures](Figures) for _ in range(3))
    lossy: dict[str, Table] = {}
    for _ in range(rounds):
        for side in LATENCY:
            bench.latency(latency[side], side, int(500 * scale))
        for side, count in RATE.items():
            bench.rate(rate[side], side, int(count * scale))
        for side, count in BULK.items():
            bench.rate(bulk[side], side, max(4, int(count * scale)), large=True)
    for loss in LOSSES:
        table = lossy[f"{loss:.0%}"] = defaultdict(Figures)
        for _ in range(min(2, rounds)):
            for side in LATENCY[:1]:
                bench.latency(table[side], side, int(300 * scale), loss)
                bench.rate(table[side], side, int(2000 * scale), loss=loss)
    return latency, rate, bulk, lossy


def _ends(stack: ExitStack) -> Bench:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return Bench(stack.enter_context(_End("sink")), stack.enter_context(_End("source")), directory)


def tcp_alone(count: int) -> None:
    """Measure TCP's latency in a namespace whose loopback loses packets; print it as JSON."""
    with ExitStack() as stack:
        figures = Figures()
        _ends(stack).latency(figures, ("tcp", 0), count)
        print(json.dumps({"p50": figures.p50, "p99": figures.p99}))


def tcp_under_loss(loss: float, count: int) -> Figures | str:
    """Measure TCP in a network namespace that loses packets, or say why that cannot be."""
    script = (
        f"ip link set lo up && tc qdisc add dev lo root netem loss {loss:.0%} && "
        f'exec "$0" -m benchmarks.quic_link --tcp-alone {count}'
    )
    try:
        ran = subprocess.run(
            ["unshare", "--net", "sh", "-c", script, sys.executable],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            cwd=Path(__file__).parents[1],
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if ran.returncode:
        return ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "no reason given"
    return Figures(**json.loads(ran.stdout.splitlines()[-1]))


def _print_latency(title: str, table: Table) -> None:
    print(f"\n{title}\n| transport | p50 ms | p99 ms | round trip p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- |")
    for side, at in table.items():
        columns = (spread(values, 2) for values in (at.p50, at.p99, at.trip50, at.trip99))
        print(f"| {_name(side)} | {' | '.join(columns)} |")


def _print_rate(title: str, table: Table, digits: int) -> None:
    best = max(table, key=lambda side: statistics.median(table[side].rate))
    print(f"\n{title}\n| transport | median (least..most) |\n| --- | --- |")
    for side, at in table.items():
        note = " fastest" if side == best else ""
        print(f"| {_name(side)} | {spread(at.rate, digits)}{note} |")


def _json(table: Table) -> dict[str, dict[str, list[float]]]:
    return {
        _name(side): {
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
    parser.add_argument("--tcp-alone", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.tcp_alone:
        tcp_alone(chosen.tcp_alone)
        return
    rounds, scale = (1, 0.2) if chosen.quick else (3, 1.0)
    begin = time.monotonic()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        bench = _ends(stack)
        latency, rate, bulk, lossy = measure(bench, rounds, scale)
    reasons: dict[str, str] = {}
    for loss in LOSSES:
        found = tcp_under_loss(loss, int(300 * scale))
        if isinstance(found, str):
            reasons[f"{loss:.0%}"] = found
        else:
            lossy[f"{loss:.0%}"]["tcp", 0] = found

    print(f"{rounds} rounds, {os.cpu_count()} cores, load {load:.1f} at the start")
    _print_latency("One way, 100 bytes every 3 ms", latency)
    _print_rate("Frames of 100 bytes a second", rate, 0)
    _print_rate("Arrow batches of 1 MiB, MB/s", bulk, 1)
    for chance, table in lossy.items():
        _print_latency(f"One way at {chance} loss", table)
        dropped = table["braidflow", 1200].lost
        print(f"The relay dropped {', '.join(f'{part:.1%}' for part in dropped)} of the datagrams.")
        print(f"Frames of 100 bytes a second: {spread(table['braidflow', 1200].rate, 0)}")
        if chance in reasons:
            print(f"tcp, http: no packet can be lost under them without netem: {reasons[chance]}")
        else:
            print("http was not measured at loss.")

    ours, plain = latency["braidflow", 1200], latency["aioquic", 1200]
    one_way, trip = statistics.median(ours.p50), statistics.median(plain.trip50)
    plain_one_way = statistics.median(plain.p50)
    at_16000, at_1200 = (statistics.median(bulk["braidflow", size].rate) for size in (16_000, 1200))
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
        "latency_ms": _json(latency),
        "frames_s": _json(rate),
        "bulk_mb_s": _json(bulk),
        "loss_latency_ms": {chance: _json(table) for chance, table in lossy.items()},
        "tcp_under_loss": reasons or "measured",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
