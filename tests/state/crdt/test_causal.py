"""Version vectors and causal contexts, against plain sets of dots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.crdt.causal import MAX_COUNTER, CausalContext, VersionVector, replica_id

dots = st.sets(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), max_size=12)


@given(dots, dots)
def test_a_context_is_a_set_of_dots(xs, ys):
    a, b = CausalContext(xs), CausalContext(sorted(ys))
    assert (set(a), len(a)) == (xs, len(xs))
    assert a.covers(b) == (ys <= xs)
    assert all(((r, n) in a) == ((r, n) in xs) for r in "abc" for n in range(8))
    joined = a.copy()
    joined.join(b)
    assert set(joined) == xs | ys
    assert joined == CausalContext(xs | ys)
    assert CausalContext.from_plain(joined.to_plain()) == joined
    for replica in "abc":
        assert a.next(replica) == (replica, max([n for r, n in xs if r == replica], default=0) + 1)


@given(dots)
def test_the_vector_is_the_part_without_gaps(xs):
    vector = CausalContext(xs).vector
    for replica in "abc":
        have = 0
        while (replica, have + 1) in xs:
            have += 1
        assert vector[replica] == have


def test_vectors_join_and_meet():
    a, b = VersionVector({"a": 2, "b": 0}), VersionVector({"a": 1, "c": 3})
    assert (a | b).to_plain() == {"a": 2, "c": 3}
    assert (a & b).to_plain() == {"a": 1}
    assert (a | b).covers(a)
    assert not a.covers(b)
    assert a == VersionVector.from_plain({"a": 2})
    assert hash(a) == hash(VersionVector({"a": 2}))


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [{}],
        [{}, []],
        [{"a": 0}, {}],
        [{"a": True}, {}],
        [{"": 1}, {}],
        [{"a": MAX_COUNTER + 1}, {}],
        [{}, {"a": []}],
        [{}, {"a": [1]}],
        [{"a": 2}, {"a": [3]}],
        [{}, {"a": [3, 3]}],
        [{}, {"a": ["x"]}],
    ],
)
def test_malformed_contexts_are_refused(plain):
    with pytest.raises(ValueError):
        CausalContext.from_plain(plain)


def test_ids():
    assert replica_id("ann", 0) == "ann#0"
    with pytest.raises(ValueError):
        replica_id("", 1)
    with pytest.raises(ValueError):
        CausalContext([("a", MAX_COUNTER)]).next("a")
