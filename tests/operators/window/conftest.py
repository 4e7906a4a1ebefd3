"""What the tests of all kinds of windows share: plain states, and flows around an operator."""

import itertools
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import bytewax.operators as op
import bytewax.operators.windowing as w
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from operators.window import Window
from state.aggregates import Aggregates
from state.aggregations import Count, Min, Sum
from state.mergeable import Algebra, seal, unseal
from state.schemas import TIME
from tests.operators.window.rows import START, Row, seconds

SCHEMA = pa.schema([("time", TIME), ("user", pa.string()), ("x", pa.int64())])


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


def create() -> Aggregates:
    return Aggregates("user", {"n": Count(), "sum": Sum("x"), "low": Min("x")})


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


def run_through(
    abort: int | None,
    recovery: Path,
    operator: Callable[..., Any],
    items: list[Any],
    *args: Any,
    **kw: Any,
) -> tuple[list[Any], list[Any]]:
    """Run a flow, or crash it before an item and resume it; what comes again counts once."""
    if abort is not None:
        items = [*items[:abort], TestingSource.ABORT(), *items[abort:]]
    flow, closed, late = build(operator, items, *args, **kw)
    init_db_dir(recovery, 1)
    for _ in range(1 if abort is None else 2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(recovery)))
    windows = {v.index: v for _, v in closed}
    seen: list[pa.RecordBatch] = []
    for _, batch in late:
        if batch not in seen:
            seen.append(batch)
    return list(windows.values()), seen


@pytest.fixture(scope="session")
def harness() -> SimpleNamespace:
    return SimpleNamespace(
        Bag=Bag,
        Log=Log,
        create=create,
        batch_of=batch_of,
        items_of=items_of,
        run=run,
        run_through=run_through,
        build=build,
        plain=plain,
        fold_window=fold_window,
    )
