"""Two peers with different histories end with the same, in a way that fits the difference."""

from __future__ import annotations

import pytest

from state.gossip import Settings, Update
from state.gossip.simulator import Node, Simulator, Updates

QUIET = Settings(log_updates=1_000_000, shuffle=1e6, stability=1e6)


def updates(origins: range, each: int) -> list[Update]:
    return [Update(f"o{i}#1", seq, b"x") for i in origins for seq in range(1, each + 1)]


def pair(ours: list[Update], theirs: list[Update]) -> tuple[Simulator, Node, Node]:
    world = Simulator(1, settings=QUIET)
    one = world.add("one", log=ours)
    other = world.add("other", log=theirs, bootstrap=["one"])
    return world, one, other


def kinds(*nodes: Node) -> set[str]:
    return {kind for node in nodes for kind in node.peer.statistics().messages_sent}


CASES = {
    "few origins": (updates(range(10), 50), updates(range(5, 15), 80), {"Rows"}, {"Sketch"}),
    "many origins, few differences": (
        updates(range(1000), 2),
        updates(range(997), 2) + updates(range(1000, 1003), 2),
        {"Sketch", "Rows"},
        {"Spans"},
    ),
    "many origins, more differences": (
        updates(range(1000), 2),
        updates(range(900), 2),
        {"Sketch", "Rows"},
        {"Spans"},
    ),
    "many origins, too many differences for a sketch": (
        updates(range(2000), 1),
        updates(range(1000, 3000), 1),
        {"Sketch", "Spans", "Rows"},
        set(),
    ),
    "many against none": (updates(range(2000), 1), [], {"Rows"}, {"Sketch"}),
    "one origin, a long log": (updates(range(1), 100_000), [], {"Rows"}, {"Sketch"}),
}


@pytest.mark.parametrize("case", CASES)
def test_both_end_with_everything(case: str) -> None:
    ours, theirs, used, unused = CASES[case]
    world, one, other = pair(ours, theirs)
    assert world.run_until(lambda: one.peer.fingerprint() == other.peer.fingerprint(), limit=20.0)
    everything = {(u.origin, u.seq) for u in ours + theirs}
    assert {(u.origin, u.seq) for u in one.peer.log()} == everything
    assert {(u.origin, u.seq) for u in other.peer.log()} == everything
    assert isinstance(other.application, Updates)
    assert len(other.application.updates) == len(everything - {(u.origin, u.seq) for u in theirs})
    assert used <= kinds(one, other)
    assert not unused & kinds(one, other)
    duplicates = [node.peer.statistics().payloads.duplicates for node in (one, other)]
    assert sum(duplicates) <= len(everything) // 20


def test_a_difference_of_three_costs_little() -> None:
    ours, theirs, *_ = CASES["many origins, few differences"]
    world, one, other = pair(ours, theirs)
    world.run_until(lambda: one.peer.fingerprint() == other.peer.fingerprint(), limit=20.0)
    # The version vectors alone are some 20 kB.
    assert world.bytes < 6000


def test_equal_peers_exchange_digests_only() -> None:
    world, one, other = pair(updates(range(100), 3), updates(range(100), 3))
    world.run(30.0)
    kinds_seen = kinds(one, other) - {"Join", "Neighbour", "Ping", "Ack", "Facts"}
    assert kinds_seen == {"Digest"}


def test_gaps_are_filled() -> None:
    whole = updates(range(3), 200)
    world, one, other = pair(whole[::3], whole[1::3] + whole[2::3])
    assert world.run_until(
        lambda: one.peer.vector() == other.peer.vector() == {f"o{i}#1": 200 for i in range(3)},
        limit=20.0,
    )
