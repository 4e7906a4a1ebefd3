"""SIGKILL a flow of sketch operators mid-stream: the resumed run has an unbroken run's answers."""

from pathlib import Path

from tests.crash.killed_flow import run_until_done

# Kills its own process, once at each of the item numbers in KILL_AT; writes the answers it has.
FLOW = """
import os, signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main
from connectors.files import NdjsonSink
from connectors.marks import output
from operators.merge import fold, tree_merge
from operators.questions import DISTINCT, HEAVY_HITTERS, QUANTILES, SAMPLE, Distinct
from operators.sketch import Sliding, answers, distinct, heavy_hitters, quantiles, sample
from state.schemas import TIME

PLACE = Path(os.environ["PLACE"])
POINTS = [int(p) for p in os.environ["KILL_AT"].split(",") if p]
START = datetime(2024, 1, 1, tzinfo=UTC)

class Part(StatefulSourcePartition):
    def __init__(self, at):
        self.at = at
    def next_batch(self):
        if self.at == 60:
            raise StopIteration
        done = PLACE / "killed"
        killed = done.read_text().split() if done.exists() else []
        if self.at in POINTS and str(self.at) not in killed:
            with done.open("a") as file:
                file.write(f"{self.at} ")
            os.kill(os.getpid(), signal.SIGKILL)
        self.at += 1
        times = pa.array([START + timedelta(seconds=self.at)] * 20, TIME)
        values = [self.at * i % 97 for i in range(20)]
        rows = pa.record_batch({"time": times, "x": pa.array(values, pa.float64())})
        return [(str(self.at % 5), rows)]
    def snapshot(self):
        return self.at

class Rows(FixedPartitionedSource):
    def list_parts(self):
        return ["rows"]
    def build_part(self, step_id, for_part, resume_state):
        return Part(resume_state or 0)

flow = Dataflow("flow")
up = op.input("in", flow, Rows())
window = Sliding(length=timedelta(seconds=20), every=timedelta(seconds=5))
def told(name, stream, schema):
    output(name + "_file", stream, NdjsonSink(PLACE / f"{name}.ndjson", schema))
told("running", distinct("running", up, "x").answers, DISTINCT)
told("windows", quantiles("windows", up, "x", window=window).answers, QUANTILES)
told("top", heavy_hitters("top", up, "x", window=window).answers, HEAVY_HITTERS)
# Keys' samples are not merged, so one stream serves all, and an unbroken run has the same rows.
some = sample("some", up, ["x"], size=5, streams=lambda: 7)
told("some", some.answers, SAMPLE.append(pa.field("x", pa.float64())))
question = Distinct("x")
states = fold("leaves", up, question.create)
whole = tree_merge("tree", states, question.create, leaves=5, fan_in=2, emit="eof")
told("tree", answers("whole", whole, question), DISTINCT)
recovery = RecoveryConfig(PLACE / "recovery", backup_interval=timedelta(0))
run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
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
