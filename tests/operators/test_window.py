"""Tumbling, sliding and session windows against Polars, Bytewax's own and a row-by-row oracle."""

import itertools
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import bytewax.operators as op
import bytewax.operators.windowing as w
import polars as pl
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.window import Window, session, sliding, tumbling, tumbling_aggregate
from state.aggregates import Aggregates
from state.aggregations import Count, Min, Sum
from state.mergeable import Algebra, seal, unseal
from state.schemas import TIME

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([("time", TIME), ("user", pa.string()), ("x", pa.int64())])
Row = tuple[int, str, int]
"""Seconds after START, user, x."""


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


class Bag:
    """All x, sorted: a commutative state that forgets nothing."""

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    def __init__(self) -> None:
        self.xs: list[int] = []

    def update(self, batch: pa.RecordBatch) -> None:
        self.xs = self.kept([*self.xs, *batch["x"].to_pylist()])

    def merge(self, other: Self) -> None:
        self.xs = self.kept([*self.xs, *other.xs])

    def kept(self, xs: list[int]) -> list[int]:
        return sorted(xs)

    def to_bytes(self) -> bytes:
        return seal("bag", 1, struct.pack(f"<{len(self.xs)}q", *self.xs))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        bag, (_, payload) = cls(), unseal("bag", data, versions={1})
        bag.xs = list(struct.unpack(f"<{len(payload) // 8}q", payload))
        return bag


class Log(Bag):
    """All x in the order in which they were folded."""

    algebra = Algebra.ORDERED_MONOID

    def kept(self, xs: list[int]) -> list[int]:
        return xs


def batch_of(rows: list[Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"time": START + seconds(t), "user": user, "x": x} for t, user, x in rows], schema=SCHEMA
    )


def items_of(rows: list[Row], cuts: list[int]) -> list[Any]:
    edges = [0, *sorted(c for c in cuts if c < len(rows)), len(rows)]
    return [("k", batch_of(rows[i:j])) for i, j in itertools.pairwise(edges)]


def run(operator: Callable[..., Any], items: list[Any], *args: Any, **kw: Any) -> tuple[list, list]:
    flow, closed, late = build(operator, items, *args, **kw)
    run_main(flow)
    return [x for _, x in closed], [r["x"] for _, b in late for r in b.to_pylist()]


def build(operator: Callable[..., Any], items: list[Any], *args: Any, **kw: Any) -> Any:
    flow = Dataflow("flow")
    closed: list[Any] = []
    late: list[Any] = []
    out = operator("window", op.input("in", flow, TestingSource(items)), *args, **kw)
    op.output("closed", out.closed, TestingSink(closed))
    op.output("late", out.late, TestingSink(late))
    return flow, closed, late


def plain(windows: list[Window[Any]]) -> list[tuple[int, int, int, list[int]]]:
    def at(time: datetime) -> int:
        return (time - START) // seconds(1)

    return [(v.index, at(v.start), at(v.end), v.state.xs) for v in windows]


