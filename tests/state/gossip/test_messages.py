"""Bytes of peers: exact, limited, and harmless when they are not what they should be."""

from __future__ import annotations

import random
import tracemalloc

import msgspec
import pytest

from state.gossip import Fact, MessageError, Peer, Range, Received, Rejected, Start, Status, Update
from state.gossip.messages import (
    Ack,
    Cut,
    Digest,
    Disconnect,
    Facts,
    ForwardJoin,
    Have,
    Join,
    Message,
    Nack,
    Neighbour,
    News,
    Ping,
    PingFor,
    Rows,
    Shuffle,
    Shuffled,
    Sketch,
    Snapshot,
    Span,
    Spans,
    Want,
    decode,
    encode,
    encode_news,
)

FACT = Fact("bob", "addr-b", 1, 0, Status.ALIVE)
RANGE = Range("bob#1", 1, 3)
UPDATE = Update("bob#1", 1, b"x")

# Format version 1, for ever: peers of different releases share a group.
GOLDEN: list[tuple[Message, str]] = [
    (Join(FACT), "01920196a3626f62a6616464722d62010000a0"),
    (ForwardJoin(FACT, 6), "01930296a3626f62a6616464722d62010000a006"),
    (Neighbour(True, False), "019303c3c2"),
    (Disconnect(), "019104"),
    (Shuffle("a", 6, ["b"]), "019405a1610691a162"),
    (Shuffled(["b"]), "01920691a162"),
    (Ping(7, True, False, []), "01950707c3c290"),
    (Ack(7, [FACT]), "019308079196a3626f62a6616464722d62010000a0"),
    (PingFor(7, "b"), "01930907a162"),
    (Nack(7), "01920a07"),
    (Digest(1, 2, 3, 4, []), "01960b0102030490"),
    (Have([RANGE]), "01920c9193a5626f6223310103"),
    (Want([RANGE]), "01920d9193a5626f6223310103"),
    (News([UPDATE], False), "01930e9193a5626f62233101c40178c2"),
    (Rows([RANGE], [9], (0, 5)), "01940f9193a5626f62233101039109920005"),
    (Facts([], [], None), "0194109090c0"),
    (Sketch(0, b""), "01931100c400"),
    (Spans(1, [Span(0, 4, 1, 2)]), "01931201919400040102"),
    (Snapshot(b"s", [], []), "019413c401739090"),
    (Cut(1, [], b"", []), "019514" + "0190c40090"),
]


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=lambda x: type(x).__name__)
def test_bytes_of_every_message(message: Message, golden: str) -> None:
    assert encode(message).hex() == golden
    assert decode(bytes.fromhex(golden), 1000) == message


def test_every_kind_of_message_is_covered() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(Message.__subclasses__())


def test_news_are_encoded_as_the_message() -> None:
    assert encode_news([UPDATE], more=True) == encode(News([UPDATE], True))


def wire(value: object) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(value)


HOSTILE = {
    "nothing": b"",
    "only a version": b"\x01",
    "another version": b"\x02" + encode(Nack(1))[1:],
    "an unknown kind": wire([99, 1]),
    "no array": wire({"number": 1}),
    "a field too many": wire([10, 7, 7]),
    "a field too few": wire([10]),
    "two messages": encode(Nack(1)) + encode(Nack(1))[1:],
    "four billion ranges": b"\x01\x92\x0c\xdd\xff\xff\xff\xff",
    "a payload of four gigabytes": b"\x01\x93\x0e\x91\x93\xa3a#1\x01\xc6\xff\xff\xff\xff",
    "deep nesting": b"\x01" + b"\x91" * 100_000,
    "too many ranges": wire([12, [["a#1", 1, 1]] * 5000]),
    "an empty range": wire([12, [["a#1", 3, 2]]]),
    "number 0": wire([12, [["a#1", 0, 2]]]),
    "a number beyond 63 bits": wire([12, [["a#1", 1, 1 << 63]]]),
    "no replica id": wire([12, [["a", 1, 2]]]),
    "a negative incarnation": wire([12, [["a#-1", 1, 2]]]),
    "a status that is none": wire([1, ["a", "b", 1, 1, 9, ""]]),
    "a name with #": wire([1, ["a#1", "b", 1, 1, 0, ""]]),
    "an empty address": wire([1, ["a", "", 1, 1, 0, ""]]),
    "half a cell": wire([17, 0, b"x" * 21]),
    "no thirds of cells": wire([17, 0, b"x" * 20 * 31]),
    "a sketch of nothing": wire([17, 0, b""]),
    "a table that is none": wire([17, 2, b"x" * 600]),
    "a span from end to begin": wire([15, [], [], [5, 2]]),
    "spans beyond 63 bits": wire([18, 0, [[0, (1 << 63) + 1, 1, 1]]]),
    "half a voter": wire([20, 1, [], b"x" * 9, []]),
    "a cut from the middle": wire([20, 1, [["a#1", 2, 3]], b"x" * 8, []]),
    "a snapshot behind its cut": wire([19, b"s", [["a#1", 1, 1]], [["a#1", 1, 2]]]),
    "a snapshot with a wide gap": wire([19, b"s", [["a#1", 1 << 40, 1 << 41]], []]),
    "a join for someone else": encode(Join(FACT)),
}


def fresh() -> Peer:
    peer = Peer("a", "addr-a", 1, rng=random.Random(1), now=0.0)
    peer.step(Start(0.0))
    return peer


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_message_changes_nothing(data: bytes) -> None:
    peer = fresh()
    tracemalloc.start()
    effects = peer.step(Received(0.0, "addr-x", data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(effect) for effect in effects] == [Rejected]
    assert peer.statistics().rejected == 1
    assert peer.seen() == []
    assert len(peer.members()) == 1
    assert peer.neighbours == ()
    assert peak < 4_000_000


def test_a_message_that_is_too_long_is_not_read() -> None:
    with pytest.raises(MessageError, match="at most 10"):
        decode(encode(Sketch(0, b"x" * 100)), 10)


def test_a_message_from_the_peer_itself_is_refused() -> None:
    effects = fresh().step(Received(0.0, "addr-a", encode(Nack(1))))
    assert isinstance(effects[0], Rejected)


def test_flipped_bits_and_cut_messages_never_raise() -> None:
    rng = random.Random(5)
    peer = fresh()
    messages = [encode(message) for message, _ in GOLDEN]
    for _ in range(20_000):
        data = bytearray(rng.choice(messages))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        peer.step(Received(0.0, "addr-x", bytes(data)))
    assert peer.statistics().rejected > 10_000
    assert len(peer.neighbours) <= 5
