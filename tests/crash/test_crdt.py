"""SIGKILL a flow of columnar CRDTs mid-stream: the resumed run has an unbroken run's changes."""

from pathlib import Path

from tests.crash.killed_flow import run_until_done

# Kills its own process, once at each of the item numbers in KILL_AT; writes the changes it emits.
FLOW = """
import os, random, signal
from datetime import timedelta
from pathlib import Path
import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main
from connectors.files import NdjsonSink
from connectors.marks import output
from operators.crdt import crdt_merge
from state.rows import lww_schema, or_schema

PLACE = Path(os.environ["PLACE"])
POINTS = [int(p) for p in os.environ["KILL_AT"].split(",") if p]
TEXT = pa.string()

def writes(at):
    # Of 50 keys, many of them late or twice; a third are deletions.
    chance = random.Random(at // 2)
    rows = [
        {"key": f"k{chance.randrange(50)}", "value": chance.choice([None, b"1", b"2"]),
         "wall_ms": chance.randrange(40), "counter": 0, "replica": chance.choice("abc")}
        for _ in range(20)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=lww_schema(TEXT))

def dots(at):
    # Replica at % 3 adds an element, and takes back what it added five additions before.
    who, number = at % 3, at // 3 + 1
    rows = [{"element": f"e{number % 7}", "replica": f"r{who}", "counter": number, "dots": 0}]
    if number > 5:
        gone = number - 5
        rows.append({"element": f"e{gone % 7}", "replica": f"r{who}", "counter": gone, "dots": 2})
    return pa.RecordBatch.from_pylist(rows, schema=or_schema(TEXT))

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
        return [self.at - 1]
    def snapshot(self):
        return self.at

class Numbers(FixedPartitionedSource):
    def list_parts(self):
        return ["numbers"]
    def build_part(self, step_id, for_part, resume_state):
        return Part(resume_state or 0)

LINES = pa.schema([pa.field("shard", TEXT), pa.field("row", TEXT)])

def told(name, changes):
    def lines(item):
        shard, batch = item
        rows = [str(row) for row in batch.to_pylist()]
        return "run", pa.record_batch({"shard": pa.array([shard] * len(rows), TEXT),
                                       "row": pa.array(rows, TEXT)})
    output(name + "_file", op.map(name + "_lines", changes, lines),
           NdjsonSink(PLACE / f"{name}.ndjson", LINES))

flow = Dataflow("flow")
numbers = op.input("in", flow, Numbers())
told("map", crdt_merge("map", op.map("writes", numbers, writes), "lww-map", shards=4))
told("set", crdt_merge("set", op.map("dots", numbers, dots), "or-set"))
recovery = RecoveryConfig(PLACE / "recovery", backup_interval=timedelta(0))
run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
"""


def test_killed_at_many_points(tmp_path: Path) -> None:
    points = [1, 17, 40, 59]
    assert run_until_done(tmp_path / "unbroken", FLOW, []) == 0
    assert run_until_done(tmp_path / "killed", FLOW, points) == len(points)
    for name in ("map", "set"):
        unbroken = (tmp_path / "unbroken" / f"{name}.ndjson").read_text().splitlines()
        assert len(unbroken) > 60
        # Within an epoch shards have no order; otherwise every change is there once.
        killed = (tmp_path / "killed" / f"{name}.ndjson").read_text().splitlines()
        assert sorted(killed) == sorted(unbroken), name
