"""`hypothesize`: links that hold over windows become one hypothesis each."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from operators.causal import GRANGER, PCMCI, WindowGraph
from operators.hypotheses import hypothesize
from state.schemas import EDGES, HYPOTHESES

START = datetime(2008, 7, 1, tzinfo=UTC)
MONTH = timedelta(days=31)


def edge(method: str, cause: str, effect: str, lag: int | None, q: float) -> dict:
    return {
        "rows": 100,
        "method": method,
        "cause": cause,
        "effect": effect,
        "lag": lag,
        "statistic": 0.3,
        "weight": 1.0 - q,
        "p": q / 2,
        "q": q,
        "significant": q <= 0.05,
    }


def graph(index: int, edges: list[dict], alerts: tuple = ()) -> WindowGraph:
    start = START + index * MONTH
    where = {"window": index, "start": start, "end": start + 2 * MONTH}
    batch = pa.RecordBatch.from_pylist([where | e for e in edges], schema=EDGES)
    return WindowGraph(index, start, start + 2 * MONTH, batch, alerts)


def run(graphs: list) -> list[dict]:
    flow, out = Dataflow("flow"), []
    up = op.key_on("key", op.input("in", flow, TestingSource(graphs)), lambda _: "market")
    op.output("out", hypothesize("track", up), TestingSink(out))
    run_main(flow)
    assert all(batch.schema == HYPOTHESES for _, batch in out)
    return [row for _, batch in out for row in batch.to_pylist()]


WTI = ("WTI", "NASDAQ")


def test_a_link_over_consecutive_windows_is_one_hypothesis() -> None:
    found = [edge(PCMCI, *WTI, 2, q) for q in (0.04, 0.01, 0.03)]
    (row,) = run([graph(i, [e, edge(GRANGER, *WTI, None, 0.2)]) for i, e in enumerate(found)])
    assert (row["cause"], row["effect"], row["lag"], row["windows"]) == (*WTI, 2, 3)
    assert (row["start"], row["end"]) == (START, START + 4 * MONTH)
    assert (row["q"], row["weight"]) == (0.01, 0.99)
    assert row["confidence"] == (3 + 0 + 1) / (6 + 2)
    assert row["text"] == "WTI led NASDAQ at lag 2, q = 0.01, 2008-07..2008-11"


def test_granger_confirms() -> None:
    both = [edge(PCMCI, *WTI, 1, 0.01), edge(GRANGER, *WTI, None, 0.01)]
    (row,) = run([graph(0, both)])
    assert row["confidence"] == 3 / 4


def test_one_missing_window_is_bridged_and_two_are_not() -> None:
    here, none = [edge(PCMCI, *WTI, 1, 0.01)], []
    (row,) = run([graph(0, here), graph(1, none), graph(2, here)])
    assert row["windows"] == 3
    assert row["confidence"] == (2 + 0 + 1) / (6 + 2)
    first, second = run([graph(0, here), graph(1, none), graph(2, none), graph(3, here)])
    assert first["windows"] == second["windows"] == 1


def test_lags_and_directions_are_told_apart_and_the_insignificant_is_not_followed() -> None:
    rows = run(
        [
            graph(
                0,
                [
                    edge(PCMCI, "a", "b", 1, 0.01),
                    edge(PCMCI, "a", "b", 2, 0.01),
                    edge(PCMCI, "b", "a", 1, 0.01),
                    edge(PCMCI, "c", "a", 1, 0.06),
                ],
            )
        ]
    )
    assert [(r["cause"], r["effect"], r["lag"]) for r in rows] == [
        ("a", "b", 1),
        ("a", "b", 2),
        ("b", "a", 1),
    ]


def test_crash_alerts_on_the_effect_are_counted_once() -> None:
    crash = (int(START.timestamp() * 1e6), "NASDAQ")
    other = (int(START.timestamp() * 1e6), "WTI")
    here = [edge(PCMCI, *WTI, 1, 0.01)]
    (row,) = run([graph(0, here, (crash, other)), graph(1, here, (crash,))])
    assert row["crashes"] == 1
    assert row["text"].endswith("through 1 crash alert on NASDAQ")


def test_open_hypotheses_survive_a_crash(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    here = [edge(PCMCI, *WTI, 1, 0.01)]
    graphs = [graph(i, here if i < 5 else []) for i in range(8)]
    expected = run(graphs)
    flow, out = Dataflow("flow"), []
    source = TestingSource([*graphs[:3], TestingSource.ABORT(), *graphs[3:]])
    up = op.key_on("key", op.input("in", flow, source), lambda _: "market")
    op.output("out", hypothesize("track", up), TestingSink(out))
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(tmp_path)))
    assert [row for _, batch in out for row in batch.to_pylist()] == expected
