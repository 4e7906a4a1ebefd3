"""A local group as users start it: it answers, its logs agree, and a liar is borne and shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.replica_group import plan
from jobs.replica_settings import ReplicaSettings

FLOW = ["-m", "bytewax.run", "jobs.replica"]


def run(out: Path, *command: str, **settings: object) -> subprocess.CompletedProcess[str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("REPLICA_")}
    given = {f"REPLICA_{name}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, *(command or FLOW)],
        env=plain | given | {"REPLICA_OUT": str(out)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def batches(out: Path, name: str) -> list[dict[str, Any]]:
    """Return a replica's batches; they may be final in one view here and in a later one there."""
    lines = (out / name / "committed.ndjson").read_text().splitlines()
    return [{**json.loads(line), "view": None} for line in lines]


def test_a_group_answers_and_its_logs_are_the_same(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(out, REQUESTS=60, RATE=0, WINDOW=2, BATCH=3)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert (record["answers"], record["restarts"], record["faults"]) == (60, 0, [])
    assert record["evidence"] == {}
    assert "60 requests answered" in done.stdout
    assert "no evidence of misbehaviour" in done.stdout
    logs = sorted((batches(out, f"r{n}") for n in range(1, 5)), key=len)
    # A state is sent only to who is far behind: here each log is a prefix of the longest.
    assert all(log == logs[-1][: len(log)] for log in logs)
    asked = [(r["client"], r["number"]) for b in logs[-1] for r in b["requests"]]
    assert len(asked) == len({*asked}) == 60
    assert sum(len(r["operations"]) for b in logs[-1] for r in b["requests"]) >= 60
    assert not list(out.glob("*.pid"))
    assert {path.name for path in (out / "r1" / "keys").iterdir()} >= {"r1.identity.json"}
    again = run(out)
    assert again.returncode == 2
    assert "has a group already" in again.stderr


def test_locks_with_a_leader_that_equivocates(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("-m", "jobs.replica", "--byzantine", "equivocate")
    done = run(out, *command, REQUESTS=40, RATE=0, MACHINE="locks", VOTES="signature")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert (record["answers"], record["faults"]) == (40, [])
    assert record["settings"]["byzantine"] == "equivocate"
    assert set(record["last"]) == {"r2", "r3", "r4"}, "its own log is not asked"
    assert record["evidence"]
    assert all(text.startswith("evidence: r1 signed two of") for text in record["evidence"])
    granted = [
        result["token"]
        for batch in batches(out, "r2")
        for request in batch["requests"]
        for asked, result in zip(request["operations"], request["results"] or [], strict=False)
        if asked["op"] == "acquire" and result["result"] == "granted"
    ]
    assert granted == sorted({*granted})


@pytest.mark.parametrize("how", ["silent", "forge", "replay", "delay"])
def test_a_leader_that_misbehaves_otherwise(how: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(out, "-m", "jobs.replica", "--byzantine", how, REQUESTS=12, RATE=0)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert (record["answers"], record["faults"]) == (12, [])
    said = [json.loads(line) for line in (out / "r2" / "events.ndjson").read_text().splitlines()]
    replaced = any(event["event"] == "ViewEntered" and event["view"] for event in said)
    refused = any(event["event"] == "Rejected" and event["sender"] == "r1" for event in said)
    assert (how == "silent") <= replaced
    assert (how == "forge") <= refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"REPLICAS": 3}, "replica: REPLICA_REPLICAS=3: 4 bear one liar, 7 two"),
        ({"ROLE": "replica"}, "replica: REPLICA_ROLE=replica needs REPLICA_NAME"),
        (
            {"ROLE": "client", "NAME": "c", "KEYS": "nowhere", "PEERS": "r1@127.0.0.1:1"},
            "nowhere/ca.crt",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path / "out", **settings)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_gives_each_replica_its_own_keys_and_log(tmp_path: Path) -> None:
    nodes, peers = plan(tmp_path, ReplicaSettings(replicas=7, byzantine="delay", fast=True))
    assert [node.name for node in nodes] == [f"r{n}" for n in range(1, 8)]
    for node, peer in zip(nodes, peers, strict=True):
        assert node.settings["REPLICA_PEERS"] == ",".join(peers)
        assert peer == f"{node.name}@{node.settings['REPLICA_LISTEN']}"
        for name in ("KEYS", "LOG", "OUT"):
            assert Path(node.settings[f"REPLICA_{name}"]).is_relative_to(tmp_path / node.name)
        assert node.settings["REPLICA_FAST"] == "True"
    liars = [node.name for node in nodes if "REPLICA_BYZANTINE" in node.settings]
    assert liars == ["r1"]
