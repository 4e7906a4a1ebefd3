"""Sliding windows over panels, as the market flow runs them, equal panels of their rows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from operators.window import sliding
from state.panel import Panel
from state.schemas import SCORED

START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
STEPS, LATE = 90, (17, 44, 45)


def step(day: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One time step; series c is listed later, b has an outage."""
    names = ["a"] + ["b"] * (not 30 <= day < 38) + ["c"] * (day >= 50)
    values = rng.normal(size=len(names)) / 100
    return [
        {
            "time": START + day * DAY,
            "series": name,
            "price": 1.0,
            "log_return": None if day == 60 and name == "a" else float(value),
            "drawdown": 0.0,
            "score": 0.0,
            "alert": bool(value < -0.015),
        }
        for name, value in zip(names, values, strict=True)
    ]


def batch_of(steps: list[list[dict[str, Any]]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([row for rows in steps for row in rows], schema=SCORED)


@pytest.mark.parametrize("keep_rows", [True, False])
@pytest.mark.parametrize("abort", [None, 3, 11])
def test_windows_are_the_panels_of_their_rows(
    harness: Any, keep_rows: bool, abort: int | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    steps = {day: step(day, rng) for day in range(STEPS)}
    # Three steps arrive two steps after their turn: an ordered state cannot take them any more.
    arrival = sorted(steps, key=lambda day: day + 2.5 * (day in LATE))
    items = [
        ("market", batch_of([steps[day] for day in arrival[at : at + 5]]))
        for at in range(0, STEPS, 5)
    ]
    closed, late = harness.run_through(
        abort,
        tmp_path,
        sliding,
        items,
        lambda: Panel(2, keep_rows=keep_rows),
        length=20 * DAY,
        every=6 * DAY,
        align_to=START,
    )
    assert [row for b in late for row in b.to_pylist()] == [
        row for day in LATE for row in steps[day]
    ]
    assert [w.index for w in closed] == list(range(-3, 15))
    for window in closed:
        first = (window.start - START) // DAY
        days = [d for d in range(max(first, 0), min(first + 20, STEPS)) if d not in LATE]
        panel = Panel(2, keep_rows=keep_rows)
        panel.update(batch_of([steps[day] for day in days]))
        assert (window.state.span, window.state.alerts) == (panel.span, panel.alerts)
        if keep_rows:
            assert window.state.to_bytes() == panel.to_bytes()
        mine, other = window.state.read(0.5), panel.read(0.5)
        assert mine.names == other.names
        assert mine.moments is not None
        assert other.moments is not None
        assert mine.moments.scatter().n == other.moments.scatter().n
        np.testing.assert_allclose(
            mine.moments.scatter().matrix, other.moments.scatter().matrix, rtol=0, atol=1e-12
        )
