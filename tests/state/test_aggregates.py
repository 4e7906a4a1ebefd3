"""`Aggregates` gives what Polars gives in one pass, refuses what it cannot read, and has panes."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from state.aggregates import Aggregates
from state.aggregations import Count, First, Last, Max, Mean, Min, Sum, Var
from state.mergeable import seal, unseal
from state.panes import panes_of

VALUES = {
    "rows": Count(),
    "volume": Sum("size"),
    "vwap": Mean("price", weight="size"),
    "mean": Mean("price"),
    "var": Var("price"),
    "low": Min("price"),
    "high": Max("price"),
    "open": First("price"),
    "close": Last("price"),
}


def ticks(rows: int, seed: int = 1) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    micros = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    return pa.record_batch(
        {
            "series": np.array(["A", "B", "C"])[rng.integers(0, 3, rows)],
            "price": 1e9 + rng.normal(size=rows),
            "size": rng.integers(1, 9, rows).astype(float),
            "time": pa.array(micros + rng.permutation(rows)).cast(pa.timestamp("us", tz="UTC")),
        }
    )


def folded(batch: pa.RecordBatch, cuts: int) -> Aggregates:
    state = Aggregates("series", VALUES)
    for at in range(0, batch.num_rows, cuts):
        state.update(batch.slice(at, cuts))
    return state


@pytest.mark.parametrize("cuts", [7, 100, 1000])
def test_any_batching_equals_polars_in_one_pass(cuts: int) -> None:
    batch = ticks(1000)
    price, size = pl.col("price"), pl.col("size")
    expected = (
        pl.DataFrame(batch)
        .sort("time")
        .group_by("series")
        .agg(
            rows=pl.len().cast(pl.Int64),
            volume=size.sum(),
            vwap=(price * size).sum() / size.sum(),
            mean=price.mean(),
            var=price.var(),
            low=price.min(),
            high=price.max(),
            open=price.first(),
            close=price.last(),
        )
        .sort("series")
    )
    # The variance is 1 and prices are 1e9: summing squares would leave no digit of it.
    got = pl.DataFrame(folded(batch, cuts).table())
    assert_frame_equal(got, expected, rel_tol=1e-6)


def test_nulls_are_skipped_and_nothing_is_null() -> None:
    state = Aggregates("k", {"n": Count("x"), "s": Sum("x"), "m": Mean("x"), "v": Var("x")})
    state.update(pa.record_batch({"k": ["a", "a"], "x": pa.array([None, None], pa.float64())}))
    assert state.table().to_pylist() == [{"k": "a", "n": 0, "s": 0.0, "m": None, "v": None}]
    state.update(pa.record_batch({"k": ["a", "a"], "x": [1.0, 3.0]}))
    assert state.table().to_pylist() == [{"k": "a", "n": 2, "s": 4.0, "m": 2.0, "v": 2.0}]


def test_a_weight_of_a_null_value_does_not_count() -> None:
    state = Aggregates("k", {"vwap": Mean("x", weight="w")})
    state.update(pa.record_batch({"k": ["a"] * 3, "x": [1.0, None, 4.0], "w": [1.0, 5.0, 2.0]}))
    assert state.table()["vwap"].to_pylist() == [3.0]


def test_equal_times_are_decided_by_value() -> None:
    at = [datetime(2024, 1, 1, tzinfo=UTC)] * 3
    for x in ([1, 2, 3], [3, 2, 1]):
        state = Aggregates("k", {"open": First("x"), "close": Last("x")})
        state.update(pa.record_batch({"k": ["a"] * 3, "x": x, "time": at}))
        assert state.table().to_pylist() == [{"k": "a", "open": 1, "close": 3}]


def test_dictionary_keys_are_text() -> None:
    plain, coded = pa.array(["a", "b", "a"]), pa.array(["a", "b", "a"]).dictionary_encode()
    states = []
    for keys in (plain, coded):
        state = Aggregates("k", {"n": Count()})
        state.update(pa.record_batch({"k": keys}))
        states.append(state.to_bytes())
    assert states[0] == states[1]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="two columns"):
        Aggregates("k", {"k": Count()})
    with pytest.raises(ValueError, match="at least one key"):
        Aggregates((), {"n": Count()})
    state = Aggregates("k", {"n": Count()})
    with pytest.raises(KeyError, match="'k'"):
        state.update(pa.record_batch({"x": [1]}))
    state.update(pa.record_batch({"k": ["a"]}))
    with pytest.raises(ValueError, match="have columns"):
        state.update(pa.record_batch({"k": [1]}))
    with pytest.raises(ValueError, match="do not merge"):
        state.merge(Aggregates("k", {"m": Count()}))


@pytest.mark.parametrize("payload", [b"", b"\xff" * 9, b"\1\0\0\0\xc0", b"\0\0\0\0abc"])
def test_sealed_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        Aggregates.from_bytes(seal("aggregates", 1, payload))


def test_tables_that_do_not_fit_are_refused() -> None:
    def sealed(types: list[str] | None, table: dict[str, list[object]]) -> bytes:
        head = msgspec.msgpack.encode((["k"], {"n": Count()}, types))
        batch = pa.record_batch(table)
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, batch.schema) as writer:
            writer.write_batch(batch)
        body = out.getvalue().to_pybytes()
        return seal("aggregates", 1, len(head).to_bytes(4, "little") + head + body)

    types = ["String", "Int64"]
    good = {"k": ["a", "b"], "k?": [0, 0], "n.n": [1, 2], "n.n?": [0, 0]}
    assert len(Aggregates.from_bytes(sealed(types, good))) == 2
    for bad in (
        sealed(None, good),
        sealed(["String", "Float64"], good),
        sealed(["String"], good),
        sealed(types, {**good, "k": ["b", "a"]}),
        sealed(types, {**good, "k": ["a", "a"]}),
        sealed(types, {"k": ["a"], "k?": [0]}),
    ):
        with pytest.raises(ValueError):
            Aggregates.from_bytes(bad)


def test_panes_are_the_states_of_their_rows() -> None:
    batch, pane = ticks(300), np.random.default_rng(2).integers(-3, 4, 300)
    panes = panes_of(lambda: Aggregates("series", VALUES))
    panes.update(batch, pane)
    resumed = panes_of(lambda: Aggregates("series", VALUES))
    resumed.load(panes.to_bytes())
    for kept in (panes, resumed):
        assert kept.numbers().tolist() == list(range(-3, 4))
        kept.discard(0)
        numbers = kept.numbers()
        assert numbers.tolist() == [0, 1, 2, 3]
        for number, state in zip(numbers.tolist(), kept.states(numbers), strict=True):
            alone = Aggregates("series", VALUES)
            alone.update(batch.filter(pa.array(pane == number)))
            assert state.to_bytes() == alone.to_bytes()
    other = panes_of(lambda: Aggregates("series", {"n": Count()}))
    with pytest.raises(ValueError, match="other aggregates"):
        other.load(panes.to_bytes())


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.lists(st.integers(-4, 9) | st.just(10**9), min_size=1, max_size=12),
            st.sampled_from([[1.0, 2.5], [1.0, None], [-0.5, 4.0, 8.0]]),
        ),
        max_size=6,
    ),
    before=st.integers(-4, 9),
)
def test_panes_in_any_batches_are_the_groups_of_all_rows(
    parts: list[tuple[list[int], list[float | None]]], before: int
) -> None:
    values = {"n": Count("x"), "sum": Sum("x"), "low": Min("x"), "high": Max("x")}
    panes = Aggregates("k", values).panes()
    whole = Aggregates(("pane", "k"), values)
    for numbers, xs in parts:
        rows = len(numbers)
        batch = pa.record_batch(
            {
                "k": pa.array([("b", "a", None)[i % 3] for i in range(rows)], pa.string()),
                "x": pa.array([xs[i % len(xs)] for i in range(rows)], pa.float64()),
                "pane": pa.array(numbers),
            }
        )
        panes.update(batch, np.array(numbers))
        whole.update(batch)
    expected = pl.DataFrame(whole.table())
    if parts:
        assert panes.numbers().tolist() == expected["pane"].unique().sort().to_list()
        assert panes.states(panes.numbers())[0].table().num_columns == 5
        closed = pl.DataFrame(panes.table(before))
        below = expected.filter(pl.col("pane") < before)
        assert closed.rows() == below.rows()
        panes.discard(before)
        left = pl.DataFrame(panes.table(2 * 10**9))
        assert left.rows() == expected.filter(pl.col("pane") >= before).rows()


def test_damaged_tables_inside_a_good_envelope_are_refused() -> None:
    state = Aggregates("k", {"n": Count(), "low": Min("x")})
    state.update(pa.record_batch({"k": ["a", "bb", "ccc"], "x": [1.0, 2.0, 3.0]}))
    _, payload = unseal("aggregates", state.to_bytes(), versions={1})
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        bad = bytearray(payload)
        for at in rng.integers(0, len(bad), rng.integers(1, 4)):
            bad[at] = rng.integers(0, 256)
        try:
            Aggregates.from_bytes(seal("aggregates", 1, bytes(bad)))
        except ValueError:
            refused += 1
    assert refused > 500
