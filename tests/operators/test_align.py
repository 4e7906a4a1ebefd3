"""`align` against a plain pandas-like loop, on calendars that do not agree."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from hypothesis import given
from hypothesis import strategies as st

from operators.align import align
from state.schemas import RETURNS, TIME

START = datetime(2020, 1, 1, tzinfo=UTC)


def bars(rows: list[tuple[int, str, float]]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "time": pa.array([START + timedelta(days=day) for day, _, _ in rows], TIME),
            "series": pa.array([name for _, name, _ in rows], pa.string()),
            "price": pa.array([price for _, _, price in rows], pa.float64()),
        }
    )


def run(batches: list, max_stale: int = 2, **kwargs) -> list[pa.RecordBatch]:
    flow, out = Dataflow("flow"), []
    up = op.input(
        "in",
        flow,
        TestingSource([b if not isinstance(b, pa.RecordBatch) else ("m", b) for b in batches]),
    )
    op.output("out", align("align", up, max_stale=max_stale), TestingSink(out))
    run_main(flow, **kwargs)
    return [batch for _, batch in out]


def rows(batches: list[pa.RecordBatch]) -> list[tuple[int, str, float, float | None]]:
    return [
        ((r["time"] - START).days, r["series"], r["price"], r["log_return"])
        for batch in batches
        for r in batch.to_pylist()
    ]


def by_hand(
    cells: dict[tuple[int, str], float], max_stale: int
) -> list[tuple[int, str, float, float | None]]:
    """The definition, one cell at a time."""
    out = []
    last: dict[str, tuple[float, int]] = {}
    for step, day in enumerate(sorted({day for day, _ in cells})):
        for name in sorted({n for d, n in cells if d <= day}):
            before = last.get(name)
            if before and step - 1 - before[1] > max_stale:
                before = None
            if (day, name) in cells:
                price = cells[day, name]
                last[name] = (price, step)
            elif before and step - before[1] <= max_stale:
                price = before[0]
            else:
                continue
            out.append((day, name, price, math.log(price / before[0]) if before else None))
    return out


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 12), st.sampled_from("abc")), st.floats(0.5, 200.0), min_size=1
    ),
    st.integers(0, 3),
    st.integers(0, 13),
)
def test_equals_the_definition_however_batches_are_cut(
    cells: dict[tuple[int, str], float], max_stale: int, cut: int
) -> None:
    ordered = [(day, name, price) for (day, name), price in sorted(cells.items())]
    parts = [[r for r in ordered if r[0] < cut], [r for r in ordered if r[0] >= cut]]
    out = run([bars(part) for part in parts], max_stale)
    assert all(batch.schema == RETURNS for batch in out)
    expected = by_hand(cells, max_stale)
    got = rows(out)
    assert [r[:3] for r in got] == [r[:3] for r in expected]
    for mine, hand in zip(got, expected, strict=True):
        assert mine[3] == pytest.approx(hand[3], abs=1e-12)


def test_a_series_that_skips_a_step_keeps_its_price_with_return_zero() -> None:
    out = run([bars([(0, "a", 10.0), (0, "b", 1.0), (1, "b", 2.0), (2, "a", 20.0)])])
    assert (1, "a", 10.0, 0.0) in rows(out)
    assert rows(out)[-2] == (2, "a", 20.0, pytest.approx(math.log(2)))


def test_an_outage_ends_in_a_null_return() -> None:
    feed = [(0, "a", 10.0), *[(day, "b", 1.0) for day in range(6)], (5, "a", 20.0)]
    out = rows(run([bars(sorted(feed))], max_stale=2))
    assert [day for day, name, *_ in out if name == "a"] == [0, 1, 2, 5]
    assert (5, "a", 20.0, None) in out


def test_steps_that_come_late_are_refused() -> None:
    with pytest.raises(BytewaxRuntimeError) as late:
        run([bars([(1, "a", 1.0)]), bars([(1, "b", 1.0)])])
    assert "time order" in str(late.value.__cause__)
    with pytest.raises(BytewaxRuntimeError) as price:
        run([bars([(1, "a", 0.0)])])
    assert "positive" in str(price.value.__cause__)


def test_resumes_where_it_was(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    parts = [bars([(day, "a", 1.0 + day), *([(day, "b", 5.0)] * (day % 2))]) for day in range(6)]
    whole = rows(run(parts))
    flow, out = Dataflow("flow"), []
    items = [("m", part) for part in parts]
    source = TestingSource([*items[:3], TestingSource.ABORT(), *items[3:]])
    op.output("out", align("align", op.input("in", flow, source)), TestingSink(out))
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(tmp_path)))
    seen = rows([batch for _, batch in out])
    assert sorted(set(seen)) == sorted(set(whole))
