"""Groups of replicas under seeded schedules of loss, partitions, crashes, restarts with an old
state, wrong clocks and logs that are too short: nothing is lost, nothing comes back.

Each run ends with the network whole; then all replicas must hold the same, and it must be what
all updates that anyone still has merge to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from state.crdt import HybridClock, LWWMap, ORSet
from state.gossip import Peer, Range, Settings, Status, Update
from state.gossip.simulator import Node, Simulator

HOUR = 3600.0
FAST = Settings(log_updates=25, stability=0.5, shuffle=2.0, min_gap=0.0)


class TwoPhaseSet:
    """A set whose deletions are remembered until they are stable, and then no more: it comes
    back to life if the protocol lets old and new states meet in the wrong way."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[str, int]] = {}
        self.dead: dict[str, tuple[tuple[str, int], tuple[str, int]]] = {}

    def apply(self, dot: tuple[str, int], operation: list[str]) -> None:
        verb, element, *target = operation
        if verb == "add":
            if element not in self.dead:
                self.there[element] = dot
        else:
            origin, seq = target[0].rsplit(" ", 1)
            self.there.pop(element, None)
            self.dead[element] = (dot, (origin, int(seq)))

    def merge(self, other: TwoPhaseSet) -> None:
        self.dead.update(other.dead)
        self.there.update(other.there)
        for element in self.dead:
            self.there.pop(element, None)

    def compact(self, cut: Mapping[str, int]) -> None:
        self.dead = {
            element: dots
            for element, dots in self.dead.items()
            if any(cut.get(origin, 0) < seq for origin, seq in dots)
        }


class Replica:
    def __init__(self) -> None:
        self.map = LWWMap()
        self.set = ORSet()
        self.two = TwoPhaseSet()
        self.replaced = False

    def deliver(self, updates: list[Update]) -> None:
        for update in updates:
            kind, body = update.payload[:1], update.payload[1:]
            if kind == b"m":
                self.map.apply(body)
            elif kind == b"s":
                self.set.apply(body)
            else:
                self.two.apply((update.origin, update.seq), json.loads(body))

    def snapshot(self) -> bytes:
        parts = {
            "map": self.map.to_bytes().hex(),
            "set": self.set.to_bytes().hex(),
            "there": self.two.there,
            "dead": self.two.dead,
        }
        return json.dumps(parts).encode()

    def restore(self, state: bytes, *, replace: bool) -> None:
        if replace:
            self.__init__()  # type: ignore[misc]
            self.replaced = True
        parts = json.loads(state)
        self.map.apply(bytes.fromhex(parts["map"]))
        self.set.apply(bytes.fromhex(parts["set"]))
        other = TwoPhaseSet()
        other.there = {element: tuple(dot) for element, dot in parts["there"].items()}
        other.dead = {e: (tuple(a), tuple(b)) for e, (a, b) in parts["dead"].items()}
        self.two.merge(other)

    def compact(self, stable: Mapping[str, int]) -> None:
        self.two.compact(stable)

    def visible(self) -> tuple[object, object, object]:
        return sorted(self.map.value.items()), sorted(self.set.value), sorted(self.two.there)


class Saved:
    """What a replica kept on its disk."""

    def __init__(self, node: Node) -> None:
        peer: Peer = node.peer
        assert isinstance(node.application, Replica)
        self.state = node.application.snapshot()
        self.seen: list[Range] = peer.seen()
        self.log = peer.log()
        self.stable = peer.stable()
        self.members = peer.facts()


