import pytest

from state.pbft.messages import Checkpoint, Commit, NewView, Prepare, PrePrepare, Request
from tests.state.pbft.lone_replica import LoneReplica


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
