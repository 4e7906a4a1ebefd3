import random
from collections.abc import Sequence
from itertools import combinations

import msgspec
import pytest

from state.pbft import (
    Answer,
    Client,
    Group,
    Phase,
    Received,
    Rejected,
    Send,
    Settings,
    Submit,
    Tick,
)
from state.pbft.authentication import MAC_BYTES, close, valid
from state.pbft.messages import AnyMessage, Checkpoint, Reply, Request, decode, digest
from state.pbft.simulated_keys import SimulatedKeys

TRUE, FALSE = [b"true"], [b"false"]
HISTORY, OTHER = bytes([1] * 32), bytes([2] * 32)
COMMITTED, TENTATIVE, SPECULATIVE = Phase


class LoneClient:
    """A client among replicas that say what a test has them say."""

    def __init__(self, n: int = 4, f: int | None = None, **settings: object) -> None:
        self.group = Group("demo", [f"r{i}" for i in range(n)], f)
        self.keys = SimulatedKeys.of([*self.group.replicas, "c", "d"], seed=1)
        self.now = 0.0
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.client = Client(self.group, self.keys["c"], first=1, now=0.0, settings=self.settings)
        self.sent: list[tuple[str, Request]] = []
        self.rejected: list[Rejected] = []

    def step(self, event: Submit | Tick | Received) -> list[Answer]:
        effects = self.client.step(event)
        for effect in effects:
            if isinstance(effect, Send):
                for message in decode(effect.data[MAC_BYTES:]):
                    assert isinstance(message, Request)
                    self.sent.append((effect.to, message))
        self.rejected += [each for each in effects if isinstance(each, Rejected)]
        return [each for each in effects if isinstance(each, Answer)]

    def submit(self, *operations: bytes, token: object = None) -> None:
        assert self.step(Submit(self.now, list(operations) or [b"x"], token)) == []

    def hear(self, sender: str, *messages: AnyMessage) -> list[Answer]:
        bundle = close(self.keys[sender], "c", list(messages))
        return self.step(Received(self.now, 0.0, [(sender, bundle)]))

    def hear_all(self, senders: Sequence[int], reply: Reply) -> list[Answer]:
        return [answer for i in senders for answer in self.hear(f"r{i}", reply)]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        while self.client.wake_at <= self.now:
            self.step(Tick(self.client.wake_at, 0.0))

    def take(self) -> list[tuple[str, Request]]:
        sent, self.sent = self.sent, []
        return sent


def reply(
    phase: Phase,
    *,
    number: int = 1,
    view: int = 0,
    seq: int = 5,
    history: bytes = HISTORY,
    results: list[bytes] = TRUE,
    full: bool = True,
) -> Reply:
    what = digest("results", msgspec.msgpack.encode(results))
    return Reply(number, view, phase, seq, history, what, results if full else None)


def test_a_request_goes_to_the_primary_signed_and_to_all_when_no_answer_comes() -> None:
    lone = LoneClient()
    lone.submit(b"x", token="mine")
    ((to, request),) = lone.take()
    assert to == "r0"
    assert valid(lone.keys["r3"], "c", request)
    assert (request.number, request.low, request.operations) == (1, 1, [b"x"])
    lone.wait(lone.settings.resend)
    assert lone.take() == []
    lone.wait(lone.settings.resend)
    assert lone.take() == [(name, request) for name in lone.group.replicas]
    lone.wait(20.0)  # and again, but not for ever more often
    assert 4 * 20 <= len(lone.take()) <= 4 * 30
    (answer,) = lone.hear_all([1, 2], reply(COMMITTED))
    assert (answer.token, answer.results, answer.seq, answer.phase) == ("mine", TRUE, 5, COMMITTED)
    assert answer.seconds == lone.now
    lone.wait(20.0)
    assert (lone.take(), lone.client.in_flight, lone.client.wake_at) == ([], 0, float("inf"))


def test_what_is_answered_only_when_it_is_sent_again_is_not_sent_ever_later() -> None:
    """With `fast` and a silent replica all answers are such."""
    lone = LoneClient()
    waited = []
    for number in range(1, 60):
        lone.submit()
        lone.take()
        start = lone.now
        while not lone.take():
            lone.wait(0.01)
        waited.append(lone.now - start)
        lone.hear_all([0, 1], reply(COMMITTED, number=number))
    assert max(waited) <= lone.settings.timeout / 4


