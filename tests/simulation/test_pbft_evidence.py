"""Who contradicts itself is found out; who is silent, slow or cut off is never accused."""

from msgspec.structs import replace

from state.pbft.byzantine import Delay, Equivocate, Silent, Usurp
from state.pbft.messages import Commit, NewView, Prepare, ViewChange
from state.pbft.simulator import Simulator
from tests.simulation.pbft_worlds import MODES, all_done, settings, submit, views


@MODES
def test_a_primary_that_equivocates_is_found_out(mode: str) -> None:
    for n, seed in ((4, 7), (7, 8)):
        world = Simulator(seed, n=n, settings=settings(mode), faulty={"r0": Equivocate}, watch=True)
        world.start()
        submit(world, 5, pace=0.1)
        all_done(world)
        assert world.judge.accused == {"r0"}
        witnesses = [node.id for node in world.correct() if node.effects["Evidence"]]
        assert len(witnesses) == n - 1, "evidence is passed on"


@MODES
def test_silence_is_never_evidence(mode: str) -> None:
    world = Simulator(9, n=7, settings=settings(mode), faulty={"r0": Silent, "r1": Silent})
    world.start()
    submit(world, 5, pace=0.1)
    all_done(world)
    assert not world.judge.accused
    assert max(views(world).values()) == 2


@MODES
def test_votes_that_contradict_each_other_are_found_out_where_they_are_signed(mode: str) -> None:
    found: set[type] = set()
    for seed in range(4):
        signing = replace(settings(mode), votes="signature", checkpoint=16)
        world = Simulator(30 + seed, settings=signing, faulty={"r3": Equivocate}, loss=0.2)
        world.start()
        submit(world, 20, pace=0.1)
        world.loss = 0.0
        all_done(world)
        assert world.judge.accused <= {"r3"}
        found |= {type(each.first) for each in world.judge.accusations}
    assert found & {Prepare, Commit}


@MODES
def test_view_changes_that_contradict_each_other_are_found_out(mode: str) -> None:
    """Half of the group gets another one; the NEW-VIEW shows all what the primary got."""
    found: set[type] = set()
    for seed in range(4):
        many = replace(settings(mode), checkpoint=16)
        world = Simulator(40 + seed, n=7, settings=many, faulty={"r6": Equivocate}, watch=True)
        world.start()
        submit(world, 5, pace=0.1)
        world.split(["r0"], [name for name in world.replicas if name != "r0"])
        submit(world, 5, pace=0.3)
        world.heal()
        all_done(world)
        assert world.judge.accused <= {"r6"}
        found |= {type(each.first) for each in world.judge.accusations}
    assert ViewChange in found


@MODES
def test_a_view_that_is_begun_twice_is_found_out(mode: str) -> None:
    """By who gets both; the others are told."""
    found = 0
    for seed in range(8):
        many = replace(settings(mode), checkpoint=16)
        world = Simulator(60 + seed, settings=many, faulty={"r1": Usurp}, watch=True)
        world.start()
        submit(world, 3, pace=0.003)
        world.split(["r0"], [name for name in world.replicas if name != "r0"])
        submit(world, 3, pace=0.3)
        world.heal()
        all_done(world)
        assert world.judge.accused <= {"r1"}
        begun = [each for each in world.judge.accusations if isinstance(each.first, NewView)]
        found += bool(begun)
    assert found >= 2


@MODES
def test_slowness_is_never_evidence(mode: str) -> None:
    world = Simulator(50, n=7, settings=settings(mode), faulty={"r0": Delay, "r1": Delay})
    world.latency = (0.1, 0.4)
    world.start()
    submit(world, 5, pace=0.3)
    all_done(world)
    assert not world.judge.accused


def test_a_proposal_of_another_view_is_no_evidence() -> None:
    """The same slot may hold other batches in other views: that accuses nobody."""
    for seed in range(5):
        world = Simulator(20 + seed, settings=settings("tentative"), loss=0.3, watch=True)
        world.start()
        for turn in range(6):
            name = f"r{turn % 4}"
            world.cut([name], [each for each in world.replicas if each != name])
            submit(world, 3, pace=0.3)
            world.heal()
        world.loss = 0.0
        all_done(world)
        assert not world.happened["Evidence"]
        assert max(views(world).values()) >= 1
