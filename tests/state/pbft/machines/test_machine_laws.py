"""What every machine owes its replicas, for those that are shipped."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.pbft.machine import Operation, StateMachine
from state.pbft.machines import locks, store
from state.pbft.machines.locks import Locks
from state.pbft.machines.store import Store

KEYS = st.sampled_from([b"", b"a", b"ab", b"b", b"\xff", b"\xff\xff"])
VALUES = st.sampled_from([b"", b"1", b"2"])
STORE_OPERATIONS = st.one_of(
    st.builds(store.Get, KEYS),
    st.builds(store.Put, KEYS, VALUES),
    st.builds(store.Delete, KEYS),
    st.builds(store.CompareAndSet, KEYS, st.none() | VALUES, st.none() | VALUES),
    st.builds(store.List, KEYS, st.none() | KEYS, st.integers(0, 3)),
)
NAMES = st.sampled_from(["a", "b", "ü"])
TTLS = st.integers(1, 30)
TOKENS = st.integers(1, 12)
LOCK_OPERATIONS = st.one_of(
    st.builds(locks.Acquire, NAMES, TTLS),
    st.builds(locks.Renew, NAMES, TOKENS, TTLS),
    st.builds(locks.Release, NAMES, TOKENS),
    st.builds(locks.Inspect, NAMES),
)
MALFORMED = st.binary(max_size=12) | st.sampled_from(
    [b"\x92\x01\xa1a", b"\x93\x01\xc4\x01a\x00", b"\x91" * 2000, b"\x92\x01\xa1\xff", b"\xc1"]
)


def history(asked: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Operation]]:
    """Operations of several clients whose times grow, by nothing or by much."""
    steps = st.tuples(st.sampled_from(["x", "y", "z"]), asked, st.integers(0, 15))

    def timed(drawn: list[tuple[str, bytes, int]]) -> list[Operation]:
        now = 1_000_000
        operations = []
        for seq, (client, data, later) in enumerate(drawn):
            now += later
            operations.append(Operation(client, data, now, seq))
        return operations

    return st.lists(steps, max_size=40).map(timed)


MACHINES = {
    "store": (Store, history(STORE_OPERATIONS.map(store.operation) | MALFORMED)),
    "locks": (Locks, history(LOCK_OPERATIONS.map(locks.operation) | MALFORMED)),
}
machines = pytest.mark.parametrize("name", MACHINES)


def histories(name: str) -> tuple[Callable[[], StateMachine], st.SearchStrategy[list[Operation]]]:
    return MACHINES[name]  # type: ignore[return-value]


@machines
@given(data=st.data())
@settings(deadline=None)
def test_how_a_history_is_cut_makes_no_difference(name: str, data: st.DataObject) -> None:
    """Nor do a restart from a snapshot, or a snapshot that nobody needs."""
    make, drawn = histories(name)
    operations = data.draw(drawn)
    whole = make()
    expected = whole.apply(operations)
    assert len(expected) == len(operations)
    machine, results, position = make(), [], 0
    while position < len(operations):
        size = data.draw(st.integers(0, 10))
        results += machine.apply(operations[position : position + size])
        position += size
        what = data.draw(st.sampled_from(["go on", "snapshot", "restore", "restart"]))
        if what != "go on":
            snapshot = machine.snapshot()
            if what == "restart":
                machine = make()
            if what != "snapshot":
                machine.restore(snapshot)
            assert machine.snapshot() == snapshot
    assert results == expected
    assert machine.snapshot() == whole.snapshot()


@machines
@given(data=st.data())
@settings(deadline=None)
def test_bytes_are_refused_or_are_the_snapshot(name: str, data: st.DataObject) -> None:
    make, drawn = histories(name)
    sender, receiver = make(), make()
    sender.apply(data.draw(drawn))
    receiver.apply(data.draw(drawn))
    before = receiver.snapshot()
    changed = bytearray(sender.snapshot())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["flip", "drop", "add", "cut"]))
        if how == "flip":
            changed[position] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "drop":
            del changed[position]
        elif how == "add":
            changed.insert(position, data.draw(st.integers(0, 255)))
        else:
            del changed[max(position, 1) :]
        if not changed:
            return
    try:
        receiver.restore(bytes(changed))
    except ValueError:
        assert receiver.snapshot() == before
    else:
        assert receiver.snapshot() == changed


@machines
def test_snapshots_in_another_form_are_refused(name: str) -> None:
    """A number or a string can be written in several ways; a snapshot is written in one."""
    make, _ = histories(name)
    machine = make()
    snapshot = machine.snapshot()
    version = snapshot[1]
    assert snapshot[0] & 0xF0 == 0x90
    with pytest.raises(ValueError, match="form"):
        machine.restore(snapshot[:1] + b"\xcc" + bytes([version]) + snapshot[2:])
    with pytest.raises(ValueError, match="version 9"):
        machine.restore(snapshot[:1] + b"\x09" + snapshot[2:])
    with pytest.raises(ValueError, match="no snapshot"):
        machine.restore(snapshot + b"\0")
    for junk in (b"", b"\xc1", b"\x91" * 5000, random.Random(1).randbytes(100)):
        with pytest.raises(ValueError, match="no snapshot"):
            machine.restore(junk)
    assert machine.snapshot() == snapshot
