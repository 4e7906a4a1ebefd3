"""`shard`: every row once, keys whole and in order, names that Bytewax spreads evenly."""

import collections
import subprocess
import sys
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from hypothesis import given
from hypothesis import strategies as st

from operators.shard import shard, shard_names
from state.routing import worker_of


def run(batches: list[pa.RecordBatch], by: str | list[str], shards: int) -> list:
    flow, out = Dataflow("flow"), []
    split = shard("shard", op.input("in", flow, TestingSource(batches, 2)), by, shards=shards)
    op.output("out", split, TestingSink(out))
    run_main(flow)
    return out


def batch(users: list[int], start: int = 0) -> pa.RecordBatch:
    rows = range(start, start + len(users))
    return pa.record_batch({"user": pa.array(users, pa.int64()), "n": pa.array(rows, pa.int64())})


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_every_row_lands_once_with_its_key_whole_and_in_order(
    first: list[int], second: list[int], shards: int
) -> None:
    out = run([batch(first), batch(second, len(first))], "user", shards)
    seen = collections.defaultdict(list)
    for name, part in out:
        for user, n in zip(part["user"].to_pylist(), part["n"].to_pylist(), strict=True):
            seen[user].append((name, n))
    expected = collections.defaultdict(list)
    for n, user in enumerate([*first, *second]):
        expected[user].append(n)
    assert {u: [n for _, n in rows] for u, rows in seen.items()} == expected
    assert all(len({name for name, _ in rows}) == 1 for rows in seen.values())


def test_batches_that_arrive_together_are_split_together() -> None:
    out = run([batch([1, 2, 3]), batch([1, 2, 3], 3)], "user", 2)
    assert len(out) == len({name for name, _ in out})


def test_batches_of_two_schemas_pass_side_by_side() -> None:
    wide = batch([1]).append_column("extra", pa.array([True]))
    out = run([batch([1]), wide], "user", 1)
    assert [part.schema.names for _, part in out] == [["user", "n"], ["user", "n", "extra"]]


def test_a_part_does_not_drag_the_whole_batch_along() -> None:
    out = run([batch(list(range(100_000)))], "user", 100)
    assert all(part.get_total_buffer_size() < 50_000 for _, part in out)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 8, 12, 24])
def test_default_shards_spread_evenly(workers: int) -> None:
    load = collections.Counter(worker_of(name, workers) for name in shard_names(24))
    assert set(load.values()) == {24 // workers}


PROBE = """
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import TestingSource, cluster_main
from operators.shard import shard_names

class Part(StatelessSinkPartition):
    def __init__(self, worker): self.worker = worker
    def write_batch(self, keys):
        with open(f"{OUT}/{self.worker}", "a") as file:
            file.writelines(key + chr(10) for key in keys)

class Sink(DynamicSink):
    def build(self, step_id, index, count): return Part(index)

flow = Dataflow("probe")
keys = op.input("in", flow, TestingSource([(n, n) for n in (*shard_names(24), "0", "market")]))
keyed = op.stateful_map("route", keys, lambda state, key: (None, key))
op.output("out", op.key_rm("bare", keyed), Sink())
cluster_main(flow, [], 0, worker_count_per_proc=WORKERS)
"""


@pytest.mark.parametrize("workers", [2, 3])
def test_bytewax_routes_as_predicted(workers: int, tmp_path: Path) -> None:
    code = PROBE.replace("{OUT}", str(tmp_path)).replace("WORKERS", str(workers))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    routed = {
        key: int(path.name) for path in tmp_path.iterdir() for key in path.read_text().split()
    }
    assert len(routed) == 26
    assert routed == {key: worker_of(key, workers) for key in routed}


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        shard_names(0)
    with pytest.raises(ValueError, match="at least one key column"):
        run([batch([1])], [], 2)
