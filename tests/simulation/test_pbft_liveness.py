"""Progress in networks that are slow but not dead, and what it costs in views."""

import pytest

from state.pbft.byzantine import Delay, Silent
from state.pbft.events import Phase, Settings
from state.pbft.simulator import Simulator
from tests.simulation.pbft_scenarios import real_keys

MODES = pytest.mark.parametrize("mode", ["committed", "tentative", "fast"])


def settings(mode: str) -> Settings:
    return Settings(
        checkpoint=4,
        timeout=0.5,
        longest_timeout=16.0,
        longest_resend=0.5,
        tentative=mode != "committed",
        fast=mode == "fast",
    )


def answered(world: Simulator, count: int, limit: float) -> None:
    world.start()
    for i in range(count):
        world.clients["c0"].submit([b"?%d" % i])
    assert world.run_until(lambda: world.idle() and world.level(), limit=limit), (
        f"{[(node.id, node.replica and node.replica.standing()) for node in world.correct()]}"
    )
    world.judge.settled()


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_a_network_slower_than_the_timeout(mode: str, seed: int) -> None:
    """Timeouts double until a view lasts long enough."""
    world = Simulator(seed, settings=settings(mode), latency=(0.4, 0.6), watch=True)
    answered(world, 5, limit=120.0)
    assert 1 <= world.judge.views <= 8


@MODES
def test_half_of_all_messages_lost(mode: str) -> None:
    for seed in range(3):
        world = Simulator(seed, settings=settings(mode), loss=0.5, duplicated=0.2, watch=True)
        answered(world, 10, limit=60.0)


@MODES
@pytest.mark.parametrize(("n", "f"), [(4, 1), (7, 2), (10, 3)])
def test_silent_primaries_cost_a_view_each(mode: str, n: int, f: int) -> None:
    faulty = {f"r{i}": Silent for i in range(f)}
    world = Simulator(1, n=n, settings=settings(mode), faulty=faulty, watch=True)
    answered(world, 5, limit=30.0)
    assert world.judge.views == f


@MODES
def test_a_primary_that_is_slow_within_the_timeout_stays(mode: str) -> None:
    world = Simulator(2, settings=settings(mode), faulty={"r0": Delay}, watch=True)
    answered(world, 5, limit=30.0)
    assert world.judge.views == 0


def test_nobody_at_fault_is_answered_by_the_quickest_rule() -> None:
    for mode, phase in (
        ("committed", Phase.COMMITTED),
        ("tentative", Phase.TENTATIVE),
        ("fast", Phase.SPECULATIVE),
    ):
        world = Simulator(3, settings=settings(mode), watch=True)
        world.start()
        for i in range(10):
            world.clients["c0"].submit([b"?%d" % i])
            world.run(0.3)
        assert {answer.phase for answer in world.judge.answers.values()} == {phase}
        assert len(world.judge.answers) == 10
        assert world.judge.views == 0


@MODES
def test_with_real_keys(mode: str) -> None:
    world = Simulator(
        4, settings=settings(mode), keys=real_keys, faulty={"r3": Silent}, loss=0.1, watch=True
    )
    answered(world, 10, limit=30.0)
