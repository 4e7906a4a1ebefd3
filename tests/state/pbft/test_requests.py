import random

import msgspec
import pytest

from state.pbft import Settings, ViewAbandoned
from state.pbft.authentication import sign
from state.pbft.messages import Batch, Request
from state.pbft.requests import Requests
from state.pbft.sessions import Result, Sessions
from state.pbft.simulated_keys import SimulatedKeys
from tests.state.pbft import lone_replica

KEYS = SimulatedKeys.of(["r0", "c", "d"], seed=1)
INF = float("inf")


def signed(number: int, client: str = "c", low: int = 1, data: bytes = b"x") -> Request:
    request = Request(client, number, low, [data])
    return msgspec.structs.replace(request, signature=sign(KEYS[client], request))


def held(requests: Requests) -> list[tuple[str, int]]:
    return [(each.client, each.number) for each in requests]


def test_only_what_a_client_signed_and_may_ask_for_is_accepted() -> None:
    requests = Requests(KEYS["r0"], Settings(max_request=10), clients=["c"])
    good = signed(3)
    assert requests.fault(good) is None
    assert requests.fault(good) is None
    for wrong in (
        msgspec.structs.replace(good, number=4),
        msgspec.structs.replace(good, low=2),
        msgspec.structs.replace(good, operations=[b"y"]),
        msgspec.structs.replace(good, operations=[b"x", b""]),
        msgspec.structs.replace(good, client="d"),
        msgspec.structs.replace(good, signature=b""),
        signed(3, "d"),
        signed(3, low=4),
        signed(1025, low=1),  # more than it may have under way
        signed(3, data=bytes(11)),
    ):
        assert requests.fault(wrong) is not None, wrong
    assert requests.fault(good) is None


def test_two_requests_of_one_number_are_each_checked() -> None:
    requests = Requests(KEYS["r0"], Settings(), clients=None)
    one, other = signed(3, data=b"1"), signed(3, data=b"2")
    for request in (one, other, one, other):
        assert requests.fault(request) is None
        assert requests.fault(msgspec.structs.replace(request, signature=bytes(64))) is not None


def test_requests_wait_in_their_order_until_they_are_executed() -> None:
    requests = Requests(KEYS["r0"], Settings(), clients=None)
    assert requests.since() == INF
    for now, request in enumerate([signed(1), signed(1, "d"), signed(2)]):
        assert requests.hold(request, float(now))
    assert held(requests) == [("c", 1), ("d", 1), ("c", 2)]
    assert requests.since() == 0.0
    assert [each.number for each in requests.older(1.0)] == [1, 1]
    requests.executed(Batch(0, [signed(1)]))
    assert requests.since() == 1.0
    assert requests.hold(signed(3), 4.0)
    requests.reset(9.0)
    assert (requests.since(), len(requests)) == (9.0, 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_primary_has_room_for_whatever_a_backup_waits_for(seed: int) -> None:
    """Whatever a client signs, and in whatever order the two of them get it."""
    rng, width = random.Random(seed), 4
    primary, backup = (
        Requests(KEYS["r0"], Settings(max_waiting=width), clients=None) for _ in range(2)
    )
    sessions = Sessions(width)
    for _ in range(300):
        low = rng.randint(1, 12)
        request = signed(low + rng.randrange(width), low=low, data=rng.randbytes(1))
        first = rng.choice([primary, backup])
        for requests in (first, primary):  # a backup passes on what it holds
            if not requests.held(request) and not requests.answered(request):
                assert requests.hold(request, 0.0)
                if requests is primary:
                    primary.enqueue(request)
        assert len(primary) <= width
        if rng.random() < 0.2:
            execute(primary.next_batch(), sessions, primary, backup)
    while primary.queued:
        execute(primary.next_batch(), sessions, primary, backup)
    assert len(backup) == 0, f"seed {seed}: it would change the view"


def execute(batch: list[Request], sessions: Sessions, *all_of_them: Requests) -> None:
    for request in batch:
        if sessions.due(request):
            sessions.put(request, Result(1, bytes(32), []))
    for requests in all_of_them:
        requests.executed(Batch(0, batch))


def test_clients_take_turns() -> None:
    settings = Settings(batch_operations=4, batch_bytes=100)
    requests = Requests(KEYS["r0"], settings, clients=None)
    assert not requests.queued
    for request in (*(signed(n) for n in range(1, 7)), signed(1, "d"), signed(2, "d")):
        assert requests.hold(request, 0.0)
        requests.enqueue(request)
    batch = [(each.client, each.number) for each in requests.next_batch()]
    assert batch == [("c", 1), ("d", 1), ("c", 2), ("d", 2)]
    requests.executed(Batch(0, [signed(4)]))  # by another's proposal
    assert [each.number for each in requests.next_batch()] == [3, 5, 6]
    assert requests.next_batch() == []
    large = signed(7, data=bytes(101))
    for request in (large, signed(8)):
        assert requests.hold(request, 0.0)
        requests.enqueue(request)
    assert requests.next_batch() == [large]
    requests.unqueue_all()
    assert not requests.queued


def test_no_client_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1 << 10
    monkeypatch.setattr("state.pbft.requests._HELD_BYTES", 4 * most)
    monkeypatch.setattr("state.pbft.requests._CHECKED_BYTES", 4 * most)
    requests = Requests(KEYS["r0"], Settings(max_request=5 * most), clients=None)
    large = [signed(number, data=bytes(most)) for number in range(1, 7)]
    assert [requests.hold(each, 0.0) for each in large] == [True] * 4 + [False] * 2
    alone = signed(1, "d", data=bytes(5 * most))
    assert requests.hold(alone, 0.0)  # one alone is always taken
    requests.executed(Batch(0, [large[0]]))
    assert [requests.hold(each, 0.0) for each in large[4:]] == [True, False]
    for request in (alone, *large):
        assert requests.fault(request) is None
    assert requests._checked_bytes == sum(size for _, size in requests._checked.values())
    assert requests._checked_bytes <= 4 * most


def test_what_a_client_says_is_answered_is_not_waited_for() -> None:
    requests = Requests(KEYS["r0"], Settings(), clients=None)
    for request in (signed(1), signed(2), signed(4), signed(1, "d")):
        assert requests.hold(request, 0.0)
    requests.executed(Batch(0, [signed(3, low=3)]))
    assert held(requests) == [("c", 4), ("d", 1)]
    assert not requests.answered(signed(3, low=3))
    assert requests.hold(signed(6, low=5), 0.0)
    assert held(requests) == [("d", 1), ("c", 6)]
    assert requests.answered(signed(4))
    assert not requests.answered(signed(5))
    assert not requests.answered(signed(4, "d"))


def test_a_client_that_tells_the_primary_less_than_the_others_causes_no_view_change() -> None:
    lone = lone_replica.LoneReplica("r1")
    lone.hear("c", lone.request(1))
    assert lone.replica.standing().waiting == 1
    lone.order(lone.proposal(1, [lone.request(2, low=2)]))
    assert lone.replica.standing().waiting == 0
    lone.wait(30.0)
    assert lone.did(ViewAbandoned) == []


def test_a_primary_is_reminded_of_what_was_lost_on_its_way() -> None:
    lone = lone_replica.LoneReplica("r1")
    request = lone.request(1)
    lone.hear("c", request)
    assert lone.take(Request, "r0") == [request]
    lone.wait(lone.settings.timeout / 2 - 0.05)
    assert lone.take(Request, "r0") == []
    lone.wait(0.4)
    assert request in lone.take(Request, "r0")
    assert lone.did(ViewAbandoned) == []
