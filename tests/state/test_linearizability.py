from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from state.linearizability import Call, NotLinearizable, Specification, Undecided, linearize


class Whole:
    def reads(self, call: Call) -> bool:
        return False

    def parts(self, calls: Sequence[Call]) -> Iterable[Sequence[Call]]:
        return [calls]


class Queue(Whole):
    initial: tuple[str, ...] = ()

    def step(self, state: tuple[str, ...], call: Call) -> Iterable[tuple[str, ...]]:
        if call.asked != "deq":
            return [(*state, call.asked)]
        return [state[1:]] if state and call.answer in (None, state[0]) else []


class Register(Whole):
    """Reads, writes, and compare-and-set, as in Jepsen's test of etcd."""

    initial: str = "n"

    def step(self, state: str, call: Call) -> Iterable[str]:
        kind, values = call.asked[0], call.asked[1:]
        if kind == "r":
            return [state] if call.answer in (None, state) else []
        if kind == "w":
            return [values]
        right = state == values[0]
        if call.answer not in (None, right):
            return []
        return [values[1] if right else state]

    @override
    def reads(self, call: Call) -> bool:
        return call.asked == "r" or call.answer is False


class Counter(Whole):
    """Each call adds one or two; whoever asks is told more or less the sum."""

    initial = 0

    def step(self, state: int, call: Call) -> Iterable[int]:
        if call.answer is None:
            return [state + 1, state + 2]
        return [each for each in (state + 1, state + 2) if abs(each - call.answer) <= 1]


def linearizable(specification: Specification[Any], calls: Sequence[Call]) -> bool:
    try:
        orders = linearize(specification, calls)
    except NotLinearizable as error:
        found = error
    else:
        found = None
    if found is not None:
        assert found.stuck
        check(specification, found.prefix)
        return False
    for order in orders:
        check(specification, order)
    done = [call for order in orders for call in order]
    left_out = set(calls) - set(done)
    assert len(set(done)) == len(done)
    assert all(call.answer is None for call in left_out)
    return True


def check(specification: Specification[Any], order: Sequence[Call]) -> None:
    """See for ourselves that an order is one."""
    states = {specification.initial}
    for call in order:
        states = {each for state in states for each in specification.step(state, call)}
        assert states
    for earlier, later in itertools.combinations(order, 2):
        assert not later.end < earlier.start


def events(text: str) -> list[Call]:
    """Calls from `client operation` and `client = answer`, in the order in which they happened."""
    calls: list[Call] = []
    running: dict[str, int] = {}
    for time, line in enumerate(text.strip().splitlines()):
        client, what = line.split(None, 1)
        if what.startswith("= "):
            index = running.pop(client)
            calls[index] = replace(calls[index], answer=what[2:], end=time)
        else:
            running[client] = len(calls)
            calls.append(Call(client, what, time))
    return calls


# Histories that others have judged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A x\nB y\nB = ok\nA = ok\nB deq\nB = x\nA deq\nA = y\nA z", True),
        ("A x\nA = ok\nB y\nA deq\nB = ok\nA = y", False),
        ("A x\nB deq\nB = x", True),
        ("A x\nB y\nA = ok\nB = ok\nA deq\nC deq\nA = y\nC = y", False),
    ],
)
def test_the_queues_of_herlihy_and_wing(text: str, expected: bool) -> None:
    """H1 to H4 of "Linearizability: a correctness condition for concurrent objects", section 2."""
    assert linearizable(Queue(), events(text)) is expected


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("w1", None, 0, 100), ("r", "1", 25, 75), ("r", "n", 30, 60)], True),
        ([("w2", None, 0, 100), ("r", "2", 10, 30), ("r", "n", 40, 90)], False),
        ([("w1", None, 0, 100), ("r", "1", 25, 75), ("r", "n", 30, 30), ("r", "n", 30, 30)], True),
        (
            [("w2", None, 0, 100), ("r", "2", 10, 10), ("r", "2", 10, 10), ("r", "n", 40, 90)],
            False,
        ),
    ],
)
def test_the_registers_of_a_quiz(calls: list[tuple[str, str, int, int]], expected: bool) -> None:
    """MIT 6.824, spring 2017, quiz 2, section VII, and variants of no duration."""
    history = [
        Call(str(i), asked, start, answer or "ok", end)
        for i, (asked, answer, start, end) in enumerate(calls)
    ]
    assert linearizable(Register(), history) is expected


