"""Tallies obey the laws of a semilattice. A chunk is ballots and certificates, lies included."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from state.identity import PrivateIdentity, Roster
from state.quorum import ABSTAIN, Ballot, QuorumCertificate, Tally, cast
from state.testing import laws

VOTERS = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(4)]
ROSTER = Roster("demo", 1, tuple(voter.public for voter in VOTERS))
CHOICES = [ABSTAIN, *(bytes([i] * 32) for i in range(3))]

# Every voter lies: it has a ballot for every choice, with two expiries each.
BALLOTS = [
    cast(voter, ROSTER, "s", choice, expires=expires)
    for voter in VOTERS
    for choice in CHOICES
    for expires in (10, 20)
]
CERTIFICATES = [
    QuorumCertificate.of(
        ballot
        for ballot in BALLOTS
        if ballot.choice == choice and ballot.voter in names and ballot.expires == expires
    )
    for choice in CHOICES[1:]
    for names in itertools.combinations(ROSTER.names, 3)
    for expires in (10, 20)
]


def put(tally: Tally, items: list[Ballot | QuorumCertificate]) -> None:
    for item in items:
        if isinstance(item, Ballot):
            tally.add(item)
        else:
            tally.add_certificate(item)


TestTally = laws(
    empty=lambda: Tally(ROSTER, "s"),
    update=put,
    chunks=st.lists(st.sampled_from(BALLOTS) | st.sampled_from(CERTIFICATES), max_size=5),
    max_examples=25,
)
