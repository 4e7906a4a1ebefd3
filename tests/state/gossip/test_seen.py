from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.gossip import Range
from state.gossip.seen import Seen

dots = st.tuples(st.sampled_from(["a#1", "b#1"]), st.integers(1, 30))


def numbers(ranges: list[Range]) -> set[tuple[str, int]]:
    return {(row.origin, seq) for row in ranges for seq in range(row.first, row.last + 1)}


@given(st.lists(dots, max_size=60))
def test_it_is_a_set(added: list[tuple[str, int]]) -> None:
    seen, model = Seen(), set()
    for dot in added:
        assert seen.add(*dot) == (dot not in model)
        model.add(dot)
        assert seen.has(*dot)
    assert numbers(list(seen)) == model
    for origin in ("a#1", "b#1"):
        whole = Range(origin, 4, 28)
        assert numbers(seen.missing(whole, 100)) == numbers([whole]) - model
        assert len(numbers(seen.missing(whole, 3))) == min(3, len(numbers([whole]) - model))
        assert seen.has_any(whole) == bool(numbers([whole]) & model)
        high = seen.high(origin)
        assert all((origin, seq) in model for seq in range(1, high + 1))
        assert (origin, high + 1) not in model
        assert seen.top(origin) == max((s for o, s in model if o == origin), default=0)


@given(st.lists(dots, max_size=60), st.randoms(use_true_random=False))
def test_equal_sets_have_equal_fingerprints(
    added: list[tuple[str, int]], rng: random.Random
) -> None:
    one, other = Seen(), Seen()
    for dot in added:
        one.add(*dot)
    rng.shuffle(added)
    for dot in added:
        other.add(*dot)
    copy = Seen(one)
    assert one.table.total == other.table.total == copy.table.total
    assert one.table.hashes == other.table.hashes == copy.table.hashes
    assert list(one) == list(other) == list(copy)
    if one.add("c#1", 1):
        assert one.table.total != other.table.total


@given(st.lists(dots, max_size=40), st.lists(dots, max_size=40))
def test_what_one_has_beyond_another(
    mine: list[tuple[str, int]], theirs: list[tuple[str, int]]
) -> None:
    one, other = Seen(), Seen()
    for dot in mine:
        one.add(*dot)
    for dot in theirs:
        other.add(*dot)
    rest = [row for o in ("a#1", "b#1") for row in one.beyond(o, other.ranges_of(o))]
    assert numbers(rest) == set(mine) - set(theirs)
    other.add_ranges(one)
    assert numbers(list(other)) == set(mine) | set(theirs)


def test_a_gap_that_is_too_wide_is_refused() -> None:
    seen = Seen([Range("a#1", 1, 5)])
    with pytest.raises(ValueError, match="too wide a gap"):
        seen.add_ranges([Range("a#1", 100, 1 << 50)])
    assert not seen.admits(1 << 40, "a#1")
    seen.add_ranges([Range("a#1", 1, 1 << 50)])
    assert seen.high("a#1") == 1 << 50


def test_clear_leaves_nothing() -> None:
    seen = Seen([Range("a#1", 1, 5), Range("b#1", 3, 3)])
    seen.clear()
    assert list(seen) == []
    assert (seen.table.total, seen.table.count) == (0, 0)
