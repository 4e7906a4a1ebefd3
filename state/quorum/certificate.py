"""What proves to anybody that a quorum agreed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, Self

import msgspec

from state.identity import Roster
from state.identity.roster import MAX_MEMBERS
from state.mergeable import seal
from state.quorum.ballot import (
    ABSTAIN,
    Ballot,
    Choice,
    Epoch,
    Signature,
    Subject,
    Time,
    Voter,
    decoded,
)
from state.thresholds import quorum_size


class Vote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """What a certificate keeps of a ballot."""

    voter: Voter
    expires: Time
    signature: Signature


Votes = Annotated[tuple[Vote, ...], msgspec.Meta(max_length=MAX_MEMBERS)]


class QuorumCertificate(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True
):
    """A decision: a choice, and the signatures of a quorum of distinct voters for it.

    Of one subject in one epoch no two certificates with different choices exist unless more than
    ``f`` voters equivocated, and then the two together accuse them. A certificate does not tell
    when it was made.
    """

    epoch: Epoch
    subject: Subject
    choice: Choice
    votes: Votes
    """In the order of the voters' names, each once."""

    @classmethod
    def of(cls, ballots: Iterable[Ballot]) -> Self:
        """Return the certificate that ballots with one epoch, subject and choice make up."""
        chosen = sorted(ballots, key=lambda ballot: ballot.voter)
        votes = tuple(Vote(b.voter, b.expires, b.signature) for b in chosen)
        return cls(chosen[0].epoch, chosen[0].subject, chosen[0].choice, votes)

    def ballots(self) -> list[Ballot]:
        """Return the ballots that it is made of."""
        return [
            Ballot(self.epoch, self.subject, self.choice, v.voter, v.expires, v.signature)
            for v in self.votes
        ]

    @property
    def expires(self) -> int:
        """The first time at which a vote in it has expired."""
        return min((vote.expires for vote in self.votes), default=0)

    def valid(self, roster: Roster, f: int | None = None) -> bool:
        """Return whether a quorum of ``roster`` decided so, with at most ``f`` faulty members.

        Args:
            roster: the roster of `epoch`.
            f: by default as many as the roster can bear.

        Raises:
            ValueError: the roster cannot bear ``f``.
        """
        needed = quorum_size(len(roster), roster.max_faults if f is None else f)
        return (
            self.choice != ABSTAIN
            and len(self.votes) >= needed
            and all(a.voter < b.voter for a, b in itertools.pairwise(self.votes))
            and all(ballot.valid(roster) for ballot in self.ballots())
        )

    def to_bytes(self) -> bytes:
        """Return the certificate as canonical bytes."""
        return seal("quorum-certificate", 1, msgspec.msgpack.encode(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the certificate that ``data`` holds, which `valid` has to check.

        Raises:
            BallotError: ``data`` is malformed.
        """
        return decoded("quorum-certificate", data, cls)
