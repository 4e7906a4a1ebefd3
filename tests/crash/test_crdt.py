"""SIGKILL a flow of columnar CRDTs mid-stream: the resumed run has an unbroken run's changes."""

from pathlib import Path

from tests.crash.killed_flow import run_until_done

# Writes the changes it emits.
FLOW = """
import random
import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from operators.crdt import crdt_merge
from state.rows import lww_schema, or_schema
from tests.crash.killing import Items, keep, run

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

LINES = pa.schema([pa.field("shard", TEXT), pa.field("row", TEXT)])

def told(name, changes):
    def lines(item):
        shard, batch = item
        rows = [str(row) for row in batch.to_pylist()]
        return "run", pa.record_batch({"shard": pa.array([shard] * len(rows), TEXT),
                                       "row": pa.array(rows, TEXT)})
    keep(name, op.map(name + "_lines", changes, lines), LINES)

flow = Dataflow("flow")
numbers = op.input("in", flow, Items(60, lambda at: at))
told("map", crdt_merge("map", op.map("writes", numbers, writes), "lww-map", shards=4))
told("set", crdt_merge("set", op.map("dots", numbers, dots), "or-set"))
run(flow)
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