# Two of Jepsen's histories of etcd 0.4, `etcd_007` and `etcd_000` of the test data of Porcupine
# (https://github.com/anishathalye/porcupine, MIT licence), which says that the first is
# linearizable and the second not. `3w1`: process 3 asks to write 1; `3.`: it is told that this is
# done. `4c02`: compare with 0, set 2; `4y` and `4x`: it was, and was not so. `0r`, `0=n`: it reads
# nothing. What timed out has no answer.
ETCD_007 = """
0r 2r 1r 2=n 0=n 1=n 3w1 4c33 3. 4x 2c20 0w0 1r 1=1 0. 3c30 2x 3x 4c02 4y 1c34 0c22 1x 2r 3w4 2=2
0y 3. 4r 4=4 1c01 1x 2c32 0c33 2x 3r 0x 3=4 4w4 4. 1c20 1x 2c31 0c12 3c20 4w0 0x 2x 4. 1w2 0c22 0x
2w4 4r 4=0 2. 8c20 0w3 0. 4r 4=3 2r 2=3 6w3 0r 0=3 4c22 4x 2c31 13w3 2y 0r 0=1 4w4 11c14 4. 2c24 2x
0r 0=4 18w1 4r 4=4 2r 2=4 0w1 16c42 4c34 2r 2=4 23w1 2w2 5w2 2. 23. 5. 21w1 9r 21. 9=1 23r 2c12 5r
23=1 5=1 2y 21w4 9r 9=2 21. 23r 5r 23=4 5=4 2r 2=4 9w3 9. 21c24 23w0 5r 5=3 2c42 9c44 5w0 26w2
28c24 28x 7w4 7. 14w2 10c13 28c01 7c34 10x 28x 7x 31r 31=3 10r 10=4 28c00 28x 7r 7=4
"""
ETCD_000 = """
0r 3r 2w4 1w2 4w3 3=n 0=n 4. 1. 2. 3w3 0r 0=3 3. 4r 4=3 1r 1=3 2c30 2y 0w2 3r 0. 3=0 4r 4=2 1c03
2c00 1x 2x 0c21 3r 3=2 0y 4r 4=1 1r 1=1 2r 2=1 3w0 0c13 3. 4w2 0x 4. 1r 1=2 2c11 2x 3c00 0r 0=2 4w1
3x 1c21 2w2 2. 0c14 3w3 0x 3. 2w2 9w3 0r 0=3 2. 3c34 3x 6c11 0w1 0. 2c00 2x 3c22 3x 14w4 0c43 0x
2w0 11r 11=2 2. 3w2 3. 0w1 11c21 2c03 3r 3=2 19r 19=2 3r 3=2 19c13 19y 5w0 16c43 7c12 5. 7x 16x 3c42
3x 19c01 19y 5c40 7c14 16r 16=1 3c13 3x 5y 7y 19c20 19x 16r 16=0 3r 3=0 5r 7c42 5=0 7x 19c23 19x
16c41 3w4 5w4 7c02 19r 19=0 19w3 19. 21c20 21x 8w4 10w2 10. 12c44 19w4 21r 21=4 19. 10c01 10x 21c33
21x 19r 19=4 13c22 17c44 10r 10=1
"""


def etcd(text: str) -> list[Call]:
    calls: list[Call] = []
    running: dict[str, int] = {}
    for time, event in enumerate(text.split()):
        matched = re.fullmatch(r"(\d+)([rwc=.yx])(\w*)", event)
        assert matched, event
        client, kind, values = matched.groups()
        if kind in "rwc":
            running[client] = len(calls)
            calls.append(Call(client, kind + values, time))
        else:
            index = running.pop(client)
            answer = {"=": values, ".": "ok", "y": True, "x": False}[kind]
            calls[index] = replace(calls[index], answer=answer, end=time)
    return calls


def test_jepsens_histories_of_etcd() -> None:
    good, bad = etcd(ETCD_007), etcd(ETCD_000)
    assert [sum(call.answer is None for call in calls) for calls in (good, bad)] == [17, 16]
    assert linearizable(Register(), good)
    assert not linearizable(Register(), bad)


def test_what_is_wrong_in_a_long_history_is_found() -> None:
    """A read of any other value makes it impossible, or possible to explain; the order says how."""
    good = etcd(ETCD_007)
    rng = random.Random(3)
    verdicts = []
    for index in rng.sample([i for i, call in enumerate(good) if call.asked == "r"], 12):
        value = rng.choice([v for v in "n01234" if v != good[index].answer])
        changed = [*good[:index], replace(good[index], answer=value), *good[index + 1 :]]
        verdicts.append(linearizable(Register(), changed))
    assert not all(verdicts)


