"""The specifications of store and lock service, against the machines and against all orders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.linearizability import Call, NotLinearizable, linearize
from state.pbft.machine import Operation, StateMachine
from state.pbft.machines import locks, store
from state.pbft.machines.locks import (
    Acquire,
    Free,
    Granted,
    Held,
    Inspect,
    Locks,
    Lost,
    Release,
    Released,
    Renew,
)
from state.pbft.machines.store import CompareAndSet, Delete, Found, Get, List, Listed, Put, Written
from state.pbft.specifications import LockSpecification, StoreSpecification


def ask(machine: StateMachine, module: Any, call: Call, time_ms: int) -> Any:
    (answer,) = machine.apply([Operation(call.client, module.operation(call.asked), time_ms)])
    return module.result(answer)


def store_fits(calls: Sequence[Call]) -> bool:
    try:
        linearize(StoreSpecification(), calls)
    except NotLinearizable:
        return False
    return True


def locks_fit(calls: Sequence[Call]) -> bool:
    try:
        linearize(LockSpecification(calls), calls)
    except NotLinearizable:
        return False
    return True


# The store


def store_operation(rng: random.Random, keys: str, lists: bool) -> Any:
    key, (value, other) = rng.choice(keys).encode(), rng.sample([b"1", b"2", None], 2)
    some = value or b"3"
    drawn = [Get(key), Put(key, some), Delete(key), CompareAndSet(key, value, other)]
    return rng.choice([*drawn, List(key, None, 2)] if lists else drawn)


def run(
    rng: random.Random, machine: StateMachine, module: Any, asked: Sequence[Any], clients: int
) -> list[Call]:
    """What clients may be told that ask again when they have an answer, or do not wait for it."""
    free = [0.0] * clients
    planned = []
    for what in asked:
        who = min(range(clients), key=free.__getitem__)
        start = free[who] + rng.random()
        free[who] = end = start + rng.expovariate(0.4)
        planned.append((rng.uniform(start, end), Call(f"c{who}", what, start, None, end)))
    history = []
    time_ms = 1000
    for _, call in sorted(planned, key=lambda each: each[0]):
        time_ms += rng.choice([0, 0, 1, 5])
        if isinstance(call.asked, Renew | Release):  # with the last token that is anyone's
            token = max([1, *(each.answer.token for each in history if _granted(each))])
            call = replace(call, asked=type(call.asked)(call.asked.name, token, *_ttl(call.asked)))
        history.append(replace(call, answer=ask(machine, module, call, time_ms)))
    return [
        replace(call, answer=None, end=float("inf")) if rng.random() < 0.05 else call
        for call in history
    ]


def _granted(call: Call) -> bool:
    return isinstance(call.asked, Acquire) and isinstance(call.answer, Granted)


def _ttl(asked: Any) -> tuple[int, ...]:
    return (asked.ttl_ms,) if isinstance(asked, Renew) else ()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("lists", [False, True])
def test_what_a_store_answers_is_linearizable(seed: int, lists: bool) -> None:
    rng = random.Random(seed)
    asked = [store_operation(rng, "abcd", lists) for _ in range(200)]
    history = run(rng, store.Store(), store, asked, 6)
    assert store_fits(history)
    answered = [i for i, call in enumerate(history) if call.answer is not None]
    index = next(i for i in answered if isinstance(history[i].asked, Get))
    history[index] = replace(history[index], answer=Found(b"never written"))
    assert not store_fits(history)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        # A value that was overwritten comes back.
        ([(Put(b"k", b"1"), Written(True)), (Put(b"k", b"2"), Written(True)),
          (Get(b"k"), Found(b"1"))], False),
        # Two take the same step.
        ([(CompareAndSet(b"k", None, b"1"), Written(True)),
          (CompareAndSet(b"k", None, b"2"), Written(True))], False),
        ([(CompareAndSet(b"k", None, b"1"), Written(True)),
          (CompareAndSet(b"k", None, b"2"), Written(False, b"1"))], True),
        # Nobody knows whether it was written, until somebody reads it; then it stays.
        ([(Put(b"k", b"1"), None), (Get(b"k"), Found(None)), (Get(b"k"), Found(b"1"))], True),
        ([(Put(b"k", b"1"), None), (Get(b"k"), Found(b"1")), (Get(b"k"), Found(None))], False),
        # Keys that have nothing to do with each other, until somebody lists them.
        ([(Put(b"a", b""), None), (Put(b"b", b""), Written(True)), (Get(b"a"), Found(b"")),
          (List(), Listed([b"a", b"b"], 2))], True),
        ([(Put(b"a", b""), Written(True)), (Put(b"b", b""), Written(True)),
          (List(), Listed([b"b"], 1))], False),
        ([(Delete(b"k"), Written(True))], False),
    ],
)  # fmt: skip
def test_stores_one_call_after_the_other(calls: list[tuple[Any, Any]], expected: bool) -> None:
    assert store_fits(sequence([("c", asked, answer) for asked, answer in calls])) is expected


def sequence(calls: Sequence[tuple[str, Any, Any]]) -> list[Call]:
    """Each starts when the one before has ended; what is not answered stays under way."""
    return [
        Call(client, asked, 2 * i, answer, float("inf") if answer is None else 2 * i + 1)
        for i, (client, asked, answer) in enumerate(calls)
    ]


# The lock service

A = "a"
TTL = 100


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        # Free again after its release, or when its lease has ended; not before.
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Acquire(A, TTL), Granted(2, 700))], True),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Acquire(A, TTL), Granted(2, 699))], False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Release(A, 1), Released()),
          ("y", Acquire(A, TTL), Granted(2, 601))], True),
        # Tokens grow, whatever lock they are for.
        ([("x", Acquire(A, TTL), Granted(2, 600)), ("y", Acquire("b", TTL), Granted(1, 601))],
         False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Acquire(A, TTL), Granted(1, 700))], False),
        # Time does not run backwards.
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Acquire("b", TTL), Granted(2, 599))],
         False),
        # Who finds it free knows that the lease has ended: it is not renewed then.
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Inspect(A), Free()),
          ("x", Renew(A, 1, TTL), Granted(1, 650))], False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Inspect(A), Held("x", 1, 600)),
          ("x", Renew(A, 1, TTL), Granted(1, 699)), ("y", Inspect(A), Held("x", 1, 699))], True),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Renew(A, 1, TTL), Granted(1, 700))],
         False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Renew(A, 1, TTL), Lost()),
          ("y", Inspect(A), Held("x", 1, 600))], False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Release(A, 1), Released())], False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Release(A, 1), Lost()),
          ("x", Release(A, 1), Released()), ("x", Release(A, 1), Lost())], True),
        # Two hold it at a time.
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Inspect(A), Held("x", 1, 600)),
          ("y", Acquire(A, 10), Granted(2, 605))], False),
        # An unanswered acquire was granted, as others are told, or it was not.
        ([("x", Acquire(A, TTL), None), ("y", Acquire(A, TTL), Held("x", 1, 600)),
          ("y", Acquire(A, TTL), Granted(2, 700))], True),
        ([("x", Acquire(A, TTL), None), ("y", Acquire(A, TTL), Held("x", 1, 600)),
          ("y", Acquire(A, TTL), Granted(2, 699))], False),
        ([("x", Acquire(A, TTL), None), ("y", Acquire(A, TTL), Held("z", 1, 600))], False),
        ([("x", Acquire(A, TTL), None), ("y", Acquire(A, TTL), Granted(3, 600))], True),
        ([("x", Acquire(A, TTL), None), ("y", Inspect(A), Held("x", 1, 600)),
          ("y", Inspect(A), Held("x", 1, 601))], False),
        # An unanswered release, an unanswered renewal: longer, and shorter.
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Release(A, 1), None),
          ("y", Acquire(A, TTL), Granted(2, 601))], True),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Renew(A, 1, TTL), None),
          ("x", Renew(A, 1, TTL), Granted(1, 798))], True),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Renew(A, 1, TTL), None),
          ("x", Renew(A, 1, TTL), Granted(1, 799))], False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Renew(A, 1, 10), None),
          ("y", Acquire(A, TTL), Granted(2, 610))], True),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("x", Renew(A, 1, 10), None),
          ("y", Acquire(A, TTL), Granted(2, 609))], False),
        ([("x", Acquire(A, TTL), Granted(1, 600)), ("y", Renew(A, 1, 10), None),
          ("y", Acquire(A, TTL), Granted(2, 610))], False),
    ],
)  # fmt: skip
def test_locks_one_call_after_the_other(calls: list[tuple[str, Any, Any]], expected: bool) -> None:
    assert locks_fit(sequence(calls)) is expected


def lock_operation(rng: random.Random, names: str, longest: int) -> Any:
    name = rng.choice(names)
    what = rng.choice([Acquire, Acquire, Renew, Release, Inspect])
    if what in (Acquire, Inspect):
        return Acquire(name, rng.randint(1, longest)) if what is Acquire else Inspect(name)
    return Renew(name, 1, rng.randint(1, longest)) if what is Renew else Release(name, 1)


@pytest.mark.parametrize("seed", range(20))
def test_what_a_lock_service_answers_is_linearizable(seed: int) -> None:
    rng = random.Random(seed)
    asked = [lock_operation(rng, "ab", 20) for _ in range(200)]
    history = run(rng, Locks(), locks, asked, 8)
    assert locks_fit(history)
    granted = [i for i, call in enumerate(history) if _granted(call)]
    first, second = granted[3], granted[-3]
    answers = history[first].answer, history[second].answer
    history[first] = replace(history[first], answer=answers[1])
    history[second] = replace(history[second], answer=answers[0])
    assert not locks_fit(history)


class Lease(NamedTuple):
    holder: str
    token: int
    expires_ms: int


LAST = 6


def any_order(calls: Sequence[Call], lease: Lease | None, last: int, now: int) -> bool:
    """Try all orders of calls on one lock, with all times up to `LAST`, and all tokens."""
    if all(call.answer is None for call in calls):
        return True
    first_end = min(call.end for call in calls)
    for i, call in enumerate(calls):
        if call.start > first_end:
            continue
        rest = [*calls[:i], *calls[i + 1 :]]
        for time in range(now, LAST + 1):
            held = lease if lease is not None and lease.expires_ms > time else None
            tokens = [0]
            if isinstance(call.asked, Acquire) and held is None:
                tokens = [token for token in range(1, 5) if token > last]
            for token in tokens:
                answer, after = what_then(call, held, token, time)
                if call.answer in (None, answer) and any_order(
                    rest, after, max(last, after.token if after else 0), time
                ):
                    return True
    return False


def what_then(call: Call, held: Lease | None, token: int, time: int) -> tuple[Any, Lease | None]:
    asked, client = call.asked, call.client
    if isinstance(asked, Acquire):
        if held is not None:
            return Held(*held), held
        return Granted(token, time + asked.ttl_ms), Lease(client, token, time + asked.ttl_ms)
    if isinstance(asked, Inspect):
        return (Held(*held) if held is not None else Free()), held
    if held is None or (held.holder, held.token) != (client, asked.token):
        return Lost(), held
    if isinstance(asked, Release):
        return Released(), None
    renewed = held._replace(expires_ms=time + asked.ttl_ms)
    return Granted(held.token, renewed.expires_ms), renewed


@st.composite
def lock_histories(draw: st.DrawFn) -> list[Call]:
    """Three or four calls, answered by a lock service, and then perhaps otherwise."""
    machine = Locks()
    calls = []
    time = 0
    for i in range(draw(st.integers(2, 4))):
        time = draw(st.integers(time, 4))
        client = draw(st.sampled_from("xy"))
        asked = draw(
            st.one_of(
                st.builds(Acquire, st.just(A), st.integers(1, 2)),
                st.builds(Renew, st.just(A), st.integers(1, 2), st.integers(1, 2)),
                st.builds(Release, st.just(A), st.integers(1, 2)),
                st.just(Inspect(A)),
            )
        )
        start, end = i - draw(st.integers(0, 2)), i + draw(st.integers(0, 1))
        call = Call(client, asked, start, None, end)
        calls.append(replace(call, answer=ask(machine, locks, call, time)))
    for index in draw(st.lists(st.integers(0, len(calls) - 1), max_size=2)):
        answer = draw(
            st.one_of(
                st.none(),
                st.builds(Held, st.sampled_from("xy"), st.integers(1, 3), st.integers(1, 6)),
                st.builds(Granted, st.integers(1, 3), st.integers(1, 6)),
                st.sampled_from([Lost(), Free(), Released()]),
            )
        )
        end = calls[index].end if answer is not None else float("inf")
        calls[index] = replace(calls[index], answer=answer, end=end)
    return calls


@given(lock_histories())
@settings(max_examples=200, deadline=None)
def test_a_lock_history_fits_if_there_is_an_order(calls: list[Call]) -> None:
    _fits_if_there_is_an_order(calls)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(8))
def test_many_lock_histories_fit_if_there_is_an_order(seed: int) -> None:
    given_more = settings(max_examples=500, deadline=None)
    given_more(hypothesis.seed(seed)(given(lock_histories())(_fits_if_there_is_an_order)))()


def _fits_if_there_is_an_order(calls: list[Call]) -> None:
    assert locks_fit(calls) is any_order(calls, None, 0, 0)
