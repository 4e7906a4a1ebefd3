"""LWW maps and sets obey the laws of a semilattice, equal stamps included."""

from __future__ import annotations

from hypothesis import strategies as st

from state.crdt.clock import Stamp
from state.crdt.lww import LWWElementSet, LWWMap
from state.testing import laws

keys = st.sampled_from(["k", 1, 1.0, True, None, ("t", 1)])
stamps = st.builds(Stamp, st.integers(0, 2), st.integers(0, 1), st.sampled_from("ab"))
values = st.sampled_from([0, 1, "x", [1], {"a": None}, None])


def write(state: LWWMap, row: tuple) -> None:
    key, stamp, value = row
    if value == ["deleted"]:
        state.remove(key, stamp)
    else:
        state.put(key, value, stamp)


def move(state: LWWElementSet, row: tuple) -> None:
    key, stamp, there = row
    (state.add if there else state.remove)(key, stamp)


TestLWWMap = laws(
    empty=LWWMap, update=write, chunks=st.tuples(keys, stamps, values | st.just(["deleted"]))
)
TestLWWElementSet = laws(
    empty=LWWElementSet, update=move, chunks=st.tuples(keys, stamps, st.booleans())
)
