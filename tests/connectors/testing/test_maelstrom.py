"""The runner and its checkers, on nodes that are right and on nodes that are wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.testing.maelstrom import WORKLOADS, Operation, Plan, run

# Floods what is new to all others, again and again until they have it; its faults are switched on
# by its argument.
NODE = """
import json, sys, threading, time
fault = sys.argv[1] if len(sys.argv) > 1 else ""
lock, me, others, items, acked = threading.Lock(), None, [], {}, {}
def send(dest, **body):
    with lock:
        print(json.dumps({"src": me, "dest": dest, "body": body}), flush=True)
def repeat():
    while True:
        time.sleep(0.05)
        for other in others:
            lack = {k: v for k, v in list(items.items()) if k not in acked[other]}
            if lack:
                send(other, type="share", items=lack)
for line in sys.stdin:
    message = json.loads(line)
    body, source = message["body"], message["src"]
    kind = body["type"]
    reply = {"type": kind + "_ok", "in_reply_to": body.get("msg_id")}
    if kind == "init":
        me = body["node_id"]
        others = [node for node in body["node_ids"] if node != me]
        acked = {node: set() for node in others}
        if fault != "mute":
            threading.Thread(target=repeat, daemon=True).start()
    elif kind in ("add", "broadcast"):
        value = next(body[key] for key in ("element", "delta", "message") if key in body)
        items[f"{me}-{body['msg_id']}"] = value
        if fault == "forget" and len(items) % 3 == 0:
            items.popitem()
        if fault == "invent":
            items["x"] = 10**6
    elif kind == "share":
        items.update(body["items"])
        send(source, type="shared", keys=list(body["items"]))
        continue
    elif kind == "shared":
        acked[source].update(body["keys"])
        continue
    elif kind == "read":
        values = list(items.values())
        reply |= {"messages": values, "value": values if WORKLOAD else sum(values)}
        if fault == "twice" and WORKLOAD:
            reply |= {"messages": values * 2, "value": values * 2}
    if fault == "die" and kind == "read":
        sys.exit("no more")
    if fault == "babble" and kind == "read":
        print("hello", flush=True)
    send(source, **reply)
"""


def node(tmp_path: Path, workload: str, fault: str = "") -> list[str]:
    sets = workload in ("broadcast", "g-set")
    path = tmp_path / "node.py"
    path.write_text(NODE.replace("WORKLOAD", str(sets)))
    return [sys.executable, str(path), fault]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_right_node_passes(workload: str, tmp_path: Path) -> None:
    plan = Plan(nodes=4, rate=60, seconds=1.5, partitions=True, latency=0.005, loss=0.2, seed=3)
    verdict = run(WORKLOADS[workload], node(tmp_path, workload), plan, tmp_path / "logs")
    assert verdict.valid, verdict.problems
    assert verdict.counts["acknowledged"] > 10
    assert verdict.counts["messages_per_operation"] > 0


@pytest.mark.parametrize(
    ("workload", "fault", "problem"),
    [
        ("broadcast", "forget", "lacks"),
        ("g-set", "forget", "lacks"),
        ("g-set", "invent", "nobody wrote"),
        ("g-set", "twice", "twice"),
        ("pn-counter", "forget", "ends at"),
        ("g-counter", "invent", "ends at"),
        ("broadcast", "die", "ended with status 1: no more"),
        ("broadcast", "babble", "no message: b'hello"),
    ],
)
def test_a_wrong_node_fails(workload: str, fault: str, problem: str, tmp_path: Path) -> None:
    plan = Plan(nodes=2, rate=60, seconds=1, settle=0.5)
    command = node(tmp_path, workload, fault)
    verdict = run(WORKLOADS[workload], command, plan, tmp_path / "logs")
    assert not verdict.valid
    assert any(problem in said for said in verdict.problems), verdict.problems


def test_a_node_that_does_not_share_fails(tmp_path: Path) -> None:
    plan = Plan(nodes=2, rate=60, seconds=1, settle=0.5)
    command = node(tmp_path, "g-set", "mute")
    verdict = run(WORKLOADS["g-set"], command, plan, tmp_path / "logs")
    assert any("differ from node to node" in said for said in verdict.problems)


def read(node: str, value: object, at: float, *, final: bool = False) -> Operation:
    return Operation(node, "read", value, at, at, final=final)


def test_what_was_shown_is_not_taken_back() -> None:
    history = [
        Operation("n0", "add", 1, 0, 0.1),
        read("n0", [1], 1),
        read("n0", [], 2),
        read("n0", [1], 3, final=True),
    ]
    verdict = WORKLOADS["g-set"].check(history, ["n0"])
    assert verdict.problems == ["n0 showed 1 and later not"]
    history = [
        Operation("n0", "add", 2, 0, 0.1),
        read("n0", 2, 1),
        read("n0", 0, 2),
        read("n0", 2, 3, final=True),
    ]
    assert WORKLOADS["g-counter"].check(history, ["n0"]).problems == ["n0 fell from 2 to 0"]
    assert WORKLOADS["pn-counter"].check(history, ["n0"]).valid


def test_unanswered_writes_may_have_happened() -> None:
    lost = Operation("n0", "add", 4, 0)
    refused = Operation("n0", "add", 1, 0, failed=True)
    counter, elements = WORKLOADS["pn-counter"], WORKLOADS["g-set"]
    for value, valid in ((4, True), (0, True), (1, False), (5, False)):
        history = [lost, refused, read("n0", value, 1, final=True)]
        assert counter.check(history, ["n0"]).valid is valid
    for found, valid in (([4], True), ([], True), ([1], False)):
        history = [lost, refused, read("n0", found, 1, final=True)]
        assert elements.check(history, ["n0"]).valid is valid
    assert not elements.check([lost], ["n0"]).valid, "the last read is missing"


def test_the_topology_is_a_grid() -> None:
    told = WORKLOADS["broadcast"].prepare([f"n{i}" for i in range(5)])
    assert told is not None
    assert told["topology"] == {
        "n0": ["n1", "n2"],
        "n1": ["n0", "n3"],
        "n2": ["n0", "n3", "n4"],
        "n3": ["n1", "n2"],
        "n4": ["n2"],
    }


def test_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "connectors.testing.maelstrom", "-w", "g-set"]
    options = ["--node-count", "2", "--time-limit", "0.5", "--logs", str(tmp_path / "logs"), "--"]
    for fault, status in (("", 0), ("die", 1)):
        done = subprocess.run(
            [*command, *options, *node(tmp_path, "g-set", fault)], capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        assert json.loads(done.stdout)["valid"] is (status == 0)
    assert "no more" in done.stderr
