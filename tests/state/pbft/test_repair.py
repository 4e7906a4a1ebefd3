from itertools import product

import msgspec
import pytest

from state.pbft import Committed, Rejected, Send, Settings, Transferred
from state.pbft.checkpoints import Snapshot
from state.pbft.execution import Execution
from state.pbft.hash_chain import HashChain
from state.pbft.messages import (
    Batch,
    BatchBody,
    Checkpoint,
    Commit,
    Decided,
    FetchBatches,
    FetchState,
    NewView,
    Prepare,
    PrePrepare,
    Reply,
    StatePart,
    Status,
    ViewChange,
    decode_batch,
)
from tests.state.pbft.lone_replica import SETTINGS, LoneReplica, genesis

FAR = (1 << 62) - 1
BIG = 100_000


def state_after(lone: LoneReplica, proposals: list[PrePrepare], batches: list[Batch]) -> Snapshot:
    execution = Execution(HashChain(), lone.settings)
    for proposal, batch in zip(proposals, batches, strict=True):
        execution.execute(proposal.seq, proposal.digest, batch)
    return Snapshot(len(batches), execution.snapshot(), lone.settings.chunk)


def batches_of(count: int, lone: LoneReplica) -> tuple[list[PrePrepare], list[Batch]]:
    proposals = [lone.proposal(seq, [lone.request(seq)]) for seq in range(1, count + 1)]
    return proposals, [decode_batch(each.batch) for each in proposals]


def sent_bytes(lone: LoneReplica, *messages: FetchBatches | FetchState | Status) -> int:
    effects = lone.hear("r3", *messages)
    return sum(len(each.data) for each in effects if isinstance(each, Send))


def test_who_lacks_a_proposal_and_votes_gets_them() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    lone.hear("r0", proposal)
    lone.hear("r3", Prepare(0, 1, proposal.digest))
    lone.wait(0.1)
    lone.take(Prepare)
    lone.hear("r2", Status(0, True, 0, 0, b""))
    assert [type(m) for to, m in lone.sent if to == "r2"] == [PrePrepare, Prepare, Commit]
    lone.sent.clear()
    lone.wait(0.1)
    lone.sent.clear()
    lone.hear("r2", Status(0, True, 0, 0, b"\x03"))
    assert [type(m) for to, m in lone.sent if to == "r2"] == [Commit]


def test_what_is_final_is_told_to_whom_it_is_not() -> None:
    lone = LoneReplica("r1")
    proposals, _ = batches_of(3, lone)
    for proposal in proposals:
        lone.order(proposal)
    lone.take(Commit)
    lone.hear("r3", Status(7, False, 0, 1, b"\0\x04"))
    assert lone.take(Decided) == [Decided(0, 2, proposals[1].digest)]


def test_f_plus_1_who_say_that_it_is_decided_are_enough_and_f_are_not() -> None:
    lone = LoneReplica("r1")
    proposal = lone.proposal(1, [lone.request(1)])
    decided = Decided(0, 1, proposal.digest)
    lone.hear("r0", decided, decided, BatchBody(proposal.batch))
    lone.hear("r2", Decided(0, 1, bytes(32)))
    lone.hear("r0", decided, BatchBody(proposal.batch))
    assert lone.replica.standing().final == 0
    lone.hear("r3", decided)
    lone.hear("r3", BatchBody(proposal.batch))
    assert [each.digest for each in lone.did(Committed)] == [proposal.digest]


def test_a_view_that_others_lack_is_told() -> None:
    lone = LoneReplica("r1")
    for other in ("r0", "r2", "r3"):
        lone.hear(other, lone.change(other, 1))
    (new_view,) = lone.take(NewView, "r3")
    lone.hear("r3", Status(0, True, 0, 0, b""))
    assert lone.take(NewView) == [new_view]  # the very same
    again = LoneReplica("r1", log=lone.log)
    again.take(NewView)
    again.hear("r3", Status(1, False, 0, 0, b""))
    assert again.take(NewView) == [new_view]


