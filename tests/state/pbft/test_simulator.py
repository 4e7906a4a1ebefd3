import contextlib
import random
from functools import partial

import pytest

from state.pbft.authentication import MAC_BYTES, valid
from state.pbft.byzantine import Byzantine, Delay, Equivocate, Forge, Replay, Silent, Usurp
from state.pbft.events import Rejected
from state.pbft.messages import (
    Commit,
    MessageError,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    ViewChange,
    decode,
)
from state.pbft.simulator import HashChain, Node, Simulator
from tests.simulation.pbft_scenarios import play
from tests.simulation.pbft_worlds import all_done, settings


class Ear:
    """Hears all that is sent."""

    def __init__(self, world: Simulator) -> None:
        self.heard: list[tuple[float, str, str, bytes]] = []
        self._world = world
        world.filter = self

    def __call__(self, source: Node, target: Node, bundle: bytes) -> bool:
        self.heard.append((self._world.now, source.id, target.id, bundle))
        return True

    def said(self, sender: str, kind: type) -> list[tuple[str, object]]:
        said: list[tuple[str, object]] = []
        for _, source, target, bundle in self.heard:
            if source == sender:
                with contextlib.suppress(MessageError):  # one who forges sends rubbish, too
                    messages = decode(bundle[MAC_BYTES:])
                    said += [(target, each) for each in messages if isinstance(each, kind)]
        return said


def small(behaviour: type[Byzantine] | None = None, seed: int = 1) -> tuple[Simulator, Ear]:
    world = Simulator(seed, faulty={"r0": behaviour} if behaviour is not None else None)
    ear = Ear(world)
    world.start()
    for i in range(3):
        world.clients["c0"].submit([b"?%d" % i])
        world.run(0.1)
    return world, ear


def test_a_seed_fixes_every_byte() -> None:
    for seed in (3, 5):
        runs = [play(seed) for _ in range(2)]
        assert runs[0].world.happened == runs[1].world.happened
        assert runs[0].world.now == runs[1].world.now
        disks = [[node.disk for node in run.world.replicas.values()] for run in runs]
        assert disks[0] == disks[1]
    (_, first), (_, again) = small(), small()
    assert first.heard == again.heard
    assert first.heard != small(seed=2)[1].heard


@pytest.mark.parametrize("after", range(0, 30, 3))
def test_a_crash_amid_a_step_loses_what_was_not_carried_out(after: int) -> None:
    world = Simulator(4, watch=True)
    world.start()
    node = world.replicas["r1"]
    node.crash_soon(after)
    for i in range(10):
        world.clients["c0"].submit([b"?%d" % i])
        world.run(0.05)
    assert not node.up
    assert sum(node.effects.values()) >= after
    node.start()
    assert world.run_until(lambda: world.idle() and world.level(), limit=30.0)
    world.judge.settled()


def test_cuts_one_way_pauses_and_clocks() -> None:
    world, _ = small()
    world.cut(["r0"], ["r1"])
    heard = Ear(world)
    world.clients["c0"].submit([b"?"])
    world.run(1.0)
    # What is cut off is not even asked of the filter.
    assert not [each for each in heard.heard if each[1:3] == ("r0", "r1")]
    assert [each for each in heard.heard if each[1:3] == ("r1", "r0")]
    world.heal()
    node = world.replicas["r2"]
    node.pause()
    before = sum(node.effects.values())
    world.clients["c0"].submit([b"?"])
    world.run(0.3)
    assert sum(node.effects.values()) == before
    assert node.inbox
    node.resume()
    assert world.run_until(lambda: world.idle() and world.level(), limit=10.0)


def test_changed_bytes_are_refused() -> None:
    world = Simulator(5, tampered=0.5)
    refused: list[Rejected] = []
    observe = world.observe

    def keep(node: object, effect: object) -> None:
        if isinstance(effect, Rejected):
            refused.append(effect)
        observe(node, effect)  # type: ignore[arg-type]

    world.observe = keep  # type: ignore[method-assign]
    world.start()
    for i in range(10):
        world.clients["c0"].submit([b"?%d" % i])
        world.run(0.1)
    assert world.idle()
    assert world.happened["tampered"] > 100
    assert {each.reason for each in refused} == {"the MAC is wrong"}


