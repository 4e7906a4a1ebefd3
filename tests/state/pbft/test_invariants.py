"""The judge of simulations must see what is wrong, or nothing that it judges is proved."""

import pytest
from msgspec.structs import replace

from state.pbft.authentication import sign
from state.pbft.events import (
    Answer,
    Committed,
    CommittedRequest,
    Diverged,
    Evidence,
    Phase,
    Stable,
    Transferred,
    ViewEntered,
)
from state.pbft.group import Group
from state.pbft.invariants import Invariants, Violation, proves
from state.pbft.messages import Accusation, Commit, Prepare, PrePrepare, Request, ViewChange
from state.pbft.simulated_keys import SimulatedKeys
from state.pbft.simulator import HashChain

KEYS = SimulatedKeys.of(["r0", "r1", "r2", "r3", "c0"], seed=1)
A, B = bytes([1] * 32), bytes([2] * 32)


def judge() -> Invariants:
    made = Invariants(Group("demo", ["r0", "r1", "r2", "r3"]), HashChain, KEYS["r0"], faulty=["r3"])
    for name in ("r0", "r1", "r2"):
        made.started(name)
    for number in (1, 2, 3):
        made.requested(Request("c0", number, 1, [b"%d" % number]))
    return made


def batch(
    seq: int, number: int, digest: bytes = A, results: list[bytes] | None = None
) -> Committed:
    requests = [CommittedRequest("c0", number, [b"%d" % number], results)]
    return Committed(seq, 0, A, 5, requests)


def good(seq: int) -> Committed:
    return batch(seq, seq, results=[b"done"])


def answer(number: int, seq: int, results: list[bytes]) -> Answer:
    return Answer(number, None, results, Phase.COMMITTED, 0, seq, 0.1)


def test_nothing_is_said_of_what_is_right() -> None:
    made = judge()
    made.answered("c0", answer(2, 2, [b"done"]))
    for name in ("r0", "r1"):
        made.observe(name, ViewEntered(0, "r0"))
        made.observe(name, good(1))
        made.observe(name, good(2))
        made.observe(name, Stable(2, B))
    made.observe("r2", Transferred(2, B))
    made.observe("r2", good(3))
    made.started("r0")
    made.observe("r0", good(2))
    made.observe("r0", good(3))
    made.answered("c0", answer(1, 1, [b"done"]))
    made.settled()
    assert made.executed == 3


def test_other_batches_in_a_slot() -> None:
    made = judge()
    made.observe("r0", good(1))
    with pytest.raises(Violation, match="slot 1: r0 committed"):
        made.observe("r1", replace(good(1), digest=B))


def test_gaps_and_repetitions() -> None:
    for second in (1, 3):
        made = judge()
        made.observe("r0", good(1))
        with pytest.raises(Violation, match=f"committed slot {second} after 1"):
            made.observe("r0", good(second))


def test_requests_that_nobody_made() -> None:
    made = judge()
    with pytest.raises(Violation, match="were never requested"):
        made.observe("r0", batch(1, 9, results=[b"done"]))
    made = judge()
    forged = [CommittedRequest("c0", 1, [b"forged"], [b"done"])]
    with pytest.raises(Violation, match="were never requested"):
        made.observe("r0", replace(good(1), requests=forged))
    with pytest.raises(Violation, match="one number"):
        made.requested(Request("c0", 1, 1, [b"other"]))


def test_clients_that_lie_may_say_two_things_but_each_number_is_executed_once() -> None:
    group = Group("demo", ["r0", "r1", "r2", "r3"])
    made = Invariants(group, HashChain, KEYS["r0"], liars=["c0"])
    made.started("r0")
    for said in (b"1", b"other", b"1"):
        made.requested(Request("c0", 1, 1, [said]))
    other = [CommittedRequest("c0", 1, [b"other"], [b"done"])]
    made.observe("r0", replace(good(1), requests=other))
    made.observe("r0", batch(2, 1, results=None))
    with pytest.raises(Violation, match="executed again"):
        made.observe("r0", batch(3, 1, results=[b"done"]))


