"""Tumbling windows against Bytewax's own, and as tables."""

from typing import Any

import bytewax.operators.windowing as w
from bytewax.testing import run_main
from hypothesis import given

from operators.window import tumbling, tumbling_aggregate
from tests.operators.window.rows import START, Row, cuts_of, few, rows_of, seconds


@few
@given(rows=rows_of, cuts=cuts_of)
def test_tumbling_equals_that_of_bytewax(harness: Any, rows: list[Row], cuts: list[int]) -> None:
    theirs, _ = harness.fold_window(rows, w.TumblingWindower(length=seconds(4), align_to=START), 90)
    items = [
        (user, harness.batch_of([row for row in rows if row[1] == user]))
        for user in {r[1] for r in rows}
    ]
    flow, closed, _ = harness.build(
        tumbling, items, harness.Bag, length=seconds(4), align_to=START, lateness=seconds(90)
    )
    run_main(flow)
    assert sorted((user, v.state.xs) for user, v in closed) == theirs


@few
@given(rows=rows_of, cuts=cuts_of)
def test_tables_of_aggregates_are_the_windows_of_aggregates(
    harness: Any, rows: list[Row], cuts: list[int]
) -> None:
    kw = {"length": seconds(4), "lateness": seconds(10)}
    windows, late = harness.run(tumbling, harness.items_of(rows, cuts), harness.create, **kw)
    tables, same_late = harness.run(
        tumbling_aggregate, harness.items_of(rows, cuts), harness.create, **kw
    )
    assert [row for table in tables for row in table.to_pylist()] == [
        {"window_start": v.start, "window_end": v.end, **row}
        for v in windows
        for row in v.state.table().to_pylist()
    ]
    assert late == same_late


def test_late_rows_keep_all_their_columns(harness: Any) -> None:
    flow, _, late = harness.build(
        tumbling, harness.items_of([(10, "a", 1), (1, "b", 2)], []), harness.Bag, length=seconds(2)
    )
    run_main(flow)
    assert late == [("k", harness.batch_of([(1, "b", 2)]))]
