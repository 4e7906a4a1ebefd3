"""One-second bars of a million ticks: columnar windows against Bytewax's own, row by row.

    python -m benchmarks.windows [--rounds 3] [--batch 200000]

A million ticks of 100 symbols, 1000 ticks a second; one in ten comes up to 4 s late, within the
5 s of lateness, and one in a thousand comes 30 to 40 s late. Both sides run in a real flow
(`run_main`) and make count, volume, vwap, low and high per symbol and second, and the late rows.

* ours: batches of 200,000 rows (200 s of ticks) under one key, `tumbling_aggregate`. That is a
  size for replays; a live feed of this rate would come in smaller ones, which cost more per row
  (`--batch 50000` takes 1.4 to 1.8 times as long);
* theirs: rows under their symbol, `fold_window` with `TumblingWindower` and an `EventClock` that
  stands still, so that its watermark is event time only, as ours is. `ordered=False`, which is
  the faster way and the right one for a commutative fold.

The rows of both exist before the clock starts, in the form that each side takes, and both first
run a flow over the first 20,000 ticks, which is not timed. The watermark
of theirs is per symbol and of ours per shard, and theirs calls late each row behind the watermark,
ours only those whose window is closed; the delays are such that the same rows are late in both.

The limit printed beside is Polars over all rows that are not late as one batch: no stream, no
watermark, no order. It takes turns with our side in a loop of its own, and `over_polars` is how
many times longer ours takes. All use at most the threads that Polars chooses; BLAS is not involved.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import gc
import statistics
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import bytewax.operators as op
import bytewax.operators.windowing as w
import numpy as np
import polars as pl
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from benchmarks.rivals import alternate, report
from operators.window import tumbling_aggregate
from state.aggregates import Aggregates
from state.aggregations import Count, Max, Mean, Min, Sum
from state.schemas import TICKS

ROWS, SYMBOLS, WARM = 1_000_000, 100, 20_000
SECOND, LATENESS = timedelta(seconds=1), timedelta(seconds=5)
START = datetime(2024, 1, 1, tzinfo=UTC)
BAR = ["window_start", "series", "trades", "volume", "vwap", "low", "high"]


class Tick(NamedTuple):
    """A row for the side that takes rows."""

    time: datetime
    series: str
    price: float
    size: float


class Result(NamedTuple):
    """Bars, and the rows that came too late."""

    bars: pl.DataFrame
    late: pl.DataFrame


Sums = tuple[int, float, float, float, float]
Batches = tuple[list[tuple[str, pa.RecordBatch]], list[tuple[str, pa.RecordBatch]]]
Folds = tuple[list[tuple[str, tuple[int, Sums]]], list[tuple[str, tuple[int, Tick]]]]


def ticks() -> pa.RecordBatch:
    """Return all ticks in order of arrival."""
    rng = np.random.default_rng(7)
    at = np.arange(ROWS) * 1000 + rng.integers(0, 1000, ROWS)
    delay = np.where(rng.random(ROWS) < 0.1, rng.integers(0, 4_000_000, ROWS), 0)
    # Not near the end, where no rows follow that would move the watermark far enough.
    lost = (rng.random(ROWS) < 0.001) & (at < ROWS * 1000 - 60_000_000)
    delay = np.where(lost, rng.integers(30_000_000, 40_000_000, ROWS), delay)
    order = np.argsort(at + delay, kind="stable")
    micros = int(START.timestamp() * 1e6) + at[order]
    names = np.array([f"S{i:02d}" for i in range(SYMBOLS)])
    return pa.record_batch(
        [
            pa.array(micros).cast(TICKS.field("time").type),
            pa.array(names[rng.integers(0, SYMBOLS, ROWS)]),
            pa.array(100 + rng.integers(-500, 500, ROWS) / 100),
            pa.array(rng.integers(1, 100, ROWS).astype(np.float64)),
        ],
        schema=TICKS,
    )


def bars() -> Aggregates:
    """Return the empty state of our side."""
    return Aggregates(
        "series",
        {
            "trades": Count(),
            "volume": Sum("size"),
            "vwap": Mean("price", weight="size"),
            "low": Min("price"),
            "high": Max("price"),
        },
    )


def ours(items: list[tuple[str, pa.RecordBatch]]) -> Batches:
    """Run columnar windows in a flow."""
    flow = Dataflow("ours")
    closed: list[tuple[str, pa.RecordBatch]] = []
    late: list[tuple[str, pa.RecordBatch]] = []
    up = op.input("ticks", flow, TestingSource(items))
    out = tumbling_aggregate("bars", up, bars, length=SECOND, lateness=LATENESS)
    op.output("closed", out.closed, TestingSink(closed))
    op.output("late", out.late, TestingSink(late))
    run_main(flow)
    return closed, late


def add(bar: Sums, tick: Tick) -> Sums:
    """Fold one row."""
    n, volume, value, low, high = bar
    _, _, price, size = tick
    return (
        n + 1,
        volume + size,
        value + price * size,
        price if price < low else low,
        price if price > high else high,
    )


def join(a: Sums, b: Sums) -> Sums:
    """Merge two bars; tumbling windows never do."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4])


