"""Progress in slow networks and with clients that lie, and what it costs in views."""

import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from state.pbft.authentication import MAC_BYTES, close, sign
from state.pbft.byzantine import Delay, Silent
from state.pbft.events import Phase, Send, Settings
from state.pbft.messages import (
    BatchBody,
    Checkpoint,
    Commit,
    Decided,
    Prepare,
    PrePrepare,
    Request,
    StatePart,
    decode,
)
from state.pbft.replica import Standing
from state.pbft.simulator import Node, ReplicaNode, Simulator
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
def test_a_checkpoint_outlives_the_restart_of_one_who_vouched_for_it(mode: str) -> None:
    """r0 forgets what is before slot 4, since r1 and r3 said they have it; then r3 falls silent.

    Only r1 can vouch for the checkpoint from then on, and it is restarted from its log. r2 has not
    heard that slot 4 is committed.
    """
    world = Simulator(2, settings=settings(mode), watch=True)

    def passes(source: Node, target: Node, bundle: bytes) -> bool:
        if not isinstance(source, ReplicaNode) or target.id not in ("r1", "r2"):
            return True
        messages = decode(bundle[MAC_BYTES:])
        late = [each for each in messages if isinstance(each, Commit) and each.seq == 4]
        if target.id == "r2" and late:
            return False
        return not any(isinstance(each, Checkpoint | Decided) for each in messages)

    world.filter = passes
    world.start()
    for i in range(4):
        world.clients["c0"].submit([b"?%d" % i])
        assert world.run_until(world.idle, limit=10.0, step=0.001)
    r0, r1, r2 = (world.replicas[name] for name in ("r0", "r1", "r2"))
    assert world.run_until(lambda: standing(r0).stable == 4, limit=5.0, step=0.0005)
    world.replicas["r3"].crash()
    r1.crash()
    r1.start()
    assert standing(r1).stable == 0
    assert standing(r2).final < 4
    # Nor is anyone told that slot 4 is decided, for whoever knows it may be asked no more.
    kept = (Decided,)
    world.filter = lambda source, target, bundle: (
        not any(isinstance(each, kept) for each in decode(bundle[MAC_BYTES:]))
    )
    world.clients["c0"].submit([b"!after"])
    assert world.run_until(world.idle, limit=30.0), [standing(each) for each in (r0, r1, r2)]
    world.judge.settled()


@pytest.mark.parametrize("mode", ["committed", "fast"])
def test_a_state_that_few_vouch_for_leaves_all_others_able_to_go_on(mode: str) -> None:
    """r4 takes over the state after slot 4 from r0, r5 and r6, of which the last two then crash.

    Four of the five that are left, r0 among them, cannot do without it for the slots before, which
    r1 to r3 have prepared and do not know to be decided.
    """
    patient = replace(settings(mode), timeout=20.0, longest_timeout=40.0)
    world = Simulator(2, n=7, settings=patient, watch=True)

    def passes(source: Node, target: Node, bundle: bytes) -> bool:
        if not isinstance(source, ReplicaNode):
            return target.id != "r4"
        kinds = {type(each) for each in decode(bundle[MAC_BYTES:])}
        if target.id == "r4":
            if source.id == "r0" and StatePart in kinds:
                return True
            return not kinds & {PrePrepare, Prepare, Commit, BatchBody, Decided}
        return target.id not in ("r1", "r2", "r3") or not kinds & {Commit, Checkpoint, Decided}

    world.filter = passes
    world.start()
    for i in range(4):
        world.clients["c0"].submit([b"?%d" % i])
        assert world.run_until(world.idle, limit=10.0, step=0.001)
    late = world.replicas["r4"]
    assert world.run_until(lambda: standing(late).final == 4, limit=15.0, step=0.001)
    assert standing(late).stable == 0
    for name in ("r5", "r6"):
        world.replicas[name].crash()
    late.crash()
    late.start()
    assert (standing(late).final, standing(late).stable) == (4, 0)
    world.filter = None
    world.clients["c0"].submit([b"!after"])
    assert world.run_until(world.idle, limit=400.0), [standing(each) for each in world.correct()]
    world.judge.settled()


