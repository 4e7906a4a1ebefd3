"""Counters by hand: rows, not increments."""

from __future__ import annotations

import itertools

import pytest

from state.crdt import GCounter, PNCounter, VersionVector


def test_doubled_and_reordered_deltas_count_once():
    ann, bob = PNCounter(), PNCounter()
    deltas = [ann.increment("ann", 3), ann.decrement("ann", 5), bob.increment("bob")]
    for order in itertools.permutations(deltas * 2, 4):
        seen = PNCounter()
        for delta in (*order, *deltas):
            seen.merge(delta)
        assert seen.value == -1


def test_a_delta_is_one_row():
    large = GCounter()
    for k in range(1000):
        large.increment(f"replica {k}")
    assert len(large.increment("replica 7").to_bytes()) < 60
    assert large.value == 1001
    late = large.delta_since(large.version & VersionVector({f"replica {k}": 1 for k in range(999)}))
    assert late.version == VersionVector({"replica 7": 2, "replica 999": 1})


@pytest.mark.parametrize("by", [-1, 1.0, True, None])
def test_only_counts_are_counted(by):
    with pytest.raises(ValueError, match="counts by an int from 0"):
        GCounter().increment("ann", by)


def test_counting_nothing_changes_nothing():
    counter = GCounter()
    assert counter.increment("ann", 0) == counter == GCounter()
    with pytest.raises(ValueError, match="replica's id"):
        counter.increment("")
