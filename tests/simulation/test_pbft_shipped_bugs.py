"""What others got wrong in implementations that they shipped, each as a schedule of its own."""

from functools import partial

from state.pbft.authentication import MAC_BYTES
from state.pbft.byzantine import Equivocate, Forge
from state.pbft.messages import Commit, decode
from state.pbft.simulator import Node, ReplicaNode, Simulator
from tests.simulation.pbft_worlds import MODES, all_done, settings, submit, views


@MODES
def test_a_replica_that_was_cut_off_does_not_stop_the_others(mode: str) -> None:
    world = Simulator(1, settings=settings(mode), watch=True)
    world.start()
    submit(world, 3)
    world.split(["r3"], ["r0", "r1", "r2"])
    submit(world, 30, pace=0.3)
    assert world.run_until(world.idle, limit=1.0)
    assert max(views(world)[name] for name in ("r0", "r1", "r2")) == 0
    alone = world.replicas["r3"].replica
    assert alone is not None
    assert alone.view <= 5, "a replica alone must not count views up"
    world.heal()
    submit(world, 10, pace=0.1)
    all_done(world)
    assert max(views(world).values()) <= 1


@MODES
def test_two_cut_off_in_turn(mode: str) -> None:
    world = Simulator(2, settings=settings(mode), watch=True)
    world.start()
    for _ in range(3):
        for name in ("r1", "r2", "r3", "r0"):
            world.split([name], [each for each in world.replicas if each != name])
            submit(world, 5, pace=0.2)
            world.heal()
            world.run(0.5)
    all_done(world)
    # Only cutting off a primary costs a view, and each cut costs one at most.
    assert max(views(world).values()) <= 12


@MODES
def test_nobody_follows_one_who_claims_a_view_far_ahead(mode: str) -> None:
    faulty = {"r3": partial(Forge, often=0.9)}
    world = Simulator(3, settings=settings(mode), faulty=faulty, watch=True)
    world.start()
    submit(world, 5)
    # This one comes back with nothing but what the others say.
    world.replicas["r2"].crash()
    submit(world, 20, pace=0.1)
    world.replicas["r2"].start()
    submit(world, 5, pace=0.1)
    all_done(world)
    assert max(views(world).values()) <= 3


@MODES
def test_one_who_sends_rubbish_causes_no_view_changes(mode: str) -> None:
    faulty = {"r3": partial(Forge, often=0.5)}
    world = Simulator(4, settings=settings(mode), faulty=faulty)
    world.start()
    submit(world, 300, pace=0.1)
    all_done(world)
    assert max(views(world).values()) == 0


@MODES
def test_one_that_committed_before_the_others_moved_on(mode: str) -> None:
    """Only r1 gets the commits of view 0; then r0 falls silent, so r2 and r3 need r1."""
    world = Simulator(5, settings=settings(mode), watch=True)
    world.start()
    submit(world, 2, pace=0.2)

    def passes(source: Node, target: Node, bundle: bytes) -> bool:
        if not isinstance(source, ReplicaNode) or target.id in ("r1", "c0"):
            return True
        return not any(isinstance(message, Commit) for message in decode(bundle[MAC_BYTES:]))

    world.filter = passes
    world.clients["c0"].submit([b"only r1 commits"])
    judge = world.judge

    def first_commit() -> bool:
        return 3 in judge.history

    assert world.run_until(first_commit, limit=10.0, step=0.001)
    assert judge.history[3][1] == "r1"
    world.filter = None
    world.split(["r0"], ["r1", "r2", "r3"])
    submit(world, 3, pace=0.1)
    assert world.run_until(world.idle, limit=10.0)
    world.heal()
    submit(world, 1)
    all_done(world)
    assert max(views(world).values()) <= 2


@MODES
def test_one_that_was_told_something_else_gets_what_the_quorum_got(mode: str) -> None:
    faulty = {"r0": partial(Equivocate, victims=["r3"])}
    world = Simulator(6, settings=settings(mode), faulty=faulty, watch=True)
    world.start()
    submit(world, 20, pace=0.1)
    all_done(world)
    assert world.judge.accused == {"r0"}


@MODES
def test_ten_split_in_halves_execute_nothing(mode: str) -> None:
    world = Simulator(10, n=10, clients=2, settings=settings(mode), watch=True)
    names = list(world.replicas)
    world.start()
    world.split([*names[:5], "c0"], [*names[5:], "c1"])
    for client in world.clients.values():
        client.submit([b"a"])
    world.run(20.0)
    assert not world.judge.history
    assert not world.judge.answers
    world.heal()
    all_done(world)
    assert len(world.judge.answers) == 2
