"""Replicated maps and sets as columns: ``python -m benchmarks.crdt``.

First, rows a second that `LwwRows` and `OrRows` merge into a state of as many rows, with keys that
are integers and strings, every key written on both sides; decoding the incoming Arrow IPC stream
is counted.

Then a map of 10,000 keys, all of which were written on both sides, against `pycrdt` (Yjs) and
`loro`: encode one replica's map, decode it and merge it into the other's. All three begin with
maps that are in memory, and end with the same keys.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import loro
import numpy as np
import pyarrow as pa
import pycrdt

from benchmarks.rivals import Timing, alternate, report
from state.crdt.values import encode
from state.rows import LwwRows, OrRows, lww_schema, or_schema

AIM = 5e6
REPLICAS = pa.array([f"replica-{n}" for n in range(8)])


def keys(kind: pa.DataType, rows: int) -> pa.Array:
    """Return distinct keys in random order."""
    numbers = np.random.default_rng(3).permutation(rows)
    return pa.array(numbers) if kind == pa.int64() else pa.array([f"user-{n}" for n in numbers])


def map_rows(column: pa.Array, seed: int) -> pa.RecordBatch:
    """Return a write of each key, in random order, under random stamps."""
    rng, rows = np.random.default_rng(seed), len(column)
    values = pa.array([encode(n) for n in range(1000)], pa.large_binary())
    return pa.RecordBatch.from_arrays(
        [
            column.take(pa.array(rng.permutation(rows))),
            values.take(pa.array(rng.integers(0, 1000, rows))),
            pa.array(rng.integers(0, 10**9, rows)),
            pa.array(rng.integers(0, 4, rows)),
            pa.DictionaryArray.from_arrays(
                pa.array(rng.integers(0, 8, rows), pa.int32()), REPLICAS
            ),
        ],
        schema=lww_schema(column.type),
    )


def set_rows(column: pa.Array, replica: int) -> pa.RecordBatch:
    """Return an addition of each element by one replica."""
    rows = len(column)
    return pa.RecordBatch.from_arrays(
        [
            column,
            pa.DictionaryArray.from_arrays(pa.array(np.full(rows, replica), pa.int32()), REPLICAS),
            pa.array(np.arange(1, rows + 1)),
            pa.array(np.zeros(rows, np.uint8)),
        ],
        schema=or_schema(column.type),
    )


def ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """Return a batch as a stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def rate(
    make: Callable[[pa.DataType], Any],
    mine: pa.RecordBatch,
    theirs: pa.RecordBatch,
    rounds: int,
) -> list[tuple[float, float]]:
    """Return rows a second of each round of decoding and merging `theirs`: of time, of CPU time."""
    incoming, found = ipc(theirs), []
    for _ in range(rounds + 1):
        state = make(mine.schema.field(0).type)
        state.update(mine)
        begin, used = time.perf_counter(), time.process_time()
        state.fold(pa.ipc.open_stream(incoming).read_next_batch())
        took = time.perf_counter() - begin, time.process_time() - used
        found.append((theirs.num_rows / took[0], theirs.num_rows / took[1]))
    return found[1:]


def ours_of(column: pa.Array, seed: int) -> LwwRows:
    """Return a map in memory."""
    state = LwwRows(column.type)
    state.update(map_rows(column, seed))
    return state


def against_pycrdt(column: pa.Array, rounds: int) -> Timing:
    """Merge a map into another, all keys conflicting, as ours and as Yjs."""
    names = column.to_pylist()

    def doc() -> Any:
        made: Any = pycrdt.Doc()
        shared = made.get("m", type=pycrdt.Map)
        with made.transaction():
            for name in names:
                shared[name] = 1
        return made

    return _against(column, [doc() for _ in range(2 * (rounds + 1))], _merge_pycrdt, rounds)


def _merge_pycrdt(into: Any, other: Any) -> Any:
    into.apply_update(other.get_update())
    return into.get("m", type=pycrdt.Map)


def against_loro(column: pa.Array, rounds: int) -> Timing:
    """Do the same with loro."""
    names = column.to_pylist()

    def doc() -> Any:
        made: Any = loro.LoroDoc()  # type: ignore[no-untyped-call,unused-ignore]
        shared = made.get_map("m")
        for name in names:
            shared.insert(name, 1)
        made.commit()
        return made

    return _against(column, [doc() for _ in range(2 * (rounds + 1))], _merge_loro, rounds)


def _merge_loro(into: Any, other: Any) -> Any:
    into.import_(other.export(loro.ExportMode.Snapshot()))
    return into.get_map("m")


def _against(
    column: pa.Array, docs: list[Any], merge: Callable[[Any, Any], Any], rounds: int
) -> Timing:
    # A merge changes its state, so each round has states of its own, made before the clock starts.
    states = [ours_of(column, seed % 2) for seed in range(len(docs))]

    def ours() -> LwwRows:
        into, other = states.pop(), states.pop()
        into.fold(pa.ipc.open_stream(ipc(other.rows())).read_next_batch())
        return into

    def equal(mine: LwwRows, theirs: Any) -> bool:
        # Which of two concurrent writes wins is each one's own rule; that one does is not.
        return sorted(mine.rows()["key"].to_pylist()) == sorted(theirs.keys())

    return alternate(ours, lambda: merge(docs.pop(), docs.pop()), equal, rounds=rounds)


def main() -> None:
    """Print the rates, the ratios and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crdt")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates: dict[str, dict[str, float]] = {}
    print(f"merging {options.rows:,} rows into as many, IPC decoding included; million rows/s")
    for kind in (pa.int64(), pa.string()):
        column = keys(kind, options.rows)
        for name, make, mine, theirs in (
            ("LWW map", LwwRows, map_rows(column, 0), map_rows(column, 1)),
            ("OR-Set", OrRows, set_rows(column, 0), set_rows(column, 1)),
        ):
            both = rate(make, mine, theirs, options.rounds)
            found, of_cpu = [wall for wall, _ in both], [cpu for _, cpu in both]
            median, cpu = statistics.median(found), statistics.median(of_cpu)
            rates[f"{name}, {kind}"] = {
                "median": median,
                "min": min(found),
                "max": max(found),
                "of_cpu": cpu,
                "met": median >= AIM,
            }
            spread = f"({min(found) / 1e6:.1f} to {max(found) / 1e6:.1f})"
            print(
                f"  {name}, keys {kind!s:8} {median / 1e6:6.1f} {spread:16} aim {AIM / 1e6:.0f}; "
                f"of CPU time {cpu / 1e6:.1f}"
            )
    small = keys(pa.string(), options.keys)
    timings = {
        "pycrdt": against_pycrdt(small, options.rounds),
        "loro": against_loro(small, options.rounds),
    }
    print(
        f"merging a map of {options.keys:,} keys, all written twice, encoding and decoding counted"
    )
    for name, timing in timings.items():
        ours, theirs = (statistics.median(side) * 1e3 for side in (timing.ours, timing.theirs))
        ratio = statistics.median(timing.ratios)
        print(f"  {name:7} {theirs:8.2f} ms, ours {ours:6.2f} ms: {ratio:.1f}x, aim 5x")
    nearest = min(timings, key=lambda name: statistics.median(timings[name].ratios))
    report(
        f"merging a map of {options.keys:,} keys, against {nearest}",
        timings[nearest],
        target=5.0,
        rows_per_second=rates,
        ratios={name: statistics.median(timing.ratios) for name, timing in timings.items()},
    )


if __name__ == "__main__":
    main()
