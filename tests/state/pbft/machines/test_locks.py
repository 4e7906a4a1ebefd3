from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from state.pbft.machine import Operation
from state.pbft.machines.locks import (
    MAX_TTL_MS,
    Acquire,
    FencedResource,
    Free,
    Granted,
    Held,
    Inspect,
    LockOperation,
    LockResult,
    Locks,
    Lost,
    Refused,
    Release,
    Released,
    Renew,
    StaleToken,
    operation,
    result,
)

MALFORMED = Refused("this is no operation of a lock service")
CLIENTS = st.sampled_from(["x", "y", "z"])
NAMES = st.sampled_from(["a", "b", "c"])
TTLS = st.integers(1, 40)
LIMIT = 2


def ask(locks: Locks, client: str, time_ms: int, asked: LockOperation) -> LockResult:
    (answer,) = locks.apply([Operation(client, operation(asked), time_ms)])
    return result(answer)


class Hold(NamedTuple):
    """That a client holds a lock in [start, end)."""

    name: str
    client: str
    token: int
    start: int
    end: int


class LocksAgainstModel(RuleBasedStateMachine):
    """All that has ever been held, and the question who holds what now."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = Locks(max_locks=LIMIT)
        self.holds: list[Hold] = []
        self.now = 5_000
        self.tokens: list[int] = []

    def held(self, name: str) -> Hold | None:
        found = [each for each in self.holds if each.name == name and each.end > self.now]
        assert len(found) <= 1, "held twice at a time"
        return found[0] if found else None

    def ask(self, client: str, asked: LockOperation) -> LockResult:
        return ask(self.locks, client, self.now, asked)

    @rule(later=st.integers(0, 25))
    def time_goes_on(self, later: int) -> None:
        self.now += later

    @rule(back=st.integers(1, 10_000))
    def time_that_runs_backwards_does_not_count(self, back: int) -> None:
        held = {name for name in "abc" if self.held(name)}
        self.ask("x", Inspect("a"))
        before = self.locks.snapshot()
        for name in "abc":
            answer = ask(self.locks, "x", self.now - back, Inspect(name))
            assert isinstance(answer, Held) == (name in held)
        assert self.locks.snapshot() == before

    @rule(client=CLIENTS, name=NAMES, ttl=TTLS)
    def acquire(self, client: str, name: str, ttl: int) -> None:
        held = self.held(name)
        answer = self.ask(client, Acquire(name, ttl))
        if held is not None:
            assert answer == Held(held.client, held.token, held.end)
        elif sum(self.held(each) is not None for each in "abc") >= LIMIT:
            assert answer == Refused("too many locks are held")
        else:
            assert isinstance(answer, Granted)
            assert answer.expires_ms == self.now + ttl
            assert all(answer.token > token for token in self.tokens)
            self.tokens.append(answer.token)
            self.holds.append(Hold(name, client, answer.token, self.now, self.now + ttl))

    def mine(self, client: str, name: str, choice: int) -> tuple[int, Hold | None]:
        """One of the tokens so far, and the hold that it is good for."""
        token = (self.tokens or [1])[choice % max(len(self.tokens), 1)]
        held = self.held(name)
        if held is not None and choice % 2:
            token = held.token
        right = held is not None and (held.client, held.token) == (client, token)
        return token, held if right else None

    @rule(client=CLIENTS, name=NAMES, choice=st.integers(0, 50), ttl=TTLS)
    def renew(self, client: str, name: str, choice: int, ttl: int) -> None:
        token, hold = self.mine(client, name, choice)
        answer = self.ask(client, Renew(name, token, ttl))
        if hold is None:
            assert answer == Lost()
        else:
            assert answer == Granted(token, self.now + ttl)
            self.holds.remove(hold)
            self.holds.append(hold._replace(end=self.now + ttl))

    @rule(client=CLIENTS, name=NAMES, choice=st.integers(0, 50))
    def release(self, client: str, name: str, choice: int) -> None:
        token, hold = self.mine(client, name, choice)
        answer = self.ask(client, Release(name, token))
        assert answer == (Lost() if hold is None else Released())
        if hold is not None:
            self.holds.remove(hold)
            self.holds.append(hold._replace(end=self.now))

    @rule(client=CLIENTS, name=NAMES)
    def inspect(self, client: str, name: str) -> None:
        held = self.held(name)
        expected = Free() if held is None else Held(held.client, held.token, held.end)
        assert self.ask(client, Inspect(name)) == expected

    @rule()
    def restart(self) -> None:
        snapshot = self.locks.snapshot()
        self.locks = Locks(max_locks=LIMIT)
        self.locks.restore(snapshot)

    @invariant()
    def no_two_hold_a_lock_at_a_time(self) -> None:
        for name in "abc":
            holds = sorted((h.token, h.start, h.end) for h in self.holds if h.name == name)
            for (_, _, end), (_, start, _) in pairwise(holds):
                assert end <= start, "a greater token is a later hold"

    @invariant()
    def snapshot_is_canonical(self) -> None:
        """It has what is held, and nothing of what was."""
        self.ask("x", Inspect("a"))
        held = filter(None, (self.held(name) for name in "abc"))
        leases = [(each.name, each.client, each.token, each.end) for each in held]
        expected = (1, self.now, max(self.tokens, default=0), leases)
        assert self.locks.snapshot() == msgspec.msgpack.encode(expected)
        assert len(self.locks) == len(leases)


TestLocksAgainstModel = LocksAgainstModel.TestCase
TestLocksAgainstModel.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_what_a_holder_may_do_after_its_lease_has_ended() -> None:
    locks = Locks()
    assert ask(locks, "x", 1000, Acquire("a", 100)) == Granted(1, 1100)
    assert ask(locks, "x", 1050, Renew("a", 1, 100)) == Granted(1, 1150)
    # Nobody has acquired it, but somebody may have seen it free.
    assert ask(locks, "x", 1150, Renew("a", 1, 100)) == Lost()
    assert ask(locks, "x", 1150, Release("a", 1)) == Lost()
    assert ask(locks, "x", 1150, Acquire("a", 100)) == Granted(2, 1250)
    assert ask(locks, "y", 1200, Acquire("a", 100)) == Held("x", 2, 1250)
    assert ask(locks, "x", 1200, Acquire("a", 100)) == Held("x", 2, 1250)
    assert ask(locks, "y", 1200, Release("a", 2)) == Lost()
    assert ask(locks, "x", 1200, Release("a", 2)) == Released()
    assert ask(locks, "y", 1200, Acquire("a", 100)) == Granted(3, 1300)


def test_a_lease_may_be_made_shorter() -> None:
    locks = Locks()
    ask(locks, "x", 1000, Acquire("a", 1000))
    assert ask(locks, "x", 1100, Renew("a", 1, 10)) == Granted(1, 1110)
    assert ask(locks, "y", 1110, Acquire("a", 10)) == Granted(2, 1120)


def test_locks_taken_and_given_back_cost_no_memory() -> None:
    locks = Locks()
    for i in range(1000):
        token = i + 1
        assert ask(locks, "x", 1000, Acquire("a", MAX_TTL_MS)) == Granted(token, 1000 + MAX_TTL_MS)
        for _ in range(3):
            ask(locks, "x", 1000, Renew("a", token, MAX_TTL_MS))
        assert ask(locks, "x", 1000, Release("a", token)) == Released()
    assert len(locks._ends) < 100


@pytest.mark.parametrize(
    "asked",
    [Acquire("a", 0), Acquire("a", MAX_TTL_MS + 1), Acquire("", 5), Acquire("n" * 201, 5)],
)
def test_sizes_are_bounded(asked: LockOperation) -> None:
    assert ask(Locks(), "x", 1000, asked) == MALFORMED


@given(st.binary(max_size=40))
def test_malformed_operations_change_nothing_but_the_time(data: bytes) -> None:
    locks = Locks()
    ask(locks, "x", 1000, Acquire("a", 500))
    answer = result(locks.apply([Operation("y", data, 1200)])[0])
    if answer == MALFORMED:
        expected = (1, 1200, 1, [("a", "x", 1, 1500)])
        assert locks.snapshot() == msgspec.msgpack.encode(expected)
    else:
        assert data[1] in (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("token", "leases", "reason"),
    [
        (5, [("b", "x", 1, 1500), ("a", "x", 2, 1500)], "not in order"),
        (5, [("a", "x", 1, 1500), ("a", "x", 2, 1500)], "not in order"),
        (5, [("a", "x", 1, 1500), ("b", "x", 1, 1500)], "granted twice"),
        (5, [("a", "x", 6, 1500)], "impossible lease"),
        (5, [("a", "x", 1, 1000)], "impossible lease"),
        (5, [("a", "x", 1, 1001 + MAX_TTL_MS)], "impossible lease"),
        (5, [("a", "", 1, 1500)], "no snapshot"),
        (5, [("a", "x", 0, 1500)], "no snapshot"),
        (5, [(name, "x", 1 + i, 1500) for i, name in enumerate("abc")], "at most 2 can be"),
    ],
)
def test_impossible_snapshots_are_refused(
    token: int, leases: list[tuple[str, str, int, int]], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Locks(max_locks=2).restore(msgspec.msgpack.encode((1, 1000, token, leases)))


def test_results_are_checked() -> None:
    for data in (b"", b"\x91\x09", b"\x94\x02\xa1\xff\x01\x01"):
        with pytest.raises(ValueError, match="no result of a lock service"):
            result(data)


@given(st.lists(st.integers(1, 20)))
def test_a_resource_admits_no_token_after_a_greater_one(tokens: list[int]) -> None:
    resource = FencedResource()
    admitted = []
    for token in tokens:
        try:
            resource.admit(token)
        except StaleToken:
            assert token < max(admitted)
        else:
            admitted.append(token)
        if len(admitted) % 3 == 0:
            resource = FencedResource(resource.greatest)
    assert admitted == sorted(admitted)