def test_who_wants_a_view_says_so_again_and_the_same_after_a_restart() -> None:
    lone = LoneReplica("r1")
    for other in ("r2", "r3"):
        lone.hear(other, lone.change(other, 2))
    (change,) = lone.take(ViewChange, "r3")
    for each in (lone, LoneReplica("r1", log=lone.log)):
        each.wait(0.1)
        each.take(ViewChange)
        each.hear("r3", Status(2, False, 0, 0, b""))
        assert each.take(ViewChange) == [change]


def test_a_few_bytes_do_not_ask_for_many() -> None:
    settings = msgspec.structs.replace(SETTINGS, chunk=BIG)
    lone = LoneReplica("r1", settings=settings)
    proposal = lone.proposal(1, [lone.request(1, data=bytes(BIG))])
    lone.order(proposal)
    once = sent_bytes(lone, FetchBatches([proposal.digest]))
    assert BIG < once < 2 * BIG
    many = [FetchBatches([proposal.digest] * 4096)] * 100
    assert sent_bytes(lone, *many) < 5_000_000
    assert sent_bytes(lone, *many) == 0
    lone.wait(0.1)
    assert sent_bytes(lone, FetchBatches([proposal.digest])) == once  # and later again
    lone.wait(0.1)
    state = genesis(settings)
    assert sent_bytes(lone, *[FetchState(0, state.digest, 0)] * 100_000) < 20_000_000
    assert sent_bytes(lone, *[Status(0, True, 0, 0, b"")] * 1000) < 5_000_000


def test_a_request_that_comes_often_in_one_step_is_answered_once() -> None:
    lone = LoneReplica("r1")
    request = lone.request(1)
    lone.order(lone.proposal(1, [request]))
    lone.take(Reply)
    lone.hear("r3", *[request] * 1000)
    assert len(lone.take(Reply)) == 1
    lone.hear("c", request)
    assert len(lone.take(Reply)) == 1