def row_by_row(
    rows: list[Row], length: int, every: int, lateness: int
) -> tuple[list[tuple[int, int, int, list[int]]], list[int]]:
    """The documented meaning, in the plainest way there is."""
    contents: dict[int, list[int]] = {}
    late: list[int] = []
    newest: int | None = None
    for t, _, x in rows:
        windows = range((t - length) // every + 1, t // every + 1)
        is_open = [i for i in windows if newest is None or i * every + length > newest - lateness]
        if not is_open:
            late.append(x)
        for i in is_open:
            contents.setdefault(i, []).append(x)
        newest = t if newest is None else max(t, newest)
    return [
        (i, i * every, i * every + length, sorted(xs)) for i, xs in sorted(contents.items())
    ], late


rows_of = st.lists(st.tuples(st.integers(-30, 60), st.sampled_from("ab")), max_size=25).map(
    lambda rows: [(t, user, x) for x, (t, user) in enumerate(rows)]
)
cuts_of = st.lists(st.integers(0, 25), max_size=4)
SHAPES = [(4, 4), (6, 2), (6, 4), (7, 1), (5, 3)]
few = settings(max_examples=25)


@pytest.mark.parametrize(("length", "every"), SHAPES)
@few
@given(rows=rows_of, cuts=cuts_of, lateness=st.integers(0, 40))
def test_any_batching_gives_what_row_by_row_gives(
    length: int, every: int, rows: list[Row], cuts: list[int], lateness: int
) -> None:
    kw: dict[str, Any] = {
        "length": seconds(length),
        "align_to": START,
        "lateness": seconds(lateness),
    }
    operator: Callable[..., Any] = tumbling
    if every != length:
        operator, kw["every"] = sliding, seconds(every)
    windows, late = run(operator, items_of(rows, cuts), Bag, **kw)
    expected, expected_late = row_by_row(rows, length, every, lateness)
    assert plain(windows) == expected
    assert sorted(late) == sorted(expected_late)


@few
@given(rows=rows_of, data=st.data(), cuts=cuts_of)
def test_any_order_within_the_lateness_gives_the_same(
    rows: list[Row], data: st.DataObject, cuts: list[int]
) -> None:
    shuffled = data.draw(st.permutations(rows))
    for operator, kw in (
        (tumbling, {"length": seconds(5)}),
        (sliding, {"length": seconds(5), "every": seconds(2)}),
        (session, {"by": "user", "gap": seconds(3)}),
    ):
        a, _ = run(operator, items_of(rows, cuts), Bag, lateness=seconds(90), **kw)
        b, late = run(operator, items_of(shuffled, cuts[:1]), Bag, lateness=seconds(90), **kw)
        assert [(v.start, v.end, v.state.xs) for v in a] == [
            (v.start, v.end, v.state.xs) for v in b
        ]
        assert not late


@pytest.mark.parametrize(("length", "every"), SHAPES)
def test_windows_equal_polars_group_by_dynamic(length: int, every: int) -> None:
    rows = [(t * t % 97, "ab"[t % 2], t) for t in range(120)]
    expected = (
        pl.DataFrame(batch_of(rows))
        .sort("time")
        .group_by_dynamic("time", every=seconds(every), period=seconds(length), start_by="window")
        .agg(pl.col("x").sort())
    )
    got, late = run(
        sliding,
        items_of(rows, [50]),
        Bag,
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


def fold_window(rows: list[Row], windower: Any, lateness: int) -> tuple[list[Any], list[int]]:
    flow = Dataflow("flow")
    closed: list[Any] = []
    late: list[Any] = []
    up = op.input("in", flow, TestingSource([(user, (t, x)) for t, user, x in rows]))
    clock = w.EventClock(
        ts_getter=lambda v: START + seconds(v[0]),
        wait_for_system_duration=seconds(lateness),
        now_getter=lambda: START,
        to_system_utc=lambda _: None,
    )
    out = w.fold_window(
        "fold", up, clock, windower, list, lambda xs, v: [*xs, v[1]], lambda a, b: a + b
    )
    op.output("closed", out.down, TestingSink(closed))
    op.output("late", out.late, TestingSink(late))
    run_main(flow)
    return sorted((user, sorted(xs)) for user, (_, xs) in closed), sorted(
        v[1] for _, (_, v) in late
    )


@few
@given(rows=rows_of, cuts=cuts_of, lateness=st.integers(0, 40))
def test_sessions_equal_those_of_bytewax(rows: list[Row], cuts: list[int], lateness: int) -> None:
    # One user, because the watermark of Bytewax is the key's and ours the shard's.
    rows = [(t, "a", x) for t, _, x in rows]
    # Theirs joins rows that are `gap` apart, ours only those that are closer.
    theirs = fold_window(
        rows, w.SessionWindower(gap=seconds(3) - timedelta(microseconds=1)), lateness
    )
    windows, late = run(
        session, items_of(rows, cuts), Bag, by="user", gap=seconds(3), lateness=seconds(lateness)
    )
    assert sorted((v.by[0], v.state.xs) for v in windows) == theirs[0]
    assert sorted(late) == theirs[1]


@few
@given(rows=rows_of, cuts=cuts_of)
def test_tumbling_equals_that_of_bytewax(rows: list[Row], cuts: list[int]) -> None:
    theirs, _ = fold_window(rows, w.TumblingWindower(length=seconds(4), align_to=START), 90)
    items = [
        (user, batch_of([row for row in rows if row[1] == user])) for user in {r[1] for r in rows}
    ]
    flow, closed, _ = build(
        tumbling, items, Bag, length=seconds(4), align_to=START, lateness=seconds(90)
    )
    run_main(flow)
    assert sorted((user, v.state.xs) for user, v in closed) == theirs


def test_a_row_behind_the_watermark_joins_two_sessions() -> None:
    rows = [(0, "a", 1), (4, "a", 2), (0, "b", 3), (2, "a", 4), (5, "a", 5), (20, "b", 6)]
    windows, late = run(
        session,
        items_of(rows, [1, 2, 3, 4, 5]),
        Bag,
        by="user",
        gap=seconds(3),
        lateness=seconds(4),
    )
    assert [(v.by, *p[1:]) for v, p in zip(windows, plain(windows), strict=True)] == [
        (("b",), 0, 3, [3]),
        (("a",), 0, 8, [1, 2, 4, 5]),
        (("b",), 20, 23, [6]),
    ]
    assert [v.index for v in windows] == [0, 1, 2]
    assert not late


def test_sessions_of_null_and_of_several_columns() -> None:
    batch = batch_of([(0, "a", 1), (1, "a", 2)]).append_column(
        "n", pa.array([None, None], pa.int32())
    )
    windows, _ = run(session, [("k", batch)], Bag, by=["user", "n"], gap=seconds(3))
    assert [(v.by, v.state.xs) for v in windows] == [(("a", None), [1, 2])]


ORDERED = [
    (tumbling, {"length": seconds(10)}, [[1, 2, 4, 5], [6]]),
    (
        sliding,
        {"length": seconds(10), "every": seconds(5)},
        [[1, 2, 4], [1, 2, 4, 5], [5, 6], [6]],
    ),
    (session, {"by": "user", "gap": seconds(4)}, [[1], [2, 4, 5, 6]]),
]


@pytest.mark.parametrize(("operator", "kw", "expected"), ORDERED)
@pytest.mark.parametrize("cuts", [[], [2], [1, 2, 3, 4, 5]])
def test_a_row_out_of_order_is_late_for_an_ordered_state(
    operator: Callable[..., Any], kw: dict[str, Any], expected: list[list[int]], cuts: list[int]
) -> None:
    rows = [(0, "a", 1), (4, "a", 2), (3, "a", 3), (4, "a", 4), (7, "a", 5), (10, "a", 6)]
    windows, late = run(operator, items_of(rows, cuts), Log, lateness=seconds(5), **kw)
    assert [v.state.xs for v in windows] == expected
    assert late == [3]


def test_late_rows_keep_all_their_columns() -> None:
    flow, _, late = build(
        tumbling, items_of([(10, "a", 1), (1, "b", 2)], []), Bag, length=seconds(2)
    )
    run_main(flow)
    assert late == [("k", batch_of([(1, "b", 2)]))]


def test_long_empty_time_is_skipped() -> None:
    year = 365 * 86400
    windows, _ = run(
        sliding,
        items_of([(0, "a", 1), (year, "a", 2)], [1]),
        Bag,
        length=seconds(2),
        every=seconds(1),
        align_to=START,
    )
    assert plain(windows) == [
        (-1, -1, 1, [1]),
        (0, 0, 2, [1]),
        (year - 1, year - 1, year + 1, [2]),
        (year, year, year + 2, [2]),
    ]


def create() -> Aggregates:
    return Aggregates("user", {"n": Count(), "sum": Sum("x"), "low": Min("x")})


@few
@given(rows=rows_of, cuts=cuts_of)
def test_tables_of_aggregates_are_the_windows_of_aggregates(
    rows: list[Row], cuts: list[int]
) -> None:
    kw = {"length": seconds(4), "lateness": seconds(10)}
    windows, late = run(tumbling, items_of(rows, cuts), create, **kw)
    tables, same_late = run(tumbling_aggregate, items_of(rows, cuts), create, **kw)
    assert [row for table in tables for row in table.to_pylist()] == [
        {"window_start": v.start, "window_end": v.end, **row}
        for v in windows
        for row in v.state.table().to_pylist()
    ]
    assert late == same_late


def test_sliding_aggregates_merge_panes() -> None:
    rows = [(t, "ab"[t % 2], t) for t in range(10)]
    windows, _ = run(
        sliding, items_of(rows, [3, 7]), create, length=seconds(4), every=seconds(2), align_to=START
    )
    assert windows[2].start == START + seconds(2)
    assert windows[2].state.table().to_pylist() == [
        {"user": "a", "n": 2, "sum": 6.0, "low": 2},
        {"user": "b", "n": 2, "sum": 8.0, "low": 3},
    ]


RECOVERY = [
    (tumbling, Bag, {"length": seconds(4)}),
    (tumbling, create, {"length": seconds(4)}),
    (tumbling_aggregate, create, {"length": seconds(4)}),
    (sliding, Bag, {"length": seconds(7), "every": seconds(2)}),
    (sliding, create, {"length": seconds(7), "every": seconds(2)}),
    (session, Bag, {"by": "user", "gap": seconds(3)}),
]


def comparable(item: Any) -> Any:
    if isinstance(item, pa.RecordBatch):
        return str(item.to_pylist())
    return (item.index, item.start, item.end, item.state.to_bytes())


@pytest.mark.parametrize(("operator", "make", "kw"), RECOVERY)
@pytest.mark.parametrize("crash", [1, 7, 13])
def test_resumed_output_equals_the_uninterrupted(
    operator: Callable[..., Any], make: Any, kw: dict[str, Any], crash: int, tmp_path: Path
) -> None:
    rows = [(t + (t * 7) % 11, "ab"[t % 2], t) for t in range(60)]
    items = items_of(rows, list(range(0, 60, 4)))
    kw = {**kw, "lateness": seconds(5)}
    flow, closed, late = build(operator, items, make, **kw)
    run_main(flow)
    init_db_dir(tmp_path, 1)
    crashing = [*items[:crash], TestingSource.ABORT(), *items[crash:]]
    flow, closed_again, late_again = build(operator, crashing, make, **kw)
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(tmp_path)))
    # What an unfinished epoch emitted comes again.
    assert _once(comparable(x) for _, x in closed_again) == [comparable(x) for _, x in closed]
    assert _once(comparable(x) for _, x in late_again) == [comparable(x) for _, x in late]


