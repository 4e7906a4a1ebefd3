"""Counters obey the laws of a semilattice. A chunk is a delta of some replica's row."""

from __future__ import annotations

from hypothesis import strategies as st

from state.crdt.counters import GCounter, PNCounter
from state.testing import laws

ids = st.sampled_from(["a#1", "a#2", "b"])


def merge_row(counter, row):
    replica, *counts = row
    delta = type(counter)()
    delta.increment(replica, counts[0])
    if len(counts) > 1:
        delta.decrement(replica, counts[1])
    counter.merge(delta)


counts = st.integers(0, 3) | st.just(1 << 70)
TestGCounter = laws(empty=GCounter, update=merge_row, chunks=st.tuples(ids, counts))
TestPNCounter = laws(empty=PNCounter, update=merge_row, chunks=st.tuples(ids, counts, counts))
