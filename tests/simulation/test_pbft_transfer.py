"""Large states: who lost everything gets there while the others go on, and takes part."""

import pytest
from msgspec.structs import replace

from state.pbft import Settings, Transferred
from state.pbft.byzantine import Forge, Silent
from state.pbft.machines.store import Put, Store, operation
from state.pbft.simulator import Simulator
from tests.simulation.pbft_worlds import MODES, settings

KEYS = 400
PACE = 0.02
"""Seconds between two requests: three checkpoints take 12 times as long."""


def large(mode: str) -> Settings:
    return replace(settings(mode), chunk=128, max_state=1 << 20)


def put(world: Simulator, *keys: int) -> None:
    value = world.random.randbytes(100)
    world.clients["c0"].submit([operation(Put(b"%05d" % key, value)) for key in keys])


def filled(world: Simulator) -> None:
    for first in range(0, KEYS, 50):
        put(world, *range(first, first + 50))
        world.run(0.05)


def busy(world: Simulator, seconds: float) -> None:
    """Change the state all the while, and let it grow."""
    for turn in range(int(seconds / PACE)):
        put(world, world.random.randrange(KEYS + turn))
        world.run(PACE)


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_a_state_that_takes_longer_than_others_keep_it(mode: str, seed: int) -> None:
    world = Simulator(seed, machine=Store, settings=large(mode), loss=0.02, watch=True)
    late = world.replicas["r3"]
    for name in ("r0", "r1", "r2"):
        world.replicas[name].start()
    filled(world)
    busy(world, 0.5)
    late.start()
    began = world.now

    def there() -> bool:
        assert late.replica is not None
        ahead = max(world.judge.history) - late.replica.standing().final
        return late.effects[Transferred.__name__] > 0 and ahead <= 8

    while not there():
        assert world.now < began + 20, f"seed {seed}: {late.replica and late.replica.standing()}"
        busy(world, 0.1)
    # Much more than what any state is kept for has passed.
    assert world.now > began + 3 * 12 * PACE
    # It takes part: without it there is no quorum.
    world.replicas["r1"].crash()
    before = len(world.judge.answers)
    busy(world, 1.0)
    assert world.run_until(world.idle, limit=30.0)
    assert len(world.judge.answers) >= before + 50
    world.replicas["r1"].start()
    assert world.run_until(world.level, limit=30.0)
    world.judge.settled()


@pytest.mark.parametrize("liar", [Forge, Silent])
def test_with_one_who_sends_wrong_parts_or_none(liar: type) -> None:
    for seed in range(2):
        world = Simulator(
            seed, n=7, machine=Store, settings=large("tentative"), faulty={"r2": liar}, watch=True
        )
        late = world.replicas["r3"]
        for node in world.replicas.values():
            if node is not late:
                node.start()
        filled(world)
        busy(world, 0.5)
        late.start()
        while not late.effects[Transferred.__name__]:
            assert world.now < 20.0, f"seed {seed}"
            busy(world, 0.1)
        assert world.run_until(world.idle, limit=30.0)
        assert world.run_until(world.level, limit=30.0)
        world.judge.settled()