def _once(items: Any) -> list[Any]:
    return list(dict.fromkeys(items))


@pytest.mark.parametrize(("operator", "make", "kw"), RECOVERY)
def test_what_the_end_of_input_closed_stays_closed(
    operator: Callable[..., Any], make: Any, kw: dict[str, Any], tmp_path: Path
) -> None:
    init_db_dir(tmp_path, 1)
    items = [
        *items_of([(0, "a", 1), (1, "a", 2)], []),
        TestingSource.EOF(),
        *items_of([(0, "a", 3), (40, "a", 4)], []),
    ]
    flow, closed, late = build(operator, items, make, **kw)
    run_main(flow, recovery_config=RecoveryConfig(str(tmp_path)))
    before = len(closed)
    assert before
    run_main(flow, recovery_config=RecoveryConfig(str(tmp_path)))
    assert len(closed) > before
    assert [b["x"].to_pylist() for _, b in late] == [[3]]


@pytest.mark.parametrize(
    ("times", "match"),
    [
        (pa.array([START, None], TIME), "'time' has 1 null"),
        (pa.array([1, 2]), "must be timestamp"),
        (pa.array([0, 1], pa.timestamp("us")), "must be timestamp"),
    ],
)
def test_bad_times_are_refused(times: pa.Array, match: str) -> None:
    batch = pa.record_batch({"time": times, "user": ["a", "b"], "x": [1, 2]})
    assert match in refusal(tumbling, batch, length=seconds(1))
    assert match in refusal(session, batch, by="user", gap=seconds(1))


