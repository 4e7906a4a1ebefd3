import random
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.pbft.messages import (
    MAX_CLAIMS,
    MAX_GROUP,
    MAX_OPERATIONS,
    MAX_SLOTS,
    NULL,
    NULL_DIGEST,
    VERSION,
    Accusation,
    AnyMessage,
    Batch,
    BatchBody,
    Checkpoint,
    Claim,
    Commit,
    Decided,
    FetchBatches,
    FetchState,
    MessageError,
    NewView,
    Prepare,
    PrePrepare,
    Reply,
    Request,
    Selected,
    StatePart,
    Status,
    ViewChange,
    decode,
    decode_batch,
    digest,
    encode,
    encode_batch,
    signed_part,
)

D, E, S = bytes([1] * 32), bytes([2] * 32), bytes([3] * 64)
MOST = (1 << 62) - 1
REQUEST = Request("c", 7, 3, [b"one", b""], S)
CHANGE = ViewChange(2, "r1", 4, [Checkpoint(4, D)], [Claim(5, D, 1)], [Claim(5, D, 1)], S)
ONE_OF_EACH: list[AnyMessage] = [
    REQUEST,
    PrePrepare(0, 1, D, S, NULL),
    Prepare(1, 2, D, S, S),
    Commit(MOST, MOST, D, S),
    Reply(1, 2, 0, 3, D, E, [b"r"]),
    Reply(1, 2, 2, 3, D, E, None),
    Checkpoint(0, D),
    CHANGE,
    NewView(2, [CHANGE], Checkpoint(4, D), [Selected(5, D)], S),
    Status(3, True, 4, 5, b"\x01\x07"),
    FetchBatches([D, E]),
    BatchBody(NULL),
    FetchState(4, D, -1),
    StatePart(4, D, 0, b"part"),
    Accusation("r1", PrePrepare(0, 1, D, S), PrePrepare(0, 1, E, S)),
    Decided(1, 2, D),
]


def test_every_message_is_read_as_it_was_written() -> None:
    assert {type(each) for each in ONE_OF_EACH} == set(get_args(AnyMessage))
    assert decode(encode(ONE_OF_EACH)) == ONE_OF_EACH
    assert decode(encode([])) == []


def test_every_field_of_what_is_signed_matters() -> None:
    other = {"client": "x", "replica": "x", "digest": E, "operations": [b"one"], "prepared": []}
    other |= {"checkpoint": Checkpoint(4, E), "selected": [], "view_changes": []}
    other |= {"checkpoints": [Checkpoint(4, E)], "preprepared": []}
    for message in ONE_OF_EACH:
        if not isinstance(message, Request | PrePrepare | Prepare | Commit | ViewChange | NewView):
            continue
        part = signed_part(message, "r1")
        assert signed_part(message, "r2") != part
        for field in message.__struct_fields__:
            if field in {"signature", "batch", "proof"}:  # the digest stands for the batch
                continue
            value = other.get(field, 77)
            changed = msgspec.structs.replace(message, **{field: value})
            assert signed_part(changed, "r1") != part, (type(message), field)
        assert signed_part(msgspec.structs.replace(message, signature=b""), "r1") == part
    votes = [Prepare(1, 2, D), Commit(1, 2, D), PrePrepare(1, 2, D, b"")]
    assert len({signed_part(each, "r1") for each in votes}) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        Request("", 1, 1, [b""]),
        Request("c" * 201, 1, 1, [b""]),
        Request("c", 0, 1, [b""]),
        Request("c", 1, 0, [b""]),
        Request("c", 1 << 62, 1, [b""]),
        Request("c", 1, 1, []),
        Request("c", 1, 1, [b""] * (MAX_OPERATIONS + 1)),
        Request("c", 1, 1, [b""], bytes(65)),
        PrePrepare(-1, 1, D, S),
        PrePrepare(0, 0, D, S),
        Prepare(0, 1, D[1:]),
        Commit(1 << 62, 1, D),
        Reply(1, 1, 3, 1, D, D, None),
        ViewChange(0, "r1", 0, [], [], []),
        ViewChange(1, "r1", 0, [Checkpoint(0, D)] * 65, [], []),
        ViewChange(1, "r1", 0, [], [Claim(1, D, 0)] * (MAX_SLOTS + 1), []),
        ViewChange(1, "r1", 0, [], [], [Claim(1, D, 0)] * (MAX_CLAIMS + 1)),
        NewView(1, [CHANGE] * (MAX_GROUP + 1), Checkpoint(0, D), []),
        NewView(1, [], Checkpoint(0, D), [Selected(1, D)] * (MAX_SLOTS + 1)),
        Status(0, True, 0, 0, bytes(MAX_SLOTS + 1)),
        FetchBatches([D] * (MAX_SLOTS + 1)),
        FetchState(0, D, -2),
        StatePart(0, D, (1 << 20) + 1, b""),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_is_out_of_range_is_refused(wrong: AnyMessage) -> None:
    with pytest.raises(MessageError):
        decode(encode([wrong]))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode([VERSION]),
        msgspec.msgpack.encode([VERSION, [], 0]),
        msgspec.msgpack.encode([VERSION + 1, []]),
        msgspec.msgpack.encode([VERSION, [[99, 1]]]),
        msgspec.msgpack.encode([VERSION, [[4, 1, 1, D, S, "more"]]]),
        msgspec.msgpack.encode([VERSION, [[4, 1, 1]]]),
        msgspec.msgpack.encode([VERSION, [[1, b"c", 1, 1, [b""]]]]),
        msgspec.msgpack.encode([VERSION, [[1, "c", 1, 1, [b""]]]]).replace(b"\xa1c", b"\xa1\xff"),
        b"\x92\x01\xdd\xff\xff\xff\xff",  # says that four billion messages follow
        b"\x92\x01" + b"\x91" * 100_000,
        encode([REQUEST]) + b"\0",
    ],
)
def test_what_is_no_bundle_is_refused(wrong: bytes) -> None:
    with pytest.raises(MessageError):
        decode(wrong)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_bundle_or_refused(data: bytes) -> None:
    for wrong in (data, b"\x92\x01" + data, b"\x92\x01\x91" + data):
        try:
            messages = decode(wrong)
        except MessageError:
            continue
        assert decode(encode(messages)) == messages


def test_changed_bytes_are_a_bundle_or_refused() -> None:
    rng = random.Random(1)
    whole = encode(ONE_OF_EACH)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            messages = decode(bytes(data))
        except MessageError:
            continue
        assert decode(encode(messages)) == messages


def test_batches_have_a_digest_of_their_bytes() -> None:
    batch = Batch(5, [REQUEST])
    assert decode_batch(encode_batch(batch)) == batch
    assert decode_batch(NULL) == Batch(0, [])
    assert digest("batch", NULL) == NULL_DIGEST
    assert digest("state", NULL) != NULL_DIGEST
    for wrong in (b"", NULL + b"\0", encode_batch(batch)[:-1], msgspec.msgpack.encode([-1, []])):
        with pytest.raises(MessageError):
            decode_batch(wrong)
