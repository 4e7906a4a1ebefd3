"""Maps of replicated values: what a removal leaves, by hand."""

from __future__ import annotations

import pytest

from state.crdt import ORMap, Stamp
from state.crdt.replica_state import Change


def pair(edit):
    """Two maps that have both seen `edit`."""
    ann, bob = ORMap(), ORMap()
    bob.merge(edit(ann))
    return ann, bob


def exchange(ann, bob, one, other):
    ann.merge(other)
    bob.merge(one)
    assert ann == bob
    return ann.value


def test_a_concurrent_addition_survives_and_nothing_else():
    ann, bob = pair(lambda m: m.set("k").add("old", "ann"))
    removed, added = ann.remove("k"), bob.set("k").add("new", "bob")
    assert exchange(ann, bob, removed, added) == {"k": {"new"}}


def test_a_value_assigned_concurrently_survives_whatever_its_stamp():
    ann, bob = pair(lambda m: m.latest("k").assign(1, Stamp(9, 0, "ann")))
    removed, written = ann.remove("k"), bob.latest("k").assign(2, Stamp(1, 0, "bob"))
    assert exchange(ann, bob, removed, written) == {"k": 2}
    assert bob.latest("k").stamp == Stamp(1, 0, "bob")


def test_of_concurrent_values_the_last_stamp_shows():
    ann, bob = ORMap(), ORMap()
    one = ann.latest("k").assign("late", Stamp(9, 0, "ann"))
    other = bob.latest("k").assign("early", Stamp(1, 0, "bob"))
    assert exchange(ann, bob, one, other) == {"k": "late"}
    assert ann.register("v").assign(1, "ann").value == {"v": [1]}


def test_a_replica_that_counts_concurrently_keeps_its_whole_row():
    ann, bob = pair(lambda m: m.counter("k").increment("ann", 5))
    ann.merge(bob.counter("k").increment("bob", 3))
    removed, counted = ann.remove("k"), bob.counter("k").increment("bob", 1)
    assert exchange(ann, bob, removed, counted) == {"k": 4}
    assert ann.counter("k").decrement("ann", 6).value == {"k": -6}


def test_maps_nest_and_go_when_nothing_is_in_them():
    ann, bob = pair(lambda m: m.map("a").map("b").set("c").add(1, "ann"))
    assert bob.value == {"a": {"b": {"c": {1}}}}
    removed, added = ann.map("a").remove("b"), bob.map("a").counter("n").increment("bob")
    assert exchange(ann, bob, removed, added) == {"a": {"n": 1}}
    assert bob.follow(ann.map("a").clear()) == [Change(("a", "n"), 1, None)]
    assert "a" not in bob
    assert len(bob) == 0


def test_kinds_that_replicas_chose_concurrently():
    ann, bob = ORMap(), ORMap()
    one, other = ann.set("k").add("x", "ann"), bob.counter("k").increment("bob")
    with pytest.raises(ValueError, match="'k' is a or-set, not a pn-counter"):
        ann.counter("k")
    assert bob.follow(one) == [Change(("k",), 1, None), Change(("k", "x"), False, True)]
    assert ann.follow(other) == []
    assert ann == bob
    assert ann.conflicts() == {"k": ["or-set", "pn-counter"]}
    assert bob.follow(ann.set("k").clear()) == [
        Change(("k", "x"), True, False),
        Change(("k",), None, 1),
    ]


def test_nesting_is_bounded():
    place = ORMap()
    for _ in range(15):
        place = place.map("k")
    place.counter("n").increment("ann")
    with pytest.raises(ValueError, match="too deep"):
        place.map("k").set("n").add(1, "ann")


def test_counting_is_bounded_by_replicas():
    counted = ORMap()
    for _ in range(1000):
        counted.counter("k").increment("ann")
    assert len(counted.to_bytes()) < 100
