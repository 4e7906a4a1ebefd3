"""Nodes of `jobs.gossip --maelstrom` under the in-repo runner: lost messages and partitions."""

import sys
from pathlib import Path

import pytest

from connectors.testing.maelstrom import WORKLOADS, Plan, run
from jobs.gossip_maelstrom import Service

NODE = [sys.executable, "-m", "jobs.gossip", "--maelstrom"]


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 6))]
)
def test_workload(workload: str, seed: int, tmp_path: Path) -> None:
    plan = Plan(
        nodes=5, rate=40, seconds=3, partitions=True, latency=0.01, loss=0.1, settle=20, seed=seed
    )
    verdict = run(WORKLOADS[workload], NODE, plan, tmp_path)
    assert verdict.valid, f"seed {seed}: {verdict.problems}"
    assert verdict.counts["acknowledged"] > 20


def test_requests_that_are_none_are_answered() -> None:
    service = Service("n0#1")
    for body, code in [
        ({"type": "fly", "msg_id": 1}, 10),
        ({"type": "read", "msg_id": 2}, 11),
        ({"type": "add", "msg_id": 3}, 12),
        ({"type": "add", "msg_id": 4, "element": "x"}, 12),
        ({"type": "add", "msg_id": 5, "delta": 1.5}, 12),
    ]:
        assert service.edit({"src": "c1", "body": body}, 0) is None
        ((to, answer),) = service.changes()
        assert (to, answer["type"], answer["code"]) == ("c1", "error", code)
        assert answer["in_reply_to"] == body["msg_id"]
    service.edit({"src": "c1", "body": {"type": "topology", "msg_id": 6, "topology": {}}}, 0)
    service.edit({"src": "c1", "body": {"type": "read", "msg_id": 7}}, 0)
    assert [answer for _, answer in service.changes()] == [
        {"type": "topology_ok", "in_reply_to": 6},
        {"type": "read_ok", "in_reply_to": 7, "messages": [], "value": []},
    ]
