"""Ballots, certificates and evidence: what is valid, and what bytes are refused."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.identity import PrivateIdentity, Roster
from state.mergeable import seal
from state.quorum import (
    ABSTAIN,
    Ballot,
    BallotError,
    Equivocation,
    QuorumCertificate,
    cast,
)

VOTERS = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(7)]
ROSTER = Roster("demo", 1, tuple(voter.public for voter in VOTERS[:4]))
YES, NO = bytes([1] * 32), bytes([2] * 32)


def ballot(i: int, choice: bytes = YES, subject: str = "s", expires: int = 100) -> Ballot:
    return cast(VOTERS[i], ROSTER, subject, choice, expires=expires)


def test_a_ballot_is_valid_under_its_roster_alone() -> None:
    good = ballot(0)
    assert good.valid(ROSTER)
    for other in (
        Roster("demo", 2, ROSTER.members),
        Roster("other", 1, ROSTER.members),
        Roster("demo", 1, ROSTER.members[::-1]),
        Roster("demo", 1, tuple(voter.public for voter in VOTERS[:5])),
    ):
        assert not good.valid(other)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"subject": "t"},
        {"choice": NO},
        {"choice": ABSTAIN},
        {"choice": YES[:31]},
        {"voter": "n1"},
        {"voter": "mallory"},
        {"expires": 101},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
)
def test_every_field_is_signed(change: dict[str, object]) -> None:
    assert not msgspec.structs.replace(ballot(0), **change).valid(ROSTER)


def test_of_no_member() -> None:
    assert not cast(VOTERS[5], ROSTER, "s", YES, expires=1).valid(ROSTER)


def test_subject_and_choice_cannot_trade_bytes() -> None:
    """The parts of what is signed have lengths before them."""
    one = cast(VOTERS[0], ROSTER, "s" + "a" * 32, ABSTAIN, expires=1)
    two = msgspec.structs.replace(one, subject="s", choice=b"a" * 32)
    assert one.valid(ROSTER)
    assert not two.valid(ROSTER)


@pytest.mark.parametrize(
    ("subject", "choice", "expires", "reason"),
    [
        ("", YES, 1, "a subject of 0 characters"),
        ("s" * 256, YES, 1, "a subject of 256 characters"),
        ("s", YES[:31], 1, "a choice of 31 bytes"),
        ("s", YES, -1, "expires at -1"),
        ("s", YES, 2**63, "expires at 9223372036854775808"),
    ],
)
def test_what_cannot_be_cast(subject: str, choice: bytes, expires: int, reason: str) -> None:
    with pytest.raises(BallotError, match=reason):
        cast(VOTERS[0], ROSTER, subject, choice, expires=expires)


def certificate(voters: tuple[int, ...] = (0, 1, 3), choice: bytes = YES) -> QuorumCertificate:
    return QuorumCertificate.of(ballot(i, choice) for i in voters)


def test_a_certificate_convinces_whoever_has_the_roster() -> None:
    good = certificate()
    assert good.valid(ROSTER)
    assert QuorumCertificate.from_bytes(good.to_bytes()) == good
    assert certificate((0, 1, 2, 3)).valid(ROSTER)
    assert QuorumCertificate.of([ballot(3), ballot(0), ballot(1)]) == good
    assert good.expires == 100


def test_certificates_that_prove_nothing() -> None:
    good = certificate()
    twice = (good.votes[0], good.votes[0], good.votes[1])
    replace = msgspec.structs.replace
    for bad in (
        certificate((0, 1)),
        certificate(choice=ABSTAIN),
        replace(good, votes=()),
        replace(good, votes=twice),
        replace(good, votes=good.votes[::-1]),
        replace(good, votes=(*good.votes, good.votes[-1])),
        replace(good, choice=NO),
        replace(good, subject="t"),
        replace(good, epoch=2),
        replace(good, votes=(*good.votes[:2], replace(good.votes[2], voter="n2"))),
    ):
        assert not bad.valid(ROSTER)
    assert not good.valid(Roster("demo", 1, tuple(voter.public for voter in VOTERS)))


def test_the_quorum_of_five_is_four() -> None:
    """With 2f + 1 = 3 of 5, two quorums could share one liar alone."""
    roster = Roster("demo", 1, tuple(voter.public for voter in VOTERS[:5]))
    ballots = [cast(voter, roster, "s", YES, expires=1) for voter in VOTERS[:4]]
    assert not QuorumCertificate.of(ballots[:3]).valid(roster)
    assert QuorumCertificate.of(ballots).valid(roster)
    assert QuorumCertificate.of(ballots[:3]).valid(roster, f=0)
    with pytest.raises(ValueError, match="cannot bear 2"):
        QuorumCertificate.of(ballots).valid(roster, f=2)


def test_evidence() -> None:
    proof = Equivocation(ballot(0, YES), ballot(0, NO))
    assert proof.voter == "n0"
    assert proof.valid(ROSTER)
    assert Equivocation.from_bytes(proof.to_bytes()) == proof


def test_what_is_no_evidence() -> None:
    """No false accusation: nothing that an honest voter signs can be put together against it."""
    honest = [
        ballot(i, choice, subject, expires)
        for (i, choice) in ((0, YES), (1, NO))
        for subject in ("s", "t")
        for expires in (1, 2)
    ]
    forged = [msgspec.structs.replace(honest[0], choice=NO)]
    other = Roster("demo", 2, ROSTER.members)
    later = [cast(VOTERS[0], other, "s", NO, expires=1)]
    pile = [*honest, *forged, *later]
    for a, b in itertools.product(pile, repeat=2):
        assert not Equivocation(a, b).valid(ROSTER)
        assert not Equivocation(a, b).valid(other)
    assert not Equivocation(ballot(0, NO), ballot(0, YES)).valid(ROSTER)  # one order only


@given(data=st.data())
def test_hostile_bytes_are_refused(data: st.DataObject) -> None:
    made = (ballot(0), certificate(), Equivocation(ballot(0, YES), ballot(0, NO)))
    thing = data.draw(st.sampled_from(made))
    kind = type(thing)
    good = thing.to_bytes()
    cut = data.draw(st.integers(0, len(good) - 1))
    for bad in (good[:cut], good + b"\0", data.draw(st.binary())):
        with pytest.raises(BallotError):
            kind.from_bytes(bad)
    # Whoever forges makes the checksum good, so it protects nobody.
    payload = msgspec.msgpack.encode(thing)
    at, flip = data.draw(st.integers(0, len(payload) - 1)), data.draw(st.integers(1, 255))
    payload = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
    name = {Ballot: "ballot", Equivocation: "equivocation"}.get(kind, "quorum-certificate")
    try:
        found = kind.from_bytes(seal(name, 1, payload))
    except BallotError:
        return
    assert not found.valid(ROSTER)


def test_an_encoding_that_is_not_the_shortest_is_refused() -> None:
    payload = msgspec.msgpack.encode(ballot(0, expires=1))
    assert payload[0] == 0x96
    longer = b"\xdc\x00\x06" + payload[1:]  # the same array with a length of 16 bits
    with pytest.raises(BallotError, match="not the shortest"):
        Ballot.from_bytes(seal("ballot", 1, longer))
