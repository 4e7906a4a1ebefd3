from collections.abc import Callable

import msgspec
import pytest

from state.pbft import Committed, Evidence, Rejected, ViewAbandoned
from state.pbft.authentication import sign
from state.pbft.messages import (
    NULL,
    NULL_DIGEST,
    Accusation,
    BatchBody,
    Claim,
    Commit,
    Decided,
    FetchBatches,
    Prepare,
    PrePrepare,
    Request,
    digest,
)
from state.pbft.selection import most_fresh
from tests.state.pbft.lone_replica import SETTINGS, WALL, LoneReplica

SIGNED = msgspec.structs.replace(SETTINGS, votes="signature")


def resigned(lone: LoneReplica, message: PrePrepare, signer: str = "r0") -> PrePrepare:
    return msgspec.structs.replace(message, signature=sign(lone.keys[signer], message))


def test_a_good_proposal_is_voted_for_once() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", proposal)
    vote = Prepare(0, 1, proposal.digest, proposal.signature)
    assert lone.take(Prepare) == [vote] * 3
    lone.hear("r0", proposal)
    lone.hear("r2", proposal)
    assert lone.take(Prepare) == []
    assert lone.did(Rejected) == []


def test_it_counts_whoever_brings_it() -> None:
    lone = LoneReplica("r1")
    lone.hear("r3", lone.proposal(1, [lone.request(1)]))
    assert len(lone.take(Prepare, "r0")) == 1


def another_batch(lone: LoneReplica) -> PrePrepare:
    other = lone.proposal(1, [lone.request(2)])
    return msgspec.structs.replace(lone.proposal(1, [lone.request(1)]), batch=other.batch)


def forged_request(lone: LoneReplica) -> PrePrepare:
    request = msgspec.structs.replace(lone.request(1), operations=[b"forged"])
    return lone.proposal(1, [lone.request(2), request])


def no_batch(lone: LoneReplica) -> PrePrepare:
    message = PrePrepare(0, 1, digest("batch", b"none"), b"", b"none")
    return resigned(lone, message)