def test_f_plus_1_that_it_is_committed_are_enough_in_whatever_views() -> None:
    lone = LoneClient(n=7)
    lone.submit()
    assert lone.hear_all([0, 1], reply(COMMITTED)) == []
    assert lone.hear_all([1, 1, 1], reply(COMMITTED, view=3)) == []  # one counts once
    (answer,) = lone.hear("r2", reply(COMMITTED, view=9))
    assert answer.phase == COMMITTED


@pytest.mark.parametrize(("n", "quorum"), [(4, 3), (5, 4), (7, 5)])
def test_a_quorum_of_one_view_that_it_is_prepared_is_enough(n: int, quorum: int) -> None:
    lone = LoneClient(n=n)
    lone.submit()
    assert lone.hear_all(range(quorum - 1), reply(TENTATIVE)) == []
    (answer,) = lone.hear(f"r{quorum - 1}", reply(TENTATIVE))
    assert answer.phase == TENTATIVE


def test_prepared_in_different_views_is_not() -> None:
    lone = LoneClient()
    lone.submit()
    assert lone.hear_all([0, 1], reply(TENTATIVE)) == []
    assert lone.hear_all([2, 3], reply(TENTATIVE, view=1)) == []
    # What is committed is so in every view.
    (answer,) = lone.hear("r3", reply(COMMITTED, view=7))
    assert answer.phase == TENTATIVE


def test_all_n_that_executed_it_are_enough_if_they_may_speculate() -> None:
    lone = LoneClient(fast=True)
    lone.submit()
    assert lone.hear_all([0, 1, 2], reply(SPECULATIVE)) == []
    assert lone.hear("r3", reply(SPECULATIVE, view=1)) == []
    assert lone.hear("r3", reply(SPECULATIVE, history=OTHER)) == []
    assert lone.hear("r3", reply(SPECULATIVE, seq=6)) == []
    (answer,) = lone.hear("r3", reply(SPECULATIVE))
    assert answer.phase == SPECULATIVE


def test_and_never_otherwise() -> None:
    lone = LoneClient()
    lone.submit()
    assert lone.hear_all([0, 1, 2, 3], reply(SPECULATIVE)) == []
    assert lone.hear_all([0, 1], reply(TENTATIVE)) == []
    (answer,) = lone.hear("r2", reply(TENTATIVE))
    assert answer.phase == TENTATIVE


@pytest.mark.parametrize("phase", [COMMITTED, TENTATIVE, SPECULATIVE])
def test_replies_count_together_only_if_slot_history_and_results_are_the_same(
    phase: Phase,
) -> None:
    for other in ({"seq": 6}, {"history": OTHER}, {"results": FALSE}):
        lone = LoneClient(fast=True)
        lone.submit()
        needed = {COMMITTED: 2, TENTATIVE: 3, SPECULATIVE: 4}[phase]
        assert lone.hear_all(range(needed - 1), reply(phase)) == []
        assert lone.hear(f"r{needed - 1}", reply(phase, **other)) == []  # type: ignore[arg-type]
        assert lone.hear("r3", reply(phase)) != []


def test_a_committed_reply_is_not_taken_back() -> None:
    lone = LoneClient()
    lone.submit()
    lone.hear("r0", reply(COMMITTED))
    lone.hear("r0", reply(TENTATIVE, seq=9))
    assert len(lone.hear("r1", reply(COMMITTED))) == 1


def test_results_may_come_from_any_replica_but_must_have_the_digest() -> None:
    lone = LoneClient()
    lone.submit()
    assert lone.hear_all([0, 1, 2], reply(COMMITTED, full=False)) == []
    lying = msgspec.structs.replace(reply(COMMITTED), results=FALSE)
    assert lone.hear("r3", lying) == []
    assert "not those of its digest" in lone.rejected[-1].reason
    two = reply(COMMITTED, results=[b"a", b"b"])
    assert lone.hear_all([0, 1], two) == []  # two results for one operation
    assert [a.results for a in lone.hear("r3", reply(COMMITTED))] == [TRUE]


