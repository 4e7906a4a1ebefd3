"""What one peer promises its application and its transport, whoever is on the other side."""

from __future__ import annotations

import random

import pytest

from state.gossip import (
    Deliver,
    Effect,
    Fact,
    Leave,
    Peer,
    Publish,
    Published,
    Range,
    Received,
    Restore,
    Send,
    Settings,
    SnapshotTaken,
    StableAdvanced,
    Start,
    Status,
    TakeSnapshot,
    Tick,
    Update,
)
from state.gossip.messages import (
    Cut,
    Digest,
    Disconnect,
    Facts,
    Have,
    Neighbour,
    News,
    Ping,
    Snapshot,
    Want,
    decode,
    encode,
)
from state.gossip.seen import key_of

SMALL = Settings(log_updates=3, max_payload=100, max_origins=5)


def peer(settings: Settings | None = None, **options: object) -> Peer:
    one = Peer("a", "addr-a", 1, rng=random.Random(1), now=0.0, settings=settings, **options)  # type: ignore[arg-type]
    one.step(Start(0.0))
    return one


def tell(one: Peer, message: object, sender: str = "addr-b", now: float = 0.1) -> list[Effect]:
    return one.step(Received(now, sender, encode(message)))  # type: ignore[arg-type]


def link(one: Peer, count: int = 1) -> None:
    for i in range(count):
        tell(one, Neighbour(urgent=True, answer=False), f"addr-{i}")


def delivered(effects: list[Effect]) -> list[Update]:
    return [u for effect in effects if isinstance(effect, Deliver) for u in effect.updates]


def sent(effects: list[Effect], kind: type) -> list[tuple[str, object]]:
    messages = [(e.to, decode(e.data, 1 << 25)) for e in effects if isinstance(e, Send)]
    return [(to, message) for to, message in messages if isinstance(message, kind)]


def test_an_update_is_delivered_once() -> None:
    one = peer()
    news = News([Update("b#1", 2, b"y"), Update("b#1", 2, b"y")], False)
    assert delivered(tell(one, news)) == [Update("b#1", 2, b"y")]
    assert delivered(tell(one, news, "addr-c")) == []
    assert one.statistics().payloads.duplicates == 3
    assert one.seen() == [Range("b#1", 2, 2)]


def test_what_is_published_is_not_delivered_and_goes_to_three() -> None:
    one = peer()
    link(one, 5)
    effects = one.step(Publish(1.0, b"x"))
    update = Update("a#1", 1, b"x")
    assert [e for e in effects if not isinstance(e, Send)] == [Published(update)]
    assert [m for _, m in sent(effects, News)] == [News([update], False)] * 2
    assert [m for _, m in sent(effects, Have)] == [Have([Range("a#1", 1, 1)])]
    data = {id(e.data) for e in effects if isinstance(e, Send)}
    assert len(data) == 2, "a wave is encoded once for all who get the same"


def test_large_payloads_are_only_given_to_who_asks() -> None:
    one = peer()
    link(one, 5)
    effects = one.step(Publish(1.0, b"x" * 5000))
    assert len(sent(effects, Have)) == 3
    assert not sent(effects, News)
    answer = tell(one, Want([Range("a#1", 1, 1)]), "addr-2", 1.1)
    assert [(e.to, e.reliable) for e in answer if isinstance(e, Send)] == [("addr-2", True)]


def test_news_under_load_is_told_in_waves() -> None:
    one = peer(Settings(min_gap=0.01))
    link(one, 3)
    first = one.step(Publish(1.0, b"0"))
    rest = [effect for i in range(50) for effect in one.step(Publish(1.001, b"%d" % i))]
    assert sent(first, News)
    assert not sent(rest, News)
    assert not sent(one.step(Tick(1.005)), News)
    assert one.wake_at <= 1.01
    wave = one.step(Tick(1.0101))
    told = [m for _, m in sent(wave, News) if isinstance(m, News)]
    assert sum(len(m.updates) for m in told) == 100


def test_what_is_offered_twice_is_asked_for_once_and_then_elsewhere() -> None:
    one = peer()
    offer = Have([Range("b#1", 1, 3)])
    assert sent(tell(one, offer, "addr-b"), Want) == [("addr-b", Want([Range("b#1", 1, 3)]))]
    assert sent(tell(one, offer, "addr-c"), Want) == []
    one.step(Received(0.15, "addr-b", encode(News([Update("b#1", 2, b"")], False))))
    late = sent(one.step(Tick(0.3)), Want)
    wanted = Want([Range("b#1", 1, 1), Range("b#1", 3, 3)])
    assert sorted(late) == [("addr-b", wanted), ("addr-c", wanted)]


