import random

import msgspec
import pytest

from state.pbft.checkpoints import Checkpoints, Snapshot, Transfer
from state.pbft.chunks import cuts
from state.pbft.events import Settings
from state.pbft.group import Group
from state.pbft.messages import Checkpoint, FetchState, StatePart

SETTINGS = Settings(chunk=10, max_state=1000, longest_resend=1.0)
GROUP = Group("demo", ["r0", "r1", "r2", "r3"])
DATA = random.Random(1).randbytes(95)
SNAPSHOT = Snapshot(4, DATA, 10)
TARGET = Checkpoint(4, SNAPSHOT.digest)
A, B = bytes([1] * 32), bytes([2] * 32)
LATER = Checkpoint(5, A)


def kept() -> Checkpoints:
    return Checkpoints(GROUP, SETTINGS, Snapshot(0, b"", 10))


def answer(wanted: FetchState, snapshot: Snapshot = SNAPSHOT) -> StatePart:
    return StatePart(wanted.seq, wanted.digest, wanted.index, snapshot.part(wanted.index))


@pytest.mark.parametrize("data", [b"", b"x", DATA[:10], DATA, DATA * 9])
def test_a_state_of_any_size_comes_in_chunks(data: bytes) -> None:
    snapshot = Snapshot(4, data, 10)
    transfer = Transfer(Checkpoint(4, snapshot.digest), SETTINGS, 0.0)
    asked = 0
    while (done := transfer.done()) is None:
        wanted = transfer.wanted()
        assert 0 < len(wanted) <= 8
        asked += len(wanted)
        for each in wanted:
            assert not transfer.idle
            assert transfer.take(answer(each, snapshot), 0.0)
        assert transfer.idle
    assert (done.seq, done.data, done.digest) == (4, data, snapshot.digest)
    assert asked == 1 + len(cuts(data, 10))


def test_wrong_chunks_are_refused_whoever_sends_them() -> None:
    transfer = Transfer(TARGET, SETTINGS, 0.0)
    (first,) = transfer.wanted()
    other = Snapshot(4, DATA[::-1], 10)
    for wrong in (
        answer(first, other),  # another state's list
        StatePart(4, TARGET.digest, -1, SNAPSHOT.contents[:-1]),
        StatePart(4, TARGET.digest, -1, b""),
        StatePart(4, TARGET.digest, 0, DATA[:10]),  # before the list
        StatePart(5, TARGET.digest, -1, SNAPSHOT.contents),
        StatePart(4, other.digest, -1, other.contents),
    ):
        assert not transfer.take(wrong, 0.0)
    assert transfer.take(answer(first), 0.0)
    for wrong in (
        StatePart(4, TARGET.digest, 0, other.part(0)),
        StatePart(4, TARGET.digest, 0, SNAPSHOT.part(1)),
        StatePart(4, TARGET.digest, 0, b""),
        StatePart(4, TARGET.digest, 10, b""),
    ):
        assert not transfer.take(wrong, 0.0)
    for index in range(len(cuts(DATA, 10))):
        assert transfer.done() is None
        assert transfer.take(answer(FetchState(4, TARGET.digest, index)), 0.0)
    assert transfer.done() is not None


def test_what_is_here_or_has_come_is_not_asked_for() -> None:
    before = random.Random(2).randbytes(5000)
    after = b"new" + before[:2500] + b"?" + before[2501:]
    one, other = Snapshot(4, before, 100), Snapshot(16, after, 100)
    target = Checkpoint(16, other.digest)
    settings = msgspec.structs.replace(SETTINGS, chunk=100, max_state=10_000)
    held = Transfer(Checkpoint(4, one.digest), settings, 0.0)
    for _ in range(4):
        for each in held.wanted():
            assert held.take(answer(each, one), 0.0)
    assert held.by_hash().items() <= one.by_hash().items()
    for here in (held.by_hash(), one.by_hash(), other.by_hash()):
        transfer = Transfer(target, settings, 0.0, here)
        assert transfer.by_hash() == here
        asked = 0
        while (done := transfer.done()) is None:
            wanted = transfer.wanted()
            asked += len(wanted)
            for each in wanted:
                assert transfer.take(answer(each, other), 0.0)
        assert done.data == after
        assert transfer.by_hash() == other.by_hash()
        missing = sum(key not in here for key in other.by_hash())
        assert asked == 1 + missing
        assert missing <= len(other.by_hash()) - len(here) + 6