def test_executing_twice_or_never() -> None:
    made = judge()
    made.observe("r0", good(1))
    with pytest.raises(Violation, match="executed again"):
        made.observe("r0", batch(2, 1, results=[b"done"]))
    made = judge()
    with pytest.raises(Violation, match="never was"):
        made.observe("r0", batch(1, 1, results=None))
    made = judge()
    made.observe("r0", good(1))
    made.observe("r0", batch(2, 1, results=None))


def test_wrong_results_and_answers() -> None:
    made = judge()
    with pytest.raises(Violation, match="the results are"):
        made.observe("r0", batch(1, 1, results=[b"other"]))
    for wrong in (answer(1, 1, [b"other"]), answer(1, 2, [b"done"]), answer(2, 1, [b"done"])):
        made = judge()
        made.observe("r0", good(1))
        if wrong.seq == 1:
            with pytest.raises(Violation, match="was answered"):
                made.answered("c0", wrong)
        else:
            made.answered("c0", wrong)
            with pytest.raises(Violation, match="was answered"):
                made.observe("r0", good(2))
    made = judge()
    made.answered("c0", answer(1, 1, [b"done"]))
    with pytest.raises(Violation, match="never committed"):
        made.settled()
    with pytest.raises(Violation, match="twice"):
        made.answered("c0", answer(1, 1, [b"done"]))


def test_other_states_and_going_back() -> None:
    made = judge()
    made.observe("r0", Stable(4, A))
    with pytest.raises(Violation, match="other states"):
        made.observe("r1", Stable(4, B))
    with pytest.raises(Violation, match="another state than a quorum"):
        made.observe("r1", Diverged(4))
    made = judge()
    made.observe("r0", good(1))
    made.observe("r0", good(2))
    with pytest.raises(Violation, match="went back"):
        made.observe("r0", Transferred(1, A))


def test_views_that_are_not_next() -> None:
    made = judge()
    made.observe("r0", ViewEntered(3, "r3"))
    for wrong in (ViewEntered(2, "r2"), ViewEntered(4, "r1")):
        with pytest.raises(Violation, match="entered"):
            made.observe("r0", wrong)


def test_contradicting_oneself_also_in_another_life() -> None:
    made = judge()
    made.sent("r1", [Prepare(0, 1, A), Commit(0, 1, A)])
    made.started("r1")
    made.sent("r1", [Prepare(0, 1, A), Prepare(1, 1, B), PrePrepare(0, 1, B, b"")])  # relayed
    for wrong in (Prepare(0, 1, B), Commit(0, 1, B)):
        with pytest.raises(Violation, match="contradicts itself"):
            made.sent("r1", [wrong])
    made.sent("r1", [ViewChange(1, "r1", 0, [], [], [], b"1"), ViewChange(1, "r0", 0, [], [], [])])
    with pytest.raises(Violation, match="contradicts itself"):
        made.sent("r1", [ViewChange(1, "r1", 0, [], [], [], b"2")])
    made.sent("r0", [PrePrepare(0, 1, A, b"")])
    with pytest.raises(Violation, match="contradicts itself"):
        made.sent("r0", [Prepare(0, 1, B)])


def test_accusations() -> None:
    def signed(name: str, view: int, seq: int, digest: bytes) -> PrePrepare:
        plain = PrePrepare(view, seq, digest, b"")
        return replace(plain, signature=sign(KEYS[name], plain))

    true = Accusation("r3", signed("r3", 3, 1, A), signed("r3", 3, 1, B))
    assert proves(KEYS["c0"], true)
    made = judge()
    made.observe("r0", Evidence(true))
    assert made.accused == {"r3"}
    correct = Accusation("r0", signed("r0", 0, 1, A), signed("r0", 0, 1, B))
    with pytest.raises(Violation, match="which is correct"):
        made.observe("r1", Evidence(correct))
    for first, second in (
        (signed("r3", 3, 1, A), signed("r3", 3, 1, A)),
        (signed("r3", 3, 1, A), signed("r3", 3, 2, B)),
        (signed("r3", 3, 1, A), signed("r3", 7, 1, B)),
        (signed("r3", 3, 1, A), signed("r2", 3, 1, B)),
    ):
        with pytest.raises(Violation, match="proves nothing"):
            made.observe("r0", Evidence(Accusation("r3", first, second)))