def theirs(rows: list[tuple[str, Tick]]) -> Folds:
    """Run `fold_window` in a flow."""
    flow = Dataflow("theirs")
    closed: list[tuple[str, tuple[int, Sums]]] = []
    late: list[tuple[str, tuple[int, Tick]]] = []
    up = op.input("ticks", flow, TestingSource(rows, batch_size=1000))
    clock: w.EventClock[Tick] = w.EventClock(
        ts_getter=lambda tick: tick.time,
        wait_for_system_duration=LATENESS,
        now_getter=lambda: START,
        to_system_utc=lambda _: None,
    )
    windower = w.TumblingWindower(length=SECOND, align_to=START)
    inf = float("inf")
    out = w.fold_window(
        "bars", up, clock, windower, lambda: (0, 0.0, 0.0, inf, -inf), add, join, ordered=False
    )
    op.output("closed", out.down, TestingSink(closed))
    op.output("late", out.late, TestingSink(late))
    run_main(flow)
    return closed, late


def in_one_batch(frame: pl.DataFrame) -> pl.DataFrame:
    """Aggregate all rows at once with Polars."""
    price, size = pl.col("price"), pl.col("size")
    return frame.group_by(pl.col("time").dt.truncate("1s").alias("window_start"), "series").agg(
        pl.len().cast(pl.Int64).alias("trades"),
        size.sum().alias("volume"),
        ((price * size).sum() / size.sum()).alias("vwap"),
        price.min().alias("low"),
        price.max().alias("high"),
    )


def our_result(out: Batches) -> Result:
    """Bring our output into the common form."""
    closed, late = out
    return Result(
        pl.concat(pl.DataFrame(batch) for _, batch in closed).select(BAR).sort(BAR[:2]),
        pl.concat(pl.DataFrame(batch) for _, batch in late).sort(TICKS.names),
    )


def their_result(out: Folds) -> Result:
    """Bring their output into the common form."""
    closed, late = out
    rows = [
        (START + index * SECOND, series, n, volume, value / volume, low, high)
        for series, (index, (n, volume, value, low, high)) in closed
    ]
    frame = pl.DataFrame(rows, schema=BAR, orient="row")
    return Result(
        frame.sort(BAR[:2]),
        pl.DataFrame([tick for _, (_, tick) in late], schema=TICKS.names, orient="row").sort(
            TICKS.names
        ),
    )


def same(a: Result, b: Result) -> bool:
    """Compare bars (vwap within rounding: sums run in another order) and late rows."""
    exact = [name for name in BAR if name != "vwap"]
    return (
        a.bars.select(exact).rows() == b.bars.select(exact).rows()
        and bool(np.allclose(a.bars["vwap"], b.bars["vwap"], rtol=1e-12, atol=0))
        and a.late.rows() == b.late.rows()
        and a.late.height > 0
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=200_000)
    args = parser.parse_args()
    batch = ticks()
    items = [("all", batch.slice(at, args.batch)) for at in range(0, ROWS, args.batch)]
    rows = [
        (series, Tick(at, series, price, size))
        for at, series, price, size in pl.DataFrame(batch).iter_rows()
    ]
    # The collector would walk a million prepared rows during every run of either side.
    gc.freeze()
    ours([("all", batch.slice(0, WARM))])
    theirs(rows[:WARM])
    timing = alternate(
        lambda: ours(items),
        lambda: theirs(rows),
        lambda a, b: same(our_result(a), their_result(b)),
        rounds=args.rounds,
        warm=False,
    )
    mine = our_result(ours(items))
    frame = pl.DataFrame(batch).join(mine.late, on=TICKS.names, how="anti")
    limit = alternate(
        lambda: ours(items),
        lambda: in_one_batch(frame),
        lambda a, b: same(our_result(a), Result(b.sort(BAR[:2]), mine.late)),
        rounds=max(args.rounds, 5),
    )
    print(f"{ROWS:,} ticks -> {mine.bars.height:,} bars, {mine.late.height:,} late rows")
    for name, runs in (
        ("fold_window", timing.theirs),
        ("tumbling_aggregate", timing.ours),
        ("beside Polars", limit.ours),
        ("Polars, one batch", limit.theirs),
    ):
        seconds = statistics.median(runs)
        print(f"{name:20} {seconds:8.3f} s {ROWS / seconds:14,.0f} rows/s")
    report(
        "windows",
        timing,
        target=40,
        batch=args.batch,
        polars=statistics.median(limit.theirs),
        over_polars=1 / statistics.median(limit.ratios),
        polars_equal=limit.equal,
        late_rows=mine.late.height,
    )


if __name__ == "__main__":
    main()
