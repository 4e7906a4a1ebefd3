"""Causal market-crash discovery as one graph.

    ticks -> bars on a time grid -> aligned prices and log returns -> scored returns -> alerts
    scored returns -> sliding panels -> conditional Granger and PCMCI per window -> hypotheses

Everything up to the panels is keyed by the market as a whole, because alignment and causal tests
need all series together; detectors work on all series of a batch at once. The tests of a window
need no state and run on whichever worker is free.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream

from operators.align import align
from operators.causal import causal_graph
from operators.detect import detect
from operators.hypotheses import hypothesize
from operators.shard import shard
from operators.window import sliding, tumbling_aggregate
from state.aggregates import Aggregates
from state.aggregations import Last
from state.detectors import crash_ensemble
from state.panel import Panel


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketParameters:
    """What the flow needs to know.

    `window` and `every` are multiples of `grid`, in time: 360 daily steps are 360 days, whether or
    not the market is open on all of them. `lags` counts steps at which it is.
    """

    grid: timedelta
    lateness: timedelta
    max_stale: int
    window: int
    every: int
    lags: int
    level: float
    coverage: float
    robust: bool
    gauges: Collection[str]


@dataclass(frozen=True, slots=True)
class MarketStreams:
    """Streams of batches; schemas are in `state.schemas`."""

    scored: Stream[pa.RecordBatch]
    """`SCORED`: aligned prices, returns, drawdowns and scores."""
    alerts: Stream[pa.RecordBatch]
    """`ALERTS`: crash events."""
    edges: Stream[pa.RecordBatch]
    """`EDGES`: every link tested in every window."""
    hypotheses: Stream[pa.RecordBatch]
    """`HYPOTHESES`: links that held, when they end."""
    late: Stream[pa.RecordBatch]
    """`TICKS` that came after their step was closed."""


def market(ticks: Stream[pa.RecordBatch], p: MarketParameters) -> MarketStreams:
    """Connect the whole analysis to a stream of `TICKS` batches."""
    whole = shard("market", ticks, "series", shards=1)
    bars = tumbling_aggregate("bars", whole, _bar, length=p.grid, lateness=p.lateness)
    prices = op.map_value("prices", bars.closed, _stamp)
    returns = align("align", prices, max_stale=p.max_stale)
    detected = detect("detect", returns, crash_ensemble, quiet=p.gauges)
    windows = sliding(
        "windows",
        detected.scored,
        lambda: Panel(2 * p.lags, keep_rows=p.robust),
        length=p.window * p.grid,
        every=p.every * p.grid,
    )
    graphs = causal_graph("causal", windows.closed, lags=p.lags, level=p.level, coverage=p.coverage)
    return MarketStreams(
        scored=op.key_rm("scored", detected.scored),
        alerts=op.key_rm("alerts", detected.alerts),
        edges=op.map("edges", op.key_rm("graphs", graphs), lambda graph: graph.edges),
        hypotheses=op.key_rm("ended", hypothesize("hypotheses", graphs)),
        late=op.key_rm("late", bars.late),
    )


def _bar() -> Aggregates:
    """The last price of each series in one step of the grid."""
    return Aggregates("series", {"price": Last("price")})


def _stamp(bars: pa.RecordBatch) -> pa.RecordBatch:
    """Stamp each bar with the start of its step."""
    return bars.select(["window_start", "series", "price"]).rename_columns(
        ["time", "series", "price"]
    )
