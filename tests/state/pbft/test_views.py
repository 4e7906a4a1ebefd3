import msgspec

from state.pbft import Rejected, ViewAbandoned, ViewEntered
from state.pbft.authentication import sign
from state.pbft.messages import (
    NULL_DIGEST,
    BatchBody,
    Checkpoint,
    Claim,
    Commit,
    Decided,
    FetchBatches,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    Selected,
    ViewChange,
)
from tests.state.pbft.lone_replica import SETTINGS, LoneReplica, genesis

TIMEOUT = SETTINGS.timeout


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


def wanted(lone: LoneReplica, view: int, *names: str) -> None:
    for name in names:
        lone.hear(name, lone.change(name, view))


def test_a_request_that_is_not_executed_in_time_ends_the_view() -> None:
    lone = LoneReplica("r1")
    lone.wait(10 * TIMEOUT)
    assert lone.did(ViewAbandoned) == []  # nothing to wait for
    lone.hear("c", lone.request(1))
    lone.wait(0.9 * TIMEOUT)
    assert lone.replica.active
    lone.wait(0.2 * TIMEOUT)
    assert [each.view for each in lone.did(ViewAbandoned)] == [1]
    assert len(lone.take(ViewChange, "r2")) == 1
    lone.wait(100 * TIMEOUT)  # alone it goes no further
    assert lone.did(ViewAbandoned) == []


def test_who_is_kept_from_what_others_have_prepared_does_not_rest() -> None:
    lone = LoneReplica("r2")
    commit = Commit(0, 1, bytes(32))
    lone.hear("r1", commit)
    lone.wait(10 * TIMEOUT)
    assert lone.did(ViewAbandoned) == []  # one alone may lie
    lone.hear("r3", commit)
    lone.wait(1.1 * TIMEOUT)
    assert [each.view for each in lone.did(ViewAbandoned)] == [1]


def test_what_was_prepared_in_an_earlier_view_need_not_be_in_this_one() -> None:
    lone = LoneReplica("r2")
    lone.hear("r1", begun(lone))
    for other in ("r1", "r3"):
        lone.hear(other, Commit(0, 1, bytes(32)))
    lone.wait(10 * TIMEOUT)
    assert lone.did(ViewAbandoned) == []
    lone.hear("r1", Decided(0, 1, bytes(32)))
    lone.hear("r3", Commit(1, 1, bytes(32)))
    lone.wait(1.1 * TIMEOUT)
    assert lone.did(ViewAbandoned)


def test_progress_gives_the_primary_more_time_but_no_request_waits_for_ever() -> None:
    lone = LoneReplica("r1")
    lone.hear("c", lone.request(1))
    for seq in range(1, 9):
        lone.wait(0.9 * TIMEOUT)
        if not lone.replica.active:
            break
        lone.order(lone.proposal(seq, [lone.request(seq, "d")]))
    assert 4 <= seq <= 6
    assert lone.did(ViewAbandoned)


def test_timers_double_with_every_view_that_fails() -> None:
    lone = LoneReplica("r9", n=10)
    lone.hear("c", lone.request(1))
    took = []
    for view in range(1, 8):
        start = lone.now
        while lone.replica.view < view:
            lone.wait(0.1 * TIMEOUT)
        took.append(round((lone.now - start) / TIMEOUT))
        for name in lone.group.others("r9"):
            lone.hear(name, lone.change(name, view))
    assert took == [1, 2, 4, 8, 16, 32, 60]


def test_the_new_primary_begins_with_a_quorum_and_proposes_what_waits() -> None:
    lone = LoneReplica("r1")
    lone.hear("c", lone.request(1))
    lone.hear("r0", lone.change("r0", 1))
    lone.hear("r0", lone.change("r0", 1))
    assert lone.take(NewView) == []
    lone.hear("r2", lone.change("r2", 1))
    (new_view,) = [m for to, m in lone.sent if isinstance(m, NewView) and to == "r3"]
    assert {each.replica for each in new_view.view_changes} == {"r0", "r1", "r2"}
    assert lone.did(ViewEntered) == [ViewEntered(0, "r0"), ViewEntered(1, "r1")]
    (proposal,) = lone.take(PrePrepare, "r3")
    assert (proposal.view, proposal.seq) == (1, 1)


def test_what_was_prepared_is_proposed_again_under_its_number() -> None:
    lone = LoneReplica("r1")
    proposals = [lone.proposal(seq, [lone.request(seq)]) for seq in (1, 2, 3)]
    for proposal in (proposals[0], proposals[2]):
        lone.hear("r0", proposal)
        lone.hear("r2", Prepare(0, proposal.seq, proposal.digest))
    claim = Claim(3, proposals[2].digest, 0)
    lone.hear("r2", lone.change("r2", 1, prepared=[claim], preprepared=[claim]))
    lone.hear("r3", lone.change("r3", 1))
    lone.hear("r0", lone.change("r0", 1, preprepared=[Claim(1, proposals[0].digest, 0)]))
    lone.hear("c", lone.request(9))
    sent = [m for to, m in lone.sent if to == "r0"]
    (new_view,) = [m for m in sent if isinstance(m, NewView)]
    assert new_view.selected[1:] == [Selected(2, NULL_DIGEST), Selected(3, proposals[2].digest)]
    assert [m.seq for m in sent if isinstance(m, PrePrepare)] == [4]


def begun(lone: LoneReplica, view: int = 1) -> NewView:
    return lone.new_view(view, [lone.change(name, view) for name in ("r0", "r2", "r3")])


