"""Stateful: replicas edit while their deltas are doubled, reordered, delayed and lost.

Each machine checks the replicas against a model that knows the causal past of every edit. At the
end losses are repaired by merging whole states, and all bytes are equal.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from state.crdt import (
    GCounter,
    HybridClock,
    LWWElementSet,
    LWWMap,
    LWWRegister,
    MVRegister,
    ORMap,
    ORSet,
    PNCounter,
    Sequence,
)

NAMES = ["ann", "bob", "eve"]
names = st.sampled_from(NAMES)
keys = st.sampled_from(["k", 1, True])
HOUR = 3_600_000


class Exchange(RuleBasedStateMachine):
    """The network: deltas wait in `sent`, each with the edits that it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10 * HOUR
        self.states: dict[str, dict[str, Any]] = {}
        for name in NAMES:
            self.states[name] = {
                "set": ORSet(),
                "map": ORMap(),
                "rows": LWWMap(),
                "count": PNCounter(),
                "total": GCounter(),
                "values": MVRegister(),
                "value": LWWRegister(),
                "elements": LWWElementSet(),
                "list": Sequence(name, kind="list"),
            }
        skew = dict(zip(NAMES, (-HOUR, 0, HOUR), strict=True))
        self.clocks = {name: HybridClock(name) for name in NAMES}
        self.skew = skew
        self.sent: list[tuple[str, bytes]] = []
        self.counted = 0

    def send(self, part: str, delta: Any) -> None:
        self.sent.append((part, delta if isinstance(delta, bytes) else delta.to_bytes()))

    @rule(name=names, key=keys)
    def add(self, name: str, key: Any) -> None:
        part = self.states[name]["set"]
        self.send("set", part.add(key, name))
        assert key in part

    @rule(name=names, key=keys)
    def remove(self, name: str, key: Any) -> None:
        part = self.states[name]["set"]
        self.send("set", part.remove(key))
        assert key not in part

    @rule(name=names, key=keys, value=st.integers(0, 3) | st.none())
    def put(self, name: str, key: Any, value: Any) -> None:
        self.now += 1
        rows = self.states[name]["rows"]
        stamp = self.clocks[name].tick(self.now + self.skew[name], after=rows.stamp(key))
        if value is None:
            self.send("rows", rows.remove(key, stamp))
        else:
            self.send("rows", rows.put(key, value, stamp))
        assert rows.get(key) == value  # a write supersedes what its writer saw, however skewed
        assert rows.stamp(key) == stamp

    @rule(name=names, by=st.integers(0, 3))
    def count(self, name: str, by: int) -> None:
        count = self.states[name]["count"]
        self.send("count", count.decrement(name, by))
        self.counted -= by
        self.send("total", self.states[name]["total"].increment(name, by))

    @rule(name=names, value=st.integers(0, 3))
    def set_last(self, name: str, value: int) -> None:
        self.now += 1
        last = self.states[name]["value"]
        stamp = self.clocks[name].tick(self.now + self.skew[name], after=last.stamp)
        self.send("value", last.assign(value, stamp))
        assert last.value == value

    @rule(name=names, key=keys, there=st.booleans())
    def set_element(self, name: str, key: Any, there: bool) -> None:
        self.now += 1
        elements = self.states[name]["elements"]
        stamp = self.clocks[name].tick(self.now + self.skew[name], after=elements.stamp(key))
        self.send("elements", (elements.add if there else elements.remove)(key, stamp))
        assert (key in elements) == there

    @rule(name=names, at=st.floats(0, 1), elements=st.lists(keys, max_size=3))
    def insert(self, name: str, at: float, elements: list[Any]) -> None:
        row = self.states[name]["list"]
        index = round(at * len(row))
        self.send("list", row.insert(index, elements))
        assert row.value[index : index + len(elements)] == elements

    @rule(name=names, at=st.floats(0, 1))
    def delete(self, name: str, at: float) -> None:
        row = self.states[name]["list"]
        if len(row):
            index = min(int(at * len(row)), len(row) - 1)
            expected = row.value[:index] + row.value[index + 1 :]
            self.send("list", row.delete(index, 1))
            assert row.value == expected

    @rule(name=names, value=st.integers(0, 3))
    def assign(self, name: str, value: int) -> None:
        values = self.states[name]["values"]
        self.send("values", values.assign(value, name))
        assert values.value == [value]

    @rule(name=names, outer=keys, inner=keys)
    def nest(self, name: str, outer: Any, inner: Any) -> None:
        place = self.states[name]["map"]
        if place.kind_of(outer) in (None, "or-map"):
            self.send("map", place.map(outer).counter(inner).increment(name))
            assert inner in place.map(outer)

    @rule(name=names, outer=keys)
    def unnest(self, name: str, outer: Any) -> None:
        self.send("map", self.states[name]["map"].remove(outer))
        assert outer not in self.states[name]["map"]

    @rule(name=names, data=st.data())
    def deliver(self, name: str, data: st.DataObject) -> None:
        if self.sent:
            part, delta = data.draw(st.sampled_from(self.sent))
            state = self.states[name][part]
            state.apply(delta)
            after = state.to_bytes()
            state.apply(delta)
            assert state.to_bytes() == after

    @rule(one=names, other=names)
    def serve_what_a_peer_lacks(self, one: str, other: str) -> None:
        for part in ("set", "map", "values", "count", "total", "list"):
            lacking, known = self.states[one][part], self.states[other][part]
            whole = type(lacking).from_bytes(lacking.to_bytes())
            whole.merge(known)
            delta = known.delta_since(lacking.version)
            lacking.apply(delta if isinstance(delta, bytes) else delta.to_bytes())
            assert lacking.to_bytes() == whole.to_bytes()

    def teardown(self) -> None:
        for part in self.states["ann"]:
            for _ in range(2):
                for one in NAMES:
                    for other in NAMES:
                        self.states[one][part].merge(self.states[other][part])
            assert len({self.states[name][part].to_bytes() for name in NAMES}) == 1
            for name in NAMES:  # nothing that was lost or late changes it any more
                for kind, delta in self.sent:
                    if kind == part:
                        before = self.states[name][part].to_bytes()
                        self.states[name][part].apply(delta)
                        assert self.states[name][part].to_bytes() == before
        assert self.states["ann"]["count"].value == self.counted
        assert self.states["ann"]["total"].value == -self.counted


TestExchange = Exchange.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
