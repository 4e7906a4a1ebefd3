"""Rosters and their succession."""

from __future__ import annotations

import json
from typing import Any

import pytest

from state.identity import (
    IdentityError,
    PrivateIdentity,
    PublicIdentity,
    Roster,
    TrustStore,
    approve,
)

people = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(8)]
members = tuple(person.public for person in people)
first = Roster("demo", 1, members[:4])


def test_members_by_name_and_place() -> None:
    assert first.names == ("n0", "n1", "n2", "n3")
    assert first.get("n2") == members[2]
    assert first.get("n7") is None
    assert first.index("n3") == 3
    assert "n3" in first
    assert "n4" not in first
    assert (len(first), first.max_faults) == (4, 1)
    with pytest.raises(KeyError):
        first.index("n7")


def test_members_verify() -> None:
    signature = people[1].sign(b"d", b"m")
    assert first.verify("n1", b"d", b"m", signature)
    assert not first.verify("n2", b"d", b"m", signature)
    assert not first.verify("n7", b"d", b"m", people[7].sign(b"d", b"m"))


def test_digests_differ_with_everything() -> None:
    rosters = [
        first,
        Roster("demo2", 1, members[:4]),
        Roster("demo", 2, members[:4]),
        Roster("demo", 1, members[:3]),
        Roster("demo", 1, members[3::-1]),
        Roster("demo", 1, members[1:5]),
    ]
    assert len({roster.digest for roster in rosters}) == len(rosters)
    assert Roster("demo", 1, members[:4]).digest == first.digest


def test_canonical_bytes_are_fixed() -> None:
    assert first.digest.hex() == (
        "869ba38a19eb576df9453e8ee5e7fe1c8f2d3f8eeefe236b2eb1ea55d4ac550c"
    )


def test_a_roster_comes_back_from_its_file() -> None:
    assert Roster.from_json(first.to_json()) == first


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "identity"}, r"is not a roster: Invalid enum value 'identity' - at `\$.kind`"),
        ({"version": 9}, r"is not a roster: .* at `\$.version`"),
        ({"epoch": -1}, "epoch -1 is not in 0"),
        ({"epoch": 2**63}, "is not in 0"),
        ({"cluster": ""}, "'' cannot name a cluster"),
        ({"cluster": "a\nb"}, "cannot name a cluster"),
        ({"members": []}, "demo, epoch 1: 0 members: 1 to 1024"),
        ({"more": 1}, "unknown field `more`"),
    ],
)
def test_a_bad_file_is_refused_and_named(change: dict[str, Any], reason: str) -> None:
    text = json.dumps(json.loads(first.to_json()) | change)
    with pytest.raises(IdentityError, match=reason) as error:
        Roster.from_json(text, "roster.json")
    assert str(error.value).startswith("roster.json")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("name", "N 1", "'N 1' cannot name a member"),
        ("name", "n0", "two members are called n0"),
        ("verify_key", members[0].verify_key.hex(), "n0 and n1 have the same key"),
        ("agreement_key", members[0].agreement_key.hex(), "n0 and n1 have the same key"),
        ("verify_key", "01" + "00" * 31, "n1: 0100"),
        ("agreement_key", "00" * 32, "n1: 0000"),
        ("verify_key", "abc", r"at `\$.members\[1\].verify_key`"),
        ("port", 3, "unknown field `port`"),
    ],
)
def test_bad_members_are_named(field: str, value: object, reason: str) -> None:
    document = json.loads(first.to_json())
    document["members"][1][field] = value
    with pytest.raises(IdentityError, match=reason):
        Roster.from_json(json.dumps(document), "roster.json")


def test_a_key_serves_one_purpose_only_within_its_kind() -> None:
    """A verify key that equals another's agreement key is no clash: they are of other curves."""
    odd = PublicIdentity("odd", members[5].verify_key, members[6].agreement_key)
    assert len(Roster("demo", 1, (*members[:4], odd))) == 5


def approvals(previous: Roster, roster: Roster, count: int) -> dict[str, bytes]:
    return {p.name: approve(p, previous, roster) for p in people[:count]}


def test_a_quorum_puts_the_next_roster_in_force() -> None:
    trust = TrustStore(first)
    second = Roster("demo", 5, members[1:])
    trust.install(second, approvals(first, second, 3))
    assert trust.in_force == second
    assert trust.epochs == (1, 5)
    assert trust.accepted(1) == first
    assert trust.accepted(2) is None
    third = Roster("demo", 6, members[2:])
    signed = {p.name: approve(p, second, third) for p in people[1:6]}
    trust.install(third, signed)
    assert trust.epochs == (5, 6)
    assert trust.accepted(1) is None


def test_installing_again_changes_nothing() -> None:
    trust = TrustStore(first)
    trust.install(first, {})
    assert trust.epochs == (1,)


def test_too_few_forged_or_foreign_approvals() -> None:
    trust = TrustStore(first)
    second = Roster("demo", 2, members[1:5])
    two = approvals(first, second, 2)
    elsewhere = Roster("demo", 1, members[3::-1])
    for signed in (
        {},
        two,
        two | {"n2": two["n1"]},
        two | {"n4": approve(people[4], first, second)},
        two | {"n2": approve(people[2], elsewhere, second)},
        two | {"n2": approve(people[2], first, Roster("demo", 3, second.members))},
        two | {"n2": people[2].sign(b"vote", first.digest + second.to_bytes())},
    ):
        with pytest.raises(IdentityError, match=r"is approved by [02] members"):
            trust.install(second, signed)
        assert trust.epochs == (1,)
    trust.install(second, two | {"n2": approve(people[2], first, second)})


def test_an_epoch_must_be_greater_and_the_cluster_the_same() -> None:
    trust = TrustStore(Roster("demo", 3, members[:4]), keep=0)
    before = trust.in_force
    for roster, reason in (
        (Roster("demo", 3, members[:5]), "epoch 3 does not follow 3"),
        (Roster("demo", 2, members[:5]), "epoch 2 does not follow 3"),
        (Roster("other", 4, members[:5]), "a roster of 'other', not 'demo'"),
    ):
        with pytest.raises(IdentityError, match=reason):
            trust.install(roster, approvals(before, roster, 4))
    with pytest.raises(ValueError, match="keep is -1"):
        TrustStore(first, keep=-1)