def test_the_commit_of_who_knows_a_decision_is_not_missed() -> None:
    """r0 and r3 know that slot 1 is decided, r3 falls silent, and the view changes.

    Of what r0 says then, its commits are lost: that it knows the decision counts in any view.
    """
    world = Simulator(2, settings=settings("committed"), watch=True)
    lost = 0

    def passes(source: Node, target: Node, bundle: bytes) -> bool:
        nonlocal lost
        if not isinstance(source, ReplicaNode) or not isinstance(target, ReplicaNode):
            return True
        kinds = {type(each) for each in decode(bundle[MAC_BYTES:])}
        if standing(r1).view == 0:
            return target.id in ("r0", "r3") or not kinds & {Commit, Decided}
        if source.id == "r0" and Commit in kinds:
            lost += 1
            return False
        return True

    r0, r1, r2, r3 = (world.replicas[f"r{i}"] for i in range(4))
    world.start()
    world.filter = passes
    world.clients["c0"].submit([b"!"])
    both = (r0, r3)
    assert world.run_until(lambda: all(standing(r).final for r in both), limit=5.0, step=0.0005)
    r3.crash()
    assert world.run_until(lambda: min(standing(r).final for r in (r1, r2)) == 1, limit=5.0)
    assert lost
    assert standing(r1).view == 1


def standing(node: ReplicaNode) -> Standing:
    assert node.replica is not None
    return node.replica.standing()


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


def told_apart(world: Simulator, which: str) -> Iterator[list[Request]]:
    """Yield what a client that lies tells the primary, and each other replica, again and again."""
    width, keys, base = world.settings.max_waiting, world.keys["l0"], 1

    def asked(number: int, low: int) -> Request:
        request = Request("l0", number, low, [b"!%d" % world.random.randrange(9)])
        return replace(request, signature=sign(keys, request))

    while True:
        if which == "all its numbers":
            starts = [base + width * i for i in range(4)]
        elif which == "less to the primary":
            starts = [base, base + width, base + width, base + width]
        else:
            starts = [base + world.random.randrange(width) for _ in range(4)]
        for start in starts:
            low = 1 if which == "no end" else start
            yield [asked(start + j, low) for j in range(width)]
        base += 5 * width


@MODES
@pytest.mark.parametrize(
    "which", ["all its numbers", "less to the primary", "the same numbers", "no end"]
)
def test_a_client_that_tells_each_replica_something_else_costs_no_view(
    mode: str, which: str
) -> None:
    few = replace(settings(mode), max_waiting=4, checkpoint=16, batch_operations=8)
    world = Simulator(7, settings=few, liars=1, watch=True)
    world.start()
    said = told_apart(world, which)
    for turn in range(300):
        if turn % 25 == 0:
            world.clients["c0"].submit([b"?%d" % turn])
        for replica in world.group.replicas:
            requests = next(said)
            for each in requests:
                world.judge.requested(each)
            bundle = close(world.keys["l0"], replica, list(requests))
            world.send(world.liars["l0"], Send(replica, bundle))
        world.run(0.01)
    assert world.run_until(lambda: world.idle() and world.level(), limit=10.0)
    world.judge.settled()
    assert world.happened["ViewAbandoned"] == 0
    assert max(answer.seconds for answer in world.judge.answers.values()) < 0.5


def test_a_client_that_hides_requests_from_the_primary_costs_few_views() -> None:
    """What one backup got and could not pass on because it was lost, it passes on again."""
    abandoned = 0
    for seed in range(5):
        world = Simulator(seed, settings=settings("tentative"), liars=1, loss=0.15, watch=True)
        world.start()
        rng = random.Random(seed)
        for number in range(1, 100):
            request = Request("l0", number, max(1, number - 10), [b"!"])
            request = replace(request, signature=sign(world.keys["l0"], request))
            world.judge.requested(request)
            to = rng.choice(["r1", "r2", "r3"])
            world.send(world.liars["l0"], Send(to, close(world.keys["l0"], to, [request])))
            world.run(0.2)
        world.loss = 0.0
        world.clients["c0"].submit([b"?"])
        assert world.run_until(world.idle, limit=30.0)
        assert world.run_until(world.level, limit=30.0)
        world.judge.settled()
        abandoned += world.judge.views
    assert abandoned <= 10
