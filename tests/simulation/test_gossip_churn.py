"""Groups whose members come, go, crash and are cut off, and what is believed of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from state.gossip import Expel, Leave, Settings, Start, Status, Superseded
from state.gossip.simulator import Node, Simulator, Updates


def group(seed: int, size: int, **options: object) -> tuple[Simulator, list[Node]]:
    world = Simulator(seed, **options)  # type: ignore[arg-type]
    nodes = []
    for i in range(size):
        nodes.append(world.add(f"p{i}", bootstrap=["p0", "p1"]))
        world.run(0.02)
    world.run(5.0)
    return world, nodes


def everyone_has(world: Simulator, dots: set[tuple[str, int]]) -> bool:
    return all(
        isinstance(node.application, Updates) and dots <= node.application.updates.keys()
        for node in world.up()
    )


def statuses(node: Node) -> dict[str, Status]:
    return {member.name: member.status for member in node.peer.members()}


@pytest.mark.parametrize("seed", range(2))
def test_a_tenth_of_the_group_is_replaced_every_ten_seconds(seed: int) -> None:
    size = 60
    world, _ = group(seed, size, loss=0.1)
    lives = {f"p{i}": 1 for i in range(size)}
    expected: set[tuple[str, int]] = set()
    for second in range(40):
        if second < 30:  # 6 of 60 in 10 s: half of them crash, half leave
            name = world.random.choice([node.address for node in world.up()])
            if second % 10 < 6:
                if second % 2:
                    world.nodes[name].leave()
                    world.run(1.5)
                    assert not world.nodes[name].peer.running
                world.kill(name)
                lives[name] += 1
                contact = [node.address for node in world.up()[:5]]
                world.add(name, incarnation=lives[name], bootstrap=contact)
        publisher = world.random.choice(world.up())
        if second % 3 == 0 and publisher.peer.neighbours:
            update = publisher.publish(b"%d" % second)
            world.run(0.3)
            if publisher.up:
                expected.add((update.origin, update.seq))
        world.run(0.7)
    world.loss = 0.0
    assert world.run_until(lambda: everyone_has(world, expected), limit=30.0), f"seed {seed}"
    assert world.run_until(
        lambda: all(
            set(statuses(node).values()) == {Status.ALIVE} and len(statuses(node)) == size
            for node in world.up()
        ),
        limit=60.0,
    ), f"seed {seed}"
    assert all(3 <= len(node.peer.neighbours) <= 5 for node in world.up()), f"seed {seed}"
    assert {member.incarnation for node in world.up() for member in node.peer.members()} > {1}


def test_a_crash_is_found_out_and_links_are_replaced() -> None:
    world, _ = group(3, 40)
    for name in ("p7", "p8", "p9"):
        world.kill(name)
    dead = {"p7", "p8", "p9"}
    start = world.now
    assert world.run_until(
        lambda: all(
            {n for n, status in statuses(node).items() if status == Status.DEAD} == dead
            for node in world.up()
        ),
        limit=60.0,
    )
    assert world.now - start > 4.0, "a suspect had no time to refute"
    for node in world.up():
        assert not dead & set(node.peer.neighbours)
    assert world.run_until(
        lambda: all(len(node.peer.neighbours) >= 4 for node in world.up()), limit=10.0
    )


def test_slow_members_are_not_declared_dead() -> None:
    # A third of all datagrams is lost and streams are slow, yet everybody lives.
    world, nodes = group(4, 40, loss=0.3, latency=(0.05, 0.15))
    world.run(60.0)
    assert sum(node.effects["MemberDown"] for node in nodes) == 0
    assert sum(node.peer.statistics().refuted for node in nodes) > 0


def test_a_peer_that_stops_for_a_while_doubts_itself() -> None:
    world, nodes = group(5, 30)
    # Cut off for a moment it gets no answer from anyone: not even the Nack of its helpers.
    world.split(["p3"])
    world.run(6.0)
    assert world.nodes["p3"].peer.statistics().awareness > 0
    assert sum(node.effects["MemberDown"] for node in nodes) == 0
    world.heal()
    assert world.run_until(lambda: world.nodes["p3"].peer.statistics().awareness == 0, limit=120.0)
    world.run(10.0)
    assert all(set(statuses(node).values()) == {Status.ALIVE} for node in nodes)


def test_who_leaves_is_gone_at_once_and_hands_over() -> None:
    world, nodes = group(6, 30)
    update = nodes[4].publish(b"last words" * 500)  # too long to be pushed
    nodes[4].leave()
    world.run(4.0)
    assert not nodes[4].peer.running
    assert everyone_has(world, {(update.origin, update.seq)})
    assert all("p4" not in statuses(node) for node in world.up())
    assert all(node.effects["MemberSuspected"] == 0 for node in nodes)
    assert sum(node.effects["MemberLeft"] for node in world.up()) == 29


def test_an_expelled_member_stops_when_it_comes_back() -> None:
    world, nodes = group(7, 10)
    world.split(["p5"])
    world.run(40.0)
    assert statuses(nodes[0])["p5"] == Status.DEAD
    nodes[0].step(Expel(world.now, "p5"))
    world.run(5.0)
    assert all("p5" not in statuses(node) for node in nodes if node is not nodes[5])
    world.heal()
    assert world.run_until(lambda: not nodes[5].peer.running, limit=120.0)
    assert nodes[5].effects["Superseded"] == 1
    again = world.add("p5", incarnation=2, bootstrap=["p0"])
    assert world.run_until(lambda: len(statuses(again)) == 10, limit=20.0)


def test_an_older_incarnation_is_told_and_stops() -> None:
    world, _ = group(8, 5)
    world.kill("p2")
    late = world.add("p2", incarnation=0, bootstrap=["p0"])
    assert world.run_until(lambda: not late.peer.running, limit=5.0)
    assert late.step(Start(world.now)) == []
    assert Superseded(1).incarnation == 1


def test_a_first_peer_alone_does_nothing_wrong() -> None:
    world = Simulator(1)
    node = world.add("only")
    node.publish(b"x")
    world.run(30.0)
    assert world.messages == 0
    assert node.peer.stable() == {"only#1": 1}
    node.step(Leave(world.now))
    world.run(2.0)
    assert not node.peer.running
    assert node.peer.wake_at == float("inf")


def test_the_stable_cut_waits_for_the_dead_and_not_for_the_expelled() -> None:
    world, nodes = group(9, 12, settings=Settings(stability=0.5))
    nodes[1].publish(b"a")
    assert world.run_until(
        lambda: all(node.peer.stable() == {"p1#1": 1} for node in nodes), limit=30.0
    )
    world.kill("p6")
    nodes[1].publish(b"b")
    world.run(60.0)
    assert all(node.peer.stable() == {"p1#1": 1} for node in world.up())
    nodes[2].step(Expel(world.now, "p6"))
    assert world.run_until(
        lambda: all(node.peer.stable() == {"p1#1": 2} for node in world.up()), limit=30.0
    )


def test_an_idle_group_agrees_in_silence() -> None:
    world, nodes = group(10, 20)
    nodes[0].publish(b"x")
    world.run(60.0)
    before = {node: dict(node.peer.statistics().messages_sent) for node in nodes}
    world.run(10.0)
    kinds = {
        kind
        for node in nodes
        for kind, count in node.peer.statistics().messages_sent.items()
        if count > before[node].get(kind, 0)
    }
    assert kinds <= {"Digest", "Ping", "Ack", "Shuffle", "Shuffled", "Neighbour", "Disconnect"}


def test_the_same_seed_gives_the_same_run() -> None:
    def trace() -> list[object]:
        world, nodes = group(11, 15, loss=0.2, duplicated=0.1)
        nodes[3].publish(b"x")
        world.kill("p4")
        world.run(20.0)
        return [world.messages, world.bytes, [node.peer.neighbours for node in nodes]]

    assert trace() == trace()


class Checked(Updates):
    """Looks at every cut that it is told of, whether all that are in the group have it."""

    def __init__(self, world: Simulator) -> None:
        super().__init__()
        self.world = world
        self.cuts = 0

    def compact(self, stable: Mapping[str, int]) -> None:
        self.cuts += 1
        for node in self.world.nodes.values():
            vector = node.peer.vector()
            lacking = {o: high for o, high in stable.items() if vector.get(o, 0) < high}
            assert not lacking, f"seed {self.world.seed}: {node.address} lacks {lacking}"


@pytest.mark.parametrize("seed", range(3))
def test_a_stable_cut_is_never_ahead_of_anyone(seed: int) -> None:
    world = Simulator(seed, loss=0.2, settings=Settings(stability=0.2))
    names = [f"p{i}" for i in range(8)]
    nodes = []
    for name in names:
        nodes.append(world.add(name, bootstrap=names[:1], application=Checked(world)))
        world.run(1.0)
    for i in range(150):
        world.random.choice(nodes).publish(b"%d" % i)
        if i % 50 == 20:
            world.random.shuffle(names)
            world.split(names[:4], names[4:])
        if i % 50 == 40:
            world.heal()
        world.run(world.random.choice([0.05, 0.3, 1.0]))
    world.heal()
    whole = {node.peer.id: node.peer.vector()[node.peer.id] for node in nodes}
    assert world.run_until(
        lambda: all(node.peer.stable() == whole for node in nodes), limit=60.0
    ), f"seed {seed}"
    assert all(node.application.cuts > 3 for node in nodes)  # type: ignore[attr-defined]
