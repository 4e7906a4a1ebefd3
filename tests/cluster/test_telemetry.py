"""Thirteen processes under kills, loss, a partition and new certificates: the truth comes out."""

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from connectors.events import Workload
from connectors.quic.certificates import make_authority, make_node
from connectors.testing import UdpRelay
from jobs.processes import Node
from jobs.telemetry_settings import TelemetrySettings
from jobs.telemetry_tree import Supervisor, plan

AGENTS = 60_000
SOON = timedelta(minutes=5, seconds=6)
"""How long the first certificates last; five minutes of that are over when they are made."""


def through_relays(nodes: list[Node], stack: ExitStack, loss: float, seed: int) -> list[UdpRelay]:
    """Put a relay before each node that listens; change `nodes` in place; the root's is first."""
    relays = {}
    for node in nodes:
        if "TELEMETRY_LISTEN" in node.settings:
            host, _, port = node.settings["TELEMETRY_LISTEN"].rpartition(":")
            relay = UdpRelay(
                (host, int(port)), loss=loss, duplicate=loss, reorder=loss, seed=seed + len(relays)
            )
            relays[f"{host}:{port}"] = stack.enter_context(relay)
    for i, node in enumerate(nodes):
        parent = node.settings.get("TELEMETRY_PARENT")
        if parent:
            host, port = relays[parent].address
            nodes[i] = replace(
                node, settings={**node.settings, "TELEMETRY_PARENT": f"{host}:{port}"}
            )
    return list(relays.values())


def kill(directory: Path, name: str) -> None:
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((directory / f"{name}.pid").read_text()), signal.SIGKILL)


def events(
    directory: Path, nodes: list[Node], relays: list[UdpRelay], chance: random.Random, kills: int
) -> Iterator[tuple[float, Callable[[], object]]]:
    """Yield what goes wrong, and how many seconds after the one before."""
    names = [node.name for node in nodes]
    yield 2.0, lambda: [make_node(directory / "keys", name) for name in names]
    for _ in range(kills):
        yield chance.uniform(0.2, 2.5), lambda: kill(directory, chance.choice(names))
    yield 0.1, relays[0].partition
    yield 3.0, relays[0].heal
    for relay in relays:
        yield 0.5, relay.change_addresses


def check(directory: Path, seed: int, kills: int, loss: float) -> None:
    chance = random.Random(seed)
    settings = TelemetrySettings(agents=AGENTS, seed=seed)
    # Events come in as long as it takes until all has gone wrong.
    nodes = plan(directory, settings, seconds=8.0 + 2.5 * kills)
    assert len(nodes) == 13
    keys = directory / "keys"
    keys.mkdir()
    make_authority(keys)
    for node in nodes:  # whoever goes on with these is refused soon
        make_node(keys, node.name, lifetime=SOON)
    with ExitStack() as stack:
        relays = through_relays(nodes, stack, loss, seed)
        supervisor = Supervisor(directory, nodes)
        stack.callback(supervisor.stop)
        supervisor.start()
        wrong = events(directory, nodes, relays, chance, kills)
        wait, do = next(wrong)
        due = time.monotonic() + wait
        while (code := supervisor.poll()) is None:
            if time.monotonic() > due:
                do()
                wait, do = next(wrong, (math.inf, lambda: None))
                due = time.monotonic() + wait
            time.sleep(0.02)
    logs = {node.name: (directory / f"{node.name}.log").read_text()[-2000:] for node in nodes}
    assert code == 0, logs
    assert next(wrong, None) is None, "it ended before all had gone wrong"
    assert supervisor.restarts > 0
    assert sum(relay.counts.lost for relay in relays) > 0
    answer = json.loads((directory / "answer" / "answer.json").read_text())
    assert answer["complete"]
    made = Workload(agents=AGENTS, hosts=9, seed=seed)
    latency = np.concatenate([batch["latency_ms"].to_numpy() for batch in made.batches()])
    values = [Fraction(value) for value in latency.tolist()]
    mean = sum(values, Fraction(0)) / AGENTS
    variance = sum((value * value for value in values), Fraction(0)) / AGENTS - mean**2
    assert answer["events"]["estimate"] == AGENTS
    assert answer["latency_mean"]["estimate"] == float(mean), f"seed {seed}"
    assert answer["latency_deviation"]["estimate"] == math.sqrt(variance), f"seed {seed}"
    assert answer["latency_minimum"]["estimate"] == latency.min()
    assert answer["latency_maximum"]["estimate"] == latency.max()


def test_the_truth_comes_out(tmp_path: Path) -> None:
    check(tmp_path, seed=1, kills=4, loss=0.05)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2, 12))
def test_the_truth_comes_out_at_length(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed, kills=25, loss=0.3 if seed % 2 else 0.1)
