"""The replay emits every row once, in order, and on time."""

import csv
import gzip
import importlib.util
import itertools
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, run_main
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.market import ReplaySource, daily_prices
from state.schemas import TICKS

START = datetime(2020, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


def ticks(seconds, names=None):
    return pa.table(
        [
            [START + timedelta(seconds=s) for s in seconds],
            names or [f"s{i}" for i in range(len(seconds))],
            [1.0 + i for i in range(len(seconds))],
            [None] * len(seconds),
        ],
        schema=TICKS,
    )


def drain(partition):
    batches = []
    while True:
        try:
            batches += partition.next_batch()
        except StopIteration:
            return batches


def test_daily_prices_are_the_rows_of_the_shipped_files():
    prices = daily_prices()
    assert prices.schema == TICKS
    root = Path(importlib.util.find_spec("arch").origin).parent / "data"
    expected = []
    for name, folder, column in (
        ("S&P 500", "sp500", "Close"),
        ("NASDAQ", "nasdaq", "Close"),
        ("WTI", "wti", "DCOILWTICO"),
        ("VIX", "vix", "vix"),
    ):
        with gzip.open(root / folder / f"{folder}.csv.gz", "rt") as lines:
            for row in csv.DictReader(lines):
                day = datetime.strptime(row["Date"], "%m/%d/%Y").replace(tzinfo=UTC)
                if row[column] != "." and date(1999, 1, 4) <= day.date() <= date(2018, 12, 31):
                    volume = float(row.get("Volume", 0)) or None
                    expected.append((day, name, float(row[column]), volume))
    expected.sort(key=lambda r: r[:2])
    assert [tuple(row.values()) for row in prices.to_pylist()] == expected


def test_daily_prices_of_any_period():
    prices = daily_prices("WTI", start=date(1986, 1, 1), end=date(1986, 1, 3))
    assert prices["price"].to_pylist() == [25.56, 26.0]


@pytest.mark.parametrize(
    ("series", "message"),
    [(["DAX"], "unknown daily series 'DAX'"), (["WTI", "WTI"], "twice"), ([], "no daily prices")],
)
def test_daily_prices_name_what_is_wrong(series, message):
    with pytest.raises(ValueError, match=message):
        daily_prices(series)


def test_a_flow_gets_every_row_in_order():
    out = []
    flow = Dataflow("replay")
    stream = op.input("in", flow, ReplaySource(batch_rows=1000))
    op.output("out", stream, TestingSink(out))
    run_main(flow)
    assert pa.Table.from_batches(out) == daily_prices()


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 6), max_size=30),
    st.integers(1, 8),
    st.integers(0, 30),
)
def test_any_restart_emits_the_same_rows_and_no_batch_splits_a_timestamp(seconds, rows, stop):
    source = ReplaySource(ticks(seconds), batch_rows=rows)
    batches = drain(source.build_part("in", "prices", None))
    whole = pa.Table.from_batches(batches, TICKS)
    assert whole["time"].to_pylist() == [START + timedelta(seconds=s) for s in sorted(seconds)]
    assert len(whole) == source.total_rows == len(seconds)
    ends = [(b["time"][0].as_py(), b["time"][-1].as_py()) for b in batches]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    assert all(b.num_rows <= rows or e[0] == e[1] for b, e in zip(batches, ends, strict=True))

    first = source.build_part("in", "prices", None)
    begun = [batch for _ in range(min(stop, len(batches))) for batch in first.next_batch()]
    rest = drain(source.build_part("in", "prices", first.snapshot()))
    assert pa.Table.from_batches(begun + rest, TICKS) == whole


def test_a_flow_that_broke_goes_on_where_its_snapshot_was(tmp_path):
    init_db_dir(tmp_path, 1)
    runs = []

    def run(breaks):
        out, seen = [], []

        def step(batch):
            seen.append(batch)
            if breaks and len(seen) == 8:
                raise RuntimeError("broken on purpose")
            return batch

        flow = Dataflow("replay")
        stream = op.input("in", flow, ReplaySource(batch_rows=2000))
        op.output("out", op.map("step", stream, step), TestingSink(out))
        recovery = RecoveryConfig(str(tmp_path))
        try:
            run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
        finally:
            runs.append(pa.Table.from_batches(out, TICKS))

    with pytest.raises(RuntimeError):
        run(breaks=True)
    run(breaks=False)
    begun, rest = runs
    whole = daily_prices()
    again = len(begun) + len(rest) - len(whole)
    assert 0 <= again <= 2000  # the epoch that was not finished comes again
    assert pa.concat_tables([begun, rest.slice(again)]) == whole


def test_rows_are_sent_when_they_are_due():
    clock = Clock()
    source = ReplaySource(ticks([0, 0, 10, 20, 60]), speed=10.0, clock=clock)
    part = source.build_part("in", "prices", None)
    begin = clock.now
    assert part.next_awake() == begin
    assert part.next_batch()[0].num_rows == 2
    assert part.next_awake() == begin + timedelta(seconds=1)
    clock.now = begin + timedelta(seconds=0.5)
    assert part.next_batch() == []
    # A flow that was busy gets all that is due, and the schedule does not drift.
    clock.now = begin + timedelta(seconds=3.7)
    assert part.next_batch()[0].num_rows == 2
    assert part.next_awake() == begin + timedelta(seconds=6)
    clock.now = part.next_awake()
    assert part.next_batch()[0].num_rows == 1
    with pytest.raises(StopIteration):
        part.next_batch()


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20), st.floats(1e-3, 1e7))
def test_something_is_due_whenever_the_replay_wakes(micros, speed):
    clock = Clock()
    source = ReplaySource(ticks([m / 1e6 for m in micros]), speed=speed, clock=clock)
    part = source.build_part("in", "prices", None)
    left = source.total_rows
    while left:
        clock.now = max(clock.now, part.next_awake())
        (batch,) = part.next_batch()
        left -= batch.num_rows


def test_the_schedule_counts_on_from_the_row_of_the_restart():
    clock = Clock()
    source = ReplaySource(ticks([0, 10, 20]), speed=10.0, clock=clock)
    part = source.build_part("in", "prices", None)
    part.next_batch()
    clock.now += timedelta(days=1)
    resumed = source.build_part("in", "prices", part.snapshot())
    assert resumed.next_awake() == clock.now
    assert resumed.next_batch()[0]["price"].to_pylist() == [2.0]
    assert resumed.next_awake() == clock.now + timedelta(seconds=1)


def test_a_restart_on_other_rows_is_refused():
    part = ReplaySource(ticks([0, 1, 2])).build_part("in", "prices", None)
    part.next_batch()
    for other, message in ((ticks([0, 1]), "has 2 rows"), (ticks([0, 1, 3, 4]), "not the ones")):
        with pytest.raises(ValueError, match=message):
            ReplaySource(other).build_part("in", "prices", part.snapshot())
    longer = ReplaySource(ticks([0, 1, 2, 5])).build_part("in", "prices", part.snapshot())
    assert longer.next_batch()[0].num_rows == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speed": 0.0}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"prices": pa.table({"price": [1.0]})}, "not TICKS"),
        ({"prices": pa.table(ticks([0])).set_column(2, "price", [[-1.0]])}, "row 0"),
        ({"prices": pa.table(ticks([0])).set_column(2, "price", [[None]])}, "a null price"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReplaySource(**{"prices": ticks([0]), **arguments})