def test_bad_columns_are_refused() -> None:
    batch = batch_of([(0, "a", 1)])
    assert "need a column 'when'" in refusal(tumbling, batch, length=seconds(1), time="when")
    assert "need a column 'who'" in refusal(session, batch, by="who", gap=seconds(1))
    assert "must be text" in refusal(session, batch, by="time", gap=seconds(1))


def refusal(operator: Callable[..., Any], batch: pa.RecordBatch, **kw: Any) -> str:
    with pytest.raises(BytewaxRuntimeError) as error:
        run(operator, [("k", batch)], Bag, **kw)
    assert isinstance(error.value.__cause__, ValueError)
    return str(error.value.__cause__)


def test_bad_parameters_are_refused() -> None:
    up = op.input("in", Dataflow("flow"), TestingSource([]))
    with pytest.raises(ValueError, match="0 < every <= length"):
        tumbling("a", up, Bag, length=seconds(0))
    with pytest.raises(ValueError, match="0 < every <= length"):
        sliding("b", up, Bag, length=seconds(1), every=seconds(2))
    with pytest.raises(ValueError, match="lateness"):
        tumbling("c", up, Bag, length=seconds(1), lateness=seconds(-1))
    with pytest.raises(ValueError, match="gap > 0"):
        session("d", up, Bag, by="user", gap=seconds(0))
    with pytest.raises(ValueError, match="a zone"):
        tumbling("e", up, Bag, length=seconds(1), align_to=datetime(2024, 1, 1))
    with pytest.raises(ValueError, match="at least one key"):
        session("f", up, Bag, by=(), gap=seconds(1))
