"""Session windows against Bytewax's own, and where they join."""

from datetime import timedelta
from typing import Any

import bytewax.operators.windowing as w
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from operators.window import session
from tests.operators.window.rows import Row, cuts_of, few, rows_of, seconds


@few
@given(rows=rows_of, cuts=cuts_of, lateness=st.integers(0, 40))
def test_sessions_equal_those_of_bytewax(
    harness: Any, rows: list[Row], cuts: list[int], lateness: int
) -> None:
    # One user, because the watermark of Bytewax is the key's and ours the shard's.
    rows = [(t, "a", x) for t, _, x in rows]
    # Theirs joins rows that are `gap` apart, ours only those that are closer.
    theirs = harness.fold_window(
        rows, w.SessionWindower(gap=seconds(3) - timedelta(microseconds=1)), lateness
    )
    windows, late = harness.run(
        session,
        harness.items_of(rows, cuts),
        harness.Bag,
        by="user",
        gap=seconds(3),
        lateness=seconds(lateness),
    )
    assert sorted((v.by[0], v.state.xs) for v in windows) == theirs[0]
    assert sorted(late) == theirs[1]


def test_a_row_behind_the_watermark_joins_two_sessions(harness: Any) -> None:
    rows = [(0, "a", 1), (4, "a", 2), (0, "b", 3), (2, "a", 4), (5, "a", 5), (20, "b", 6)]
    windows, late = harness.run(
        session,
        harness.items_of(rows, [1, 2, 3, 4, 5]),
        harness.Bag,
        by="user",
        gap=seconds(3),
        lateness=seconds(4),
    )
    assert [(v.by, *p[1:]) for v, p in zip(windows, harness.plain(windows), strict=True)] == [
        (("b",), 0, 3, [3]),
        (("a",), 0, 8, [1, 2, 4, 5]),
        (("b",), 20, 23, [6]),
    ]
    assert [v.index for v in windows] == [0, 1, 2]
    assert not late


def test_sessions_of_null_and_of_several_columns(harness: Any) -> None:
    batch = harness.batch_of([(0, "a", 1), (1, "a", 2)]).append_column(
        "n", pa.array([None, None], pa.int32())
    )
    windows, _ = harness.run(session, [("k", batch)], harness.Bag, by=["user", "n"], gap=seconds(3))
    assert [(v.by, v.state.xs) for v in windows] == [(("a", None), [1, 2])]
