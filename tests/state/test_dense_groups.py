"""`DenseGroups` gives the tables that Polars gives, or says that it cannot."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from state.aggregates import Aggregates
from state.aggregations import Aggregation, Count, First, Last, Max, Mean, Min, Sum, Var
from state.dense_groups import DenseGroups, most_codes, most_values
from state.schemas import TIME

VALUES: dict[str, Aggregation] = {
    "rows": Count(),
    "known": Count("x"),
    "sum": Sum("x"),
    "mean": Mean("x"),
    "vwap": Mean("x", weight="w"),
    "var": Var("x"),
    "low": Min("x"),
    "high": Max("x"),
    "open": First("x"),
    "close": Last("x"),
}
SECONDS = pa.timestamp("s", tz="UTC")
WHEN = datetime(2024, 1, 1, tzinfo=UTC)

small = st.integers(0, 99)
keys: list[st.SearchStrategy[tuple[pa.DataType, list[Any]]]] = [
    st.tuples(st.just(kind), st.lists(value, min_size=1, max_size=4))
    for kind, value in (
        (pa.string(), st.sampled_from(["", "a", "b", "é", "z\0"]) | st.none()),
        (pa.large_binary(), st.sampled_from([b"", b"\xff", b"a"])),
        (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["b", "a"]) | st.none()),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.int8(), st.integers(-128, 127) | st.none()),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.bool_(), st.booleans() | st.none()),
        (TIME, st.just(WHEN) | st.none()),
        (pa.float64(), st.sampled_from([0.5, -0.0, 0.0, float("nan")])),
    )
]
numbers: list[st.SearchStrategy[tuple[pa.DataType, list[Any]]]] = [
    st.tuples(st.just(kind), st.lists(value, min_size=1, max_size=9))
    for kind, value in (
        (pa.float64(), st.floats(-1e6, 1e6)),
        (pa.float64(), st.floats(-9, 9) | st.none()),
        (pa.float64(), st.sampled_from([1.0, float("nan"), float("inf"), -float("inf")])),
        (pa.float32(), st.floats(-1e3, 1e3, width=32)),
        (pa.int64(), st.integers(-(2**40), 2**40)),
        (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
        (pa.uint64(), st.integers(0, 2**63 + 5)),
        (pa.bool_(), st.booleans()),
    )
]
times: list[st.SearchStrategy[tuple[pa.DataType, list[Any]]]] = [
    st.tuples(st.just(kind), st.lists(value, min_size=1, max_size=9))
    for kind, value in (
        (TIME, small.map(lambda s: WHEN.replace(second=s % 7))),
        (SECONDS, small.map(lambda s: WHEN.replace(second=s % 7))),
        (pa.int64(), small | st.none()),
    )
]


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 9)))

    def column(choices: Any) -> pa.Array:
        kind, values = draw(st.one_of(choices))
        return pa.array([values[i] for i in rng.integers(0, len(values), rows)], kind)

    columns = {"k": keys, "l": keys, "x": numbers, "w": numbers[:5], "time": times}
    return pa.record_batch({name: column(choices) for name, choices in columns.items()})


@settings(max_examples=300, deadline=None)
@given(batch=batches(), by=st.sampled_from([("k",), ("k", "l")]))
def test_dense_and_polars_parts_are_equal(batch: pa.RecordBatch, by: tuple[str, ...]) -> None:
    for name, value in VALUES.items():
        state = Aggregates(by, {name: value})
        dense = state._fold_dense(batch)
        if dense is not None:
            # Sums of numbers to 1e6 that cancel keep nine digits of what they are made of.
            assert_frame_equal(dense, state._fold_any(batch).sort(by), rel_tol=1e-9, abs_tol=1e-3)


def folded(key: pa.Array, x: pa.Array, value: Aggregation) -> pl.DataFrame | None:
    return Aggregates("k", {"v": value})._fold_dense(pa.record_batch({"k": key, "x": x}))


@pytest.mark.parametrize("make", [Sum, Min, Max, Mean, Var, lambda x: Last(x, time="x")])
@pytest.mark.parametrize(
    ("x", "dense"),
    [
        (pa.array([1.5, 2.5]), True),
        (pa.array([1, 2], pa.uint8()), True),
        (pa.array([1.5, None]), False),
        (pa.array([1.5, float("nan")]), False),
        (pa.array([1.5, float("inf")]), False),
        (pa.array([True, False]), False),
    ],
)
def test_columns_of_finite_numbers_are_dense(
    make: Callable[[str], Aggregation], x: pa.Array, dense: bool
) -> None:
    assert (folded(pa.array(["a", "b"]), x, make("x")) is not None) == dense


@pytest.mark.parametrize(
    ("key", "dense"),
    [
        (pa.array(np.arange(20_000) % 7), True),
        (pa.array(np.arange(20_000) * 4), True),
        (pa.array(np.arange(20_000) * 2**40), False),
        (pa.array(np.arange(20_000) % 2 * 2**40), True),
        (pa.array([str(i) for i in range(20_000)]), False),
        (pa.array([str(i % 1000) for i in range(20_000)]), True),
        (pa.array(np.arange(20_000) / 2), False),
    ],
)
def test_keys_that_repeat_or_lie_close_are_dense(key: pa.Array, dense: bool) -> None:
    found = folded(key, pa.array(np.arange(20_000)), Sum("x"))
    assert (found is not None) == dense


def test_more_codes_than_pay_are_refused() -> None:
    rows = 1000
    batch = pa.record_batch({"k": np.arange(rows), "l": np.arange(rows)})
    assert rows**2 > most_codes(rows)
    assert DenseGroups.of(batch, ["k", "l"]) is None
    assert most_values(rows) >= rows
    assert DenseGroups.of(batch, ["k"]) is not None


def test_a_dictionary_may_repeat_values_and_hold_nulls() -> None:
    column = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2, 3, None], pa.int8()), pa.array(["b", "a", "b", None])
    )
    batch = pa.record_batch({"k": column, "x": [1.0, 2.0, 4.0, 8.0, 16.0]})
    groups = DenseGroups.of(batch, ["k"])
    assert groups is not None
    assert groups.keys()["k"].to_pylist() == [None, "a", "b"]
    assert not groups.complete("k")
    assert groups.sum(np.array([1.0, 2.0, 4.0, 8.0, 16.0])).tolist() == [24.0, 2.0, 5.0]
