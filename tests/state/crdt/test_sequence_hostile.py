"""Bytes that no honest replica sends: refused at once, and without memory to speak of."""

from __future__ import annotations

import contextlib
import random
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.crdt.sequence import Sequence
from state.crdt.sequence_bytes import Writer
from state.mergeable import seal, unseal

HUGE = (1 << 39) - 1


def varint(value: int) -> bytes:
    out = Writer()
    out.number(value)
    return bytes(out.data)


def state(
    *numbers: int, text: bytes = b"", names: list[bytes] | None = None, kind: int = 0
) -> bytes:
    """A sealed state of one replica "a", or of `names`, with whatever numbers follow."""
    names = [b"a"] if names is None else names
    payload = bytes([kind]) + varint(len(text)) + text + varint(len(names))
    payload += b"".join(varint(len(name)) + name for name in names)
    return seal("sequence", 1, payload + b"".join(map(varint, numbers)))


def delta(
    kind: int, seq: int, refs: tuple[int, int, int, int], names: bytes, tail: bytes, size: int = 0
) -> bytes:
    """A delta as typing sends it, with a good checksum."""
    size = size or len(names)
    body = struct.pack("<cBHIBIBI", b"\xb5", kind, size, seq, *refs) + names + tail
    return body + struct.pack("<I", zlib.crc32(body))


def ref(step: int) -> int:
    """A reference `step` elements after the last, in a table of one name."""
    return 1 + (step << 1 if step >= 0 else ~step << 1 | 1)


def run(n: int, code: int) -> int:
    return n << 3 | code


def test_these_builders_make_what_is_accepted_when_honest():
    assert Sequence.from_bytes(state(1, run(2, 0), 0, 0, 0, text=b"hi")).text() == "hi"
    sequence = Sequence()
    sequence.apply(delta(1, 1, (0, 0, 0, 0), b"\x01a", b"hi"))
    assert sequence.text() == "hi"


STATES = {
    "more runs than bytes": state(HUGE, run(1, 0), 0, 0, 0),
    "more names than bytes": seal("sequence", 1, b"\0\0" + varint(HUGE)),
    "a name longer than the bytes": seal("sequence", 1, b"\0\0\1" + varint(HUGE) + b"a"),
    "an empty name": state(0, 0, names=[b""]),
    "a name too long": state(0, 0, names=[b"x" * 256]),
    "a name that is not UTF-8": state(0, 0, names=[b"\xff"]),
    "names out of order": state(0, 0, 0, names=[b"b", b"a"]),
    "a name twice": state(0, 0, 0, names=[b"a", b"a"]),
    "more text than bytes": seal("sequence", 1, b"\0" + varint(HUGE)),
    "text that is not UTF-8": state(1, run(1, 0), 0, 0, 0, text=b"\xff"),
    "text of nobody": state(0, 0, text=b"x"),
    "more elements than text": state(1, run(HUGE, 0), 0, 0, 0, text=b"x"),
    "an empty run": state(1, run(0, 0), 0, 0, 0),
    "an unknown run": state(1, run(1, 6), 0, 0, 0),
    "numbers beyond the range": state(2, run(HUGE, 1), 0, 0, run(HUGE, 1), 0, 0, 0, 0),
    "a run that skips beyond the range": state(2, run(1 << 41, 5), run(1, 1), 0, 0, 0),
    "an origin in itself": state(1, run(5, 1), ref(1), 0, 0),
    "an origin behind itself": state(1, run(1, 1), 0, ref(9), 0),
    "an origin before the first": state(1, run(1, 1), ref(-5), 0, 0),
    "an origin beyond the range": state(1, run(1, 1), ref(1 << 41), 0, 0),
    "a deletion of the edge": state(1, run(1, 3), 0, 0),
    "a deletion of itself": state(1, run(1, 3), ref(1), 0),
    "a deletion below the first": state(2, run(1, 1), 0, 0, run(5, 4), ref(0), 0),
    "a deletion of a deletion": state(3, run(1, 1), 0, 0, run(1, 3), ref(0), run(1, 3), ref(1), 0),
    "an origin that is a deletion": state(
        3, run(1, 1), 0, 0, run(1, 3), ref(0), run(1, 1), ref(1), 0, 0
    ),
    "a deletion across a deletion": state(
        4, run(1, 1), 0, 0, run(1, 3), ref(0), run(1, 1), 0, 0, run(3, 3), ref(-2), 0
    ),
    "origins in the wrong order": state(
        3, run(1, 1), 0, 0, run(1, 1), ref(0), 0, run(1, 1), ref(0), ref(-1), 0
    ),
    "pieces longer than their run": state(1, run(2, 2), 0, 0, 3, 0, text=b"abc"),
    "pieces that never come": state(1, run(2, 2), 0, 0, 0, 0, 0),
    "unknown deletions beyond the range": state(0, 1, ref(1), 1 << 41),
    "a reference without names": seal("sequence", 1, b"\0\0\0" + b"\1\5\1"),
    "an unknown kind": state(0, 0, kind=4),
    "an overlong number": seal("sequence", 1, b"\0\x80\0\1\1a\0\0"),
    "a number of 70 bits": seal("sequence", 1, b"\0" + b"\xff" * 9 + b"\1"),
    "something behind the end": state(0, 0, 0),
    "nothing": seal("sequence", 1, b""),
    "a list that is no list": state(0, 0, text=b"\x01", kind=1),
    "compacted beyond what was applied": state(5, 4, 0, 0, 0, kind=2),
    "compacted elements that nobody wrote": state(1, 1, 1, ref(5), HUGE << 2 | 1, 0, 0, kind=2),
    "an element twice": state(2, 2, 2, ref(1), 5, ref(-1), 5, 0, 0, kind=2),
    "an element without origins": state(0, 1, 1, ref(1), 5, 0, 0, kind=2),
    "an element deleted for all, above the cut": state(0, 1, 1, ref(1), 6, 0, 0, kind=2),
    "a run that is not in place": state(0, 2, 1, ref(1), 5, 1, run(2, 1), 0, 0, 0, kind=2),
    "an operation below the cut": state(1, 1, 1, ref(1), 5, 1, run(1, 1), 0, 0, 0, kind=2),
    "an element shown and deleted": state(
        1, 2, 1, ref(1), 4, 2, run(1, 5), run(1, 3), ref(-1), 0, text=b"x", kind=2
    ),
}

