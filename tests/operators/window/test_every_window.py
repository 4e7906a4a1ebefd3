"""What all windows have in common: order, lateness, recovery, and what they refuse."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from hypothesis import given
from hypothesis import strategies as st

from operators.window import session, sliding, tumbling, tumbling_aggregate
from state.schemas import TIME
from tests.operators.window.rows import START, Row, cuts_of, few, rows_of, seconds


@few
@given(rows=rows_of, data=st.data(), cuts=cuts_of)
def test_any_order_within_the_lateness_gives_the_same(
    harness: Any, rows: list[Row], data: st.DataObject, cuts: list[int]
) -> None:
    shuffled = data.draw(st.permutations(rows))
    for operator, kw in (
        (tumbling, {"length": seconds(5)}),
        (sliding, {"length": seconds(5), "every": seconds(2)}),
        (session, {"by": "user", "gap": seconds(3)}),
    ):
        a, _ = harness.run(
            operator, harness.items_of(rows, cuts), harness.Bag, lateness=seconds(90), **kw
        )
        b, late = harness.run(
            operator, harness.items_of(shuffled, cuts[:1]), harness.Bag, lateness=seconds(90), **kw
        )
        assert [(v.start, v.end, v.state.xs) for v in a] == [
            (v.start, v.end, v.state.xs) for v in b
        ]
        assert not late


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
    harness: Any,
    operator: Callable[..., Any],
    kw: dict[str, Any],
    expected: list[list[int]],
    cuts: list[int],
) -> None:
    rows = [(0, "a", 1), (4, "a", 2), (3, "a", 3), (4, "a", 4), (7, "a", 5), (10, "a", 6)]
    windows, late = harness.run(
        operator, harness.items_of(rows, cuts), harness.Log, lateness=seconds(5), **kw
    )
    assert [v.state.xs for v in windows] == expected
    assert late == [3]


RECOVERY = [
    (tumbling, "Bag", {"length": seconds(4)}),
    (tumbling, "create", {"length": seconds(4)}),
    (tumbling_aggregate, "create", {"length": seconds(4)}),
    (sliding, "Bag", {"length": seconds(7), "every": seconds(2)}),
    (sliding, "create", {"length": seconds(7), "every": seconds(2)}),
    (session, "Bag", {"by": "user", "gap": seconds(3)}),
]


def comparable(item: Any) -> Any:
    if isinstance(item, pa.RecordBatch):
        return str(item.to_pylist())
    return (item.index, item.start, item.end, item.state.to_bytes())


@pytest.mark.parametrize(("operator", "make", "kw"), RECOVERY)
@pytest.mark.parametrize("crash", [1, 7, 13])
def test_resumed_output_equals_the_uninterrupted(
    harness: Any,
    operator: Callable[..., Any],
    make: str,
    kw: dict[str, Any],
    crash: int,
    tmp_path: Path,
) -> None:
    rows = [(t + (t * 7) % 11, "ab"[t % 2], t) for t in range(60)]
    items = harness.items_of(rows, list(range(0, 60, 4)))
    kw = {**kw, "lateness": seconds(5)}
    flow, closed, late = harness.build(operator, items, getattr(harness, make), **kw)
    run_main(flow)
    init_db_dir(tmp_path, 1)
    crashing = [*items[:crash], TestingSource.ABORT(), *items[crash:]]
    flow, closed_again, late_again = harness.build(operator, crashing, getattr(harness, make), **kw)
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(tmp_path)))
    # What an unfinished epoch emitted comes again.
    assert _once(comparable(x) for _, x in closed_again) == [comparable(x) for _, x in closed]
    assert _once(comparable(x) for _, x in late_again) == [comparable(x) for _, x in late]


def _once(items: Any) -> list[Any]:
    return list(dict.fromkeys(items))


@pytest.mark.parametrize(("operator", "make", "kw"), RECOVERY)
def test_what_the_end_of_input_closed_stays_closed(
    harness: Any, operator: Callable[..., Any], make: str, kw: dict[str, Any], tmp_path: Path
) -> None:
    init_db_dir(tmp_path, 1)
    items = [
        *harness.items_of([(0, "a", 1), (1, "a", 2)], []),
        TestingSource.EOF(),
        *harness.items_of([(0, "a", 3), (40, "a", 4)], []),
    ]
    flow, closed, late = harness.build(operator, items, getattr(harness, make), **kw)
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
def test_bad_times_are_refused(harness: Any, times: pa.Array, match: str) -> None:
    batch = pa.record_batch({"time": times, "user": ["a", "b"], "x": [1, 2]})
    assert match in refusal(harness, tumbling, batch, length=seconds(1))
    assert match in refusal(harness, session, batch, by="user", gap=seconds(1))


def test_bad_columns_are_refused(harness: Any) -> None:
    batch = harness.batch_of([(0, "a", 1)])
    assert "need a column 'when'" in refusal(
        harness, tumbling, batch, length=seconds(1), time="when"
    )
    assert "need a column 'who'" in refusal(harness, session, batch, by="who", gap=seconds(1))
    assert "must be text" in refusal(harness, session, batch, by="time", gap=seconds(1))


def refusal(harness: Any, operator: Callable[..., Any], batch: pa.RecordBatch, **kw: Any) -> str:
    with pytest.raises(BytewaxRuntimeError) as error:
        harness.run(operator, [("k", batch)], harness.Bag, **kw)
    assert isinstance(error.value.__cause__, ValueError)
    return str(error.value.__cause__)


def test_bad_parameters_are_refused(harness: Any) -> None:
    up = op.input("in", Dataflow("flow"), TestingSource([]))
    with pytest.raises(ValueError, match="0 < every <= length"):
        tumbling("a", up, harness.Bag, length=seconds(0))
    with pytest.raises(ValueError, match="0 < every <= length"):
        sliding("b", up, harness.Bag, length=seconds(1), every=seconds(2))
    with pytest.raises(ValueError, match="lateness"):
        tumbling("c", up, harness.Bag, length=seconds(1), lateness=seconds(-1))
    with pytest.raises(ValueError, match="gap > 0"):
        session("d", up, harness.Bag, by="user", gap=seconds(0))
    with pytest.raises(ValueError, match="a zone"):
        tumbling("e", up, harness.Bag, length=seconds(1), align_to=datetime(2024, 1, 1))
    with pytest.raises(ValueError, match="at least one key"):
        session("f", up, harness.Bag, by=(), gap=seconds(1))
