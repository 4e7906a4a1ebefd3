"""Sketch operators against answers computed from all rows."""

import collections
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators.merge import fold, tree_merge
from operators.questions import (
    DISTINCT,
    HEAVY_HITTERS,
    QUANTILES,
    SAMPLE,
    Distinct,
    Heaviest,
    Quantiles,
    Sample,
)
from operators.sketch import (
    Sessions,
    Sliding,
    Tumbling,
    answers,
    distinct,
    heavy_hitters,
    quantiles,
    sample,
)
from state.schemas import TIME

START = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SCHEMA = pa.schema([("time", TIME), ("user", pa.string()), ("ms", pa.float64())])
Row = tuple[int, str | None, float | None]
Out = list[Any]


def batch(*rows: Row) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    seconds, users, ms = (list(column) for column in columns)
    times = pa.array([START + SECOND * t for t in seconds], TIME)
    return pa.record_batch([times, pa.array(users, pa.string()), ms], schema=SCHEMA)


def build(operator: Any, items: list[Any], *args: Any, **kw: Any) -> tuple[Dataflow, Out, Out]:
    flow = Dataflow("flow")
    told: list[Any] = []
    late: list[Any] = []
    out = operator("sketch", op.input("in", flow, TestingSource(items)), *args, **kw)
    op.output("answers", out.answers, TestingSink(told))
    op.output("late", out.late, TestingSink(late))
    return flow, told, late


def run(operator: Any, items: list[Any], *args: Any, **kw: Any) -> tuple[Out, Out]:
    flow, told, late = build(operator, items, *args, **kw)
    run_main(flow)
    return told, late


def failure(flow: Dataflow, **kw: Any) -> BaseException:
    with pytest.raises(BytewaxRuntimeError) as raised:
        run_main(flow, **kw)
    error: BaseException = raised.value
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def seconds_of(answer: pa.RecordBatch) -> tuple[int, int]:
    start, end = answer["window_start"][0].as_py(), answer["window_end"][0].as_py()
    return (start - START) // SECOND, (end - START) // SECOND


ROWS = [(0, "ann", 1.0), (1, "bob", 2.0), (3, "ann", 3.0), (12, "eve", 4.0), (2, "bob", 5.0)]
ONE_BY_ONE = [("k", batch(row)) for row in ROWS]


def test_a_running_value_after_every_change() -> None:
    told, late = run(distinct, ONE_BY_ONE, "user")
    assert [round(a["estimate"][0].as_py()) for _, a in told] == [1, 2, 2, 3, 3]
    assert {key for key, _ in told} == {"k"}
    assert all(a["window_start"].null_count == 1 for _, a in told)
    assert late == []


def test_once_at_the_end_for_each_key() -> None:
    items = [(key, batch(*rows)) for key, rows in [("a", ROWS[:2]), ("b", ROWS), ("a", ROWS[2:3])]]
    told, _ = run(distinct, items, "user", emit="eof")
    assert {key: round(a["estimate"][0].as_py()) for key, a in told} == {"a": 2, "b": 3}


def test_many_distinct_values_are_within_the_bounds() -> None:
    users = pa.record_batch({"user": [f"u{i % 50_000}" for i in range(60_000)]})
    [(_, answer)], _ = run(distinct, [("k", users)], "user", confidence=0.999)
    assert answer.schema == DISTINCT
    assert answer["lower_bound"][0].as_py() <= 50_000 <= answer["upper_bound"][0].as_py()
    assert answer["lower_bound"][0].as_py() < answer["upper_bound"][0].as_py()


def test_quantiles_bracket_the_true_ones() -> None:
    values = np.random.default_rng(1).lognormal(size=100_000)
    at = (0.01, 0.5, 0.99)
    rows = pa.record_batch({"ms": values})
    [(_, answer)], _ = run(quantiles, [("k", rows)], "ms", at=at, confidence=0.999)
    assert answer.schema == QUANTILES
    assert answer["quantile"].to_pylist() == list(at)
    assert answer["count"].to_pylist() == [100_000] * 3
    true = np.quantile(values, at)
    assert (answer["lower_bound"].to_numpy() <= true).all()
    assert (answer["upper_bound"].to_numpy() >= true).all()


