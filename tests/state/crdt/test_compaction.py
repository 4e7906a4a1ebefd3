"""Garbage collection at a stable cut commutes with merging."""

from __future__ import annotations

import itertools

import pytest

from state.crdt import GCounter, LWWElementSet, LWWMap, PNCounter, Stamp, VersionVector, replica_id


def at(ms, replica="ann"):
    return Stamp(ms, 0, replica)


def test_a_deletion_below_the_cut_is_forgotten_and_stays_deleted():
    ann, bob = LWWMap(), LWWMap()
    old = ann.put("k", 1, at(1))
    bob.merge(ann)
    bob.merge(ann.remove("k", at(2)))
    ann.put("new", 1, at(5))
    plain = ann.to_bytes()
    ann.compact(at(4))
    assert len(ann.to_bytes()) < len(plain) + 12
    ann.merge(old)
    ann.merge(bob)
    assert ann.value == {"new": 1}
    bob.merge(ann)
    assert bob == ann
    with pytest.raises(ValueError, match="before the cut"):
        ann.put("k", 2, at(3))


def test_lww_replicas_compact_in_any_order_among_merges():
    for order in itertools.permutations(["cut a", "cut b", "a to b", "b to a", "late"]):
        a, b = LWWElementSet(), LWWElementSet()
        first = a.add("x", at(1))
        a.add("y", at(1))
        a.remove("x", at(2))
        b.merge(a)  # the cut at 3 is stable: both know everything before
        a.add("z", at(4))
        b.add("x", at(5, "bob"))
        b.remove("y", at(6, "bob"))
        steps = {
            "cut a": lambda a=a: a.compact(at(3)),
            "cut b": lambda b=b: b.compact(at(3)),
            "a to b": lambda a=a, b=b: b.merge(a),
            "b to a": lambda a=a, b=b: a.merge(b),
            "late": lambda a=a, first=first: a.merge(first),
        }
        for step in order:
            steps[step]()
        a.merge(b)
        b.merge(a)
        assert a == b, order
        assert a.value == {"z", "x"}, order


@pytest.mark.parametrize("kind", [GCounter, PNCounter])
def test_folded_incarnations_count_once(kind):
    ann, bob = kind(), kind()
    rows = [ann.increment(replica_id("eve", n), n) for n in (1, 2, 3)]
    ann.increment("bob", 10)
    bob.merge(ann)
    size = len(ann.to_bytes())
    ann.compact(VersionVector({"eve#1": 1, "eve#2": 2}))
    assert len(ann.to_bytes()) < size
    late = bob.increment("eve#3", 1)
    for one, other in ((ann, bob), (bob, ann)):
        one.merge(other)
        for row in [*rows, late]:
            one.merge(row)
    assert ann == bob
    assert ann.value == 17
    ann.compact(VersionVector({"eve#1": 1, "eve#2": 2, "eve#3": 4}))
    bob.merge(ann)
    assert bob == ann
    assert bob.value == 17
    with pytest.raises(ValueError, match="retired"):
        ann.increment("eve#2")
    with pytest.raises(ValueError, match="not the final version"):
        ann.compact(VersionVector({"bob": 11}))
    assert kind.from_bytes(ann.to_bytes()) == ann
