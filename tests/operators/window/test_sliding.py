"""Sliding windows against `group_by_dynamic` and `rolling` of Polars, and of lagged moments."""

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from operators.window import sliding
from state.mergeable import Algebra
from state.moments import LaggedMoments
from tests.operators.window.rows import START, seconds

SHAPES = [(4, 4), (6, 2), (6, 4), (7, 1), (5, 3)]


@pytest.mark.parametrize(("length", "every"), SHAPES)
def test_windows_equal_polars_group_by_dynamic(harness: Any, length: int, every: int) -> None:
    rows = [(t * t % 97, "ab"[t % 2], t) for t in range(120)]
    expected = (
        pl.DataFrame(harness.batch_of(rows))
        .sort("time")
        .group_by_dynamic("time", every=seconds(every), period=seconds(length), start_by="window")
        .agg(pl.col("x").sort())
    )
    got, late = harness.run(
        sliding,
        harness.items_of(rows, [50]),
        harness.Bag,
        length=seconds(length),
        every=seconds(every),
        lateness=seconds(100),
    )
    # Polars starts at the first window that begins before the first row.
    first = expected["time"][0]
    assert [(v.start, v.state.xs) for v in got if v.start >= first] == list(
        expected.select("time", "x").iter_rows()
    )
    assert not late


def test_sliding_aggregates_merge_panes(harness: Any) -> None:
    rows = [(t, "ab"[t % 2], t) for t in range(10)]
    windows, _ = harness.run(
        sliding,
        harness.items_of(rows, [3, 7]),
        harness.create,
        length=seconds(4),
        every=seconds(2),
        align_to=START,
    )
    assert windows[2].start == START + seconds(2)
    assert windows[2].state.table().to_pylist() == [
        {"user": "a", "n": 2, "sum": 6.0, "low": 2},
        {"user": "b", "n": 2, "sum": 8.0, "low": 3},
    ]


def test_windows_at_rows_equal_polars_rolling(harness: Any) -> None:
    rows = [(t * t % 97, "ab"[t % 2], t) for t in range(120)]
    frame = pl.DataFrame(harness.batch_of(rows)).sort("time")
    expected = frame.rolling("time", period=seconds(7), offset="0s", closed="left").agg(
        pl.col("x").sort()
    )
    got, _ = harness.run(
        sliding,
        harness.items_of(rows, [20, 50]),
        harness.Bag,
        length=seconds(7),
        every=seconds(1),
        align_to=START,
        lateness=seconds(100),
    )
    # Polars has one window for each row: those that start when a row comes.
    starts = set(frame["time"])
    assert [(v.start, v.state.xs) for v in got if v.start in starts] == list(
        expected.unique("time").sort("time").iter_rows()
    )


class Moments:
    """`LaggedMoments` of the columns a and b, fed from batches."""

    algebra: ClassVar[Algebra] = Algebra.ORDERED_MONOID

    def __init__(self, moments: LaggedMoments | None = None) -> None:
        self.moments = LaggedMoments(2, 2) if moments is None else moments

    def update(self, batch: pa.RecordBatch) -> None:
        self.moments.append(np.column_stack([batch["a"].to_numpy(), batch["b"].to_numpy()]))

    def merge(self, other: Self) -> None:
        self.moments.merge(other.moments)

    def to_bytes(self) -> bytes:
        return self.moments.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(LaggedMoments.from_bytes(data))


@pytest.mark.parametrize("abort", [None, 1, 5])
def test_lagged_moments_are_those_of_the_rows_of_each_window(
    harness: Any, abort: int | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    table = pl.DataFrame(
        {
            # Pauses longer than a pane, so that some panes have no rows, and fewer than the lags.
            "x": np.cumsum(rng.integers(1, 5, 200)),
            "a": 1e6 + rng.normal(size=200),
            "b": rng.normal(size=200),
        }
    ).with_columns(time=START + pl.col("x") * seconds(1))
    # Every 25th row comes five rows too late, which an ordered state cannot take.
    lost = np.arange(12, 200, 25)
    order = np.argsort(
        np.where(np.isin(np.arange(200), lost), np.arange(200) + 5.5, np.arange(200))
    )
    batch = table[order].select(pl.col("time").cast(pl.Datetime("us", "UTC")), "x", "a", "b")
    stream = batch.to_arrow().combine_chunks().to_batches()[0]
    items: list[Any] = [("k", stream.slice(at, 16)) for at in range(0, 200, 16)]
    kw = {"length": seconds(40), "every": seconds(6), "align_to": START, "lateness": seconds(9)}
    closed, late = harness.run_through(abort, tmp_path, sliding, items, Moments, **kw)
    assert (
        sorted(x for b in late for x in b["x"].to_pylist()) == table["x"].to_numpy()[lost].tolist()
    )
    taken = table[np.setdiff1d(np.arange(200), lost)]
    assert len(closed) > 70
    for window in closed:
        rows = taken.filter(pl.col("time").is_between(window.start, window.end, closed="left"))
        expected = LaggedMoments.from_rows(rows.select("a", "b").to_numpy(), 2)
        mine, other = window.state.moments.scatter(), expected.scatter()
        assert (window.state.moments.rows, mine.n) == (len(rows), other.n)
        np.testing.assert_allclose(mine.matrix, other.matrix, rtol=0, atol=1e-7)