def test_heavy_hitters_bracket_the_true_counts() -> None:
    values = np.random.default_rng(2).zipf(1.3, 20_000).clip(max=5_000)
    rows = pa.record_batch({"x": values})
    [(_, answer)], _ = run(heavy_hitters, [("k", rows)], "x", top=5, capacity=64)
    assert answer.schema == HEAVY_HITTERS
    true = collections.Counter(map(str, values.tolist()))
    assert answer["value"].to_pylist()[:2] == [value for value, _ in true.most_common(2)]
    assert answer["total"].to_pylist() == [20_000] * 5
    for row in answer.to_pylist():
        assert row["lower_bound"] <= true[row["value"]] <= row["upper_bound"]


def test_heavy_hitters_in_a_type_of_ones_own() -> None:
    rows = pa.record_batch({"x": [7, 7, 8]})
    [(_, answer)], _ = run(heavy_hitters, [("k", rows)], "x", value_type=pa.int64())
    assert answer["value"].to_pylist() == [7, 8]
    assert answer.schema.field("value").type == pa.int64()


def test_a_sample_is_of_whole_rows_with_their_chance() -> None:
    rows = pa.record_batch({"x": range(1000), "y": [2 * i for i in range(1000)]})
    [(_, answer)], _ = run(sample, [("k", rows)], ["x", "y"], size=10)
    assert answer.schema.names == [*SAMPLE.names, "x", "y"]
    assert answer["seen"].to_pylist() == [1000] * 10
    assert answer["inclusion"].to_pylist() == [0.01] * 10
    assert len(set(answer["x"].to_pylist())) == 10
    assert answer["y"].to_pylist() == [2 * x for x in answer["x"].to_pylist()]


def test_a_weighted_sample_leaves_out_what_weighs_nothing() -> None:
    rows = pa.record_batch({"x": range(100), "w": [float(i % 2) for i in range(100)]})
    [(_, answer)], _ = run(sample, [("k", rows)], ["x"], size=20, weight="w")
    assert answer.num_rows == 20
    assert all(x % 2 for x in answer["x"].to_pylist())


def test_streams_make_a_sample_repeatable() -> None:
    rows = pa.record_batch({"x": range(1000)})

    def once() -> pa.RecordBatch:
        streams = itertools.count().__next__
        [(_, answer)], _ = run(sample, [("k", rows)], ["x"], size=10, streams=streams)
        return answer

    assert once() == once()


def test_tumbling_windows_and_their_late_rows() -> None:
    told, late = run(distinct, ONE_BY_ONE, "user", window=Tumbling(length=10 * SECOND))
    found = [(seconds_of(a), round(a["estimate"][0].as_py())) for _, a in told]
    assert found == [((0, 10), 2), ((10, 20), 1)]
    assert all(a.schema == DISTINCT for _, a in told)
    assert [b["ms"].to_pylist() for _, b in late] == [[5.0]]


def test_lateness_lets_a_row_in() -> None:
    window = Tumbling(length=10 * SECOND, lateness=5 * SECOND)
    told, late = run(quantiles, ONE_BY_ONE, "ms", at=[1.0], window=window)
    assert [a["estimate"].to_pylist() for _, a in told] == [[5.0], [4.0]]
    assert late == []


@pytest.mark.parametrize("operator", [distinct, quantiles, heavy_hitters, sample])
def test_sliding_windows_of_each_question(operator: Any) -> None:
    column = {distinct: "user", quantiles: "ms", heavy_hitters: "user", sample: ["user"]}[operator]
    window = Sliding(length=4 * SECOND, every=2 * SECOND, lateness=20 * SECOND)
    told, _ = run(operator, ONE_BY_ONE, column, window=window)
    spans = [seconds_of(a) for _, a in told]
    assert spans == [(-2, 2), (0, 4), (2, 6), (10, 14), (12, 16)]


def test_sliding_samples_hold_all_rows_of_small_windows() -> None:
    window = Sliding(length=4 * SECOND, every=2 * SECOND, lateness=20 * SECOND)
    told, _ = run(sample, ONE_BY_ONE, ["ms"], window=window)
    assert [sorted(a["ms"].to_pylist()) for _, a in told] == [
        [1.0, 2.0],
        [1.0, 2.0, 3.0, 5.0],
        [3.0, 5.0],
        [4.0],
        [4.0],
    ]


