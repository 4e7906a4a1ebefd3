"""The speculative path: what all n have executed survives, whoever fails before it is voted on."""

from functools import partial

import pytest
from msgspec.structs import replace

from state.pbft.byzantine import Equivocate
from state.pbft.events import Phase, Settings
from state.pbft.simulator import Simulator

LATE = Settings(
    checkpoint=8, timeout=0.5, longest_timeout=4.0, longest_resend=0.5, fast=True, lazy_fast=0.4
)
"""Votes come so late that nothing is prepared when a primary fails."""


def finish(world: Simulator) -> None:
    assert world.run_until(lambda: world.idle() and world.level(), limit=40.0), (
        f"{[(node.id, node.replica and node.replica.standing()) for node in world.correct()]}"
    )
    world.judge.settled()


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_an_answer_survives_its_primary(n: int, seed: int) -> None:
    world = Simulator(seed, n=n, clients=2, settings=LATE, watch=True)
    world.start()
    for turn in range(4):
        for client in world.clients.values():
            client.submit([b"!%d" % turn])
            client.submit([b"?%d" % turn])
        world.run(0.05)
        primary = f"r{world.judge.views % n}"
        if turn % 2:
            world.replicas[primary].crash()
        else:
            world.split([primary], [name for name in world.replicas if name != primary])
        for client in world.clients.values():
            client.submit([b"?again %d" % turn])
        world.run(2.5)
        world.heal()
        world.start()
    finish(world)
    phases = [answer.phase for answer in world.judge.answers.values()]
    assert phases.count(Phase.SPECULATIVE) >= 4


@pytest.mark.parametrize("seed", range(10))
def test_a_primary_that_lies_to_one_and_then_denies_it(seed: int) -> None:
    """What some prepared wins against what others only accepted, in the same view or earlier."""
    faulty = {"r0": partial(Equivocate, victims=[f"r{1 + seed % 3}"])}
    lazy = 0.005 if seed % 2 else 0.1
    world = Simulator(seed, settings=replace(LATE, lazy_fast=lazy), faulty=faulty, watch=True)
    world.start()
    for turn in range(6):
        world.clients["c0"].submit([b"!%d" % turn])
        world.clients["c0"].submit([b"?%d" % turn])
        world.run(0.03)
        away = f"r{1 + (seed + turn) % 3}"
        world.cut([away], [name for name in world.replicas if name != away])
        world.run(0.8)
        world.heal()
    finish(world)
