import msgspec
import pytest

from state.pbft import Committed, Diverged, Phase, Stable, Transferred
from state.pbft.messages import (
    BatchBody,
    Checkpoint,
    Commit,
    FetchState,
    Prepare,
    PrePrepare,
    Reply,
    StatePart,
    ViewChange,
)
from tests.state.pbft.lone_replica import SETTINGS, LoneReplica

TENTATIVE = msgspec.structs.replace(SETTINGS, tentative=True)
FAST = msgspec.structs.replace(SETTINGS, fast=True)


def prepare(lone: LoneReplica, proposal: PrePrepare) -> None:
    lone.hear("r0", proposal)
    lone.hear("r2", Prepare(0, proposal.seq, proposal.digest))


def commit(lone: LoneReplica, proposal: PrePrepare, *names: str) -> None:
    for name in names or ("r0", "r2"):
        lone.hear(name, Commit(proposal.view, proposal.seq, proposal.digest))


def proposals(lone: LoneReplica, count: int) -> list[PrePrepare]:
    return [lone.proposal(seq, [lone.request(seq)]) for seq in range(1, count + 1)]


def phases(lone: LoneReplica) -> list[tuple[int, int]]:
    return [(each.number, each.phase) for each in lone.take(Reply, "c")]


def test_without_tentative_answers_come_when_it_is_committed() -> None:
    lone = LoneReplica("r1")
    (first,) = proposals(lone, 1)
    prepare(lone, first)
    assert phases(lone) == []
    commit(lone, first)
    assert phases(lone) == [(1, Phase.COMMITTED)]


def test_a_tentative_answer_comes_when_it_is_prepared_and_all_before_it_committed() -> None:
    lone = LoneReplica("r1", settings=TENTATIVE)
    first, second = proposals(lone, 2)
    prepare(lone, second)
    assert phases(lone) == []
    prepare(lone, first)
    assert phases(lone) == [(1, Phase.TENTATIVE)]
    assert (lone.replica.standing().executed, lone.replica.standing().final) == (1, 0)
    commit(lone, first)
    assert phases(lone) == [(2, Phase.TENTATIVE)]
    lone.hear("c", lone.request(1), lone.request(2))
    assert phases(lone) == [(1, Phase.COMMITTED), (2, Phase.TENTATIVE)]


def test_a_speculative_answer_comes_with_the_proposal() -> None:
    lone = LoneReplica("r1", settings=FAST)
    batches = proposals(lone, 3)
    lone.hear("r0", *batches)
    assert phases(lone) == [(number, Phase.SPECULATIVE) for number in (1, 2, 3)]
    prepare(lone, batches[0])
    lone.hear("c", lone.request(1), lone.request(2))
    assert phases(lone) == [(1, Phase.TENTATIVE), (2, Phase.SPECULATIVE)]


@pytest.mark.parametrize("settings", [TENTATIVE, FAST], ids=["tentative", "fast"])
def test_what_was_executed_too_early_is_undone_when_the_view_changes(settings: object) -> None:
    """What the next view puts in its place is executed instead, from the same state as ever."""
    assert isinstance(settings, type(SETTINGS))
    lone, other = LoneReplica("r2", settings=settings), LoneReplica("r2", settings=SETTINGS)
    one, early = lone.proposal(1, [lone.request(1)]), lone.proposal(2, [lone.request(2)])
    late = lone.proposal(2, [lone.request(3)], view=1)
    for each in (lone, other):
        each.order(one)
    lone.hear("r0", early)
    lone.hear("r1", Prepare(0, 2, early.digest))
    assert lone.replica.standing().executed == 2
    for each in (lone, other):
        each.hear("r1", each.new_view(1, [each.change(name, 1) for name in ("r0", "r1", "r3")]))
        assert each.replica.standing().executed == 1
        late = each.proposal(2, [each.request(3)], view=1)
        each.did(Committed)
        each.order(each.proposal(1, [each.request(1)], view=1))
        each.order(late)
    found, expected = lone.did(Committed), other.did(Committed)
    assert [each.requests for each in found] == [each.requests for each in expected]
    assert found[-1].seq == 2
    assert found[-1].requests[0].number == 3
    assert lone.replica._execution.snapshot() == other.replica._execution.snapshot()


