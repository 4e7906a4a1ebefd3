"""How fast and how cheaply one update reaches 1,000 peers.

A round is one gossip interval; a message takes a quarter to a third of it, so that an exchange
(a number, a request, a payload) fits in one.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from state.gossip import Fact, Settings, Status
from state.gossip.simulator import Simulator, Updates

ROUND = 0.2
PEERS = 1000
FACTS = [Fact(f"p{i}", f"p{i}", 1, 0, Status.ALIVE) for i in range(PEERS)]


class Spread(NamedTuple):
    rounds: float
    copies: float


def spread(seed: int, loss: float) -> Spread:
    world = Simulator(seed, latency=(ROUND / 4, ROUND / 3), settings=Settings(round=ROUND))
    nodes = [world.add(fact.name, members=FACTS) for fact in FACTS]
    world.run(3.0)  # the peers know of each other and find neighbours
    world.loss = loss
    world.run(3 * ROUND)
    start = world.now
    world.random.choice(nodes).publish(b"news")
    lacking = nodes

    def everyone_has_it() -> bool:
        nonlocal lacking
        lacking = [
            node
            for node in lacking
            if isinstance(node.application, Updates) and not node.application.updates
        ]
        return not lacking

    assert world.run_until(everyone_has_it, limit=30.0, step=ROUND / 10), f"seed {seed}"
    rounds = (world.now - start) / ROUND
    copies = sum(node.peer.statistics().payloads.sent for node in nodes) / PEERS
    return Spread(rounds, copies)


def check(seed: int, loss: float, most: float) -> Spread:
    result = spread(seed, loss)
    assert result.rounds <= most, f"seed {seed}: {result}"
    assert result.copies <= 3.0, f"seed {seed}: {result}"
    return result


def test_an_update_reaches_a_thousand_peers() -> None:
    check(0, 0.0, 9.0)


@pytest.mark.parametrize("seed", range(2))
def test_an_update_reaches_a_thousand_peers_though_a_third_is_lost(seed: int) -> None:
    check(seed, 0.3, 12.0)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize(("loss", "most"), [(0.0, 9.0), (0.3, 12.0)])
def test_an_update_reaches_a_thousand_peers_for_a_hundred_seeds(
    seed: int, loss: float, most: float
) -> None:
    result = check(seed, loss, most)
    print(f"seed {seed} loss {loss}: {result.rounds:.1f} rounds, {result.copies:.2f} copies")
