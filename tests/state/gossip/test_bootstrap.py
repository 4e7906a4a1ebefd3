"""Groups that begin behind a partition become one."""

import pytest

from state.gossip.simulator import Simulator


@pytest.mark.parametrize("seed", range(10))
def test_groups_that_began_apart_find_each_other(seed: int) -> None:
    """Every peer has neighbours on its side, so none would have to look for more."""
    world = Simulator(seed=seed)
    names = ["a", "b", "c", "d", "e", "f"]
    world.split(names[:3], names[3:])
    nodes = [world.add(name, bootstrap=names[:4]) for name in names]
    world.run(5.0)
    nodes[0].publish(b"here")
    nodes[5].publish(b"there")
    world.run(5.0)
    assert {len(node.application.updates) for node in nodes} == {1}
    world.heal()
    done = world.run_until(lambda: all(len(n.application.updates) == 2 for n in nodes), limit=15.0)
    assert done, f"seed {seed}"


def test_a_lone_peer_leaves() -> None:
    world = Simulator(seed=1)
    node = world.add("a")
    world.run(1.0)
    node.leave()
    world.run(5.0)
    assert not node.peer.running