def test_one_replica_cannot_fill_the_memory() -> None:
    lone = LoneClient()
    lone.submit()
    for i in range(1000):
        lone.hear("r0", reply(COMMITTED, results=[b"%d" % i * 100]))
    size = sum(len(msgspec.msgpack.encode(p.results)) for p in lone.client._pending.values())
    assert size < 1000
    assert [a.results for a in lone.hear_all([1, 2], reply(COMMITTED))] == [TRUE]


def test_only_replicas_are_heard_and_only_replies() -> None:
    lone = LoneClient()
    lone.submit()
    good = reply(COMMITTED)
    for _ in range(3):
        assert lone.hear("d", good) == []
    assert lone.hear("r1", Checkpoint(1, HISTORY)) == []
    forged = close(lone.keys["r1"], "c", [good])
    assert lone.step(Received(0.0, 0.0, [("r2", forged), ("r3", forged), ("r0", b"")])) == []
    assert len(lone.rejected) == 7
    assert lone.hear("r1", good) == []
    assert len(lone.hear("r2", good)) == 1


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("n", "f"), [(4, 1), (5, 1), (7, 2)])
def test_f_liars_cannot_make_it_accept_what_is_not(n: int, f: int, fast: bool) -> None:
    """Correct replicas say what is; all that liars say in whatever order convinces nobody."""
    rng = random.Random(n * 10 + fast)
    for liars in [*combinations(range(n), f)] * 4:
        lone = LoneClient(n=n, f=f, fast=fast)
        lone.submit()
        honest = [i for i in range(n) if i not in liars]
        answers: list[Answer] = []
        for step in range(60):
            if rng.random() < 0.2 and step > 20:
                # They do not agree on more than what they executed in that slot.
                phase = rng.choice(list(Phase))
                answers += lone.hear(f"r{rng.choice(honest)}", reply(phase, view=rng.randrange(2)))
                continue
            lie = reply(
                rng.choice(list(Phase)),
                view=rng.choice([0, 1, 1 << 61]),
                results=FALSE,
                seq=rng.choice([5, 6]),
                history=rng.choice([HISTORY, OTHER]),
            )
            if rng.random() < 0.3:  # a true digest with false results
                lie = msgspec.structs.replace(lie, digest=reply(COMMITTED).digest)
            answers += lone.hear(f"r{rng.choice(liars)}", lie)
        assert all(each.results == TRUE for each in answers)
        lone.hear_all(honest, reply(COMMITTED))
        assert lone.client.in_flight == 0


def test_it_follows_the_view_that_f_plus_1_have_reached() -> None:
    lone = LoneClient()
    lone.submit()
    lone.hear("r1", reply(TENTATIVE, view=(1 << 62) - 1))
    assert lone.client.view == 0
    lone.hear_all([2, 3], reply(COMMITTED, view=2))
    assert lone.client.view == 2
    lone.take()
    lone.submit()
    assert [to for to, _ in lone.take()] == ["r2"]


def test_no_more_is_under_way_than_a_session_may_have() -> None:
    lone = LoneClient(max_waiting=2)
    for _ in range(4):
        lone.submit()
    assert [each.number for _, each in lone.take()] == [1, 2]
    assert lone.client.in_flight == 4
    lone.hear_all([1, 2], reply(COMMITTED, number=2))  # the oldest is not answered
    assert lone.take() == []
    lone.hear_all([1, 2], reply(COMMITTED, number=1))
    assert [(each.number, each.low) for _, each in lone.take()] == [(3, 3), (4, 3)]


def test_what_it_says_is_answered_is() -> None:
    lone = LoneClient()
    for _ in range(3):
        lone.submit()
    lone.hear_all([1, 2], reply(COMMITTED, number=1))
    lone.hear_all([1, 2], reply(COMMITTED, number=3))
    lone.take()
    lone.submit()
    assert [(each.number, each.low) for _, each in lone.take()] == [(4, 2)]
    assert lone.hear_all([0, 1, 2, 3], reply(COMMITTED, number=1)) == []  # once


def test_what_cannot_be_submitted_is_refused() -> None:
    lone = LoneClient(max_request=10)
    for operations in ([], [b""] * 10_001, [bytes(6), bytes(5)]):
        with pytest.raises(ValueError, match="are allowed"):
            lone.step(Submit(0.0, operations))
    assert lone.client.in_flight == 0
    with pytest.raises(ValueError, match="first request's number is 0"):
        Client(lone.group, lone.keys["c"], first=0, now=0.0)