def test_sessions_say_whose_they_are() -> None:
    window = Sessions(by="user", gap=5 * SECOND, lateness=20 * SECOND)
    told, _ = run(heavy_hitters, ONE_BY_ONE, "user", window=window)
    found = [(a["session"][0].as_py(), a["total"][0].as_py()) for _, a in told]
    assert found == [(["bob"], 2), (["ann"], 2), (["eve"], 1)]


def test_nulls_count_as_nothing() -> None:
    rows = batch((0, None, None), (1, "ann", None), (2, None, 7.0))
    assert round(run(distinct, [("k", rows)], "user")[0][0][1]["estimate"][0].as_py()) == 1
    assert run(quantiles, [("k", rows)], "ms", at=[0.5])[0][0][1]["estimate"].to_pylist() == [7.0]
    assert run(heavy_hitters, [("k", rows)], "user")[0][0][1]["value"].to_pylist() == ["ann"]


def test_where_all_is_null_quantiles_are_null() -> None:
    told, _ = run(quantiles, [("k", batch((0, None, None)))], "ms", at=[0.5])
    [(_, answer)] = told
    assert answer.schema == QUANTILES
    assert answer.select(["estimate", "lower_bound", "upper_bound", "count"]).to_pylist() == [
        {"estimate": None, "lower_bound": None, "upper_bound": None, "count": 0}
    ]


def test_where_all_is_null_nothing_is_frequent() -> None:
    [(_, answer)], _ = run(heavy_hitters, [("k", batch((0, None, None)))], "user")
    assert answer.num_rows == 0
    assert answer.schema == HEAVY_HITTERS


def test_an_empty_batch_has_the_answer_of_no_values() -> None:
    [(_, answer)], _ = run(distinct, [("k", batch())], "user")
    assert answer.select(["estimate", "upper_bound"]).to_pylist() == [
        {"estimate": 0.0, "upper_bound": 0.0}
    ]


def test_an_empty_batch_makes_no_window() -> None:
    assert run(distinct, [("k", batch())], "user", window=Tumbling(length=SECOND)) == ([], [])


@pytest.mark.parametrize("window", [None, Tumbling(length=SECOND)])
def test_no_input_has_no_answers(window: Any) -> None:
    assert run(distinct, [], "user", window=window) == ([], [])


def test_two_workers_answer_for_every_key() -> None:
    items = [(str(i), batch(*ROWS[: 1 + i % 4])) for i in range(16)]
    flow, told, _ = build(distinct, items, "user", emit="eof")
    cluster_main(flow, [], 0, worker_count_per_proc=2)
    counts = {key: round(a["estimate"][0].as_py()) for key, a in told}
    assert counts == {str(i): [1, 2, 2, 3][i % 4] for i in range(16)}


def test_two_workers_answer_for_every_window() -> None:
    items = [(str(i % 8), b) for i in range(8) for _, b in ONE_BY_ONE]
    flow, told, late = build(distinct, items, "user", window=Tumbling(length=10 * SECOND))
    cluster_main(flow, [], 0, worker_count_per_proc=2)
    found = sorted((key, seconds_of(a), round(a["estimate"][0].as_py())) for key, a in told)
    assert found == [(str(i), *w) for i in range(8) for w in [((0, 10), 2), ((10, 20), 1)]]
    assert sorted(key for key, _ in late) == [str(i) for i in range(8)]


