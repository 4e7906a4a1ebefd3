"""Tumbling and sliding windows mean what the plainest code says, row by row."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.window import sliding, tumbling

START = datetime(2024, 1, 1, tzinfo=UTC)
Row = tuple[int, str, int]
"""Seconds after START, user, x."""


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


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
    harness: Any, length: int, every: int, rows: list[Row], cuts: list[int], lateness: int
) -> None:
    kw: dict[str, Any] = {
        "length": seconds(length),
        "align_to": START,
        "lateness": seconds(lateness),
    }
    operator: Callable[..., Any] = tumbling
    if every != length:
        operator, kw["every"] = sliding, seconds(every)
    windows, late = harness.run(operator, harness.items_of(rows, cuts), harness.Bag, **kw)
    expected, expected_late = row_by_row(rows, length, every, lateness)
    assert harness.plain(windows) == expected
    assert sorted(late) == sorted(expected_late)


def test_long_empty_time_is_skipped(harness: Any) -> None:
    year = 365 * 86400
    windows, _ = harness.run(
        sliding,
        harness.items_of([(0, "a", 1), (year, "a", 2)], [1]),
        harness.Bag,
        length=seconds(2),
        every=seconds(1),
        align_to=START,
    )
    assert harness.plain(windows) == [
        (-1, -1, 1, [1]),
        (0, 0, 2, [1]),
        (year - 1, year - 1, year + 1, [2]),
        (year, year, year + 2, [2]),
    ]
