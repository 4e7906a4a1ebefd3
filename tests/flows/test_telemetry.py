"""The tree in one flow, and the same tree as leaves, regions and a root that pass parts on."""

from dataclasses import replace
from datetime import timedelta

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from bytewax.visualize import to_mermaid

from connectors.events import Workload
from flows.telemetry import TelemetryParameters, inner, leaf, root, telemetry
from flows.telemetry_parts import Part
from flows.telemetry_state import Telemetry

HOSTS = {f"host-{i}": i for i in range(9)}
WORKLOAD = Workload(agents=3000, hosts=9)
P = TelemetryParameters(
    nodes=HOSTS,
    of=9,
    fan_in=3,
    window=timedelta(minutes=20),
    every=timedelta(days=1),
    seed=0,
)


def rows() -> list[tuple[str, pa.RecordBatch]]:
    return [
        (name, WORKLOAD.host(i).slice(at, 50))
        for at in range(0, 334, 50)
        for name, i in HOSTS.items()
    ]


def run(items: list, connect) -> list:
    flow, out = Dataflow("telemetry"), []
    op.output("out", connect(op.input("in", flow, TestingSource(items))), TestingSink(out))
    run_main(flow)
    return out


@pytest.fixture(scope="module")
def alone() -> Part:
    *before, part = run(rows(), lambda up: telemetry(up, P))
    assert not any(one.last for one in before)
    return part


def test_the_whole_is_told_when_the_input_has_ended(alone: Part) -> None:
    assert (alone.window, alone.events, alone.last) == (None, 3000, True)
    state = Telemetry.from_bytes(alone.state)
    assert len(state.windows) == 3
    answers = state.answers().to_pylist()
    assert answers[0]["estimate"] == 3000


def test_a_tree_of_processes_knows_the_same(alone: Part) -> None:
    told = {
        name: [
            part
            for _, part in run([item for item in rows() if item[0] == name], lambda up: leaf(up, P))
        ]
        for name in HOSTS
    }
    regions = [list(HOSTS)[i : i + 3] for i in range(0, 9, 3)]
    above = []
    for number, names in enumerate(regions):
        # Regions hear from their children in any order, and twice.
        parts = [("children", part) for name in reversed(names) for part in 2 * told[name]]
        above += run(parts, lambda up, number=number: inner(up, f"region-{number}", P))
    (whole,) = run([("children", part) for _, part in above[::-1]], lambda up: root(up, "root", P))
    assert whole == alone


def test_interim_answers_come_before_the_end() -> None:
    often = replace(P, every=timedelta(microseconds=1))
    parts = run(rows(), lambda up: telemetry(up, often))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 1
    counts = [part.events for part in parts]
    assert counts == sorted(counts)
    assert counts[-1] == 3000


def test_no_events_are_no_answer() -> None:
    assert run([], lambda up: telemetry(up, P)) == []


def test_the_levels_are_drawn() -> None:
    flow = Dataflow("telemetry")
    stream = telemetry(op.input("in", flow, TestingSource([])), P)
    op.output("out", stream, TestingSink([]))
    drawn = to_mermaid(flow)
    assert "tree (tree_merge)" in drawn
