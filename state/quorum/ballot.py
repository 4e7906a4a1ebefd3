"""Ballots, and what proves that a voter cast two that differ."""

from __future__ import annotations

from typing import Annotated, Final, Self, TypeVar

import msgspec

from state.identity import PrivateIdentity, Roster
from state.identity.keys import prefixed
from state.mergeable import seal, unseal

ABSTAIN: Final = b""
"""The choice of a voter that takes part and supports nothing. It is as final as any other."""
CHOICE_BYTES: Final = 32
MAX_SUBJECT: Final = 255
MAX_TIME: Final = (1 << 63) - 1

_DOMAIN = b"ballot"
_VERSION = 1

S = TypeVar("S", bound=msgspec.Struct)


class BallotError(ValueError):
    """A ballot, a certificate or evidence is not valid; the message says why."""


Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME)]
"""Milliseconds since 1970, or of any clock that all voters share."""
Epoch = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME)]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SUBJECT)]
Choice = Annotated[bytes, msgspec.Meta(max_length=CHOICE_BYTES)]
Voter = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Ballot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """One voter's signed choice about one subject in one epoch.

    The signature covers the roster (and with it cluster, epoch and members), subject, choice,
    voter and expiry, so it is worth nothing anywhere else. Make one with :func:`cast`.
    """

    epoch: Epoch
    """Of the roster under which it was cast."""
    subject: Subject
    choice: Choice
    """(32,) the digest of what is chosen, or `ABSTAIN`."""
    voter: Voter
    expires: Time
    """From then on nobody counts it who has not counted it before."""
    signature: Signature

    def valid(self, roster: Roster) -> bool:
        """Return whether a member of ``roster`` cast this ballot under it."""
        return (
            self.epoch == roster.epoch
            and len(self.choice) in (0, CHOICE_BYTES)
            and roster.verify(self.voter, _DOMAIN, _signed(self, roster), self.signature)
        )

    def to_bytes(self) -> bytes:
        """Return the ballot as canonical bytes."""
        return seal("ballot", _VERSION, msgspec.msgpack.encode(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the ballot that ``data`` holds, whose signature is not checked yet.

        Raises:
            BallotError: ``data`` is malformed.
        """
        return decoded("ballot", data, cls)


def cast(
    voter: PrivateIdentity, roster: Roster, subject: str, choice: bytes, *, expires: int
) -> Ballot:
    """Return the signed ballot of a voter.

    A voter that casts two ballots with different choices for one subject in one epoch, abstention
    included, has equivocated, and whoever holds both can prove it. So remember what was cast, also
    over a restart. Casting the same choice again with a later expiry is harmless.

    >>> voter = PrivateIdentity.generate("n1", bytes(32))
    >>> roster = Roster("demo", 1, (voter.public,))
    >>> cast(voter, roster, "launch", bytes(32), expires=2_000).valid(roster)
    True

    Args:
        voter: who votes.
        roster: the roster in force.
        subject: what is voted on: 1 to 255 characters.
        choice: the digest of what is chosen, 32 bytes, or `ABSTAIN`.
        expires: milliseconds, as the counters' clocks have them.

    Raises:
        BallotError: an argument is out of range.
    """
    if len(choice) not in (0, CHOICE_BYTES):
        raise BallotError(f"a choice of {len(choice)} bytes: a digest has {CHOICE_BYTES}")
    if not 1 <= len(subject) <= MAX_SUBJECT:
        raise BallotError(f"a subject of {len(subject)} characters: 1 to {MAX_SUBJECT}")
    if not 0 <= expires <= MAX_TIME:
        raise BallotError(f"a ballot that expires at {expires}: 0 to 2**63 - 1")
    unsigned = Ballot(roster.epoch, subject, choice, voter.name, expires, bytes(64))
    signature = voter.sign(_DOMAIN, _signed(unsigned, roster))
    return msgspec.structs.replace(unsigned, signature=signature)


class Equivocation(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True
):
    """Two valid ballots of one voter for one subject in one epoch that choose differently.

    It is all that is ever held against a voter: silence, lateness or a lost message is not. Nobody
    can make it but the voter itself, and whoever has the roster can check it.
    """

    first: Ballot
    """The one with the smaller choice."""
    second: Ballot

    @property
    def voter(self) -> str:
        """Who equivocated."""
        return self.first.voter

    def valid(self, roster: Roster) -> bool:
        """Return whether it proves what it says, to anybody who trusts ``roster``."""
        a, b = self.first, self.second
        return (
            (a.epoch, a.subject, a.voter) == (b.epoch, b.subject, b.voter)
            and a.choice < b.choice
            and a.valid(roster)
            and b.valid(roster)
        )

    def to_bytes(self) -> bytes:
        """Return the evidence as canonical bytes."""
        return seal("equivocation", _VERSION, msgspec.msgpack.encode(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the evidence that ``data`` holds, which `valid` has to check.

        Raises:
            BallotError: ``data`` is malformed.
        """
        return decoded("equivocation", data, cls)


def decoded(kind: str, data: bytes, form: type[S]) -> S:
    """Return the struct in sealed msgpack; bytes that are not what it encodes to are refused."""
    try:
        _, payload = unseal(kind, data, versions={_VERSION})
        found = msgspec.msgpack.decode(payload, type=form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BallotError(f"no {kind}: {error}") from None
    if msgspec.msgpack.encode(found) != payload:
        raise BallotError(f"no {kind}: its encoding is not the shortest")
    return found


def _signed(ballot: Ballot, roster: Roster) -> bytes:
    return b"".join(
        (
            roster.digest,
            prefixed(ballot.subject.encode()),
            prefixed(ballot.choice),
            prefixed(ballot.voter.encode()),
            ballot.expires.to_bytes(8, "little"),
        )
    )
