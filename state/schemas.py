"""The Arrow schemas that flow between stages: one named constant for each kind of batch.

Times are UTC microseconds. Prices are finite and positive: sources send rows that are not to a
dead-letter file. A null means "not known here", never zero.
"""

from __future__ import annotations

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")

TICKS = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("size", pa.float64()),
    ]
)
"""One trade, quote or daily close of one series. `size` is in units of the series."""

RETURNS = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("log_return", pa.float64()),
    ]
)
"""One series at one step of the grid; `log_return` is null where no earlier price is known."""

SCORED = (
    RETURNS.append(pa.field("drawdown", pa.float64(), nullable=False))
    .append(pa.field("score", pa.float64(), nullable=False))
    .append(pa.field("alert", pa.bool_(), nullable=False))
)
"""Returns after detection: `drawdown` <= 0 as a fraction of the running peak, `score` in [0, 1],
and whether an alert was raised."""

ALERTS = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("log_return", pa.float64(), nullable=False),
        pa.field("drawdown", pa.float64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("detectors", pa.list_(pa.string()), nullable=False),
    ]
)
"""A crash event: a scored return that raised an alert, with the detectors that fired."""

EDGES = pa.schema(
    [
        pa.field("window", pa.int64(), nullable=False),
        pa.field("start", TIME, nullable=False),
        pa.field("end", TIME, nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("effect", pa.string(), nullable=False),
        pa.field("lag", pa.int64()),
        pa.field("statistic", pa.float64()),
        pa.field("weight", pa.float64()),
        pa.field("p", pa.float64()),
        pa.field("q", pa.float64()),
        pa.field("significant", pa.bool_(), nullable=False),
        pa.field("note", pa.string()),
    ]
)
"""One tested link in one window.

For the method `granger`, `statistic` is F and `weight` the partial R squared of all lags together;
for `pcmci` both are the partial correlation at `lag`. Null statistics carry the reason in `note`: a
constant series, a singular system.
"""

HYPOTHESES = pa.schema(
    [
        pa.field("cause", pa.string(), nullable=False),
        pa.field("effect", pa.string(), nullable=False),
        pa.field("lag", pa.int64(), nullable=False),
        pa.field("start", TIME, nullable=False),
        pa.field("end", TIME, nullable=False),
        pa.field("windows", pa.int64(), nullable=False),
        pa.field("q", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("crashes", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""A link that held over consecutive windows; `crashes` counts alerts on the effect meanwhile."""

EVENTS = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("agent", pa.string(), nullable=False),
        pa.field("user", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("latency_ms", pa.float64(), nullable=False),
    ]
)
"""One thing an agent saw: whom it served, at which endpoint, and how long it took.

Names are text, since real ones are. `latency_ms` is finite and not negative.
"""
