"""Sketches of a million rows: whole columns against `datasketches` value by value.

    python -m benchmarks.sketches [--rounds 5] [--rows 1000000]

One core on our side. The columns are

    integers        int64, half of them distinct
    strings         user names of 6 to 12 bytes, half of them distinct
    long strings    36 bytes, as a UUID is written, half of them distinct

* ours: `Hll(lg_k=12)` and `CountMin(rows=5, buckets=2048)` fold an Arrow column;
* theirs: `hll_sketch(12)` and `count_min_sketch(5, 2048)`, updated with every value of a Python
  list, by the fastest loop there is, ``deque(map(sketch.update, values), maxlen=0)``. Making the
  list from the column is not timed. Neither class takes arrays.

Results are equal if the registers, or the tables, are: to the byte, in the library's own image.

Then `Hll`, with its estimate, against `approx_n_unique` of Polars (eager) and
`approx_count_distinct` of DuckDB over the same Arrow column, each with all the threads it takes;
the ratio is that of the faster one, and the errors stand beside. Last come the rows per second of
the other sketches, without a rival.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import statistics
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from datasketches import (  # type: ignore[import-untyped,unused-ignore]
    count_min_sketch,
    hll_sketch,
)

from benchmarks.rivals import Timing, alternate, report
from state.mergeable import Foldable
from state.sketches import CountMin, HeavyHitters, Histogram, Hll, Kll, Moments, Reservoir

TARGETS = {"integers": 6.0, "strings": 10.0, "long strings": 10.0}


def columns(rows: int) -> dict[str, pa.Array]:
    """Return the columns of ``rows`` rows, in random order."""
    rng = np.random.default_rng(11)
    numbers = rng.permutation(np.arange(rows) // 2)
    names = [uuid.UUID(int=int(n) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128) for n in numbers]
    return {
        "integers": pa.array(numbers),
        "strings": pa.array([f"user-{n}" for n in numbers]),
        "long strings": pa.array([str(name) for name in names]),
    }


def each(update: Callable[[Any], None], values: Iterable[Any]) -> None:
    """Call ``update`` with every value."""
    deque(map(update, values), maxlen=0)


def distinct_pair(column: pa.Array, values: list[Any], rounds: int) -> Timing:
    """Time `Hll` against `hll_sketch`."""

    def ours() -> Hll:
        sketch = Hll()
        sketch.add(column)
        return sketch

    def theirs() -> bytes:
        sketch = hll_sketch(12)
        each(sketch.update, values)
        return bytes(sketch.serialize_compact())

    def equal(mine: Hll, image: bytes) -> bool:
        return Hll.from_datasketches(image).to_bytes() == mine.to_bytes()

    return alternate(ours, theirs, equal, rounds=rounds)


def frequency_pair(column: pa.Array, values: list[Any], rounds: int) -> Timing:
    """Time `CountMin` against `count_min_sketch`."""

    def ours() -> CountMin:
        sketch = CountMin()
        sketch.add(column)
        return sketch

    def theirs() -> bytes:
        sketch = count_min_sketch(5, 2048)
        each(sketch.update, values)
        return bytes(sketch.serialize())

    return alternate(ours, theirs, lambda a, b: a.to_datasketches() == b, rounds=rounds)


def engine_pair(column: pa.Array, rounds: int) -> tuple[Timing, dict[str, object]]:
    """Time `Hll` with its estimate against the faster of Polars and DuckDB."""
    series = pl.Series(pl.from_arrow(column))
    connection = duckdb.connect()
    connection.register("events", pa.table({"value": column}))
    truth = len(column.unique())

    def ours() -> float:
        sketch = Hll()
        sketch.add(column)
        return sketch.estimate()

    def polars() -> float:
        found = series.approx_n_unique()
        assert isinstance(found, int)
        return float(found)

    def duck() -> float:
        query = "select approx_count_distinct(value) from events"
        row = connection.execute(query).fetchone()
        assert row is not None
        return float(row[0])

    def within(a: float, b: float) -> bool:
        return abs(a / truth - 1) <= 5 * 1.04 / 64

    timings = {
        name: alternate(ours, rival, within, rounds=rounds)
        for name, rival in (("Polars", polars), ("DuckDB", duck))
    }
    faster = min(timings, key=lambda name: statistics.median(timings[name].theirs))
    errors = {
        f"error_{name}": round(estimate() / truth - 1, 4)
        for name, estimate in (("ours", ours), ("polars", polars), ("duckdb", duck))
    }
    seconds = {f"s_{name.lower()}": statistics.median(t.theirs) for name, t in timings.items()}
    return timings[faster], {"faster": faster, **seconds, **errors}


def rates(rows: int, rounds: int) -> dict[str, float]:
    """Return millions of rows per second of each sketch over a column of skewed floats."""
    rng = np.random.default_rng(5)
    batch = pa.record_batch({"value": rng.lognormal(3.0, 1.0, rows).round(2)})
    kinds: dict[str, Callable[[], Foldable]] = {
        "Hll": Hll,
        "CountMin": CountMin,
        "HeavyHitters": HeavyHitters,
        "Kll": Kll,
        "Histogram": Histogram,
        "Moments": Moments,
        "Reservoir": lambda: Reservoir(stream=0),
    }

    def rate(make: Callable[[], Foldable]) -> float:
        timing = alternate(
            lambda: make().update(batch), lambda: None, lambda a, b: True, rounds=rounds
        )
        return round(rows / statistics.median(timing.ours) / 1e6, 1)

    return {name: rate(make) for name, make in kinds.items()}


def line(name: str, timing: Timing, target: str) -> None:
    """Print a line of the table."""
    ours, theirs = (statistics.median(side) * 1e3 for side in (timing.ours, timing.theirs))
    ratio = statistics.median(timing.ratios)
    equal = "equal" if timing.equal else "NOT EQUAL"
    print(f"{name:<24}{ours:>9.1f}{theirs:>10.1f}{ratio:>9.1f}x {target:<10}{equal}")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Columnar sketches against their rivals.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    rounds, inputs = arguments.rounds, columns(arguments.rows)

    print(f"{arguments.rows:,} rows, ms{'ours':>20}{'theirs':>10}{'ratio':>10} target")
    cases: dict[str, object] = {}
    all_equal, headline = True, None
    for kind, column in inputs.items():
        values = column.to_pylist()
        for name, pair in (("Hll", distinct_pair), ("CountMin", frequency_pair)):
            timing = pair(column, values, rounds)
            headline = headline or timing
            line(f"{name} {kind}", timing, f">= {TARGETS[kind]:.0f}x")
            all_equal = all_equal and timing.equal
            cases[f"{name} {kind}"] = {
                "ratio": round(statistics.median(timing.ratios), 2),
                "target": TARGETS[kind],
            }
        del values
    for kind, column in inputs.items():
        timing, figures = engine_pair(column, rounds)
        line(f"{figures['faster']}, {kind}", timing, ">= 0.33x")
        errors = {k: v for k, v in figures.items() if isinstance(v, float) and "error" in k}
        print("    " + ", ".join(f"{k} {v:+.2%}" for k, v in errors.items()))
        all_equal = all_equal and timing.equal
        ratio = statistics.median(timing.ratios)
        cases[f"engine {kind}"] = {"ratio": round(ratio, 2), "target": 0.33, **figures}
    speeds = rates(arguments.rows, rounds)
    print("million rows/s, floats: " + ", ".join(f"{k} {v:g}" for k, v in speeds.items()))
    assert headline is not None
    total = Timing(headline.ours, headline.theirs, all_equal)
    report("sketches", total, target=TARGETS["integers"], cases=cases, million_rows_per_s=speeds)


if __name__ == "__main__":
    main()
