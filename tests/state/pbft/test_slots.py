import pytest

from state.pbft.messages import NULL_DIGEST, Batch, Claim, MessageError, digest, encode_batch
from state.pbft.slots import Slots


def put(slots: Slots, time_ms: int) -> bytes:
    return slots.put_batch(encode_batch(Batch(time_ms, [])))


def test_the_window_moves_with_the_checkpoint() -> None:
    slots = Slots(window=8)
    assert [seq for seq in range(-1, 12) if slots.inside(seq)] == list(range(1, 9))
    for seq in range(1, 9):
        slots.slot(seq, 0)
    slots.advance(4)
    assert [each.seq for each in slots] == [5, 6, 7, 8]
    assert [each.seq for each in slots.past()] == [1, 2, 3, 4]
    assert [seq for seq in range(20) if slots.inside(seq)] == list(range(5, 13))
    slots.advance(8)
    assert [each.seq for each in slots.past()] == [5, 6, 7, 8]  # half a window, no more


def test_a_new_view_forgets_votes_and_keeps_claims_and_decisions() -> None:
    slots = Slots(window=8)
    slot = slots.slot(3, 0)
    slot.digest, slot.accepted, slot.prepares["r1"] = NULL_DIGEST, True, NULL_DIGEST
    slot.prepared, slot.preprepared[NULL_DIGEST] = Claim(3, NULL_DIGEST, 0), 0
    slot.commits["r1"] = slot.committed = (0, NULL_DIGEST)
    assert slot.is_prepared()
    assert slots.slot(3, 0) is slot
    assert slot.accepted
    assert slots.slot(3, 1) is slot
    assert (slot.digest, slot.accepted, slot.prepares) == (None, False, {})
    assert not slot.is_prepared()
    assert slot.prepared == Claim(3, NULL_DIGEST, 0)
    assert slot.preprepared == {NULL_DIGEST: 0}
    assert slot.commits == {"r1": (0, NULL_DIGEST)}
    assert slot.committed == (0, NULL_DIGEST)


def test_what_was_prepared_is_so_in_its_view_and_for_its_batch_only() -> None:
    slots = Slots(window=8)
    slot = slots.slot(1, 2)
    slot.digest = NULL_DIGEST
    for claim in (Claim(1, NULL_DIGEST, 1), Claim(1, bytes(32), 2)):
        slot.prepared = claim
        assert not slot.is_prepared()


def test_batches_are_kept_as_long_as_a_slot_names_them() -> None:
    slots = Slots(window=8)
    accepted, committed, proposed, unnamed = (put(slots, time) for time in range(1, 5))
    slots.slot(1, 0).preprepared[accepted] = 0
    slots.slot(2, 0).committed = (0, committed)
    slots.slot(5, 0).digest = proposed
    slots.advance(4)
    assert slots.batch(unnamed) is None
    assert [slots.batch(each) for each in (accepted, committed, proposed)] == [
        Batch(time, []) for time in (1, 2, 3)
    ]
    slots.advance(8)
    assert slots.batch(accepted) is None
    assert slots.batch_bytes(accepted) is None
    assert slots.batch(committed) is None
    assert slots.batch(proposed) == Batch(3, [])
    assert slots.batch(NULL_DIGEST) == Batch(0, [])
    with pytest.raises(MessageError):
        slots.put_batch(b"nothing")
    assert slots.batch(digest("batch", b"nothing")) is None
