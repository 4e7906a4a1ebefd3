"""Panels with rows obey the laws to the last bit; panels of moments up to rounding."""

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from state.panel import Panel
from state.schemas import SCORED
from state.testing import laws

START = datetime(2020, 1, 1, tzinfo=UTC)
cell = st.none() | st.integers(-100, 100).map(lambda n: n / 1000)
steps = st.lists(st.dictionaries(st.sampled_from("abc"), cell, min_size=1), max_size=6)


class Clocked:
    """Draws chunks without times; folding stamps each after the one before."""

    def __init__(self) -> None:
        self.clock = itertools.count()

    def fold(self, panel: Panel, chunk: list[dict[str, float | None]]) -> None:
        # Times must grow over whatever is built next, also across separately built parts.
        rows = []
        for step in chunk:
            time = START + timedelta(days=next(self.clock))
            rows += [
                {
                    "time": time,
                    "series": name,
                    "price": 1.0,
                    "log_return": value,
                    "drawdown": 0.0,
                    "score": 0.0,
                    "alert": value is not None and value < -0.05,
                }
                for name, value in sorted(step.items())
            ]
        panel.update(pa.RecordBatch.from_pylist(rows, schema=SCORED))


def same(a: Panel, b: Panel) -> bool:
    """Compare what is read, not when it happened: the clock of the test never stands still."""
    left, right = a.read(0.3), b.read(0.3)
    if left.names != right.names or [s for _, s in a.alerts] != [s for _, s in b.alerts]:
        return False
    if a.keep_rows:
        return np.array_equal(left.rows, right.rows, equal_nan=True)
    if left.moments is None or right.moments is None:
        return left.moments is right.moments
    mine, other = left.moments.scatter(), right.moments.scatter()
    scale = np.abs(np.diag(mine.matrix)).max(initial=0.0) + 1e-300
    return mine.n == other.n and bool(
        np.allclose(mine.matrix, other.matrix, rtol=0, atol=1e-9 * scale)
    )


TestRows = laws(
    empty=lambda: Panel(2, keep_rows=True), update=Clocked().fold, chunks=steps, same=same
)
TestMoments = laws(empty=lambda: Panel(2), update=Clocked().fold, chunks=steps, same=same)
