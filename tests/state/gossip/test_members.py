"""Which of two facts wins, and that the order of news does not matter."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from state.gossip import Fact, Settings, Status
from state.gossip.members import Members
from state.gossip.port import Port


def members(settings: Settings | None = None) -> Members:
    port = Port("addr-a", random.Random(1), 0.0, settings if settings is not None else Settings())
    me = Fact("a", "addr-a", 1, 0, Status.ALIVE)
    return Members(port, me, lambda fact, before, again: None)


def bob(incarnation: int, revision: int, status: Status) -> Fact:
    return Fact("bob", f"addr-b{incarnation}", incarnation, revision, status)


IN_ORDER = [
    bob(1, 0, Status.ALIVE),
    bob(1, 0, Status.SUSPECT),
    bob(1, 0, Status.DEAD),
    bob(1, 1, Status.ALIVE),
    bob(1, 1, Status.SUSPECT),
    bob(1, 0, Status.LEFT),
    bob(1, 0, Status.EXPELLED),
    bob(2, 0, Status.ALIVE),
]


def test_the_later_fact_wins_in_whatever_order_they_come() -> None:
    for first, second in itertools.combinations(IN_ORDER, 2):
        one, other = members(), members()
        assert one.learn([first, second]) == []
        assert other.learn([second]) == []
        assert other.learn([first]) == [second], "who says what is old is told better"
        assert one.get("bob") == other.get("bob") == second
        assert one.table.total == other.table.total


def test_who_left_is_not_brought_back_by_a_late_refutation() -> None:
    table = members()
    table.learn([bob(1, 3, Status.LEFT), bob(1, 9, Status.ALIVE)])
    assert "bob" not in table.facts
    assert table.at("addr-b1") is None


@given(st.permutations(IN_ORDER))
def test_tables_agree_whatever_the_order(facts: list[Fact]) -> None:
    table = members()
    for fact in facts:
        table.learn([fact])
    assert table.get("bob") == IN_ORDER[-1]
    assert (table.alive, len(table)) == (2, 2)
    assert table.names == {"addr-a": "a", "addr-b2": "bob"}


def test_a_member_refutes_what_is_said_of_it() -> None:
    table = members()
    better = table.learn([Fact("a", "addr-a", 1, 4, Status.DEAD)])
    assert better == [Fact("a", "addr-a", 1, 5, Status.ALIVE)]
    assert table.refuted == 1


def test_members_are_limited() -> None:
    table = members(Settings(max_members=10))
    table.learn([Fact(f"m{i}", f"m{i}", 1, 0, Status.ALIVE) for i in range(100)])
    assert len(table) == 10
    assert table.refused == 91


def test_news_is_told_a_few_times_only() -> None:
    table = members()
    table.learn([bob(1, 0, Status.ALIVE)])
    told = [fact for _ in range(50) for fact in table.news()]
    assert 1 <= len(told) <= 8
    table.learn([bob(1, 0, Status.SUSPECT)])
    assert [fact.status for fact in table.news("bob")] == [Status.SUSPECT]
