"""The truth that answers are held against, where all events can be read at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from flows.telemetry_state import ANSWERS, RANKS

Question = tuple[datetime | None, str, str | None]
"""Start of the window, question, key: what tells answers apart."""


class Truth:
    """Exact answers about EVENTS, by sorting and counting all of them.

    The quantile at rank q of n values is the smallest one that at least q * n values do not exceed.

    Args:
        events: all of them; they are held in memory.
        window: length of the windows that are answered too.
    """

    def __init__(self, events: Iterable[pa.RecordBatch], window: timedelta | None) -> None:
        batches = list(events)
        self._answers: dict[Question, float] = {}
        if not batches:
            return
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches)))
        self._answers = {(None, name, key): x for name, key, x in _exact(frame)}
        if window is not None:
            length = window // timedelta(microseconds=1)
            start = ((pl.col("time").dt.epoch("us") // length) * length).alias("window")
            for (at,), part in (
                frame.with_columns(start).partition_by("window", as_dict=True).items()
            ):
                opened = _EPOCH + timedelta(microseconds=int(at))
                self._answers |= {(opened, name, key): x for name, key, x in _exact(part)}

    def beside(self, answers: pa.RecordBatch) -> pa.RecordBatch:
        """Return the ANSWERS with the exact value of each, null where there is none."""
        asked = zip(*(answers.column(n).to_pylist() for n in _KEY), strict=True)
        exact = pa.array([self._answers.get(key) for key in asked], pa.float64())
        return pa.RecordBatch.from_arrays([*answers.columns[:-1], exact], schema=ANSWERS)


_KEY = ("window_start", "question", "key")
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _exact(frame: pl.DataFrame) -> Iterator[tuple[str, str | None, Any]]:
    latency = frame["latency_ms"].sort()
    count = len(latency)
    yield "events", None, float(count)
    yield "distinct users", None, float(frame["user"].n_unique())
    yield "latency mean", None, latency.mean()
    yield "latency deviation", None, latency.std(ddof=0)
    yield "latency minimum", None, latency[0]
    yield "latency maximum", None, latency[-1]
    for rank in RANKS:
        yield "latency quantile", f"{rank:g}", latency[max(0, math.ceil(rank * count) - 1)]
    for name, times in frame["endpoint"].value_counts().iter_rows():
        yield "endpoint", name, float(times)