WRONG: dict[str, Callable[[LoneReplica], PrePrepare]] = {
    "an old view": lambda lone: lone.proposal(1, [lone.request(1)], view=0),
    "a later view": lambda lone: lone.proposal(1, [lone.request(1)], view=5),
    "above the high watermark": lambda lone: lone.proposal(9, [lone.request(1)], view=4),
    "far above": lambda lone: lone.proposal((1 << 62) - 1, [lone.request(1)], view=4),
    "no signature": lambda lone: msgspec.structs.replace(
        lone.proposal(1, [lone.request(1)], view=4), signature=b""
    ),
    "a backup's signature": lambda lone: resigned(
        lone, lone.proposal(1, [lone.request(1)], view=4), "r2"
    ),
    "the signature of another slot": lambda lone: msgspec.structs.replace(
        lone.proposal(2, [lone.request(1)], view=4), seq=1
    ),
    "the signature of another view": lambda lone: msgspec.structs.replace(
        lone.proposal(1, [lone.request(1)], view=0), view=4
    ),
    "another batch": lambda lone: msgspec.structs.replace(another_batch(lone), view=4),
    "bytes that are no batch": lambda lone: resigned(
        lone, msgspec.structs.replace(no_batch(lone), view=4)
    ),
    "a request that its client did not sign": lambda lone: resigned(
        lone, msgspec.structs.replace(forged_request(lone), view=4)
    ),
    "a time ahead": lambda lone: lone.proposal(1, [lone.request(1)], view=4, time=WALL + 10.5),
    "a time behind": lambda lone: lone.proposal(1, [lone.request(1)], view=4, time=WALL - 10.5),
    "no request, but a time": lambda lone: lone.proposal(1, [], view=4, time=0.001),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_proposal_is_not_voted_for(what: str) -> None:
    lone = LoneReplica("r1")
    lone.hear("r0", lone.new_view(4, [lone.change(each, 4) for each in ("r0", "r2", "r3")]))
    assert (lone.replica.view, lone.replica.active) == (4, True)
    before = len(lone.log)
    lone.hear("r0", WRONG[what](lone))
    assert lone.take(Prepare) == []
    assert len(lone.log) == before
    # And a right one is, afterwards.
    lone.hear("r0", lone.proposal(2, [lone.request(1)], view=4))
    assert len(lone.take(Prepare, "r0")) == 1


def test_none_is_taken_at_or_below_the_low_watermark() -> None:
    lone = LoneReplica("r1")
    proposals = [lone.proposal(seq, [lone.request(seq)]) for seq in range(1, 5)]
    for proposal in proposals:
        lone.order(proposal)
    lone.wait(0.1)
    mark = lone.replica._checkpoints.stable
    votes = [m for to, m in lone.sent if to == "r0" and type(m).__name__ == "Checkpoint"]
    for other in ("r0", "r2", "r3"):
        lone.hear(other, votes[-1])
    assert mark.seq == 0
    assert lone.replica.standing().stable == 4
    lone.take(Prepare)
    for seq in (1, 4):
        lone.hear("r0", lone.proposal(seq, [lone.request(99)]))
    assert lone.take(Prepare) == []


def test_of_two_proposals_for_a_slot_the_first_counts_and_both_are_evidence() -> None:
    lone = LoneReplica("r1")
    first, second = (lone.proposal(1, [lone.request(number)]) for number in (1, 2))
    lone.hear("r0", first)
    lone.hear("r2", second)
    (evidence,) = lone.did(Evidence)
    assert evidence.accusation.accused == "r0"
    digests = {evidence.accusation.first.digest, evidence.accusation.second.digest}  # type: ignore[union-attr]
    assert digests == {first.digest, second.digest}
    assert {vote.digest for to, vote in lone.sent if isinstance(vote, Prepare)} == {first.digest}
    assert not lone.replica.active  # it leads no more, as far as this replica is concerned
    assert len(lone.take(Accusation)) == 3


def test_the_proof_in_a_vote_is_evidence_whichever_comes_first() -> None:
    for early in (False, True):
        lone = LoneReplica("r1")
        first, second = (lone.proposal(1, [lone.request(number)]) for number in (1, 2))
        vote = Prepare(0, 1, second.digest, second.signature)
        if early:
            lone.hear("r2", vote)
            lone.hear("r0", first)
        else:
            lone.hear("r0", first)
            lone.hear("r2", vote)
        assert [each.accusation.accused for each in lone.did(Evidence)] == ["r0"]


def test_an_invented_proof_accuses_nobody() -> None:
    lone = LoneReplica("r1")
    lone.hear("r0", lone.proposal(1, [lone.request(1)]))
    lone.hear("r2", Prepare(0, 1, bytes(32), bytes(64)))
    lone.hear("r3", Prepare(0, 1, bytes(32), lone.proposal(2, [lone.request(1)]).signature))
    assert lone.did(Evidence) == []
    assert lone.replica.active


def test_prepared_needs_q_minus_1_matching_votes_of_different_backups() -> None:
    lone = LoneReplica("r1", n=7)  # q = 5: four backups, this one among them
    proposal = lone.proposal(1, [lone.request(1)])
    right, wrong = Prepare(0, 1, proposal.digest), Prepare(0, 1, bytes(32))
    lone.hear("r0", proposal, right, right, right, right)  # the primary has no vote
    lone.hear("r2", right, right, right)
    lone.hear("r3", wrong)
    lone.hear("r3", right)  # its first word counts
    lone.hear("r4", msgspec.structs.replace(right, view=1))
    lone.hear("r5", msgspec.structs.replace(right, seq=2))
    assert lone.take(Commit) == []
    lone.hear("r5", right)
    assert lone.take(Commit) == []
    lone.hear("r6", right)
    assert lone.take(Commit, "r0") == [Commit(0, 1, proposal.digest)]


def test_votes_may_come_before_the_proposal() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r2", Prepare(0, 1, proposal.digest), Commit(0, 1, proposal.digest))
    lone.hear("r3", Prepare(0, 1, proposal.digest), Commit(0, 1, proposal.digest))
    assert lone.did(Committed) == []
    lone.hear("r0", proposal)
    assert [each.seq for each in lone.did(Committed)] == [1]


def test_committed_needs_q_matching_votes_of_one_view() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    commit = Commit(0, 1, proposal.digest)
    lone.hear("r0", proposal)
    lone.hear("r2", commit, commit, commit)
    lone.hear("r3", msgspec.structs.replace(commit, view=1))
    lone.hear("r0", msgspec.structs.replace(commit, digest=bytes(32)))
    assert lone.did(Committed) == []
    lone.hear("r2", Prepare(0, 1, proposal.digest))  # now it has prepared it itself
    assert lone.did(Committed) == []
    lone.hear("r3", commit)  # an older word than its last
    assert lone.did(Committed) == []
    lone.hear("r3", msgspec.structs.replace(commit, view=2))
    lone.hear("r2", msgspec.structs.replace(commit, view=2))
    assert lone.did(Committed) == []
    lone.hear("r0", msgspec.structs.replace(commit, view=2))
    assert [each.view for each in lone.did(Committed)] == [2]


def test_batches_are_executed_in_order_only() -> None:
    lone = LoneReplica("r1")
    proposals = [lone.proposal(seq, [lone.request(seq)]) for seq in (1, 2, 3)]
    for seq in (3, 2):
        lone.order(proposals[seq - 1])
        assert lone.did(Committed) == []
    lone.order(proposals[0])
    assert [each.seq for each in lone.did(Committed)] == [1, 2, 3]


def test_a_batch_left_out_is_asked_for_and_taken_from_anyone() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", msgspec.structs.replace(proposal, batch=b""))
    assert lone.take(Prepare) == []
    lone.wait(0.1)
    assert lone.take(FetchBatches, "r2")[0] == FetchBatches([proposal.digest])
    lone.hear("r3", BatchBody(lone.proposal(1, [lone.request(2)]).batch))
    assert lone.take(Prepare) == []
    lone.hear("r3", BatchBody(proposal.batch))
    assert len(lone.take(Prepare, "r0")) == 1


def test_a_slot_with_a_wrong_batch_is_no_more_than_a_reason_for_another_view() -> None:
    lone = LoneReplica("r1")
    lone.hear("r0", lone.proposal(1, [lone.request(1)], time=WALL - 60))
    assert "its time is -60" in lone.did(Rejected)[0].reason
    lone.wait(SETTINGS.timeout + 0.1)
    assert [each.view for each in lone.did(ViewAbandoned)] == [1]


def test_signed_votes_must_be_signed_and_two_are_evidence() -> None:
    lone = LoneReplica("r1", settings=SIGNED)
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", proposal)
    right, other = Prepare(0, 1, proposal.digest), Prepare(0, 1, bytes(32))
    lone.hear("r2", right)
    lone.hear("r2", lone.vote("r3", right))
    assert lone.take(Commit) == []
    assert len(lone.did(Rejected)) == 2
    lone.hear("r2", lone.vote("r2", right))
    assert len(lone.take(Commit, "r0")) == 1
    lone.hear("r3", lone.vote("r3", other), lone.vote("r3", right))
    assert [each.accusation.accused for each in lone.did(Evidence)] == ["r3"]
    for view in (3, 4, 4):  # later words on a slot are no contradiction
        lone.hear("r2", lone.vote("r2", Commit(view, 1, bytes([view] * 32))))
    assert lone.did(Evidence) == []
    lone.hear("r2", lone.vote("r2", Commit(4, 1, bytes(32))))
    assert [each.accusation.accused for each in lone.did(Evidence)] == ["r2"]


def test_a_liar_cannot_fill_the_memory_with_votes() -> None:
    lone = LoneReplica("r1", settings=SIGNED)
    for view in range(1, 300):
        lone.hear("r3", *(lone.vote("r3", Commit(view, seq, bytes(32))) for seq in (1, 8, 9)))
    slots = lone.replica._slots
    assert [each.seq for each in slots] == [1, 8]
    assert all(len(each.signed) + len(each.commits) == 2 for each in slots)


def crowded(name: str) -> LoneReplica:
    """Return a replica that has accepted as many batches for slot 1 as it may, in as many views."""
    lone = LoneReplica(name)
    for view in range(2, 2 + most_fresh(4)):
        enter(lone, view)
        fresh = lone.proposal(1, [lone.request(view)], view=view)
        if lone.group.primary(view) == name:
            lone.hear("c", lone.request(view))
        else:
            lone.hear(lone.group.primary(view), fresh)
        lone.did(Rejected)
    return lone


def enter(lone: LoneReplica, view: int) -> None:
    changes = [lone.change(other, view) for other in lone.group.others(lone.name)]
    lone.hear("r2", *changes)
    if lone.group.primary(view) != lone.name:
        lone.hear("r2", lone.new_view(view, changes))
    assert (lone.replica.view, lone.replica.active) == (view, True)


@pytest.mark.parametrize("lives", [1, 2])
def test_what_was_accepted_for_a_slot_is_bounded_but_for_what_a_new_view_chose(lives: int) -> None:
    lone = crowded("r0")
    if lives == 2:
        lone = LoneReplica("r0", log=lone.log)
    enter(lone, 7)
    lone.take(Prepare)
    lone.hear("r3", again := lone.proposal(1, [lone.request(9)], view=7))
    assert [each.reason for each in lone.did(Rejected)] == [
        "proposal 1: 4 other batches were accepted there before"
    ]
    assert lone.take(Prepare) == []
    claims = [Claim(1, again.digest, 7)]
    others = ("r1", "r2", "r3")
    changes = [lone.change(r, 9, prepared=claims, preprepared=claims) for r in others]
    lone.hear("r2", *changes, lone.new_view(9, changes), BatchBody(again.batch))
    assert [each.digest for each in lone.take(Prepare, "r1")] == [again.digest]
    enter(lone, 10)
    assert len(lone.replica._views.own.preprepared) == most_fresh(4) + 1


def test_a_slot_for_which_too_much_was_accepted_is_filled_with_nothing() -> None:
    lone = crowded("r0")
    enter(lone, 7)
    lone.take(Prepare)
    nothing = resigned(lone, PrePrepare(7, 1, NULL_DIGEST, b"", NULL), "r3")
    lone.hear("r3", nothing)
    assert [each.digest for each in lone.take(Prepare, "r1")] == [NULL_DIGEST]
    leader = crowded("r0")
    leader.take(PrePrepare)
    enter(leader, 8)  # the request that was proposed in view 4 still waits
    proposals = leader.take(PrePrepare, "r1")
    assert [each.seq for each in proposals] == [1, 2]
    assert proposals[0].digest == NULL_DIGEST != proposals[1].digest


# -- the primary ----------------------------------------------------------------------------------


def test_the_primary_proposes_as_far_as_the_pipeline_and_the_watermarks_allow() -> None:
    settings = msgspec.structs.replace(SETTINGS, pipeline=3, batch_operations=1)
    lone = LoneReplica("r0", settings=settings)
    lone.hear("c", *(lone.request(number) for number in range(1, 20)))
    proposals = lone.take(PrePrepare, "r1")
    assert [each.seq for each in proposals] == [1, 2, 3]
    seen = []
    while proposals:
        seen += [each.seq for each in proposals]
        for each in proposals:
            for other in ("r1", "r2", "r3"):
                lone.hear(other, Prepare(0, each.seq, each.digest))
                lone.hear(other, Commit(0, each.seq, each.digest))
        proposals = lone.take(PrePrepare, "r1")
    assert seen == list(range(1, 9))  # nobody has told it of a checkpoint


def test_batches_are_no_larger_than_the_settings_say() -> None:
    settings = msgspec.structs.replace(SETTINGS, batch_operations=3, batch_bytes=100)
    lone = LoneReplica("r0", settings=settings)
    sizes = [10, 10, 10, 10, 60, 50, 200, 1]
    lone.hear("c", *(lone.request(i + 1, data=bytes(size)) for i, size in enumerate(sizes)))
    batches = [lone.replica._slots.batch(each.digest) for each in lone.take(PrePrepare, "r1")]
    found = [[len(each.operations[0]) for each in batch.requests] for batch in batches if batch]
    assert found == [[10, 10, 10], [10, 60], [50], [200], [1]]


def test_a_request_is_proposed_once_in_a_view_and_a_backup_hands_it_on() -> None:
    lone = LoneReplica("r0")
    lone.hear("c", lone.request(1))
    lone.hear("r2", lone.request(1))
    assert [each.seq for each in lone.take(PrePrepare, "r1")] == [1]
    backup = LoneReplica("r1")
    backup.hear("c", backup.request(1))
    assert [to for to, m in backup.sent if isinstance(m, Request)] == ["r0"]
    backup.take(Request)
    backup.hear("r2", backup.request(2))  # whoever hands it on has done so to the primary, too
    assert backup.take(Request) == []


def test_time_that_was_agreed_on_does_not_run_backwards_and_is_no_reason_to_refuse() -> None:
    lone = LoneReplica("r1")
    lone.order(lone.proposal(1, [lone.request(1)], time=WALL + 9))
    lone.now = -60.0  # its clock is set back
    lone.hear("r0", lone.proposal(2, [lone.request(2)], time=WALL + 9))
    assert [each.seq for each in lone.take(Prepare, "r0")] == [1, 2]


def one_commit_short() -> tuple[LoneReplica, bytes]:
    """Return r1, which has prepared a batch and lacks one commit beside r2's, and its digest."""
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", proposal)
    for other in ("r2", "r3"):
        lone.hear(other, lone.vote(other, Prepare(0, 1, proposal.digest)))
    lone.hear("r2", lone.vote("r2", Commit(0, 1, proposal.digest)))
    assert lone.replica.standing().final == 0
    return lone, proposal.digest


@pytest.mark.parametrize("view", [0, 1])  # in which it was decided, before others began again
def test_who_knows_that_it_is_decided_counts_as_one_who_has_prepared_it(view: int) -> None:
    """r3 told r0 alone that it has prepared, and has fallen silent; r0's own commit was lost."""
    lone, digest = one_commit_short()
    lone.hear("r0", Decided(view, 1, bytes(32)))
    assert lone.replica.standing().final == 0
    lone.hear("r0", Decided(view, 1, digest))
    assert lone.replica.standing().final == 1


def test_one_who_has_prepared_and_knows_that_it_is_decided_counts_once() -> None:
    lone, digest = one_commit_short()
    lone.hear("r2", Decided(0, 1, digest))
    assert lone.replica.standing().final == 0