def test_an_offer_without_end_costs_little() -> None:
    one = peer()
    for i in range(100):
        tell(one, Have([Range(f"b{i}#1", 1, (1 << 63) - 1)]))
    assert one.statistics().wanted <= 8192
    assert one.seen() == []


def test_payloads_beyond_the_limits_are_refused() -> None:
    one = peer(SMALL)
    far = [Update("b#1", 1 << 40, b""), Update("b#1", 1, b"x" * 101)]
    assert delivered(tell(one, News(far, False))) == []
    many = [Update(f"b{i}#1", 1, b"") for i in range(10)]
    assert len(delivered(tell(one, News(many, False)))) == 5
    assert one.statistics().payloads.refused == 7


def test_the_log_is_bounded_and_what_it_lost_comes_as_a_snapshot() -> None:
    one = peer(SMALL)
    one.step(Tick(10.0))  # alone it agrees with itself, and need not fear for what it says later
    for i in range(5):
        one.step(Publish(10.0, b"%d" % i))
    assert [update.seq for update in one.log()] == [3, 4, 5]
    effects = tell(one, Want([Range("a#1", 1, 4)]), now=10.1)
    assert [u.seq for _, m in sent(effects, News) for u in m.updates] == [3, 4]  # type: ignore[attr-defined]
    assert TakeSnapshot("addr-b") in effects
    again = tell(one, Want([Range("a#1", 1, 1)]), now=10.2)
    assert again == [], "one snapshot at a time"
    given = one.step(SnapshotTaken(10.3, "addr-b", b"state"))
    assert given[0].reliable  # type: ignore[union-attr]
    message = sent(given, Snapshot)[0][1]
    assert message == Snapshot(b"state", [Range("a#1", 1, 5)], [])


def test_a_snapshot_is_offered_for_what_was_dropped_beyond_a_gap() -> None:
    one = peer(SMALL)
    tell(one, News([Update("b#1", seq, b"") for seq in (2, 3, 4, 5)], False))
    assert [update.seq for update in one.log()] == [3, 4, 5]
    assert TakeSnapshot("addr-c") in tell(one, Want([Range("b#1", 1, 5)]), "addr-c")
    assert TakeSnapshot("addr-d") not in tell(one, Want([Range("b#1", 3, 9)]), "addr-d")


def test_a_snapshot_is_merged_or_replaces_by_the_stable_cut() -> None:
    seen = [Range("b#1", 1, 5)]
    one = peer()
    assert tell(one, Snapshot(b"s", seen, []))[0] == Restore(b"s", replace=False)
    assert one.seen() == seen
    assert tell(one, Snapshot(b"s", seen, [])) == [], "it brings nothing new"

    behind = peer(seen=[Range("c#1", 1, 2)], log=[Update("c#1", 2, b"mine")])
    effects = tell(behind, Snapshot(b"s", seen, [Range("b#1", 1, 3)]))
    assert effects[0] == Restore(b"s", replace=True)
    assert delivered(effects) == [Update("c#1", 2, b"mine")]
    assert behind.seen() == [*seen, Range("c#1", 2, 2)]
    assert behind.stable() == {"b#1": 3}

    ahead = peer(seen=[Range("b#1", 1, 9)], stable={"b#1": 9})
    stale = Snapshot(b"s", [*seen, Range("c#1", 1, 1)], [])
    assert tell(ahead, stale) == []
    assert ahead.statistics().snapshots_ignored == 1


def test_a_life_goes_on_where_the_last_one_ended() -> None:
    one = peer()
    one.step(Publish(1.0, b"x"))
    again = peer(seen=one.seen(), log=one.log(), stable=one.stable(), members=one.facts())
    effects = again.step(Publish(2.0, b"y"))
    assert Published(Update("a#1", 2, b"y")) in effects


def test_late_and_early_events_do_no_harm() -> None:
    one = Peer("a", "addr-a", 1, rng=random.Random(1), now=5.0)
    assert one.step(Tick(6.0)) == []
    assert one.step(Received(6.0, "addr-b", encode(Digest(1, 2, 3, 4, [])))) == []
    with pytest.raises(RuntimeError, match="not running"):
        one.step(Publish(6.0, b""))
    one.step(Start(7.0))
    assert one.step(Start(8.0, ("addr-b",))) == []
    one.step(Tick(1.0))
    assert one.wake_at >= 8.0
    one.step(Leave(9.0))
    with pytest.raises(RuntimeError, match="not running"):
        one.step(Publish(9.0, b""))