def change_signature(new_view: NewView) -> NewView:
    change = msgspec.structs.replace(new_view.view_changes[0], signature=bytes(64))
    return msgspec.structs.replace(new_view, view_changes=[change, *new_view.view_changes[1:]])


def test_a_new_view_must_follow_from_what_a_quorum_signed() -> None:
    def replace(**fields: object) -> NewView:
        return msgspec.structs.replace(good, **fields)

    lone = LoneReplica("r2")
    good = begun(lone)
    changes, early = good.view_changes, Claim(1, bytes(32), 1)
    for wrong, why in [
        (replace(signature=bytes(64)), "no valid signature"),
        (replace(view_changes=changes[:2]), "does not follow"),
        (replace(view_changes=[*changes[:2], changes[0]]), "counts twice"),
        (replace(view_changes=[*changes[:2], lone.change("r3", 2)]), "wants view 2"),
        (change_signature(good), "no valid signature"),
        (replace(selected=[Selected(1, bytes(32))]), "does not follow"),
        (replace(selected=[Selected(1, NULL_DIGEST)]), "does not follow"),
        (replace(checkpoint=Checkpoint(0, bytes(32))), "does not follow"),
        (replace(checkpoint=Checkpoint(4, genesis().digest)), "does not follow"),
        (
            replace(view_changes=[*changes[:2], lone.change("r3", 1, prepared=[early])]),
            "claims what cannot be",
        ),
    ]:
        if why != "no valid signature":
            wrong = msgspec.structs.replace(wrong, signature=sign(lone.keys["r1"], wrong))
        lone.hear("r1", wrong)
        assert not lone.replica.view
        (rejected,) = lone.did(Rejected)
        assert why in rejected.reason
    forged = msgspec.structs.replace(good, signature=sign(lone.keys["r3"], good))
    lone.hear("r3", forged)  # it does not lead that view
    assert lone.replica.view == 0
    lone.hear("r3", good)  # whoever brings it
    assert (lone.replica.view, lone.replica.active) == (1, True)


def test_an_earlier_view_does_not_begin_again() -> None:
    lone = LoneReplica("r0")
    lone.hear("r3", begun(lone, 3))
    assert lone.replica.view == 3
    lone.hear("r1", begun(lone, 1))
    assert lone.replica.view == 3
    wanted(lone, 2, "r1", "r2", "r3")
    assert (lone.replica.view, lone.replica.active) == (3, True)


def test_who_gave_up_on_a_view_votes_in_it_no_more_but_learns_what_is_decided() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    wanted(lone, 2, "r2", "r3")
    assert not lone.replica.active
    lone.take(Prepare)
    lone.order(proposal)
    assert lone.take(Prepare) == []
    lone.hear("r3", BatchBody(proposal.batch))
    assert lone.replica.standing().final == 1


def test_batches_that_a_view_begins_with_are_asked_for_at_once() -> None:
    lone = LoneReplica("r2")
    claim = Claim(1, bytes(32), 0)
    changes = [
        lone.change(each, 1, prepared=[claim], preprepared=[claim]) for each in ("r0", "r1", "r3")
    ]
    lone.hear("r1", lone.new_view(1, changes))
    assert lone.take(FetchBatches, "r3") == [FetchBatches([bytes(32)])]


def test_a_backup_gives_the_new_primary_what_waits() -> None:
    lone = LoneReplica("r2")
    lone.hear("c", lone.request(1))
    lone.take(Request)
    lone.hear("r1", begun(lone))
    assert [to for to, m in lone.sent if isinstance(m, Request)] == ["r1"]


def test_a_view_change_that_cannot_be_is_refused() -> None:
    lone = LoneReplica("r2")
    claim = Claim(1, bytes(32), 5)
    for wrong in (
        lone.change("r0", 5, prepared=[claim]),
        msgspec.structs.replace(lone.change("r0", 6), replica="r1"),
        msgspec.structs.replace(lone.change("r0", 6), view=7),
        msgspec.structs.replace(lone.change("r0", 6), replica="nobody"),
    ):
        lone.hear("r0", wrong)
        assert len(lone.did(Rejected)) == 1, wrong
    assert set(lone.replica._views.changes) == set()


def test_commits_of_an_earlier_view_still_decide_after_it() -> None:
    lone = LoneReplica("r2")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", proposal)
    lone.hear("r1", begun(lone))
    for other in ("r0", "r1", "r3"):
        lone.hear(other, Commit(0, 1, proposal.digest))
    assert lone.replica.standing().final == 1


def test_the_checkpoint_of_a_new_view_is_stable_when_a_quorum_has_it() -> None:
    """f + 1 make it what the view begins with; who forgot all before it then might be alone."""
    lone = LoneReplica("r1", n=7)
    for seq in range(1, SETTINGS.checkpoint + 1):
        lone.order(lone.proposal(seq, [lone.request(seq)]))
    lone.wait(SETTINGS.lazy)
    mark = lone.take(Checkpoint, "r0")[-1]
    changes = [
        lone.change(name, 2, checkpoints=[mark] if name in ("r0", "r3", "r4") else [])
        for name in ("r0", "r2", "r3", "r4", "r5")
    ]
    new_view = lone.new_view(2, changes)
    assert new_view.checkpoint == mark
    lone.hear("r2", new_view)
    assert (lone.replica.view, lone.replica.active) == (2, True)
    assert lone.replica.standing().stable == 0
    lone.hear("r6", mark)
    assert lone.replica.standing().stable == mark.seq
