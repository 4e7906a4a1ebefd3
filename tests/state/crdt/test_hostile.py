"""Bytes that no replica writes: refused quickly, with memory in proportion to them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.crdt import Document, GCounter, LWWMap, LWWRegister, MVRegister, ORMap, ORSet, PNCounter
from state.crdt.lww import LWWElementSet
from state.crdt.values import encode
from state.mergeable import seal, unseal

TYPES: list[type[Any]] = [GCounter, PNCounter, LWWRegister, MVRegister]
TYPES += [LWWMap, LWWElementSet, ORSet, ORMap]
ALL: list[type[Any]] = [*TYPES, Document]
ONE = b"\x01"  # 1
FAR = 1 << 62

plain = st.recursive(
    st.none() | st.integers(-1, 4) | st.sampled_from(["a", "b", b"", ONE, b"or-set", b"\xff", FAR]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b#1", ""]), inner, max_size=2)
    ),
    max_leaves=16,
)


def kind_name(kind: type[Any]) -> str:
    return "document" if kind is Document else kind.kind


@pytest.mark.parametrize("kind", ALL)
@given(payload=plain)
@settings(max_examples=150, deadline=None)
def test_any_plain_payload_is_refused_or_canonical(kind, payload):
    data = seal(kind_name(kind), 1, encode(payload))
    try:
        state = kind.from_bytes(data)
    except ValueError:
        return
    assert state.to_bytes() == data
    other = kind()
    other.merge(state)
    assert other.to_bytes() == data


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (GCounter, [{"a": [0]}, {}]),
        (GCounter, [{"a": [1, 1]}, {}]),
        (GCounter, [{"a#1": [1]}, {"a": [2, 5]}]),
        (PNCounter, [{"a": [-1, 0]}, {}]),
        (LWWRegister, [[0, 0, "a"], b"\xff"]),
        (LWWRegister, [[0, 0, ""], ONE]),
        (LWWMap, [None, ["a"], []]),
        (LWWMap, [None, ["a"], [[ONE, 0, 0, 0, b"\x18\x01"]]]),
        (LWWMap, [None, ["a"], [[b"\x80\x80", 0, 0, 0, None]]]),
        (LWWMap, [None, ["a"], [[ONE, 0, 0, 0, None], [ONE, 1, 0, 0, None]]]),
        (LWWMap, [None, ["b", "a"], [[ONE, 0, 0, 0, None], [b"\x02", 0, 0, 1, None]]]),
        (LWWMap, [None, [1, "a"], [[ONE, 0, 0, 0, None], [b"\x02", 0, 0, 1, None]]]),
        (LWWMap, [[5, 0, "a"], ["a"], [[ONE, 4, 0, 0, None]]]),
        (LWWElementSet, [None, ["a"], [[ONE, 0, 0, 0, ONE]]]),
        (ORSet, [[{"a": 1}, {}], [[ONE]], {"a": [1, 0, ONE]}]),
        (ORSet, [[{}, {}], [[ONE]], {"a": [1, 0, b""]}]),
        (ORSet, [[{"a": 1}, {}], [[ONE], [b"\x02"]], {"a": [1, 0, b""]}]),
        (ORSet, [[{"a": 9}, {}], [[ONE]], {"a": [1, 0, b"", 0, 0, b""]}]),
        (ORSet, [[{"a": 1}, {}], [[b"\xa0"]], {"a": [1, 0, b""]}]),
        (MVRegister, [[{"a": 1}, {}], [[ONE]], {"a": [1, 0, ONE]}]),
        (ORMap, [[{"a": 1}, {}], [[ONE, b"or-map"]], {"a": [1, 0, b""]}]),
        (ORMap, [[{"a": 1}, {}], [[ONE, b"or-set"]], {"a": [1, 0, b""]}]),
        (ORMap, [[{"a": 1}, {}], [[ONE, b"pn-counter"]], {"a": [1, 0, b"\xf6"]}]),
        (ORMap, [[{"a": 1}, {}], [[ONE, b"lww-register"]], {"a": [1, 0, ONE]}]),
        (ORMap, [[{"a": 1}, {}], [[ONE, b"or-map"] * 17], {"a": [1, 0, b""]}]),
        (Document, {"a": {}}),
        (Document, {"a": {"rga": b""}}),
        (Document, {"a": {"or-set": b"x"}}),
        (Document, {"a": {"text": LWWMap().to_bytes()}}),
    ],
)
def test_rules_that_every_state_obeys(kind, payload):
    with pytest.raises(ValueError):
        kind.from_bytes(seal(kind_name(kind), 1, encode(payload)))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "payload",
    [
        b"\x9b" + b"\x7f" * 8,
        b"\x83\x9a\xff\xff\xff\xff",
        b"\xbb" + b"\xff" * 8,
        b"\x81" * 200_000 + b"\x00",
        b"\x83" * 100_000,
        b"\x5b\x7f" + b"\xff" * 7,
    ],
)
def test_counts_and_depths_take_no_memory(kind, payload):
    data = seal(kind_name(kind), 1, payload)
    tracemalloc.start()
    with pytest.raises(ValueError):
        kind.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_context_that_claims_everything_costs_nothing():
    claim = encode([[{"a": FAR, "b": FAR}, {"c": [FAR]}], [], {}])
    everything = ORSet.from_bytes(seal("or-set", 1, claim))
    mine = ORSet()
    for k in range(100):
        mine.add(k, "a")
    mine.merge(everything)
    assert mine.value == set()
    assert mine.delta_since(ORSet().version).to_bytes() == mine.to_bytes()


@pytest.mark.parametrize("kind", TYPES)
def test_versions_to_come_are_refused_and_kinds_are_not_mixed(kind):
    payload = unseal(kind.kind, kind().to_bytes(), versions={1})[1]
    with pytest.raises(ValueError, match="version 2"):
        kind.from_bytes(seal(kind.kind, 2, payload))
    other = ORSet() if kind is not ORSet else ORMap()
    with pytest.raises(ValueError, match="cannot merge"):
        kind().merge(other)