DELTAS = {
    "too short": b"\xb5",
    "an unknown kind": delta(9, 1, (0, 0, 0, 0), b"\x01a", b"x"),
    "nothing inserted": delta(1, 1, (0, 0, 0, 0), b"\x01a", b""),
    "number 0": delta(1, 0, (0, 0, 0, 0), b"\x01a", b"x"),
    "nobody": delta(1, 1, (0, 0, 0, 0), b"", b"x"),
    "a name twice": delta(1, 1, (0, 0, 0, 0), b"\x01a\x01a", b"x"),
    "four names": delta(1, 1, (0, 0, 0, 0), b"\x01a\x01b\x01c\x01d", b"x"),
    "a name that is cut off": delta(1, 1, (0, 0, 0, 0), b"\x09a", b""),
    "names longer than the delta": delta(1, 1, (0, 0, 0, 0), b"\x01a", b"", size=0xFFFF),
    "a name that is not there": delta(1, 1, (7, 1, 0, 0), b"\x01a", b"x"),
    "an origin without number": delta(1, 1, (1, 0, 0, 0), b"\x01a", b"x"),
    "an edge with a number": delta(1, 1, (0, 3, 0, 0), b"\x01a", b"x"),
    "an origin in itself": delta(1, 1, (1, 1, 0, 0), b"\x01a", b"x"),
    "text that is not UTF-8": delta(1, 1, (0, 0, 0, 0), b"\x01a", b"\xff"),
    "a list": delta(2, 1, (0, 0, 0, 0), b"\x01a", b"\x81\x01"),
    "a deletion of nothing": delta(3, 2, (1, 1, 0, 0), b"\x01a", b""),
    "a deletion of the edge": delta(3, 1, (0, 0, 0, 4), b"\x01a", b""),
    "a deletion with text": delta(3, 2, (1, 1, 0, 1), b"\x01a", b"x"),
    "a deletion of itself": delta(3, 2, (1, 1, 0, 2**32 - 1), b"\x01a", b""),
}


