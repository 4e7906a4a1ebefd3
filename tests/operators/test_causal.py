"""`causal_graph`: the tests of `state.causal`, window by window, with names and reasons."""

from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main

from operators.causal import GRANGER, PCMCI, WindowGraph, causal_graph, graph_of
from operators.window import Window
from state.causal import benjamini_hochberg, granger, granger_robust, pcmci
from state.moments import LaggedMoments
from state.panel import Panel
from state.schemas import EDGES, SCORED

START = datetime(2020, 1, 1, tzinfo=UTC)
NAMES = ["a", "b", "c"]


def panel(x: np.ndarray, *, lags: int = 2, keep_rows: bool = True, first_day: int = 0) -> Panel:
    rows = [
        {
            "time": START + timedelta(days=first_day + t),
            "series": NAMES[n],
            "price": 1.0,
            "log_return": float(x[t, n]),
            "drawdown": 0.0,
            "score": 0.0,
            "alert": t == 3 and n == 0,
        }
        for t in range(len(x))
        for n in range(x.shape[1])
    ]
    made = Panel(2 * lags, keep_rows=keep_rows)
    made.update(pa.RecordBatch.from_pylist(rows, schema=SCORED))
    return made


def linked(rows: int = 300, seed: int = 5) -> np.ndarray:
    """Return noise in which a drives b one step later."""
    x = np.random.default_rng(seed).standard_normal((rows, 3))
    x[1:, 1] += 0.6 * x[:-1, 0]
    return x


def edges(graph: WindowGraph, method: str) -> dict[tuple, dict]:
    return {
        (e["cause"], e["effect"], e["lag"]): e
        for e in graph.edges.to_pylist()
        if e["method"] == method
    }


def partial_r_squared(x: np.ndarray, lags: int) -> np.ndarray:
    """Return 1 - RSS(all series) / RSS(all but the cause), [cause, effect], by least squares."""
    rows, n = len(x) - lags, x.shape[1]
    past = np.stack([x[lags - k : lags - k + rows] for k in range(1, lags + 1)], axis=2)
    residual = np.empty((n + 1, n))
    for left_out in range(n + 1):
        kept = [i for i in range(n) if i != left_out]
        design = np.column_stack([np.ones(rows), past[:, kept].reshape(rows, -1)])
        fit, *_ = np.linalg.lstsq(design, x[lags:], rcond=None)
        residual[left_out] = ((x[lags:] - design @ fit) ** 2).sum(axis=0)
    return 1 - residual[n] / residual[:n]


@pytest.mark.parametrize("keep_rows", [True, False])
def test_equals_the_tests_it_runs(keep_rows: bool) -> None:
    x = linked()
    graph = graph_of(panel(x, keep_rows=keep_rows), index=7, lags=2, level=0.05)
    assert graph.edges.schema == EDGES
    moments = LaggedMoments.from_rows(x, 4)
    f = granger_robust(x, 2) if keep_rows else granger(moments, 2, conditional=True)
    q = benjamini_hochberg(f.p)
    share = partial_r_squared(x, lags=2)
    for (cause, effect, _), edge in edges(graph, GRANGER).items():
        at = NAMES.index(cause), NAMES.index(effect)
        assert edge["statistic"] == pytest.approx(f.f[at], rel=1e-9)
        assert edge["q"] == pytest.approx(q[at], rel=1e-7)
        assert edge["weight"] == pytest.approx(share[at], rel=1e-9)
    mci = pcmci(moments, 2, family="cross")
    for (cause, effect, lag), edge in edges(graph, PCMCI).items():
        at = NAMES.index(cause), NAMES.index(effect), lag
        assert edge["weight"] == pytest.approx(mci.value[at], rel=1e-9)
        assert edge["q"] == pytest.approx(mci.q[at], rel=1e-7)
    assert len(edges(graph, GRANGER)) == 6
    assert len(edges(graph, PCMCI)) == 12


def test_finds_the_link_and_says_where_and_when() -> None:
    graph = graph_of(panel(linked()), index=7, lags=2, level=0.01)
    significant = [e for e in graph.edges.to_pylist() if e["significant"]]
    assert [(e["method"], e["cause"], e["effect"], e["lag"]) for e in significant] == [
        (GRANGER, "a", "b", None),
        (PCMCI, "a", "b", 1),
    ]
    assert (graph.start, graph.end) == (START, START + timedelta(days=299))
    assert {e["window"] for e in significant} == {7}
    assert graph.alerts == ((int((START + timedelta(days=3)).timestamp() * 1e6), "a"),)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_a_constant_series_gives_nulls_with_the_reason(keep_rows: bool) -> None:
    x = linked()
    x[:, 2] = 0.0
    graph = graph_of(panel(x, keep_rows=keep_rows), index=0, lags=2, level=0.05)
    for edge in graph.edges.to_pylist():
        touches = "c" in (edge["cause"], edge["effect"])
        assert (edge["p"] is None) == touches
        assert (edge["note"] is not None) == touches
        assert not (touches and edge["significant"])


def test_one_series_or_too_few_rows_give_a_graph_without_edges() -> None:
    assert graph_of(panel(linked()[:, :1]), index=0, lags=2, level=0.05).edges.num_rows == 0
    assert graph_of(panel(linked(14)), index=0, lags=2, level=0.05).edges.num_rows == 0
    assert graph_of(Panel(4), index=0, lags=2, level=0.05).edges.num_rows == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_windows_come_out_in_order_on_any_number_of_workers(workers: int) -> None:
    windows = [
        Window(i, START, START, panel(linked(60, seed=i), first_day=60 * i)) for i in range(12)
    ]
    flow, out = Dataflow("flow"), []
    up = op.key_on("key", op.input("in", flow, TestingSource(windows)), lambda _: "market")
    op.output("out", causal_graph("causal", up, lags=2), TestingSink(out))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    assert [graph.index for _, graph in out] == list(range(12))
    for (_, graph), window in zip(out, windows, strict=True):
        assert graph == graph_of(window.state, index=window.index, lags=2, level=0.05)
