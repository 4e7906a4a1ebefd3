"""SIGKILL a flow of sketch operators mid-stream: the resumed run has an unbroken run's answers."""

from pathlib import Path

from tests.crash.killed_flow import run_until_done

# Writes the answers it has.
FLOW = """
from datetime import UTC, datetime, timedelta
import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from operators.merge import fold, tree_merge
from operators.questions import DISTINCT, HEAVY_HITTERS, QUANTILES, SAMPLE, Distinct
from operators.sketch import Sliding, answers, distinct, heavy_hitters, quantiles, sample
from state.schemas import TIME
from tests.crash.killing import Items, keep, run

START = datetime(2024, 1, 1, tzinfo=UTC)

def rows(at):
    number = at + 1
    times = pa.array([START + timedelta(seconds=number)] * 20, TIME)
    values = [number * i % 97 for i in range(20)]
    rows = pa.record_batch({"time": times, "x": pa.array(values, pa.float64())})
    return str(number % 5), rows

flow = Dataflow("flow")
up = op.input("in", flow, Items(60, rows))
window = Sliding(length=timedelta(seconds=20), every=timedelta(seconds=5))
keep("running", distinct("running", up, "x").answers, DISTINCT)
keep("windows", quantiles("windows", up, "x", window=window).answers, QUANTILES)
keep("top", heavy_hitters("top", up, "x", window=window).answers, HEAVY_HITTERS)
# Keys' samples are not merged, so one stream serves all, and an unbroken run has the same rows.
some = sample("some", up, ["x"], size=5, streams=lambda: 7)
keep("some", some.answers, SAMPLE.append(pa.field("x", pa.float64())))
question = Distinct("x")
states = fold("leaves", up, question.create)
whole = tree_merge("tree", states, question.create, leaves=5, fan_in=2, emit="eof")
keep("tree", answers("whole", whole, question), DISTINCT)
run(flow)
"""
TABLES = ["running", "windows", "top", "some", "tree"]


def test_killed_at_many_points(tmp_path: Path) -> None:
    points = [1, 13, 34, 59]
    assert run_until_done(tmp_path / "unbroken", FLOW, []) == 0
    assert run_until_done(tmp_path / "killed", FLOW, points) == len(points)
    for name in TABLES:
        unbroken = (tmp_path / "unbroken" / f"{name}.ndjson").read_bytes()
        assert unbroken
        assert (tmp_path / "killed" / f"{name}.ndjson").read_bytes() == unbroken, name