def test_a_tentative_answer_of_a_view_that_is_given_up_is_not_repeated() -> None:
    lone = LoneReplica("r1", settings=TENTATIVE)
    (first,) = proposals(lone, 1)
    prepare(lone, first)
    assert phases(lone) == [(1, Phase.TENTATIVE)]
    for other in ("r2", "r3"):
        lone.hear(other, lone.change(other, 2))
    lone.hear("c", lone.request(1))
    assert phases(lone) == []
    commit(lone, first, "r0", "r2", "r3")
    assert phases(lone) == [(1, Phase.COMMITTED)]


def test_another_batch_that_a_quorum_committed_replaces_what_was_executed() -> None:
    lone = LoneReplica("r1", settings=FAST)
    mine, theirs = (lone.proposal(1, [lone.request(number)]) for number in (1, 2))
    lone.hear("r0", mine)
    assert lone.replica.standing().executed == 1
    lone.commits(theirs)
    assert [each.digest for each in lone.did(Committed)] == [theirs.digest]
    plain = LoneReplica("r1")
    plain.commits(theirs)
    assert lone.replica._execution.snapshot() == plain.replica._execution.snapshot()


def test_only_one_replica_sends_large_results_until_it_is_asked_again() -> None:
    senders = []
    for name in ("r0", "r1", "r2", "r3"):
        lone = LoneReplica(name, n=4, machine=Large())
        request = lone.request(1)
        if name == "r0":
            lone.hear("c", request)
            (proposal,) = lone.take(PrePrepare, "r1")
        else:
            proposal = lone.proposal(1, [request])
        lone.order(proposal)
        (reply,) = lone.take(Reply, "c")
        senders += [name] if reply.results is not None else []
        lone.hear("c", request)
        assert [len((each.results or [b""])[0]) for each in lone.take(Reply, "c")] == [300]
    assert senders == ["r1"]


class Large:
    """A machine without a state whose results are large."""

    def apply(self, batch: list[object]) -> list[bytes]:
        return [bytes(300) for _ in batch]

    def snapshot(self) -> bytes:
        return b""

    def restore(self, snapshot: bytes) -> None:
        assert snapshot == b""


def test_a_quorum_with_the_same_checkpoint_makes_it_stable() -> None:
    lone = LoneReplica("r1")
    for proposal in proposals(lone, 5):
        lone.order(proposal)
    mark = Checkpoint(4, lone.replica._checkpoints.own(4).digest)  # type: ignore[union-attr]
    lone.hear("r0", mark, mark, mark)
    lone.hear("r2", Checkpoint(4, bytes(32)))
    assert lone.did(Stable) == []
    lone.hear("r3", mark)
    assert lone.did(Stable) == [Stable(4, mark.digest)]


def test_a_replica_with_another_state_than_a_quorum_says_so_and_takes_theirs() -> None:
    lone, right = LoneReplica("r1"), LoneReplica("r2")
    for proposal in proposals(lone, 5):
        lone.order(proposal)
    for seq in range(1, 5):
        right.order(right.proposal(seq, [right.request(seq, data=b"right")]))
    state = right.replica._checkpoints.own(4)
    assert state is not None
    for other in ("r0", "r2", "r3"):
        lone.hear(other, Checkpoint(4, state.digest))
    assert lone.did(Diverged)[0] == Diverged(4)
    lone.wait(2 * SETTINGS.longest_resend)
    assert lone.take(FetchState)
    for index in (-1, 0):
        lone.hear("r3", StatePart(4, state.digest, index, state.part(index)))
    assert lone.did(Transferred) == [Transferred(4, state.digest)]
    standing = lone.replica.standing()
    assert (standing.stable, standing.final, standing.transferring) == (4, 5, False)


def test_what_a_checkpoint_stands_for_outlives_a_restart() -> None:
    """A replica that accepted nothing, and learnt all from others, vouches for a checkpoint."""
    lone = LoneReplica("r1")
    for proposal in proposals(lone, SETTINGS.checkpoint):
        assert lone.log == []
        commit(lone, proposal, "r0", "r2", "r3")
        lone.hear("r0", BatchBody(proposal.batch))
    lone.wait(SETTINGS.lazy)
    said = lone.take(Checkpoint, "r0")
    assert [each.seq for each in said] == [SETTINGS.checkpoint]
    again = LoneReplica("r1", log=lone.log)
    assert again.replica.standing().final == SETTINGS.checkpoint
    for other in ("r2", "r3"):
        again.hear(other, again.change(other, 1))
    (change,) = (each for each in again.take(ViewChange, "r0") if each.replica == "r1")
    assert change.checkpoints[-1:] == said