STATE_REASONS = {
    "more runs than bytes": "a count that is larger than what follows",
    "more names than bytes": "a count that is larger than what follows",
    "a name longer than the bytes": "truncated",
    "an empty name": "a replica's name has 1 to 255 bytes of UTF-8",
    "a name too long": "a replica's name has 1 to 255 bytes of UTF-8",
    "a name that is not UTF-8": "a replica's name that is not UTF-8",
    "names out of order": "names of replicas that are not in order",
    "a name twice": "names of replicas that are not in order",
    "more text than bytes": "truncated",
    "text that is not UTF-8": "text that is not UTF-8",
    "text of nobody": "bytes or elements that belong to nothing",
    "more elements than text": "more elements are announced than there are",
    "an empty run": "an empty run, or one of an unknown kind",
    "an unknown run": "an empty run, or one of an unknown kind",
    "numbers beyond the range": "an empty run, or one of an unknown kind",
    "a run that skips beyond the range": "an empty run, or one of an unknown kind",
    "an origin in itself": "an operation that builds on itself",
    "an origin behind itself": "an operation that builds on itself",
    "an origin before the first": "an element outside the range of counters",
    "an origin beyond the range": "an element outside the range of counters",
    "a deletion of the edge": "a deletion outside the range of counters",
    "a deletion of itself": "an operation that builds on itself",
    "a deletion below the first": "a deletion outside the range of counters",
    "a deletion of a deletion": "element 2 of replica 'a' is not known",
    "an origin that is a deletion": "element 2 of replica 'a' is not known",
    "a deletion across a deletion": "element 2 of replica 'a' is not known",
    "origins in the wrong order": "the origins of an element are in the wrong order",
    "pieces longer than their run": "pieces that do not make up their run",
    "pieces that never come": "pieces that do not make up their run",
    "unknown deletions beyond the range": "a deletion outside the range of counters",
    "a reference without names": "an element outside the range of counters",
    "an unknown kind": "neither a text nor a list",
    "an overlong number": "a number that is not in its shortest form",
    "a number of 70 bits": "a number of more than 63 bits",
    "something behind the end": "bytes or elements that belong to nothing",
    "nothing": "neither a text nor a list",
    "a list that is no list": "the elements are not a list",
    "compacted beyond what was applied": "more is compacted than was applied",
    "compacted elements that nobody wrote": "an element that was never written",
    "an element twice": "an element that is there twice",
    "an element without origins": "an element without origins",
    "an element deleted for all, above the cut": "an element that not all know as deleted",
    "a run that is not in place": "a run that is not in place",
    "an operation below the cut": "an operation that is compacted already",
    "an element shown and deleted": "an element that is shown and deleted",
}
DELTA_REASONS = {
    "too short": "1 bytes are too few for a delta",
    "an unknown kind": "a delta that is not for a text",
    "nothing inserted": "an operation outside the range of counters",
    "number 0": "a delta that refers to nothing",
    "nobody": "a delta of nobody",
    "a name twice": "a delta of nobody",
    "four names": "a delta of nobody",
    "a name that is cut off": "truncated",
    "names longer than the delta": "truncated",
    "a name that is not there": "a delta that refers to nothing",
    "an origin without number": "a delta that refers to nothing",
    "an edge with a number": "a delta that refers to nothing",
    "an origin in itself": "an operation that builds on itself",
    "text that is not UTF-8": "text that is not UTF-8",
    "a list": "a delta that is not for a text",
    "a deletion of nothing": "an operation outside the range of counters",
    "a deletion of the edge": "a deletion outside the range of counters",
    "a deletion with text": "a deletion with elements",
    "a deletion of itself": "an operation that builds on itself",
}