QUESTIONS = [Distinct("x"), Quantiles("x"), Heaviest("x"), Sample(["x"])]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
def test_a_tree_answers_as_one_place_would(question: Any) -> None:
    items = [(str(i % 9), pa.record_batch({"x": [i, i // 2]})) for i in range(90)]
    flow = Dataflow("flow")
    out: Out = []
    states = fold("fold", op.input("in", flow, TestingSource(items)), question.create)
    whole = tree_merge("tree", states, question.create, leaves=9, fan_in=3, emit="eof")
    op.output("out", answers("answers", whole, question), TestingSink(out))
    cluster_main(flow, [], 0, worker_count_per_proc=2)
    [(key, answer)] = out
    state = question.create()
    for _, rows in items:
        state.update(rows)
    assert key == "root"
    # All is small enough to be exact but the order of a sample.
    expected = question.answer(state)
    told = answer.select(expected.schema.names)
    if isinstance(question, Sample):
        told, expected = told.sort_by("x"), expected.sort_by("x")
    assert told.to_pylist() == expected.to_pylist()


def test_a_state_of_another_question_is_an_error() -> None:
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource([("k", Distinct("y").create().to_bytes())]))
    op.output("out", answers("answers", up, Distinct("x")), TestingSink([]))
    assert isinstance(failure(flow), ValueError)


def test_bytes_that_are_no_state_are_an_error() -> None:
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource([("k", b"junk")]))
    op.output("out", answers("answers", up, Distinct("x")), TestingSink([]))
    assert isinstance(failure(flow), ValueError)


def test_a_missing_column_is_an_error() -> None:
    flow, _, _ = build(distinct, ONE_BY_ONE, "nobody")
    error = failure(flow)
    assert isinstance(error, KeyError)
    assert "nobody" in str(error)


@pytest.mark.parametrize(
    ("operator", "column", "parameters"),
    [
        (distinct, "user", {"confidence": 1.0}),
        (distinct, "user", {"lg_k": 99}),
        (quantiles, "ms", {"at": [1.5]}),
        (quantiles, "ms", {"at": []}),
        (quantiles, "ms", {"k": 1}),
        (heavy_hitters, "user", {"top": 0}),
        (heavy_hitters, "user", {"top": 11, "capacity": 10}),
        (sample, ["ms"], {"size": 0}),
        (sample, [], {}),
        (sample, ["seen"], {}),
        (sample, ["ms", "ms"], {}),
        (sample, ["ms"], {"weight": "inclusion"}),
        (distinct, "user", {"window": Tumbling(length=SECOND), "emit": "eof"}),
        (distinct, "user", {"window": Tumbling(length=timedelta(0))}),
    ],
)
def test_bad_parameters_are_refused_at_once(operator: Any, column: Any, parameters: Any) -> None:
    with pytest.raises(ValueError):
        build(operator, [], column, **parameters)


def test_a_text_is_no_list_of_columns() -> None:
    with pytest.raises(TypeError, match="'ms'"):
        build(sample, [], "ms")


def test_ranks_may_be_an_array() -> None:
    state = Quantiles("ms").create()
    state.update(pa.record_batch({"ms": [1.0, 2.0, 3.0]}))
    ranks: Any = np.array([0.0, 0.5])
    assert Quantiles("ms", ranks).answer(state)["estimate"].to_pylist() == [1.0, 2.0]


WINDOWS = [
    None,
    Tumbling(length=100 * SECOND),
    Sliding(length=100 * SECOND, every=50 * SECOND),
    Sessions(by="user", gap=100 * SECOND),
]


@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: type(w).__name__)
def test_a_snapshot_of_another_question_is_an_error(window: Any, tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path, backup_interval=timedelta(0))
    items: list[Any] = [("k", batch((t, "ann", float(t)))) for t in range(6)]
    items.insert(3, TestingSource.ABORT())
    flow, _, _ = build(distinct, items, "user", window=window)
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    flow, _, _ = build(distinct, items, "ms", window=window)
    error = failure(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    assert isinstance(error, ValueError)
    assert "do not merge" in str(error)


def test_samples_of_one_stream_are_not_merged() -> None:
    window = Sliding(length=4 * SECOND, every=2 * SECOND)
    flow, _, _ = build(sample, ONE_BY_ONE, ["ms"], window=window, streams=lambda: 7)
    error = failure(flow)
    assert isinstance(error, ValueError)
    assert "random stream 7" in str(error)


@pytest.mark.parametrize("window", [None, Sliding(length=4 * SECOND, every=2 * SECOND)])
def test_a_sample_goes_on_after_a_break(window: Any, tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path, backup_interval=timedelta(0))
    items: list[Any] = [("k", batch((t, "ann", float(t)))) for t in range(12)]
    items.insert(7, TestingSource.ABORT())
    flow, told, _ = build(sample, items, ["ms"], size=100, window=window)
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    rows = range(12) if window is None else range(10, 12)
    assert sorted(told[-1][1]["ms"].to_pylist()) == list(rows)