@pytest.mark.parametrize("seed", range(12))  # another half with each
def test_equivocating(seed: int) -> None:
    _, ear = small(Equivocate, seed)
    proposals: dict[tuple[int, int], set[bytes]] = {}
    for _, message in ear.said("r0", PrePrepare):
        assert isinstance(message, PrePrepare)
        if message.view == 0:
            proposals.setdefault((message.view, message.seq), set()).add(message.digest)
    assert max(map(len, proposals.values())) == 2


def test_silence() -> None:
    _, ear = small(Silent)
    assert not [each for each in ear.heard if each[1] == "r0"]
    world, _ = small()
    replica, keys = world.replicas["r0"].replica, world.keys["r0"]
    assert replica is not None
    some = Silent(replica, keys, random.Random(1), "some")
    told = [bool(some.instead(to, [Commit(0, 1, bytes(32))])) for to in some.others]
    assert {True, False} == set(told)
    leader = Silent(replica, keys, random.Random(1), "leader")
    assert leader.instead("r1", [Commit(0, 1, bytes(32))]) == []  # it leads view 0


def test_forging_has_nobody_elses_signature() -> None:
    world, ear = small(Forge)
    for i in range(20):
        world.clients["c0"].submit([b"?%d" % i])
        world.run(0.1)
    assert ear.said("r0", Request) or ear.said("r0", Prepare)
    assert world.run_until(world.idle, limit=20.0)
    refused = [node.effects["Rejected"] for node in world.correct()]
    assert all(refused)


def test_replaying() -> None:
    world, ear = small(Replay)
    # It is the primary of view 0, whose own words are no prepares.
    assert ear.said("r0", Prepare)
    assert world.idle()


def test_usurping() -> None:
    """Each half gets a NEW-VIEW that follows from what it rests on, and yet they differ."""
    differing = found = 0
    for seed in range(20):
        usurper = partial(Usurp, victims=["r2"])
        world = Simulator(seed, settings=settings("committed"), faulty={"r1": usurper}, watch=True)
        ear = Ear(world)
        world.start()
        for i in range(4):
            world.clients["c0"].submit([b"?%d" % i])
            world.run(0.004)
        world.split(["r0"], [name for name in world.replicas if name != "r0"])
        world.clients["c0"].submit([b"?last"])
        world.run(2.0)
        world.heal()
        all_done(world)
        begun = [each for _, each in ear.said("r1", NewView) if isinstance(each, NewView)]
        first = [each for each in begun if each.view == 1]
        assert len({each.signature for each in first}) == 2
        differing += len({str(each.selected) for each in first}) == 2
        found += world.judge.accused == {"r1"}
        assert not [
            each
            for new in first
            for each in new.view_changes
            if each.replica != "r1" and not _signed(world, each)
        ]
    assert differing >= 5
    assert found >= 5, "who got both can show it"


def _signed(world: Simulator, change: ViewChange) -> bool:
    return valid(world.keys["r0"], change.replica, change)


def test_clients_that_lie() -> None:
    world = Simulator(6, clients=1, liars=2, watch=True)
    ear = Ear(world)
    world.start()
    for i in range(200):
        if i % 10 == 0:
            world.clients["c0"].submit([b"?%d" % i])
        world.liars[f"l{i % 2}"].lie()
        world.run(0.02)
    assert world.run_until(lambda: world.idle() and world.level(), limit=10.0)
    said: dict[int, set[bytes]] = {}
    told: dict[int, set[str]] = {}
    for to, request in ear.said("l0", Request):
        assert isinstance(request, Request)
        said.setdefault(request.number, set()).add(request.operations[0])
        told.setdefault(request.number, set()).add(to)
    assert sum(len(replicas) < 4 for replicas in told.values()) >= 10
    assert sum(len(operations) > 1 for operations in said.values()) >= 5
    assert max(said) > 1 << 39
    assert sum(client == "l0" for client, _ in world.judge.results) >= 10


def test_delay() -> None:
    world, ear = small(Delay)
    world.run(1.0)
    begun = min(at for at, source, _, _ in ear.heard if source == "c0")
    first = min(at for at, source, _, _ in ear.heard if source == "r0")
    assert first - begun >= 0.8 * world.settings.timeout


def test_a_hash_chain_is_restored() -> None:
    one, other = HashChain(), HashChain()
    with pytest.raises(ValueError, match="no hash chain"):
        other.restore(b"junk")
    other.restore(one.snapshot())
    assert one.snapshot() == other.snapshot()