def test_a_later_state_is_got_when_others_may_not_keep_the_first_any_more() -> None:
    transfer = Transfer(TARGET, SETTINGS, 0.0)
    every = SETTINGS.checkpoint
    for later, gives in ((-every, False), (0, False), (2 * every, False), (3 * every, True)):
        assert transfer.gives_way(Checkpoint(4 + later, A), 0.0) == gives


def test_a_state_larger_than_allowed_is_not_taken() -> None:
    big = Snapshot(4, bytes(1001), 10)
    transfer = Transfer(Checkpoint(4, big.digest), SETTINGS, 0.0)
    (first,) = transfer.wanted()
    assert not transfer.take(answer(first), 0.0)
    assert not transfer.too_large
    for now in (1.0, 3.0):
        assert transfer.take(answer(first, big), now)
        assert transfer.too_large
        assert transfer.wanted() == []
        assert not transfer.gives_way(LATER, now)
        assert not transfer.gives_way(Checkpoint(4000, A), now), "nor would that be smaller"
    assert transfer.done() is None
    assert transfer.gives_way(LATER, 3.1)


def test_it_is_stuck_when_nothing_new_comes_though_old_parts_do() -> None:
    transfer = Transfer(TARGET, SETTINGS, 0.0)
    (first,) = transfer.wanted()
    assert transfer.take(answer(first), 1.0)
    part = answer(FetchState(4, TARGET.digest, 3))
    assert transfer.take(part, 2.0)
    for now in (3.0, 4.0):
        assert transfer.take(part, now)
        assert transfer.take(answer(first), now)
        assert not transfer.gives_way(LATER, now)
    assert transfer.gives_way(LATER, 4.1)
    assert not transfer.gives_way(TARGET, 4.1)


def test_what_enough_replicas_say_is_agreed() -> None:
    checkpoints = kept()
    for replica, digest in (("r0", A), ("r1", A), ("r2", B)):
        checkpoints.vote(replica, 4, digest)
    checkpoints.vote("r2", 4, A)  # its first word counts
    checkpoints.vote("r3", 0, A)
    assert checkpoints.agreed(2) == [Checkpoint(4, A)]
    assert checkpoints.agreed(3) == []
    checkpoints.vote("r3", 4, A)
    assert checkpoints.agreed(3) == [Checkpoint(4, A)]


def test_of_each_replica_only_the_last_votes_are_kept() -> None:
    checkpoints = kept()
    for seq in range(1, 10_000):
        checkpoints.vote("r0", seq, A)
    checkpoints.vote("r0", (1 << 62) - 1, A)
    assert len(checkpoints.agreed(1)) == 8
    checkpoints.vote("r1", 4, A)
    checkpoints.vote("r2", 4, A)
    assert Checkpoint(4, A) in checkpoints.agreed(2)  # which one that says much does not displace


def test_parts_of_stable_states_and_own_ones_are_served() -> None:
    checkpoints = kept()
    checkpoints.add(SNAPSHOT)
    wanted = FetchState(4, TARGET.digest, 9)
    assert checkpoints.serve(wanted) == answer(wanted)
    assert checkpoints.serve(FetchState(4, A, 0)) is None
    assert checkpoints.serve(FetchState(5, TARGET.digest, 0)) is None
    checkpoints.undo(3)
    assert checkpoints.serve(wanted) is None
    checkpoints.add(SNAPSHOT)
    checkpoints.settle(SNAPSHOT)
    assert checkpoints.until(4) == [SNAPSHOT]
    for seq in (8, 12):
        checkpoints.settle(Snapshot(seq, DATA, 10))
        assert checkpoints.serve(wanted) == answer(wanted)
    checkpoints.settle(Snapshot(16, DATA, 10))
    assert checkpoints.serve(wanted) is None