class Chaos:
    def __init__(self, seed: int, size: int, loss: float) -> None:
        self.world = Simulator(
            seed, loss=loss, latency=(0.005, 0.06), duplicated=0.05, settings=FAST,
            reliable=seed % 3 > 0,
        )  # fmt: skip
        self.random = self.world.random
        self.names = [f"n{i}" for i in range(size)]
        self.skews = {name: self.random.uniform(-HOUR, HOUR) for name in self.names}
        self.lives: dict[str, int] = {}
        self.clocks: dict[str, HybridClock] = {}
        self.saved: dict[str, Saved] = {}
        self.updates: dict[tuple[str, int], bytes] = {}
        for name in self.names:
            self.start(name)

    def start(self, name: str, saved: Saved | None = None) -> None:
        life = self.lives[name] = self.lives.get(name, 0) + 1
        self.clocks[name] = HybridClock(f"{name}#{life}")
        replica = Replica()
        if saved is not None:
            replica.restore(saved.state, replace=False)
        self.world.add(
            name,
            incarnation=life,
            bootstrap=[other for other in self.names[:3] if other != name],
            application=replica,
            skew=self.skews[name],
            seen=saved.seen if saved else (),
            log=saved.log if saved else (),
            stable=saved.stable if saved else None,
            members=saved.members if saved else (),
        )

    def someone(self) -> Node | None:
        up = self.world.up()
        return self.random.choice(up) if up else None

    def edit(self) -> None:
        node = self.someone()
        if node is None:
            return
        replica = node.application
        assert isinstance(replica, Replica)
        name = node.address
        identity = f"{name}#{self.lives[name]}"
        now_ms = int((self.world.now + self.skews[name] + 10 * HOUR) * 1000)
        key = f"k{self.random.randrange(6)}"
        what = self.random.randrange(6)
        if what < 2:
            stamp = self.clocks[name].tick(now_ms, after=replica.map.stamp(key))
            removes = what == 1 and key in replica.map
            delta = (
                replica.map.remove(key, stamp)
                if removes
                else replica.map.put(key, self.random.randrange(100), stamp)
            )
            payload = b"m" + delta.to_bytes()
        elif what < 4:
            removes = what == 3 and key in replica.set.value
            change = replica.set.remove(key) if removes else replica.set.add(key, identity)
            payload = b"s" + change.to_bytes()
        elif what == 4 or not replica.two.there:
            element = f"{identity}:{self.random.getrandbits(40)}"
            payload = b"t" + json.dumps(["add", element]).encode()
        else:
            element = self.random.choice(sorted(replica.two.there))
            origin, seq = replica.two.there[element]
            payload = b"t" + json.dumps(["remove", element, f"{origin} {seq}"]).encode()
        update = node.publish(payload)
        self.updates[update.origin, update.seq] = payload

    def save(self) -> None:
        node = self.someone()
        if node is not None:
            self.saved[node.address] = Saved(node)

    def crash(self) -> None:
        if len(self.world.up()) > len(self.names) // 2:
            node = self.someone()
            assert node is not None
            self.world.kill(node.address)

    def revive(self) -> None:
        down = [name for name in self.names if not self.world.nodes[name].up]
        if down:
            name = self.random.choice(down)
            self.start(name, self.saved.get(name))

    def cut(self) -> None:
        names = list(self.names)
        self.random.shuffle(names)
        at = self.random.randrange(1, len(names))
        self.world.split(names[:at], names[at:])

    def play(self, steps: int) -> None:
        moves = [
            (self.edit, 50), (self.save, 6), (self.crash, 3), (self.revive, 5),
            (self.cut, 2), (self.world.heal, 4),
        ]  # fmt: skip
        chosen = self.random.choices([m for m, _ in moves], [w for _, w in moves], k=steps)
        for move in chosen:
            move()
            self.world.run(self.random.expovariate(1 / 0.08))

    def settle(self) -> None:
        self.world.heal()
        self.world.loss = 0.0
        for name in self.names:
            node = self.world.nodes[name]
            if not (node.up and node.peer.running):
                node.up = False
                self.start(name, self.saved.get(name))
        assert self.world.run_until(self.agreed, limit=90.0, step=0.5), (
            f"seed {self.world.seed}: not all have the same: "
            f"{[(n.address, n.peer.vector()) for n in self.world.up()]}"
        )

    def agreed(self) -> bool:
        nodes = self.world.up()
        return len(nodes) == len(self.names) and len({n.peer.fingerprint() for n in nodes}) == 1

    def check(self) -> None:
        seed = self.world.seed
        nodes = self.world.up()
        first = nodes[0].application
        assert isinstance(first, Replica)
        known = {dot: p for dot, p in self.updates.items() if nodes[0].peer.has(*dot)}
        expected = Replica()
        expected.deliver([Update(*dot, payload) for dot, payload in sorted(known.items())])
        for node in nodes:
            assert isinstance(node.application, Replica)
            assert node.application.visible() == expected.visible(), f"seed {seed}: {node.address}"
        for dot in self.updates.keys() - known.keys():
            name, life = dot[0].split("#")
            assert int(life) < self.lives[name], (
                f"seed {seed}: {dot} of a life that goes on is lost"
            )


def run(seed: int) -> Chaos:
    chaos = Chaos(seed, size=3 + seed % 4, loss=(seed % 5) * 0.08)
    chaos.world.run(1.0)
    chaos.play(25 + chaos.random.randrange(60))
    chaos.settle()
    chaos.check()
    return chaos


@pytest.mark.parametrize("block", range(8))
def test_nothing_is_lost_and_nothing_comes_back(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        run(seed)


@pytest.mark.parametrize("seed", [1078, 4269, 6008, 6188, 8496])
def test_runs_that_once_went_wrong(seed: int) -> None:
    run(seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("block", range(100))
def test_nothing_is_lost_and_nothing_comes_back_in_ten_thousand_runs(block: int) -> None:
    for seed in range(1000 + block * 100, 1000 + block * 100 + 100):
        run(seed)


def test_the_runs_do_what_they_are_meant_to() -> None:
    chaoses = [run(seed) for seed in range(30)]
    nodes = [node for chaos in chaoses for node in chaos.world.up()]
    counted = [node.peer.statistics() for node in nodes]
    assert sum(s.snapshots_taken for s in counted) > 10
    assert sum(node.application.replaced for node in nodes) > 0  # type: ignore[attr-defined]
    assert sum(max(chaos.lives.values()) > 1 for chaos in chaoses) > 15
    assert sum(s.log_dropped for s in counted) > 100
    assert any(node.peer.stable() for node in nodes)


def test_a_partition_with_conflicting_writes_heals_to_one_state() -> None:
    chaos = Chaos(7, size=20, loss=0.1)
    world = chaos.world
    world.run(4.0)
    world.split(chaos.names[:10], chaos.names[10:])
    for _ in range(60):
        chaos.edit()
        world.run(0.05)
    world.run(60.0)  # each side takes the other for dead
    node = world.nodes["n0"].peer
    assert {m.name for m in node.members() if m.status == Status.DEAD} == set(chaos.names[10:])
    assert not chaos.agreed()
    for _ in range(20):
        chaos.edit()
        world.run(0.05)
    chaos.settle()
    chaos.check()
    assert world.run_until(
        lambda: all(m.status == Status.ALIVE for n in world.up() for m in n.peer.members()),
        limit=60.0,
    )
