from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from state.pbft.machine import Operation
from state.pbft.machines.store import (
    MAX_KEY,
    MAX_VALUE,
    OVERHEAD,
    CompareAndSet,
    Delete,
    Found,
    Get,
    List,
    Listed,
    Put,
    Refused,
    Store,
    StoreOperation,
    StoreResult,
    Written,
    operation,
    result,
)

LIMIT = 400
KEYS = st.binary(max_size=3) | st.sampled_from([b"\xff" * n for n in range(4)])
VALUES = st.binary(max_size=60)


def ask(store: Store, asked: StoreOperation) -> StoreResult:
    (answer,) = store.apply([Operation("c", operation(asked))])
    return result(answer)


class StoreAgainstModel(RuleBasedStateMachine):
    """A list of pairs, searched from its start."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(max_bytes=LIMIT)
        self.pairs: list[tuple[bytes, bytes]] = []

    def value(self, key: bytes) -> bytes | None:
        return next((value for found, value in self.pairs if found == key), None)

    def change(self, key: bytes, value: bytes | None) -> bool:
        """Whether there was room."""
        pairs = [pair for pair in self.pairs if pair[0] != key]
        if value is not None:
            pairs.append((key, value))
        before, after = (
            sum(len(k) + len(v) + OVERHEAD for k, v in each) for each in (self.pairs, pairs)
        )
        if after > max(before, LIMIT):
            return False
        self.pairs = pairs
        return True

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert ask(self.store, Get(key)) == Found(self.value(key))

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        fits = self.change(key, value)
        expected = Written(True) if fits else Refused("the store is full")
        assert ask(self.store, Put(key, value)) == expected

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        there = self.value(key) is not None
        assert ask(self.store, Delete(key)) == Written(there)
        self.change(key, None)

    @rule(key=KEYS, expected=st.none() | VALUES, value=st.none() | VALUES, right=st.booleans())
    def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, right: bool
    ) -> None:
        found = self.value(key)
        if right:
            expected = found
        answer: StoreResult = Written(False, found)
        if found == expected:
            fits = self.change(key, value)
            answer = Written(True) if fits else Refused("the store is full")
        assert ask(self.store, CompareAndSet(key, expected, value)) == answer

    @rule(prefix=KEYS, after=st.none() | KEYS, limit=st.integers(0, 5))
    def list_keys(self, prefix: bytes, after: bytes | None, limit: int) -> None:
        keys = sorted(key for key, _ in self.pairs if key.startswith(prefix))
        later = [key for key in keys if after is None or key > after]
        assert ask(self.store, List(prefix, after, limit)) == Listed(later[:limit], len(keys))

    @rule()
    def restart(self) -> None:
        snapshot = self.store.snapshot()
        self.store = Store(max_bytes=LIMIT)
        self.store.restore(snapshot)

    @invariant()
    def snapshot_is_canonical(self) -> None:
        """It depends on the pairs alone, not on how they came to be."""
        fresh = Store(max_bytes=LIMIT)
        fresh.apply([Operation("d", operation(Put(key, value))) for key, value in self.pairs])
        assert fresh.snapshot() == self.store.snapshot()
        assert len(self.store) == len(self.pairs)


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.binary(max_size=40))
def test_malformed_operations_change_nothing(data: bytes) -> None:
    store = Store()
    ask(store, Put(b"k", b"v"))
    before = store.snapshot()
    answer = result(store.apply([Operation("c", data)])[0])
    assert isinstance(answer, Refused) or data[1] in (1, 2, 3, 4, 5)
    if isinstance(answer, Refused):
        assert answer == Refused("this is no operation of a store")
        assert store.snapshot() == before


def test_sizes_are_bounded() -> None:
    store = Store(max_bytes=4 * MAX_VALUE)
    assert ask(store, Put(b"k" * MAX_KEY, b"v" * MAX_VALUE)) == Written(True)
    malformed = Refused("this is no operation of a store")
    assert ask(store, Put(b"k" * (MAX_KEY + 1), b"")) == malformed
    assert ask(store, Put(b"k", b"v" * (MAX_VALUE + 1))) == malformed
    assert ask(store, List(limit=1001)) == malformed
    assert ask(store, List(limit=-1)) == malformed
    full = store.snapshot()
    with pytest.raises(ValueError, match=r"bytes; at most 1000 fit"):
        Store(max_bytes=1000).restore(full)


def test_a_full_store_can_be_emptied() -> None:
    store = Store(max_bytes=LIMIT)
    large = Store()
    for machine in (store, large):
        for i in range(8):
            ask(machine, Put(b"%d" % i, b"x" * 17))
    assert ask(store, Put(b"9", b"")) == Refused("the store is full")
    assert ask(store, Put(b"1", b"x" * 18)) == Refused("the store is full")
    assert ask(store, CompareAndSet(b"9", None, b"")) == Refused("the store is full")
    assert ask(store, Put(b"1", b"y" * 17)) == Written(True)
    assert ask(store, Delete(b"1")) == Written(True)
    assert ask(store, Put(b"9", b"")) == Written(True)


def test_keys_out_of_order_are_no_snapshot() -> None:
    for pairs in ([(b"b", b""), (b"a", b"")], [(b"a", b""), (b"a", b"")]):
        with pytest.raises(ValueError, match="not in order"):
            Store().restore(msgspec.msgpack.encode((1, pairs)))


def test_results_are_checked() -> None:
    for data in (b"", b"\x91\x09", b"\x92\x01\xa1\xff"):
        with pytest.raises(ValueError, match="no result of a store"):
            result(data)