# Against all orders there are


def any_order(specification: Specification[Any], calls: Sequence[Call]) -> bool:
    """Try them one by one."""
    pending = [call for call in calls if call.answer is None]
    answered = [call for call in calls if call.answer is not None]
    for size in range(len(pending) + 1):
        for some in itertools.combinations(pending, size):
            for order in itertools.permutations([*answered, *some]):
                try:
                    check(specification, order)
                except AssertionError:
                    continue
                return True
    return False


@st.composite
def histories(draw: st.DrawFn, asked: st.SearchStrategy[Any], most: int) -> list[Call]:
    calls = []
    for i in range(draw(st.integers(1, most))):
        what, answer = draw(asked)
        start = draw(st.integers(0, 8))
        end = draw(st.integers(start, 9))
        if draw(st.integers(0, 4)) == 0:
            calls.append(Call(str(i), what, start))
        else:
            calls.append(Call(str(i), what, start, answer, end))
    return calls


REGISTER = st.one_of(
    st.tuples(st.just("r"), st.sampled_from("n12")),
    st.tuples(st.sampled_from(["w1", "w2"]), st.just("ok")),
    st.tuples(st.sampled_from(["c12", "c21", "cn1"]), st.booleans()),
)
QUEUE = st.one_of(
    st.tuples(st.just("deq"), st.sampled_from("xy")),
    st.tuples(st.sampled_from("xy"), st.just("ok")),
)
COUNTER = st.tuples(st.just("add"), st.integers(1, 6))


@pytest.mark.parametrize(
    ("specification", "asked"), [(Register(), REGISTER), (Queue(), QUEUE), (Counter(), COUNTER)]
)
@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_it_finds_an_order_if_there_is_one(
    specification: Specification[Any], asked: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    calls = data.draw(histories(asked, 5))
    assert linearizable(specification, calls) is any_order(specification, calls)


# Size


def real(rng: random.Random, calls: int, clients: int) -> list[Call]:
    """What a register may tell clients that each ask again when they have been told, or give up."""
    free = [0.0] * clients
    asked = []
    for i in range(calls):
        who = min(range(clients), key=free.__getitem__)
        start = free[who] + rng.random()
        end = start + rng.expovariate(0.5)
        free[who] = end
        what = rng.choice(["r", "w", "c"])
        what += {"r": 0, "w": 1, "c": 2}[what] * "{}"
        asked.append(
            (rng.uniform(start, end), start, end, f"{who}", what.format(*rng.sample("1234", 2)))
        )
        if rng.random() < 0.03:
            asked[-1] = (*asked[-1][:2], math.inf, f"{who}-{i}", asked[-1][4])
    state = "n"
    history = []
    for _, start, end, client, what in sorted(asked):
        answer: Any = "ok"
        if what == "r":
            answer = state
        elif what[0] == "w":
            state = what[1]
        else:
            answer = state == what[1]
            state = what[2] if answer else state
        unanswered = end == math.inf
        history.append(Call(client, what, start, None if unanswered else answer, end))
    rng.shuffle(history)
    return history


@pytest.mark.parametrize("seed", range(6))
def test_histories_of_two_hundred_calls_of_eight_clients(seed: int) -> None:
    rng = random.Random(seed)
    history = real(rng, 200, 8)
    assert linearizable(Register(), history)
    reads = [i for i, call in enumerate(history) if call.asked == "r" and call.answer is not None]
    index = rng.choice(reads)
    history[index] = replace(history[index], answer="5")  # which nobody wrote
    assert not linearizable(Register(), history)


def test_reads_that_tell_nothing_new_do_not_multiply_the_orders() -> None:
    reads = [Call(f"a{i}", "r", 0, "n", 10) for i in range(40)]
    writes = [Call("b", "w1", 0, "ok", 10), Call("c", "w2", 0, "ok", 10)]
    for last, possible in (("1", True), ("n", False)):
        history = [*reads, *writes, Call("d", "r", 11, last, 12)]
        if possible:
            assert linearize(Register(), history, steps=10_000)
        else:
            with pytest.raises(NotLinearizable):
                linearize(Register(), history, steps=10_000)


def test_the_search_is_bounded() -> None:
    with pytest.raises(Undecided, match="200 calls"):
        linearize(Register(), real(random.Random(1), 200, 8), steps=100)


def test_a_history_without_answers_is_linearizable() -> None:
    assert linearize(Register(), []) == [[]]
    assert linearize(Register(), [Call("a", "w1", 0), Call("b", "r", 1)]) == [[]]
