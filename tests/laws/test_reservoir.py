"""Reservoirs obey the laws to the last bit: the same rows, priorities and threshold.

Parts must draw from streams of their own, so each empty state here has a new one, rows come with
their priorities, and `same` compares all but the numbers of streams.
"""

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from state.sketches import Reservoir
from state.testing import laws

Chunk = tuple[pa.RecordBatch, np.ndarray]
numbers = itertools.count()


def chunk(drawn: tuple[int, int]) -> Chunk:
    rows, seed = drawn
    rng = np.random.default_rng([rows, seed])  # no two chunks bring the same priorities
    batch = pa.record_batch(
        {
            "x": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
            "s": pa.array([None if n % 5 == 0 else "s" * n for n in range(rows)], pa.string()),
            "l": pa.array([[n] * (n % 3) for n in range(rows)], pa.list_(pa.int64())),
        }
    )
    return batch, rng.integers(0, 2**64, rows, dtype=np.uint64)


chunks = st.tuples(st.integers(0, 6), st.integers(0, 2**64)).map(chunk)


def same(a: Reservoir, b: Reservoir) -> bool:
    if a.count != b.count or not np.array_equal(a.inclusion(), b.inclusion()):
        return False
    return a.sample().equals(b.sample()) or a.sample().num_rows == b.sample().num_rows == 0


TestReservoir = laws(
    empty=lambda: Reservoir(size=5, stream=next(numbers)),
    update=lambda state, chunk: state.add_prioritised(*chunk),
    chunks=chunks,
    same=same,
    max_examples=40,
)
TestWeighted = laws(
    empty=lambda: Reservoir(["x", "s"], size=4, stream=next(numbers), weight="w"),
    update=lambda state, chunk: state.add_prioritised(
        chunk[0].append_column("w", pa.array(chunk[1] % 3 + 1.0)), chunk[1] / 2.0**64
    ),
    chunks=chunks,
    same=same,
    max_examples=30,
)