def measured(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", STATES)
def test_states_that_nobody_writes_are_refused(name):
    def load() -> None:
        with pytest.raises(ValueError, match=re.escape(STATE_REASONS[name])):
            Sequence.from_bytes(STATES[name])

    load()
    assert measured(load) < 200_000


@pytest.mark.parametrize("name", DELTAS)
def test_deltas_that_nobody_sends_are_refused(name):
    sequence = Sequence("b")
    before = sequence.to_bytes()
    with pytest.raises(ValueError, match=re.escape(DELTA_REASONS[name])):
        sequence.apply(DELTAS[name])
    assert sequence.to_bytes() == before


def test_huge_runs_of_deleted_elements_cost_nothing():
    """They are possible (a replica may have deleted much), so they load, in one span."""
    data = state(2, run(HUGE >> 1, 1), 0, 0, run(HUGE >> 2, 3), ref(2 - (HUGE >> 1)), 0)

    def load() -> None:
        sequence = Sequence.from_bytes(data)
        assert Sequence.from_bytes(sequence.to_bytes()).to_bytes() == sequence.to_bytes()
        sequence.compact(sequence.version)
        assert sequence.text() == ""

    load()
    assert measured(load) < 200_000


def test_operations_that_wait_for_each_other_wait_for_ever():
    sequence = Sequence()
    sequence.apply(delta(1, 1, (2, 1, 0, 0), b"\x01a\x01b", b"x"))
    sequence.apply(delta(1, 1, (2, 1, 0, 0), b"\x01b\x01a", b"y"))
    assert (sequence.text(), sequence.pending) == ("", 2)
    sequence.apply(delta(1, 1, (0, 0, 0, 0), b"\x01c", b"z"))
    assert sequence.text() == "z"


def test_an_operation_of_a_used_up_counter_is_not_followed_by_a_local_one():
    sequence = Sequence.from_bytes(state(1, run((1 << 40) - 9, 1), 0, 0, 0))
    sequence.replica = "a"
    with pytest.raises(ValueError, match="used up"):
        sequence.insert(0, "x")


def sample(seed: int, *, compacted: bool) -> bytes:
    rng = random.Random(seed)
    replicas = [Sequence("ann"), Sequence("bob")]
    for k in range(40):
        one, other = replicas if rng.random() < 0.5 else replicas[::-1]
        if len(one) > 3 and rng.random() < 0.4:
            one.delete(rng.randrange(len(one) - 2), 2)
        else:
            one.insert(rng.randint(0, len(one)), "abc"[: rng.randint(1, 3)])
        if k % 5 == 0:
            other.merge(one)
        if k == 20 and compacted:
            one.merge(other)
            other.merge(one)
            one.compact(one.version)
            other.compact(one.version)
    replicas[0].merge(replicas[1])
    return replicas[0].to_bytes()


SAMPLES = [sample(seed, compacted=bool(seed % 2)) for seed in range(4)]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_payloads_changed_behind_a_good_checksum_load_or_are_refused(data, draw):
    """What still loads is a state like any other: it has bytes, and can be merged."""
    payload = bytearray(unseal("sequence", data, versions={1})[1])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(payload) - 1))
        payload[at] = draw.draw(st.integers(0, 255))
    payload = payload[: draw.draw(st.integers(len(payload) - 2, len(payload)))]
    try:
        changed = Sequence.from_bytes(seal("sequence", 1, bytes(payload)))
    except ValueError:
        return
    again = changed.to_bytes()
    if changed.kind == "text":
        assert len(changed.text()) == len(changed)
    good = Sequence.from_bytes(data)
    try:
        good.apply(again)
    except ValueError:
        return
    assert len(good.text()) == len(good)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_garbage_is_refused(noise, delta_like):
    body = b"\xb5" + noise if delta_like else noise
    with pytest.raises(ValueError):
        Sequence().apply(body + struct.pack("<I", zlib.crc32(body) ^ 1))
    with pytest.raises(ValueError):
        Sequence.from_bytes(noise)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.integers(0, 4),
    seq=st.integers(0, 6),
    refs=st.tuples(*[st.integers(0, 3), st.integers(0, 6)] * 2),
    names=st.sampled_from([b"\3ann", b"\3ann\3bob", b"\3bob\3ann", b"\1x\3ann\3bob", b"\0"]),
    tail=st.sampled_from([b"", b"x", b"yz", b"\xff"]),
)
def test_deltas_with_a_good_checksum_apply_or_are_refused(kind, seq, refs, names, tail):
    sequence = Sequence.from_bytes(SAMPLES[seq % 4])
    with contextlib.suppress(ValueError):
        sequence.apply(delta(kind, seq, refs, names, tail))
    assert len(sequence.text()) == len(sequence)
    Sequence.from_bytes(sequence.to_bytes())
