"""The types with causal contexts obey the laws of a semilattice.

Chunks are deltas of one session between three replicas, in any order and number: mutations, what a
peer lacks, whole states.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from state.crdt.clock import Stamp
from state.crdt.ormap import ORMap
from state.crdt.orset import ORSet
from state.crdt.registers import LWWRegister, MVRegister
from state.testing import laws

NAMES = ["ann", "bob", "eve"]
KEYS = ["k", 1, True]


def edit_set(place: Any, rng: random.Random, replica: str) -> Any:
    element = rng.choice(["x", 1, 1.0, ("t", None)])
    actions = [lambda: place.add(element, replica)] * 3 + [lambda: place.remove(element)]
    return rng.choice([*actions, place.clear])()


def edit_register(place: Any, rng: random.Random, replica: str) -> Any:
    return place.assign(rng.choice([1, True, "x", None]), replica)


def edit_map(place: Any, rng: random.Random, replica: str, depth: int = 2) -> Any:
    key = rng.choice(KEYS)
    kind = place.kind_of(key) or rng.choice(["or-set", "pn-counter", "lww-register", "or-map"])
    if rng.random() < 0.2:
        return place.remove(key)
    if kind == "or-set":
        return edit_set(place.set(key), rng, replica)
    if kind == "pn-counter":
        return place.counter(key).decrement(replica, rng.randint(0, 3))
    if kind == "lww-register":
        stamp = Stamp(rng.randint(0, 2), 0, replica)
        return place.latest(key).assign(rng.randint(0, 1), stamp)
    if not depth:
        return place.remove(key)
    return edit_map(place.map(key), rng, replica, depth - 1)


def session(kind: type[Any], edit: Any, seed: int, steps: int = 60) -> list[Any]:
    """Return the deltas and states of replicas that edit and exchange."""
    rng = random.Random(seed)
    replicas = {name: kind() for name in NAMES}
    sent: list[Any] = []
    for _ in range(steps):
        name, other = rng.sample(NAMES, 2)
        sent.append(edit(replicas[name], rng, name))
        if rng.random() < 0.5:
            replicas[other].merge(rng.choice(sent))
        if rng.random() < 0.3:
            sent.append(replicas[name].delta_since(replicas[other].version))
            replicas[other].merge(sent[-1])
            assert replicas[other].context.covers(replicas[name].context)
    return sent + list(replicas.values())


def chunks(kind: type[Any], edit: Any) -> st.SearchStrategy[list[Any]]:
    sent = [delta for seed in (1, 2) for delta in session(kind, edit, seed)]
    return st.lists(st.sampled_from(sent), max_size=8)


def take_in(state: Any, deltas: list[Any]) -> None:
    for delta in deltas:
        state.merge(delta)


def assign(state: LWWRegister, row: tuple[Any, Stamp]) -> None:
    state.assign(*row)


TestORSet = laws(empty=ORSet, update=take_in, chunks=chunks(ORSet, edit_set))
TestMVRegister = laws(empty=MVRegister, update=take_in, chunks=chunks(MVRegister, edit_register))
TestORMap = laws(empty=ORMap, update=take_in, chunks=chunks(ORMap, edit_map))
stamps = st.builds(Stamp, st.integers(0, 1), st.integers(0, 1), st.sampled_from("ab"))
TestLWWRegister = laws(
    empty=LWWRegister,
    update=assign,
    chunks=st.tuples(st.sampled_from([0, 1, True, "x", None, [1]]), stamps),
)
