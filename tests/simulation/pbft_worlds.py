"""Groups in the simulator that are made alike in several tests."""

import pytest

from state.pbft.events import Settings
from state.pbft.simulator import Simulator

MODES = pytest.mark.parametrize("mode", ["committed", "tentative", "fast"])


def settings(mode: str) -> Settings:
    return Settings(
        checkpoint=4,
        timeout=0.5,
        longest_timeout=4.0,
        longest_resend=0.5,
        tentative=mode != "committed",
        fast=mode == "fast",
    )


def submit(world: Simulator, count: int, *, pace: float = 0.02) -> None:
    client = world.clients["c0"]
    for i in range(count):
        client.submit([b"%s%d" % (b"?!"[i % 2 :][:1], i)])
        world.run(pace)


def all_done(world: Simulator, limit: float = 30.0) -> None:
    assert world.run_until(lambda: world.idle() and world.level(), limit=limit), (
        f"seed {world.seed}: "
        f"{[(node.id, node.replica and node.replica.standing()) for node in world.correct()]}"
    )
    world.judge.settled()


def views(world: Simulator) -> dict[str, int]:
    return {node.id: node.replica.view for node in world.correct() if node.replica is not None}