def test_what_the_application_gives_is_limited() -> None:
    one = peer(SMALL)
    with pytest.raises(ValueError, match="at most 100"):
        one.step(Publish(1.0, b"x" * 101))
    for bad in ("", "a#b", "x" * 201):
        with pytest.raises(ValueError, match="no name"):
            Peer(bad, "addr", 1, rng=random.Random(1), now=0.0)
    with pytest.raises(ValueError, match="incarnation"):
        Peer("a", "addr", -1, rng=random.Random(1), now=0.0)


def test_the_active_view_is_bounded_and_probes_mend_it() -> None:
    one = peer()
    link(one, 20)
    assert len(one.neighbours) == 5
    stranger = Ping(1, True, False, [])
    assert [to for to, _ in sent(tell(one, stranger, "addr-x"), Disconnect)] == ["addr-x"]
    assert len(one.neighbours) == 5
    lonely = peer()
    assert not sent(tell(lonely, stranger, "addr-x"), Disconnect)
    assert lonely.neighbours == ("addr-x",)


def test_a_peer_does_not_take_a_stable_cut_that_it_is_behind() -> None:
    other = Fact("b", "addr-b", 1, 0, Status.ALIVE)
    one = peer(seen=[Range("b#1", 1, 2)], members=[other])
    cut = Cut(0, [], b"", [Range("b#1", 1, 3)])
    assert not [e for e in tell(one, cut) if isinstance(e, StableAdvanced)]
    assert one.stable() == {}
    tell(one, News([Update("b#1", 3, b"")], False))
    assert StableAdvanced({"b#1": 3}) in tell(one, cut)


def test_a_vote_of_an_earlier_incarnation_does_not_count() -> None:
    one = peer(seen=[Range("b#2", 1, 3)])
    tell(one, Facts([Fact("b", "addr-b", 2, 0, Status.ALIVE)], [], None))
    for voter, stable in (("b#1", {}), ("b#2", {"b#2": 3})):
        vote = key_of(voter).to_bytes(8, "little")
        tell(one, Cut(0, [Range("b#2", 1, 3)], vote, []))
        assert one.stable() == stable


def test_what_nobody_else_may_have_is_not_dropped_for_what_others_have() -> None:
    one = peer(Settings(log_updates=6), members=[Fact("b", "addr-b", 1, 0, Status.ALIVE)])
    one.step(Publish(1.0, b"mine"))
    tell(one, News([Update("b#1", seq, b"") for seq in range(1, 20)], False))
    assert ("a#1", 1) in [(update.origin, update.seq) for update in one.log()]
    tell(one, News([Update("c#1", 1, b"")], False))
    effects = tell(one, Snapshot(b"s", [Range("d#1", 1, 9)], [Range("d#1", 1, 9)]))
    assert effects[0] == Restore(b"s", replace=True)
    assert Update("a#1", 1, b"mine") in delivered(effects)
    for i in range(10):
        one.step(Publish(2.0, b"%d" % i))
    # As long as another state may take the place of its own, it has all that it said.
    assert [update.origin for update in one.log()].count("a#1") == 11
    assert len(one.log()) == 11 + 6 // 2
    tell(one, Cut(0, [], key_of("b#1").to_bytes(8, "little"), []), now=2.1)
    one.step(Publish(2.2, b""))
    assert len(one.log()) == 6, "all members have agreed on what is stable"


def test_a_peer_that_still_looks_for_its_group_calls_nothing_stable() -> None:
    one = Peer("a", "addr-a", 1, rng=random.Random(1), now=0.0)
    one.step(Start(0.0, bootstrap=("addr-b",)))
    one.step(Publish(0.1, b"x"))
    for second in range(1, 20):
        one.step(Tick(float(second)))
    assert one.stable() == {}
    first = peer()
    first.step(Publish(0.1, b"x"))
    for second in (5, 10):
        first.step(Tick(float(second)))
    assert first.stable() == {"a#1": 1}


def test_snapshots_of_groups_that_began_apart_are_merged() -> None:
    one = peer(seen=[Range("b#1", 1, 9)], stable={"b#1": 9})
    effects = tell(one, Snapshot(b"s", [Range("c#1", 1, 5)], [Range("c#1", 1, 5)]))
    assert effects[0] == Restore(b"s", replace=False)
    assert one.seen() == [Range("b#1", 1, 9), Range("c#1", 1, 5)]


def test_who_is_suspected_doubts_itself() -> None:
    one = peer()
    tell(one, Facts([Fact("a", "addr-a", 1, 0, Status.SUSPECT, "b")], [], None))
    assert one.statistics().refuted == 1
    one.step(Tick(10.0))
    assert one.statistics().awareness == 1, "it may be slow (Lifeguard)"
