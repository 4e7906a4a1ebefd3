"""Add-wins sets: semantics by hand, against the definition, and their size."""

from __future__ import annotations

import itertools
import random

from state.crdt.dots import DotStore
from state.crdt.orset import ORSet
from state.crdt.replica_state import Change
from state.crdt.values import encode


def test_concurrent_addition_wins_and_sequential_removal_does_too():
    ann, bob = ORSet(), ORSet()
    ann.add("x", "ann")
    bob.merge(ann)
    bob.merge(ann.remove("x"))
    assert bob.value == set()
    bob.add("x", "bob")
    ann.add("x", "ann")
    ann.merge(bob.remove("x"))
    assert ann.value == {"x"}


def test_a_removal_that_overtakes_its_addition_still_removes():
    ann = ORSet()
    added = ann.add("x", "ann")
    removed = ann.remove("x")
    bob = ORSet()
    bob.merge(removed)
    bob.merge(added)
    assert bob.value == set()
    assert bob == ann


def test_elements_are_told_apart_by_their_encoding():
    mixed = ORSet()
    for element in (1, 1.0, True, "1", b"1", None, ("a", 1)):
        mixed.add(element, "ann")
    assert len(mixed) == 7
    mixed.remove(True)
    assert True not in mixed
    assert 1 in mixed
    assert 1.0 in mixed
    assert [repr(e) for e in mixed.elements()] == ["1", "b'1'", "'1'", "('a', 1)", "None", "1.0"]


def test_follow_tells_what_changed():
    ann, bob = ORSet(), ORSet()
    bob.merge(ann.add("x", "ann"))
    assert bob.follow(ann.remove("x")) == [Change(("x",), True, False)]
    assert bob.follow(ann.add("y", "ann")) == [Change(("y",), False, True)]
    assert bob.follow(ann) == []


def test_twenty_thousand_cycles_leave_no_trace():
    """A set that has been through 20,000 cycles has the bytes of one that has been through none.

    Compared are equal contexts: the other set was only told that 20,000 dots of ann are gone, which
    nobody may forget, or an old addition would come back. Of the cycles themselves nothing is left.

    A set that knows of no dots is smaller, by the digits of two numbers. Empty, it has no entry
    for ann in its version vector. With 1,000 elements each, both have the entry (21,000 and 1,000
    take three bytes alike), and the first counter is 20,001 instead of 1: three bytes, not one.
    Every other counter is written as its distance from the one before.
    """
    cycled, told, fresh = ORSet(), ORSet(), ORSet()
    for k in range(20_000):
        cycled.add(k % 1000, "ann")
        cycled.remove(k % 1000)
    told.merge(ORSet._of(DotStore().without(("ann", n) for n in range(1, 20_001))))
    assert cycled.to_bytes() == told.to_bytes()
    entry = len(encode("ann")) + len(encode(20_000))
    assert len(cycled.to_bytes()) == len(fresh.to_bytes()) + entry
    for k in range(1000):
        cycled.add(k, "ann")
        told.add(k, "ann")
        fresh.add(k, "ann")
    assert cycled.to_bytes() == told.to_bytes()
    assert len(encode(21_000)) == len(encode(1000))
    first = len(encode(20_001)) - len(encode(1))
    assert first == 2
    assert len(cycled.to_bytes()) == len(fresh.to_bytes()) + first
    assert ORSet.from_bytes(cycled.to_bytes()).value == fresh.value


def test_a_delta_is_small_whatever_the_state():
    large = ORSet()
    for k in range(2000):
        large.add(k, "ann")
    assert len(large.add(5, "ann").to_bytes()) < 80
    assert len(large.remove(6).to_bytes()) < 80


def test_every_interleaving_of_three_replicas_converges_to_the_definition():
    # The definition: x is in if some addition of it was seen by no removal.
    for plan in itertools.product(("add", "remove", "sync"), repeat=6):
        replicas = [ORSet() for _ in range(3)]
        seen: list[set[int]] = [set(), set(), set()]
        removed: set[int] = set()
        additions = 0
        for step, action in enumerate(plan):
            at = step % 3
            if action == "add":
                replicas[at].add("x", "abc"[at])
                removed |= seen[at]  # an addition replaces those it knows, by itself
                additions += 1
                seen[at].add(additions)
            elif action == "remove":
                replicas[at].remove("x")
                removed |= seen[at]
            else:
                replicas[at].merge(replicas[at - 1])
                seen[at] |= seen[at - 1]
        total = ORSet()
        for replica in replicas:
            total.merge(replica)
        for order in itertools.permutations(replicas):
            again = ORSet()
            for replica in order:
                again.merge(replica)
            assert again.to_bytes() == total.to_bytes()
        assert ("x" in total) == bool(set(range(1, additions + 1)) - removed), plan


def test_lost_deltas_are_repaired_by_what_a_peer_lacks():
    rng = random.Random(4)
    ann, bob = ORSet(), ORSet()
    for _ in range(30):
        for _ in range(rng.randint(1, 20)):
            change = ann.add if rng.random() < 0.6 else lambda e, _: ann.remove(e)
            delta = change(rng.randint(0, 9), "ann")
            if rng.random() < 0.5:
                bob.apply(delta.to_bytes())
        bob.merge(ann.delta_since(bob.version))
        assert bob == ann
