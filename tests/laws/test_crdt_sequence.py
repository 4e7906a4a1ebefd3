"""Sequences obey the laws of a semilattice, whatever part of a session's deltas they have seen.

Chunks are deltas of one session between three replicas, in any order: single edits, patches of
many, whole states. Most states that they make have operations that wait, and some know of elements
as deleted whose deletion they do not have.
"""

from __future__ import annotations

import itertools
import random

from hypothesis import strategies as st

from state.crdt.causal import VersionVector
from state.crdt.sequence import Sequence
from state.testing import laws

PIECES = {"text": "abc", "list": [1, "x", None]}


def deltas_of_a_session(kind: str, seed: int, *, compacting: bool) -> list[bytes]:
    """Return what three replicas send each other while they edit and exchange."""
    rng = random.Random(seed)
    replicas = [Sequence(name, kind=kind) for name in ("zoe", "amy", "bob")]
    sent: list[bytes] = []

    def edit(steps: int) -> None:
        for _ in range(steps):
            one, other = rng.sample(replicas, 2)
            action = rng.randrange(5)
            if action == 0:
                sent.append(other.delta_since(one.version))
                one.apply(sent[-1])
            elif action < 3 or len(one) < 4:
                index = rng.randint(0, len(one))
                sent.append(one.insert(index, PIECES[kind][: rng.randint(1, 3)]))
            else:
                index = rng.randrange(len(one) - 2)
                sent.append(one.delete(index, rng.randint(1, 3)))

    edit(25)
    if compacting:
        for one in replicas:
            for other in replicas:
                one.merge(other)
        for one in replicas[:2]:
            one.compact(one.version)
            sent.append(one.to_bytes())
        edit(15)
    sent += [one.to_bytes() for one in replicas]
    return sent


def take_in(sequence: Sequence, chunk: list[bytes]) -> None:
    for delta in chunk:
        sequence.apply(delta)


def chunks(kind: str, *, compacting: bool = False) -> st.SearchStrategy[list[bytes]]:
    sent = deltas_of_a_session(kind, 7, compacting=compacting)
    return st.lists(st.sampled_from(sent), max_size=12)


def half_known() -> list[bytes]:
    """Return deltas that tell that an element is deleted before the deletion can be applied."""
    ann, bob = Sequence("ann"), Sequence("bob")
    sent = [ann.insert(0, "("), ann.insert(1, "abc")]
    for delta in sent:
        bob.apply(delta)
    sent.append(bob.insert(4, "q"))
    version = bob.version
    sent += [bob.delete(1, 1), bob.delete(2, 1)]
    for seen in ({"ann": 1, "bob": version["bob"]}, {"bob": version["bob"]}, {"bob": 2}, {}):
        sent.append(bob.delta_since(VersionVector(seen)))
    return sent


TestHalfKnown = laws(
    empty=Sequence,
    update=take_in,
    chunks=st.lists(st.sampled_from(half_known()), max_size=3),
    max_examples=200,
)
TestText = laws(empty=Sequence, update=take_in, chunks=chunks("text"), max_examples=100)
TestList = laws(
    empty=lambda: Sequence(kind="list"), update=take_in, chunks=chunks("list"), max_examples=40
)
TestCompacted = laws(
    empty=Sequence, update=take_in, chunks=chunks("text", compacting=True), max_examples=60
)


def test_merging_what_two_know_is_knowing_what_both_know() -> None:
    """All pairs of at most two deltas each; some know of a deletion before they can apply it."""
    known = {}
    for count in range(3):
        for deltas in itertools.combinations(half_known(), count):
            known[deltas] = Sequence()
            take_in(known[deltas], list(deltas))
    for mine, theirs in itertools.product(known, repeat=2):
        merged, both = Sequence.from_bytes(known[mine].to_bytes()), Sequence()
        merged.merge(known[theirs])
        take_in(both, [*mine, *theirs])
        assert merged.to_bytes() == both.to_bytes(), (mine, theirs)
