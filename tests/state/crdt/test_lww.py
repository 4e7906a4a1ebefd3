"""Last writer wins: ties, tombstones and changes, by hand."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from state.crdt import Change, LWWElementSet, LWWMap, LWWRegister, Stamp
from state.crdt.values import encode

T = [Stamp(ms, 0, "a") for ms in range(5)]


def test_equal_stamps_are_settled_by_the_digest_of_the_value():
    values = [0, 0.0, False, None, "x", [1], {"a": 1}]
    winner = max(values, key=lambda value: hashlib.sha256(encode(value)).digest())
    for order in itertools.permutations(values, 3):
        present = LWWRegister()
        for value in (*order, winner):
            one = LWWRegister()
            one.assign(value, T[1])
            present.merge(one)
        assert repr(present.value) == repr(winner)


def test_stamps_compare_by_time_then_counter_then_replica():
    ordered = [Stamp(1, 9, "z"), Stamp(2, 0, "a"), Stamp(2, 1, "a"), Stamp(2, 1, "b")]
    for order in itertools.permutations(range(4)):
        rows = LWWMap()
        for k in order:
            rows.put("k", k, ordered[k])
        assert rows.value == {"k": 3}
        assert rows.stamp("k") == ordered[3]


def test_a_write_wins_over_a_deletion_of_the_same_stamp():
    for first, second in [("put", "remove"), ("remove", "put")]:
        rows, members = LWWMap(), LWWElementSet()
        for action in (first, second):
            if action == "put":
                rows.put("k", None, T[1])
                members.add("k", T[1])
            else:
                rows.remove("k", T[1])
                members.remove("k", T[1])
        assert rows.value == {"k": None}
        assert members.value == {"k"}


def test_a_deletion_keeps_older_writes_out():
    rows = LWWMap()
    rows.remove("k", T[2])
    rows.put("k", 1, T[1])
    assert rows.value == {}
    assert "k" not in rows
    assert len(rows) == 0
    assert rows.get("k", "nothing") == "nothing"
    rows.put("k", 1, T[3])
    assert list(rows.items()) == [("k", 1)]


def test_values_share_nothing_with_the_caller():
    given = {"a": [1]}
    rows = LWWMap()
    rows.put("k", given, T[1])
    given["a"].append(2)
    rows.get("k")["a"].append(3)
    assert rows.value == {"k": {"a": [1]}}


def test_follow_tells_what_changed_visibly():
    rows, other = LWWMap(), LWWMap()
    rows.put("k", 1, T[1])
    other.put("k", 1, T[2])
    assert rows.follow(other) == []
    assert rows.follow(other.put("k", True, T[3])) == [Change(("k",), 1, True)]
    assert rows.follow(other.remove("k", T[4])) == [Change(("k",), True, None)]


@pytest.mark.parametrize("bad", [(1, 2), Stamp(-1, 0, "a"), Stamp(1, 0, ""), None])
def test_malformed_stamps_are_refused(bad):
    with pytest.raises(ValueError):
        LWWMap().put("k", 1, bad)
