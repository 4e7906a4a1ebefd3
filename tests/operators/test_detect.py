"""`detect`: alerts on real prices, one batch out per batch in, the same after a crash."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from connectors.market.replay import daily_prices
from operators.align import align
from operators.detect import detect
from state.detectors import Ensemble, FallWithin, crash_ensemble
from state.schemas import ALERTS, RETURNS, SCORED, TIME

START = datetime(2020, 1, 1, tzinfo=UTC)
Row = tuple[int, str, float, float | None]


def returns(*rows: Row) -> pa.RecordBatch:
    return pa.record_batch(
        [
            pa.array([START + timedelta(days=day) for day, *_ in rows], TIME),
            pa.array([name for _, name, *_ in rows], pa.string()),
            pa.array([price for *_, price, _ in rows], pa.float64()),
            pa.array([value for *_, value in rows], pa.float64()),
        ],
        schema=RETURNS,
    )


def run(items: list, create=crash_ensemble, out: list | None = None, **kwargs) -> list:
    flow = Dataflow("flow")
    out = [] if out is None else out
    keyed = [("m", item) if isinstance(item, pa.RecordBatch) else item for item in items]
    up = op.input("in", flow, TestingSource(keyed))
    op.output("out", detect("detect", up, create).alerts, TestingSink(out))
    run_main(flow, **kwargs)
    return [batch for _, batch in out]


def fall_rule() -> Ensemble:
    return Ensemble([FallWithin(0.05, 1, name="day"), FallWithin(0.05, 3, name="three days")])


def real_returns(batch_rows: int) -> list[pa.RecordBatch]:
    prices = daily_prices(["S&P 500", "WTI"]).select(["time", "series", "price"])
    flow, out = Dataflow("flow"), []
    up = op.input("in", flow, TestingSource([("m", prices.combine_chunks().to_batches()[0])]))
    op.output("out", align("align", up), TestingSink(out))
    run_main(flow)
    whole = pa.Table.from_batches([batch for _, batch in out])
    return whole.combine_chunks().to_batches(max_chunksize=batch_rows)


def test_rows_of_an_alert() -> None:
    out = run(
        [
            returns((0, "b", 100.0, None), (0, "a", 50.0, None)),
            returns((1, "b", 200.0, np.log(2)), (1, "a", 50.0, 0.0)),
            returns((2, "b", 150.0, np.log(0.75)), (2, "a", 46.0, np.log(0.92))),
        ],
        fall_rule,
    )
    assert [batch.num_rows for batch in out] == [0, 0, 2]
    first, second = out[2].to_pylist()
    first, second = sorted((first, second), key=lambda row: row["series"])
    assert first["series"] == "a"
    assert second["time"] == START + timedelta(days=2)
    assert (second["series"], second["price"]) == ("b", 150.0)
    assert second["log_return"] == pytest.approx(np.log(0.75))
    assert second["drawdown"] == pytest.approx(-0.25)
    assert second["score"] == pytest.approx(5 / 6)
    assert second["detectors"] == ["day", "three days"]


def test_only_those_that_fired_are_listed() -> None:
    out = run(
        [returns(*((day, "a", 100.0 * 0.97**day, np.log(0.97)) for day in (1, 2)))], fall_rule
    )
    assert out[0]["detectors"].to_pylist() == [["three days"]]


def test_every_batch_has_exactly_the_schema() -> None:
    for batch in run([returns(), returns((0, "a", 1.0, None)), returns((1, "a", 0.5, -0.7))]):
        assert batch.schema.equals(ALERTS, check_metadata=True)


def test_a_series_that_appears_later_and_a_null_return() -> None:
    out = run(
        [
            returns((0, "a", 100.0, None)),
            returns((1, "a", 100.0, 0.0), (1, "b", 80.0, None)),
            returns((2, "a", 100.0, 0.0), (2, "b", 40.0, None)),
            returns((3, "b", 36.0, np.log(0.9)), (4, "b", 36.0, 0.0)),
        ],
        fall_rule,
    )
    alerts = [row for batch in out for row in batch.to_pylist()]
    # The null return at day 2 fires nothing, but its price counts in the drawdown.
    assert [(row["series"], row["price"]) for row in alerts] == [("b", 36.0), ("b", 36.0)]
    assert alerts[0]["drawdown"] == pytest.approx(36 / 80 - 1)


@pytest.mark.parametrize(
    "batches",
    [
        [returns((1, "a", 1.0, 0.0)), returns((1, "a", 1.0, 0.0))],
        [returns((2, "a", 1.0, 0.0), (2, "b", 1.0, 0.0), (1, "a", 1.0, 0.0))],
    ],
)
def test_a_late_row_is_named(batches: list[pa.RecordBatch]) -> None:
    with pytest.raises(BytewaxRuntimeError) as raised:
        run(batches)
    cause = raised.value.__cause__
    while cause is not None and not isinstance(cause, ValueError):
        cause = cause.__cause__
    assert "series 'a': a row at 2020-01-02T00:00:00+00:00 came after" in str(cause)


def test_series_may_run_at_different_times() -> None:
    out = run([returns((3, "a", 1.0, 0.0)), returns((1, "b", 1.0, -0.2))], fall_rule)
    assert out[1]["series"].to_pylist() == ["b"]


@pytest.fixture(scope="module")
def history() -> list[pa.RecordBatch]:
    return real_returns(700)


def test_crashes_that_a_person_recognises(history: list[pa.RecordBatch]) -> None:
    alerts = pa.Table.from_batches(run(history))
    months = {
        (row["series"], f"{row['time']:%Y-%m}")
        for row in alerts.select(["series", "time"]).to_pylist()
    }
    wanted = ["2001-09", "2002-07", "2008-09", "2008-10", "2010-05", "2011-08", "2015-08"]
    assert {("S&P 500", month) for month in [*wanted, "2018-02", "2018-12"]} <= months
    assert {("WTI", month) for month in ("2008-10", "2014-11")} <= months
    per_year = pc.sum(pc.equal(alerts["series"], "S&P 500")).as_py() / 20
    assert 1 < per_year < 4


def test_batches_do_not_matter(history: list[pa.RecordBatch]) -> None:
    whole = pa.Table.from_batches(history).combine_chunks().to_batches()
    assert pa.Table.from_batches(run(whole)).equals(pa.Table.from_batches(run(history)))


def test_a_crash_changes_nothing(history: list[pa.RecordBatch], tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(str(tmp_path))
    items = [*history[:7], TestingSource.ABORT(), *history[7:]]
    out: list = []
    keyed = [("m", item) if isinstance(item, pa.RecordBatch) else item for item in items]
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(keyed))
    op.output("out", detect("detect", up, crash_ensemble).alerts, TestingSink(out))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    before = [batch for _, batch in out]
    assert len(before) < len(history)
    out.clear()
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    after = [batch for _, batch in out]
    whole = run(history)
    # Only the batch of the epoch that was cut short may be there twice.
    again = len(before) + len(after) - len(whole)
    assert again in (0, 1)
    assert [*before, *after[again:]] == whole
    assert sum(batch.num_rows for batch in after) > 5


def test_a_gauge_is_scored_but_raises_no_alert() -> None:
    flow, scored, alerts = Dataflow("flow"), [], []
    fall = [
        returns((0, "a", 100.0, None), (0, "gauge", 100.0, None)),
        returns((1, "a", 50.0, np.log(0.5)), (1, "gauge", 50.0, np.log(0.5))),
    ]
    up = op.input("in", flow, TestingSource([("m", batch) for batch in fall]))
    out = detect("detect", up, fall_rule, quiet=["gauge"])
    op.output("to_scored", out.scored, TestingSink(scored))
    op.output("to_alerts", out.alerts, TestingSink(alerts))
    run_main(flow)
    assert [batch.schema for _, batch in scored] == [SCORED, SCORED]
    a, gauge = scored[1][1].to_pylist()
    assert (a["score"], a["drawdown"], a["alert"]) == (gauge["score"], gauge["drawdown"], True)
    assert not gauge["alert"]
    assert [row["series"] for _, batch in alerts for row in batch.to_pylist()] == ["a"]
