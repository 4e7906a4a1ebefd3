import msgspec
import pytest

from state.pbft import Committed, Settings
from state.pbft.hash_chain import HashChain
from state.pbft.invariants import Invariants
from state.pbft.messages import (
    AnyMessage,
    Checkpoint,
    Claim,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Reply,
    Request,
    Status,
    ViewChange,
)
from state.pbft.records import Accepted, Base, Body, Record, decode_record, encode_record
from tests.state.pbft.lone_replica import LoneReplica
from tests.state.pbft.recorded import record


def ordered(lone: LoneReplica, first: int, last: int) -> None:
    """Have a primary propose, and the others agree to, a batch for each slot."""
    for seq in range(first, last + 1):
        lone.hear("c", lone.request(seq))
        (proposal,) = lone.take(PrePrepare, "r3")
        assert proposal.seq == seq
        for other in lone.group.others(lone.name):
            lone.hear(other, Prepare(proposal.view, seq, proposal.digest))
            lone.hear(other, Commit(proposal.view, seq, proposal.digest))


def stabilise(lone: LoneReplica) -> None:
    """Have the others agree to the replica's last checkpoint."""
    lone.wait(0.1)
    mark = lone.take(Checkpoint, "r3")[-1]
    for other in lone.group.others(lone.name):
        lone.hear(other, mark)
    assert lone.replica.standing().stable == mark.seq


def test_a_primary_that_restarts_at_a_checkpoint_goes_on_after_it() -> None:
    lone = LoneReplica("r1")
    others = ["r0", "r2", "r3"]
    for other in others:
        lone.hear(other, lone.change(other, 1))
    assert lone.take(NewView, "r0")
    ordered(lone, 1, 4)
    stabilise(lone)
    again = LoneReplica("r1", log=lone.log)
    assert again.replica.active
    ordered(again, 5, 6)


def test_who_restarts_amid_a_view_change_sees_to_the_requests_when_it_ends() -> None:
    lone = LoneReplica("r1")
    for other in ("r2", "r3"):
        lone.hear(other, lone.change(other, 2))
    again = LoneReplica("r1", log=lone.log)
    assert (again.replica.view, again.replica.active) == (2, False)
    again.hear("c", again.request(1))
    changes = [again.change(each, 2) for each in ("r0", "r2", "r3")]
    again.take(Request)
    again.hear("r2", again.new_view(2, changes))
    assert again.replica.active
    assert again.take(Request, "r2") == [again.request(1)]


def test_a_log_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no record of a vote log"):
        LoneReplica("r1", log=[b"\xff\xff"])


SETTINGS = Settings(checkpoint=4, timeout=0.3, votes="signature")


def kept_promises(change: ViewChange, said: list[AnyMessage]) -> None:
    """Check that a VIEW-CHANGE claims all that was voted for."""
    prepared = {claim.seq: claim for claim in change.prepared}
    accepted = {(claim.seq, claim.digest): claim.view for claim in change.preprepared}
    for message in said:
        if isinstance(message, Prepare | Commit) and message.seq > change.stable:
            assert accepted[message.seq, message.digest] >= message.view
        if isinstance(message, Commit) and message.seq > change.stable:
            claim = prepared[message.seq]
            assert claim.view > message.view or claim == Claim(
                message.seq, message.digest, message.view
            )


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("name", "seed"), [("r0", 1), ("r1", 2), ("r3", 3)])
def test_whatever_of_the_log_is_left_no_vote_contradicts_one_that_was_sent(
    name: str, seed: int, fast: bool
) -> None:
    """A replica that is killed in any step, its last write torn anywhere, is tempted by all."""
    settings = msgspec.structs.replace(SETTINGS, fast=fast)
    world, steps = record(name, seed, settings)
    said: list[AnyMessage] = []
    restarts = views = 0
    for i, step in enumerate(steps):
        torn = [step.before + step.added[:count] for count in range(1, len(step.added))]
        for log in [*torn[:2], step.after]:
            if log is step.after:
                said += [each for each in step.said if not isinstance(each, Reply | Request)]
            elif not torn:
                continue
            if i % 3:  # a third of the steps is enough
                continue
            restarts += 1
            judge = Invariants(world.group, HashChain, world.keys["r0"])
            judge.started(name)
            judge.sent(name, said)
            again = LoneReplica(name, settings=settings, log=log, keys=world.keys)
            views = max(views, again.replica.view)
            tempt(again)
            judge.sent(name, [each for _, each in again.sent])
            for change in again.take(ViewChange):
                if change.replica == name:
                    kept_promises(change, said)
    assert restarts > 50
    assert views > 0