@pytest.mark.parametrize(
    "hostile",
    [
        Status(FAR, True, FAR, FAR, b"\xff" * 4096),
        Status(0, True, 0, FAR, b"\xff" * 4096),
        Status(0, False, FAR, 0, b"\xff" * 4096),
        FetchState(FAR, bytes(32), 1 << 20),
        FetchState(0, genesis().digest, 1 << 20),
        FetchBatches([bytes(32)] * 4096),
        StatePart(FAR, bytes(32), 1 << 20, b"x"),
        BatchBody(b"x" * 1000),
        Decided(FAR, FAR, bytes(32)),
        Checkpoint(FAR, bytes(32)),
        Commit(FAR, FAR, bytes(32)),
        Prepare(FAR, 1, bytes(32)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_liar_alone_changes_nothing(hostile: Status) -> None:
    lone = LoneReplica("r1")
    lone.wait(0.1)
    before, log = lone.replica.standing(), len(lone.log)
    lone.hear("r3", *[hostile] * 10)
    lone.wait(1.0)
    assert lone.replica.standing() == before
    assert len(lone.log) == log


def far_behind(lone: LoneReplica) -> Snapshot:
    """Have f + 1 others tell of a checkpoint that the replica is far from."""
    state = state_after(lone, *batches_of(12, lone))
    for other in ("r0", "r2"):
        lone.hear(other, Checkpoint(12, state.digest))
    lone.wait(0.1)
    return state


def test_who_is_far_behind_gets_the_state_from_whoever_answers_rightly() -> None:
    lone = LoneReplica("r1", settings=msgspec.structs.replace(SETTINGS, chunk=64, max_state=9999))
    state = far_behind(lone)
    assert lone.replica.standing().transferring
    servers = set()
    for _ in range(200):
        asked = [(to, m) for to, m in lone.sent if isinstance(m, FetchState)]
        lone.sent.clear()
        for to, wanted in asked:
            if to == "r0":
                continue  # silent
            data = state.part(wanted.index) if to == "r2" else b"wrong"
            servers.add(to)
            lone.hear(to, StatePart(wanted.seq, wanted.digest, wanted.index, data))
        if lone.replica.standing().final == 12:
            break
        lone.wait(0.05)
    assert servers == {"r2", "r3"}
    assert lone.did(Transferred) == [Transferred(12, state.digest)]
    standing = lone.replica.standing()
    assert (standing.stable, standing.final, standing.transferring) == (12, 12, False)
    # It is on its disk.
    again = LoneReplica("r1", settings=lone.settings, log=lone.log).replica.standing()
    assert (again.stable, again.final) == (12, 12)


def test_a_state_that_is_too_large_is_told_of_once_and_not_asked_for_again() -> None:
    lone = LoneReplica("r1", settings=msgspec.structs.replace(SETTINGS, chunk=64, max_state=1))
    state = far_behind(lone)
    for _ in range(3):
        lone.hear("r2", StatePart(12, state.digest, -1, state.contents))
        lone.take(FetchState)
        lone.wait(3.0)
        assert lone.take(FetchState) == []
    assert [each.reason for each in lone.did(Rejected)] == [
        "the state after 12 has more than `max_state`, 1 bytes: this replica stays behind"
    ]
    assert lone.replica.standing().final == 0


def test_what_comes_only_when_asked_for_is_not_asked_for_ever_later() -> None:
    """Where much is lost, every slot takes as long as it takes to ask; so that must not grow."""
    settings = msgspec.structs.replace(SETTINGS, checkpoint=64)
    lone = LoneReplica("r1", settings=settings)
    waited = []
    for seq in range(1, 60):
        proposal = lone.proposal(seq, [lone.request(seq)])
        lone.hear("r0", proposal)
        lone.sent.clear()
        start = lone.now
        while not lone.take(Status):
            lone.wait(0.01)
        waited.append(lone.now - start)
        lone.order(proposal)
    assert max(waited) <= settings.timeout / 4


def test_f_who_tell_of_a_checkpoint_are_not_believed() -> None:
    lone = LoneReplica("r1")
    lone.hear("r0", Checkpoint(12, bytes(32)))
    lone.hear("r2", Checkpoint(12, bytes([1] * 32)))
    lone.wait(3.0)
    assert not lone.replica.standing().transferring


def test_one_who_gets_there_alone_does_not_go_back_to_an_older_state() -> None:
    lone = LoneReplica("r1")
    state = far_behind(lone)
    proposals, _ = batches_of(13, lone)
    for start in range(0, 12, 4):
        for proposal in proposals[start : start + 4]:
            lone.order(proposal)
        lone.wait(lone.settings.lazy)
        mark = lone.take(Checkpoint, "r3")[-1]
        for other in ("r0", "r2", "r3"):
            lone.hear(other, mark)
    lone.order(proposals[12])
    assert lone.replica.standing().final == 13
    assert not lone.replica.standing().transferring
    lone.hear("r0", StatePart(12, state.digest, -1, state.contents))
    lone.hear("r0", StatePart(12, state.digest, 0, state.data))
    assert lone.replica.standing().final == 13
    assert lone.did(Transferred) == []


def test_at_least_f_plus_1_others_send_a_proposal_again() -> None:
    for n, seq in product((4, 5, 7), range(1, 9)):
        givers = []
        for name in [f"r{i}" for i in range(1, n - 1)]:
            lone = LoneReplica(name, n=n, settings=Settings(checkpoint=64))
            proposal = lone.proposal(seq, [lone.request(seq)])
            lone.hear("r0", proposal)
            lone.sent.clear()
            lone.hear(f"r{n - 1}", Status(0, True, 0, 0, b""))
            givers += [name] if lone.take(PrePrepare) else []
        assert len(givers) >= (n - 1) // 3, (n, seq)  # and the primary does


def test_a_batch_that_is_too_large_is_not_kept() -> None:
    settings = msgspec.structs.replace(
        SETTINGS, batch_bytes=1000, max_request=1000, batch_operations=1
    )
    lone = LoneReplica("r1", settings=settings)
    lone.hear("r0", lone.proposal(1, [lone.request(1, data=bytes(60_000))]))
    assert "too large" in lone.did(Rejected)[0].reason
    assert lone.take(Prepare) == []
    # Neither is one of which f + 1 say that they have prepared it; they cannot both lie.
    lone.hear("r0", lone.proposal(2, [lone.request(2, data=bytes(1000))]))
    assert len(lone.take(Prepare, "r3")) == 1
