"""Aggregates obey the laws: to the last bit on values that floats add exactly, else to rounding."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from state.aggregates import Aggregates
from state.aggregations import Count, First, Last, Max, Mean, Min, Sum, Var
from state.schemas import TIME
from state.testing import laws

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("flag", pa.bool_()),
        ("x", pa.float64()),
        ("n", pa.int64()),
        ("time", TIME),
    ]
)
START = datetime(2024, 1, 1, tzinfo=UTC)
rows = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["a", "b", "", None]),
        "flag": st.sampled_from([True, False, None]),
        "x": st.none() | st.sampled_from([0.0, -0.0]) | st.integers(-99, 99).map(lambda n: n / 8),
        "n": st.none() | st.integers(0, 9),
        "time": st.integers(0, 5).map(lambda n: START + timedelta(seconds=n)),
    }
)


def batches(max_size: int = 6) -> st.SearchStrategy[pa.RecordBatch]:
    return st.lists(rows, max_size=max_size).map(
        lambda chunk: pa.RecordBatch.from_pylist(chunk, schema=SCHEMA)
    )


def exact() -> Aggregates:
    values = {
        "rows": Count(),
        "known": Count("x"),
        "total": Sum("x"),
        "whole": Sum("n"),
        "low": Min("x"),
        "high": Max("n"),
        "mean": Mean("x"),
        "vwap": Mean("x", weight="n"),
        "open": First("x"),
        "close": Last("x"),
        "last_key": Last("key"),
        "any": Max("flag"),
    }
    return Aggregates(("key", "flag"), values)


def close(a: Aggregates, b: Aggregates) -> bool:
    left, right = a.table().to_pylist(), b.table().to_pylist()
    return len(left) == len(right) and all(map(_close_row, left, right))


def _close_row(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a["key"] != b["key"] or (a["var"] is None) != (b["var"] is None):
        return False
    return a["var"] is None or bool(np.isclose(a["var"], b["var"], rtol=1e-9, atol=1e-9))


TestExact = laws(empty=exact, update=Aggregates.update, chunks=batches(), max_examples=20)
TestVariance = laws(
    empty=lambda: Aggregates("key", {"var": Var("x")}),
    update=Aggregates.update,
    chunks=batches(),
    same=close,
    max_examples=20,
)


def test_two_zeros_are_one() -> None:
    parts = [pa.record_batch({"key": ["a"], "x": [x]}) for x in (0.0, -0.0)]
    states = [Aggregates("key", {"low": Min("x"), "sum": Sum("x")}) for _ in parts]
    for state, part in zip(states, parts, strict=True):
        state.update(part)
    assert states[0].to_bytes() == states[1].to_bytes()
    assert pl.DataFrame(states[0].table()).height == 1
