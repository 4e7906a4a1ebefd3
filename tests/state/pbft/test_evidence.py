from itertools import product

import msgspec
import pytest

from state.identity import PrivateIdentity, Roster
from state.pbft import Evidence, Group, proves
from state.pbft.authentication import Authenticator, sign
from state.pbft.keys import Keys
from state.pbft.messages import (
    Accusation,
    Checkpoint,
    Claim,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Selected,
    ViewChange,
)
from state.pbft.simulated_keys import SimulatedKeys
from tests.state.pbft.lone_replica import LoneReplica

GROUP = Group("demo", ["r0", "r1", "r2", "r3"])
NAMES = [*GROUP.replicas, "c"]
D, E = bytes([1] * 32), bytes([2] * 32)
START = Checkpoint(0, D)

Signed = PrePrepare | Prepare | Commit | ViewChange | NewView

CHANGE = ViewChange(2, "r3", 0, [START], [], [])
CONFLICTS: list[tuple[str, Signed, Signed]] = [
    ("r1", PrePrepare(1, 5, D, b""), PrePrepare(1, 5, E, b"")),
    ("r2", Prepare(1, 5, D), Prepare(1, 5, E)),
    ("r2", Commit(1, 5, D), Commit(1, 5, E)),
    ("r3", CHANGE, msgspec.structs.replace(CHANGE, preprepared=[Claim(1, D, 0)])),
    ("r2", NewView(2, [], START, []), NewView(2, [], START, [Selected(1, D)])),
]


def real() -> dict[str, Authenticator]:
    ids = [PrivateIdentity.generate(name, bytes([i] * 32)) for i, name in enumerate(NAMES)]
    roster = Roster("demo", 1, tuple(each.public for each in ids))
    return {each.name: Keys(each, roster) for each in ids}


def simulated() -> dict[str, Authenticator]:
    return dict(SimulatedKeys.of(NAMES, seed=1))


@pytest.fixture(params=[real, simulated], ids=["real", "simulated"])
def keys(request: pytest.FixtureRequest) -> dict[str, Authenticator]:
    made: dict[str, Authenticator] = request.param()
    return made


def signed(keys: dict[str, Authenticator], who: str, message: Signed) -> Signed:
    return msgspec.structs.replace(message, signature=sign(keys[who], message))


def test_two_signed_messages_that_contradict_each_other_prove_it(
    keys: dict[str, Authenticator],
) -> None:
    for who, first, second in CONFLICTS:
        pair = signed(keys, who, first), signed(keys, who, second)
        assert proves(Accusation(who, *pair), GROUP, keys["r0"])
        assert proves(Accusation(who, *pair[::-1]), GROUP, keys["c"])  # to anybody
        for other in NAMES:
            if other != who:
                assert not proves(Accusation(other, *pair), GROUP, keys["r0"])
                forged = signed(keys, other, second)
                assert not proves(Accusation(who, pair[0], forged), GROUP, keys["r0"])
        assert not proves(Accusation(who, pair[0], second), GROUP, keys["r0"])
        assert not proves(Accusation(who, pair[0], pair[0]), GROUP, keys["r0"])


def test_messages_of_other_slots_views_or_kinds_prove_nothing() -> None:
    keys = simulated()
    messages: list[tuple[str, Signed]] = [(who, each) for who, *pair in CONFLICTS for each in pair]
    messages += [
        ("r1", PrePrepare(1, 6, E, b"")),
        ("r1", PrePrepare(5, 5, E, b"")),
        ("r2", Prepare(2, 5, E)),
        ("r2", Commit(1, 6, E)),
        ("r3", ViewChange(3, "r3", 0, [START], [], [])),
        ("r2", NewView(6, [], START, [])),
    ]
    pairs = {frozenset((first, second)) for _, first, second in _hashable(CONFLICTS)}
    for (one, first), (other, second) in product(messages, messages):
        if one != other or frozenset((repr(first), repr(second))) in pairs:
            continue
        accusation = Accusation(one, signed(keys, one, first), signed(keys, one, second))
        assert not proves(accusation, GROUP, keys["r0"]), accusation


def _hashable(conflicts: list[tuple[str, Signed, Signed]]) -> list[tuple[str, str, str]]:
    return [(who, repr(first), repr(second)) for who, first, second in conflicts]


def test_only_the_primary_of_a_view_proposes_in_it_and_only_a_replica_is_accused() -> None:
    keys = simulated()
    for who, first, second in [
        ("r3", PrePrepare(1, 5, D, b""), PrePrepare(1, 5, E, b"")),
        ("r3", NewView(2, [], START, []), NewView(2, [], START, [Selected(1, D)])),
        ("c", Prepare(1, 5, D), Prepare(1, 5, E)),
        # What a replica signs in the name of another is not that one's word.
        ("r0", CONFLICTS[4][1], CONFLICTS[4][2]),
    ]:
        accusation = Accusation(who, signed(keys, who, first), signed(keys, who, second))
        accepted = proves(accusation, GROUP, keys["r0"])
        assert not accepted, accusation


def test_evidence_is_told_once_and_handed_on() -> None:
    lone = LoneReplica("r1")
    first, second = (lone.vote("r3", Commit(0, 5, what)) for what in (D, E))
    accusation = Accusation("r3", first, second)
    lone.hear("r2", accusation, accusation)
    lone.hear("r0", Accusation("r3", second, first))
    assert lone.did(Evidence) == [Evidence(accusation)]
    assert lone.take(Accusation) == [accusation] * 3
    assert lone.replica.standing().evidence == 1


def test_a_false_accusation_is_nothing() -> None:
    lone = LoneReplica("r1")
    for false in (
        Accusation("r3", Commit(0, 5, D), Commit(0, 5, E)),
        Accusation("r3", lone.vote("r2", Commit(0, 5, D)), lone.vote("r2", Commit(0, 5, E))),
        Accusation("nobody", Commit(0, 5, D), Commit(0, 5, E)),
        Accusation("r3", lone.vote("r3", Commit(0, 5, D)), NewView(0 + 1, [], START, [])),
    ):
        lone.hear("r2", false)
    assert lone.did(Evidence) == []
    assert lone.take(Accusation) == []


def test_evidence_against_one_replica_is_bounded() -> None:
    lone = LoneReplica("r1")
    for seq in range(1, 200):
        first, second = (lone.vote("r3", Commit(0, seq, what)) for what in (D, E))
        lone.hear("r2", Accusation("r3", first, second))
    assert lone.replica.standing().evidence == 64


def test_two_view_changes_of_one_replica_are_evidence_and_one_twice_is_not() -> None:
    lone = LoneReplica("r1")
    change = lone.change("r3", 1)
    lone.hear("r3", change)
    lone.hear("r2", change)
    lone.hear("r3", msgspec.structs.replace(change, signature=bytes(64)))
    assert lone.did(Evidence) == []
    lone.hear("r2", lone.change("r3", 1, preprepared=[Claim(1, D, 0)]))
    assert [each.accusation.accused for each in lone.did(Evidence)] == ["r3"]


def test_two_new_views_of_one_primary_are_evidence() -> None:
    lone = LoneReplica("r2")
    changes = [lone.change(name, 1) for name in lone.group.replicas]
    lone.hear("r1", lone.new_view(1, changes[:3]))
    lone.hear("r3", lone.new_view(1, changes[:3]))
    assert lone.did(Evidence) == []
    lone.hear("r3", lone.new_view(1, changes[1:]))
    assert [each.accusation.accused for each in lone.did(Evidence)] == ["r1"]
