"""Panels: which series are read, where runs break, what is refused."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from state.mergeable import seal
from state.moments import LaggedMoments
from state.panel import Panel
from state.schemas import SCORED

START = datetime(2020, 1, 1, tzinfo=UTC)
RNG = np.random.default_rng(11)


def batch(returns: dict[str, list[float | None]], first_day: int = 0) -> pa.RecordBatch:
    steps = len(next(iter(returns.values())))
    rows = [
        {
            "time": START + timedelta(days=first_day + t),
            "series": name,
            "price": 1.0,
            "log_return": values[t],
            "drawdown": 0.0,
            "score": 0.0,
            "alert": values[t] is not None and values[t] < -2.5,
        }
        for t in range(steps)
        for name, values in sorted(returns.items())
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCORED)


def noise(n: int) -> list[float]:
    return RNG.standard_normal(n).tolist()


@pytest.mark.parametrize("keep_rows", [True, False])
def test_reading_equals_moments_of_the_rows(keep_rows: bool) -> None:
    a, b = noise(40), noise(40)
    panel = Panel(3, keep_rows=keep_rows)
    panel.update(batch({"a": a[:25], "b": b[:25]}))
    panel.update(batch({"a": a[25:], "b": b[25:]}, first_day=25))
    view = panel.read()
    assert view.names == ("a", "b")
    expected = LaggedMoments.from_rows(np.array([a, b]).T, 3).scatter()
    np.testing.assert_allclose(view.moments.scatter().matrix, expected.matrix, rtol=1e-12)
    assert len(view.rows) == (40 if keep_rows else 0)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_a_series_listed_late_is_read_only_where_it_covers_enough(keep_rows: bool) -> None:
    panel = Panel(1, keep_rows=keep_rows)
    panel.update(batch({"a": noise(30), "new": [None] * 20 + noise(10)}))
    assert panel.read(0.8).names == ("a",)
    assert panel.read(0.8).moments.scatter().n == 29
    both = panel.read(0.3)
    assert both.names == ("a", "new")
    assert both.moments.scatter().n == 9


@pytest.mark.parametrize("keep_rows", [True, False])
def test_an_outage_breaks_the_run(keep_rows: bool) -> None:
    panel = Panel(1, keep_rows=keep_rows)
    panel.update(batch({"a": [*noise(10), None, None, *noise(10)], "b": noise(22)}))
    assert panel.read(0.8).moments.scatter().n == 18


def test_alerts_and_span_travel_with_the_panel() -> None:
    panel = Panel(1)
    panel.update(batch({"a": [0.0, -3.0]}))
    again = Panel.from_bytes(panel.to_bytes())
    day = 86_400_000_000
    start = int(START.timestamp() * 1e6)
    assert again.alerts == ((start + day, "a"),)
    assert again.span == (start, start + day)


def test_an_empty_panel_reads_as_nothing() -> None:
    view = Panel(1).read()
    assert view.names == ()
    assert view.moments is None


def test_what_does_not_follow_in_time_is_refused() -> None:
    panel, other = Panel(1), Panel(1)
    panel.update(batch({"a": [1.0, 2.0]}))
    other.update(batch({"a": [1.0]}, first_day=1))
    with pytest.raises(ValueError, match="follows it in time"):
        panel.merge(other)
    with pytest.raises(ValueError, match="time order"):
        panel.update(batch({"a": [1.0]}, first_day=1))
    twice = pa.concat_batches([batch({"a": [1.0]}, 5), batch({"a": [1.0]}, 5)])
    with pytest.raises(ValueError, match="once"):
        panel.update(twice)
    with pytest.raises(ValueError, match="max_lag"):
        panel.merge(Panel(2))
    with pytest.raises(ValueError, match="from 1 to"):
        Panel(0)


@pytest.mark.parametrize(
    "content",
    [
        [2**40, True, None, [], []],
        [2, True, [5, 4], [], [[["a"], 1, bytes(8)]]],
        [2, True, [1, 2], [], []],
        [2, True, [1, 2], [], [[["b", "a"], 1, bytes(16)]]],
        [2, True, [1, 2], [], [[["a", "a"], 1, bytes(16)]]],
        [2, True, [1, 2], [], [[["a"], 2, bytes(8)]]],
        [2, True, [1, 2], [], [[["a"], 1, b"\xff" * 8]]],
        [2, True, [1, 2], [], [[[], 2**50, b""]]],
        [2, False, [1, 2], [], [[["a"], 1, LaggedMoments(2, 2).to_bytes()]]],
        "not a list",
    ],
)
def test_sealed_bytes_that_do_not_fit_together_are_refused(content: object) -> None:
    with pytest.raises(ValueError, match=r"panel|max_lag"):
        Panel.from_bytes(seal("panel", 1, msgspec.msgpack.encode(content)))
