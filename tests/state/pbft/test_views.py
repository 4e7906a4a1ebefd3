from state.pbft.messages import (
    BatchBody,
    Checkpoint,
    Claim,
    Prepare,
    ViewChange,
)
from tests.state.pbft.lone_replica import LoneReplica


def others_want(lone: LoneReplica, view: int, count: int = 3) -> None:
    for other in lone.group.others(lone.name)[:count]:
        lone.hear(other, lone.change(other, view))


def test_what_a_new_view_begins_with_is_not_proposed_again_by_its_primary() -> None:
    """Slots above the watermarks of one who is behind are known later; they are taken all the same.

    Else the primary could have it accept another batch than was selected, and a lie in the next
    view change would be enough to have that one chosen.
    """
    lone, ahead = LoneReplica("r2"), LoneReplica("r3")
    before = [lone.proposal(seq, [lone.request(seq)]) for seq in range(1, 5)]
    for proposal in before:
        ahead.order(proposal)
    ahead.wait(0.1)
    mark = ahead.take(Checkpoint, "r0")[-1]
    after = [lone.proposal(seq, [lone.request(seq)]) for seq in range(5, 11)]
    claims = [Claim(each.seq, each.digest, 0) for each in after]
    new_view = lone.new_view(
        1,
        [
            lone.change(each, 1, stable=mark, prepared=claims, preprepared=claims)
            for each in ("r0", "r1", "r3")
        ],
    )
    assert [each.digest for each in new_view.selected] == [each.digest for each in after]
    lone.hear("r1", new_view)
    assert (lone.replica.active, lone.replica.standing().stable) == (True, 0)
    for proposal in before:
        lone.commits(proposal)
    for other in ("r0", "r1", "r3"):
        lone.hear(other, mark)
    assert lone.replica.standing().stable == 4
    lone.take(Prepare)

    lone.hear("r1", lone.proposal(10, [lone.request(99)], view=1))
    assert lone.take(Prepare) == []
    lone.hear("r0", *(BatchBody(each.batch) for each in after))
    assert lone.take(Prepare, "r0") == [Prepare(1, each.seq, each.digest) for each in after]


def test_follows_f_plus_1_others_to_the_smallest_of_their_views() -> None:
    lone = LoneReplica("r3")
    lone.hear("r0", lone.change("r0", 9))
    assert lone.replica.active
    lone.hear("r1", lone.change("r1", 5))
    assert (lone.replica.view, lone.replica.active) == (5, False)
    assert [each.view for each in lone.take(ViewChange, "r0")] == [5]


def test_one_liar_moves_nobody() -> None:
    lone = LoneReplica("r3")
    for view in (1, 2, 5, (1 << 62) - 1):
        lone.hear("r0", lone.change("r0", view))
        assert (lone.replica.view, lone.replica.active) == (0, True)
