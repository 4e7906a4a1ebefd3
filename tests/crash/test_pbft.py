"""SIGKILL replicas of a group at random moments: all is answered once, and the logs agree."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FLOW = [sys.executable, "-m", "bytewax.run", "jobs.replica"]
REQUESTS = 120
KILLS = 5


def killed(out: Path, name: str) -> bool:
    """Kill a replica if it runs."""
    try:
        os.kill(int((out / f"{name}.pid").read_text()), signal.SIGKILL)
    except (OSError, ValueError):
        return False
    return True


def final(out: Path) -> int:
    """Return the last batch of the replica that is farthest."""
    sizes = [0]
    for path in out.glob("*/standing.json"):
        sizes.append(json.loads(path.read_bytes())["final"])
    return max(sizes)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 20))]
)
def test_a_group_whose_replicas_are_killed(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    out = tmp_path / "out"
    plain = {k: v for k, v in os.environ.items() if not k.startswith("REPLICA_")}
    settings = {
        "REPLICA_OUT": str(out),
        "REPLICA_REQUESTS": str(REQUESTS),
        "REPLICA_RATE": "0",
        "REPLICA_PATIENCE": "100s",
        "REPLICA_MACHINE": chance.choice(["store", "locks"]),
        "REPLICA_TIMEOUT": "500ms",
    }
    kills = 0
    with (tmp_path / "log").open("wb") as log:
        group = subprocess.Popen(FLOW, env=plain | settings, stdout=log, stderr=log)
    try:
        at = 3
        while group.poll() is None:
            # One at a time, at a moment of its own; which may be the leader, or one that is behind.
            if kills < KILLS and final(out) >= at and killed(out, f"r{chance.randint(1, 4)}"):
                kills += 1
                at = final(out) + chance.randint(1, 12)
                time.sleep(chance.random() / 2)
            time.sleep(0.01)
    finally:
        group.kill()
    said = (tmp_path / "log").read_text()
    assert group.returncode == 0, f"seed {seed}: {said}"
    record = json.loads((out / "run.json").read_text())
    assert record["answers"] == REQUESTS
    assert record["restarts"] == kills
    assert record["evidence"] == {}, f"seed {seed}: a replica that was killed said two things"
    logs = [batches(out, f"r{n}") for n in range(1, 5)]
    everything: dict[int, Any] = {}
    for log in logs:
        for batch in log:
            assert everything.setdefault(batch["seq"], batch) == batch, f"seed {seed}"
    executed = [
        (request["client"], request["number"])
        for batch in everything.values()
        for request in batch["requests"]
        if request["results"] is not None
    ]
    assert len(executed) == len({*executed})
    assert len(executed) >= REQUESTS


def batches(out: Path, name: str) -> list[dict[str, Any]]:
    """Return a replica's batches; they may be final in one view here and in a later one there."""
    lines = (out / name / "committed.ndjson").read_text().splitlines()
    return [{**json.loads(line), "view": None} for line in lines]
