"""crdt_merge in flows: news only, over shards and workers, and across restarts."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators.crdt import crdt_merge
from state.rows import LwwRows, OrRows, lww_schema, or_schema

TEXT = pa.string()


def writes(seed: int, count: int) -> pa.RecordBatch:
    chance = random.Random(seed)
    rows = [
        {
            "key": f"key-{chance.randrange(200)}",
            "value": chance.choice([None, b"\x01", b"\x02"]),
            "wall_ms": chance.randrange(50),
            "counter": chance.randrange(3),
            "replica": chance.choice("abc"),
        }
        for _ in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=lww_schema(TEXT))


def deltas(seed: int, count: int) -> list[pa.RecordBatch]:
    """Return deltas of one replica's set: additions, removals, and how far it knows."""
    chance = random.Random(seed)
    name, there, made = f"r{seed}", dict[str, int](), []
    for number in range(1, count + 1):
        element = f"e{chance.randrange(40)}"
        rows = [{"element": element, "counter": number, "dots": 0}]
        if element in there:
            rows.append({"element": element, "counter": there[element], "dots": 2})
        there[element] = number
        if chance.random() < 0.3:
            gone = chance.choice(list(there))
            rows = [row for row in rows if row["element"] != gone or row["dots"] != 0]
            rows.append({"element": gone, "counter": there.pop(gone), "dots": 2})
        if chance.random() < 0.1:
            continue  # lost, and repaired by the state at the end
        rows = [{**row, "replica": name} for row in rows]
        made.append(pa.RecordBatch.from_pylist(rows, schema=or_schema(TEXT)))
    last = [{"element": e, "replica": name, "counter": n, "dots": 0} for e, n in there.items()]
    last.append({"element": None, "replica": name, "counter": count, "dots": 1})
    chance.shuffle(made)
    return [*made, pa.RecordBatch.from_pylist(last, schema=or_schema(TEXT))]


def build(batches: list[Any], kind: Any, out: list[Any], **rest: Any) -> Dataflow:
    flow = Dataflow("merge")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", crdt_merge("crdt", up, kind, **rest), TestingSink(out))
    return flow


def cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shards", [1, 24])
def test_changes_of_a_map_add_up_to_the_map(shards: int, workers: int) -> None:
    batches = [writes(seed, 300) for seed in range(5)]
    out: list[tuple[str, pa.RecordBatch]] = []
    flow = build([*batches, *batches], "lww-map", out, shards=shards)
    if workers == 1:
        run_main(flow)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    expected, found = LwwRows(TEXT), LwwRows(TEXT)
    for batch in batches:
        expected.update(batch)
    for _, batch in out:
        found.update(batch)
    assert found.to_bytes() == expected.to_bytes()
    # A key is news at most once for each batch that wrote it, and never from what came again.
    assert sum(batch.num_rows for _, batch in out) < 5 * 200


@pytest.mark.parametrize("shards", [None, 1, 6])
def test_changes_of_a_set_add_up_to_the_set(shards: int | None) -> None:
    batches = [batch for seed in range(3) for batch in deltas(seed, 150)]
    out: list[tuple[str, pa.RecordBatch]] = []
    run_main(build([*batches, *reversed(batches)], "or-set", out, shards=shards))
    expected, found = OrRows(TEXT), OrRows(TEXT)
    for batch in batches:
        expected.update(batch)
    for _, batch in out:
        found.update(batch)
    assert sorted(found.elements().to_pylist()) == sorted(expected.elements().to_pylist()) != []


@pytest.mark.parametrize("kind", ["lww-map", "or-set"])
def test_a_flow_resumes_with_its_rows(kind: Any, tmp_path: Path) -> None:
    batches = [writes(n, 100) for n in range(6)] if kind == "lww-map" else deltas(1, 60)
    half = len(batches) // 2
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    out: list[tuple[str, pa.RecordBatch]] = []
    inputs = [*batches[:half], TestingSource.ABORT(), *batches[half:]]
    for _ in range(2):
        run_main(build(inputs, kind, out), epoch_interval=timedelta(0), recovery_config=recovery)
    straight: list[tuple[str, pa.RecordBatch]] = []
    run_main(build(batches, kind, straight), epoch_interval=timedelta(0))

    def seen(items: list[tuple[str, pa.RecordBatch]]) -> list[tuple[str, str]]:
        return [(shard, str(batch.to_pylist())) for shard, batch in items]

    # The epoch that was cut off may be emitted again; nothing else is new or missing. Within an
    # epoch shards have no order.
    assert set(seen(out)) == set(seen(straight))


def test_what_is_no_row() -> None:
    with pytest.raises(ValueError, match=r"step merge\.crdt: 'heap' is none of lww-map, or-set"):
        build([], "heap", [])
    bad = writes(0, 3).drop_columns(["counter"])
    with pytest.raises(Exception) as error:
        run_main(build([bad], "lww-map", []))
    assert cause(error.value).startswith("step merge.crdt: lww-rows: ")
    with pytest.raises(Exception) as error:
        run_main(build([writes(0, 3)], "or-set", []))
    assert "step merge.crdt" in cause(error.value)
    mixed = writes(0, 3).set_column(0, "key", pa.array([1, 2, 3]))
    with pytest.raises(Exception) as error:
        run_main(build([writes(0, 3), mixed], "lww-map", [], shards=1))
    assert "'key' must be string" in cause(error.value)