def tempt(lone: LoneReplica) -> None:
    """Offer a replica other batches for all slots, and have it vote again, propose and give up."""
    view, low = lone.replica.view, lone.replica.standing().stable
    others = lone.group.others(lone.name)
    lone.hear(others[0], Status(view, True, 0, 0, b""))
    leader = lone.group.primary(view)
    number = 1_000_000
    for seq in range(low + 1, low + 2 * lone.settings.checkpoint + 1):
        number += 1
        other = lone.proposal(seq, [lone.request(number, "c0", low=number)], view=view)
        if leader != lone.name:
            lone.hear(leader, other)
        for name in others:
            lone.hear(name, lone.vote(name, Prepare(view, seq, other.digest)))
    lone.hear("c0", lone.request(number + 9, "c0", low=number + 9))
    lone.wait(0.1)
    lone.hear(others[0], Status(view, True, 0, 0, b""))
    for name in others:
        lone.hear(name, lone.change(name, view + 1))
    lone.wait(0.1)
    lone.hear(others[0], Status(view + 1, False, 0, 0, b""))


def test_a_log_written_anew_leaves_a_replica_where_it_was() -> None:
    """`Rewrite` at a checkpoint says all that the records before it did."""
    world, steps = record("r1", 5, SETTINGS)
    rewritten = 0
    for step in steps:
        if step.before and len(step.after) < len(step.before) + len(step.added):
            rewritten += 1
            again = LoneReplica("r1", settings=SETTINGS, log=step.after, keys=world.keys)
            records = [decode_record(each) for each in step.after]
            assert isinstance(records[0], Base)
            assert again.replica.standing().stable == records[0].seq
            # Written anew at once, it is the same.
            assert again.replica._log() == records
    assert rewritten > 3


def test_what_was_final_is_final_again_and_executed_as_before() -> None:
    world, steps = record("r1", 6, SETTINGS)
    for log in (steps[len(steps) // 2].after, steps[-1].after):
        again = LoneReplica("r1", settings=SETTINGS, log=log, keys=world.keys)
        final = again.replica.standing().final
        committed = again.did(Committed)
        assert [each.seq for each in committed] == list(
            range(again.replica.standing().stable + 1, final + 1)
        )
        for each in committed:
            first, _ = world.judge.history[each.seq]
            assert (first.digest, first.requests) == (each.digest, each.requests)
    assert final == max(world.judge.history)


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([Base(4, bytes(32), b"state")], "the vote log's state after 4 is another"),
        ([Accepted(0, 1, bytes(32), b"")], "the vote log lacks a batch of slot 1"),
        ([Body(b"no batch")], "no batch"),
    ],
)
def test_a_log_whose_records_do_not_fit_is_refused(records: list[Record], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LoneReplica("r1", log=[encode_record(each) for each in records])


def test_votes_are_sent_again_after_a_restart() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", proposal)
    lone.hear("r2", Prepare(0, 1, proposal.digest))
    again = LoneReplica("r1", log=lone.log)
    again.take(Prepare)
    again.hear("r3", Status(0, True, 0, 0, b""))
    kinds = {type(each): each for to, each in again.sent if to == "r3"}
    assert kinds[Prepare] == Prepare(0, 1, proposal.digest, proposal.signature)
    assert kinds[Commit] == Commit(0, 1, proposal.digest)


def test_a_log_written_anew_amid_a_view_change_keeps_the_claims() -> None:
    lone = LoneReplica("r1")
    proposals = [lone.proposal(seq, [lone.request(seq)]) for seq in range(1, 8)]
    for proposal in proposals[:5]:
        lone.order(proposal)
    lone.hear("r0", *proposals[5:])
    lone.hear("r2", Prepare(0, 6, proposals[5].digest))
    for other in ("r2", "r3"):
        lone.hear(other, lone.change(other, 2))
    (change,) = lone.take(ViewChange, "r3")
    assert (change.stable, [claim.seq for claim in change.prepared]) == (0, [1, 2, 3, 4, 5, 6])
    for other in lone.group.others("r1"):
        lone.hear(other, change.checkpoints[-1])
    assert lone.replica.standing().stable == 4
    again = LoneReplica("r1", log=lone.log)
    assert (again.replica.view, again.replica.active) == (2, False)
    assert again.take(ViewChange, "r3") == [change]  # the very same, though low has moved
    for other in ("r2", "r3"):
        again.hear(other, again.change(other, 3))
    (change,) = again.take(ViewChange, "r3")
    assert change.stable == 4
    assert change.prepared == [Claim(seq, proposals[seq - 1].digest, 0) for seq in (5, 6)]
    assert change.preprepared == [Claim(seq, proposals[seq - 1].digest, 0) for seq in (5, 6, 7)]
