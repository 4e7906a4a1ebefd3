"""The votes on one subject, as a state that grows and merges.

Each voter has a place for two ballots, those with the smallest choices that it signed. One is its
vote; two are an equivocation, and then the voter counts for no choice. Two certificates have a
place likewise. Both are sets that only grow and are cut to the smallest, so a tally is a
join-semilattice of bounded size: ``2n`` ballots and two certificates, whatever liars send.

*A decision is final.* It is made by :meth:`Tally.conclude` when a quorum of voters, none of which
is seen to equivocate, has unexpired ballots for a choice, and is kept as a certificate, whatever
comes later. *Two are impossible* with at most ``f`` liars, on whatever workers, from whatever
subsets of the ballots and at whatever times they are made: two quorums share more than ``f``
voters, so an honest one signed both choices, which it does not. An expiry takes votes away and can
only prevent a decision. Votes of different epochs have different rosters and never add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self, TypeVar

import msgspec

from state.identity import Roster
from state.identity.roster import MAX_MEMBERS
from state.mergeable import Algebra, seal, unseal
from state.quorum.ballot import (
    ABSTAIN,
    MAX_SUBJECT,
    Ballot,
    BallotError,
    Choice,
    Equivocation,
)
from state.quorum.certificate import QuorumCertificate, Vote, Votes
from state.thresholds import quorum_size

_KIND, _VERSION = "tally", 1

V = TypeVar("V")


class TallyEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tally without its roster, as msgpack has it."""

    epoch: int
    f: int
    subject: str
    ballots: Annotated[list[tuple[Choice, Vote]], msgspec.Meta(max_length=2 * MAX_MEMBERS)]
    certificates: Annotated[list[tuple[Choice, Votes]], msgspec.Meta(max_length=2)]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a vote stands: every voter is in one of these.

    Expired ballots are counted: their voters may cast them again.
    """

    choices: dict[bytes, int]
    """Voters for each choice, without abstentions."""
    abstained: int
    equivocated: int
    silent: int


class Tally:
    """The ballots for one subject under one roster.

    >>> from state.identity import PrivateIdentity
    >>> from state.quorum import cast
    >>> voters = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(4)]
    >>> roster = Roster("demo", 1, tuple(voter.public for voter in voters))
    >>> yes = bytes(32)
    >>> here, there = Tally(roster, "launch"), Tally(roster, "launch")
    >>> for tally, voter in ((here, 0), (here, 1), (there, 3)):
    ...     tally.add(cast(voters[voter], roster, "launch", yes, expires=2_000))
    True
    True
    True
    >>> here.conclude(now=1_000)
    >>> here.merge(there)
    >>> [vote.voter for vote in here.conclude(now=1_000).votes]
    ['n0', 'n1', 'n3']

    Args:
        roster: who may vote.
        subject: on what.
        f: how many members may be faulty; by default as many as the roster can bear.

    Raises:
        ValueError: the roster cannot bear ``f``, or the subject is empty or too long.
    """

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    def __init__(self, roster: Roster, subject: str, *, f: int | None = None) -> None:
        if not 1 <= len(subject) <= MAX_SUBJECT:
            raise ValueError(f"a subject of {len(subject)} characters: 1 to {MAX_SUBJECT}")
        self.roster = roster
        self.subject = subject
        self.f = roster.max_faults if f is None else f
        self.quorum = quorum_size(len(roster), self.f)
        self._ballots: dict[str, dict[bytes, Ballot]] = {}
        self._certificates: dict[bytes, QuorumCertificate] = {}

    def __iter__(self) -> Iterator[Ballot]:
        for voter in sorted(self._ballots):
            yield from self._ballots[voter].values()

    @property
    def voters(self) -> int:
        """How many voters have cast a ballot that is here."""
        return len(self._ballots)

    @property
    def certificates(self) -> tuple[QuorumCertificate, ...]:
        """The decisions: none, one, or two if more than ``f`` voters lie."""
        return tuple(self._certificates.values())

    def ballot(self, voter: str) -> Ballot | None:
        """Return the ballot of a voter that is not seen to equivocate, if it has cast one."""
        own = self._ballots.get(voter, {})
        return next(iter(own.values())) if len(own) == 1 else None

    def equivocation(self, voter: str) -> Equivocation | None:
        """Return the evidence against a voter, if there is any."""
        own = tuple(self._ballots.get(voter, {}).values())
        return Equivocation(*own) if len(own) == 2 else None

    def evidence(self) -> list[Equivocation]:
        """Return all evidence, in the order of the voters' names."""
        found = (self.equivocation(voter) for voter in sorted(self._ballots))
        return [equivocation for equivocation in found if equivocation is not None]

    def add(self, ballot: Ballot) -> bool:
        """Take a ballot in, whatever its expiry; return whether the tally has changed.

        Raises:
            BallotError: it is of another epoch or subject, of no member, or not signed by it.
        """
        if ballot.epoch != self.roster.epoch or ballot.subject != self.subject:
            raise BallotError(
                f"a ballot for {ballot.subject!r} in epoch {ballot.epoch}, not for "
                f"{self.subject!r} in epoch {self.roster.epoch}"
            )
        if ballot.voter not in self.roster:
            raise BallotError(f"{ballot.voter!r} is no member of epoch {ballot.epoch}")
        # What is here was valid, and need not be verified again.
        if self._ballots.get(ballot.voter, {}).get(ballot.choice) == ballot:
            return False
        if not ballot.valid(self.roster):
            raise BallotError(f"{ballot.voter} did not sign this ballot for {ballot.subject!r}")
        return self._join_ballot(ballot)

    def add_certificate(self, certificate: QuorumCertificate) -> bool:
        """Take in a decision that was made elsewhere; return whether the tally has changed.

        Raises:
            BallotError: it is of another epoch or subject, or not valid.
        """
        if certificate.epoch != self.roster.epoch or certificate.subject != self.subject:
            raise BallotError(
                f"a certificate for {certificate.subject!r} in epoch {certificate.epoch}, not for "
                f"{self.subject!r} in epoch {self.roster.epoch}"
            )
        if self._certificates.get(certificate.choice) == certificate:
            return False
        if not certificate.valid(self.roster, self.f):
            raise BallotError(f"a certificate for {certificate.subject!r} that proves nothing")
        return self._join_certificate(certificate)

    def conclude(self, now: int) -> QuorumCertificate | None:
        """Return the decision, which is made here and now if it can be.

        Of two certificates (more than ``f`` voters lie) it is the one with the smaller choice.
        """
        if self._certificates:
            return next(iter(self._certificates.values()))
        supporters: dict[bytes, list[Ballot]] = {}
        for name in self.roster.names:
            ballot = self.ballot(name)
            if ballot is not None and ballot.choice != ABSTAIN and ballot.expires > now:
                supporters.setdefault(ballot.choice, []).append(ballot)
        for ballots in supporters.values():
            if len(ballots) >= self.quorum:
                certificate = QuorumCertificate.of(ballots[: self.quorum])
                self._join_certificate(certificate)
                return certificate
        return None

    def standing(self) -> Standing:
        """Return how many voters chose what."""
        votes = Counter[bytes]()
        equivocated = 0
        for own in self._ballots.values():
            if len(own) == 1:
                votes.update(own.keys())
            else:
                equivocated += 1
        abstained = votes.pop(ABSTAIN, 0)
        silent = len(self.roster) - len(self._ballots)
        return Standing(dict(sorted(votes.items())), abstained, equivocated, silent)

    def hopeless(self) -> bool:
        """Return whether no choice can reach a quorum, whatever the silent voters cast.

        Other workers may know ballots that are not here; a certificate of theirs overrules this.
        """
        standing = self.standing()
        return max(standing.choices.values(), default=0) + standing.silent < self.quorum

    def merge(self, other: Self) -> None:
        """Join what another tally of the same subject has seen.

        Raises:
            ValueError: it is of another roster, subject or ``f``.
        """
        mine = (self.roster.digest, self.subject, self.f)
        if (other.roster.digest, other.subject, other.f) != mine:
            raise ValueError(
                f"tallies of {other.subject!r} in epoch {other.roster.epoch} (f={other.f}) and of "
                f"{self.subject!r} in epoch {self.roster.epoch} (f={self.f}), or of other members"
            )
        for ballot in list(other):
            self._join_ballot(ballot)
        for certificate in other.certificates:
            self._join_certificate(certificate)

    def to_entry(self) -> TallyEntry:
        """Return the tally without its roster."""
        return TallyEntry(
            self.roster.epoch,
            self.f,
            self.subject,
            [(b.choice, Vote(b.voter, b.expires, b.signature)) for b in self],
            [(c.choice, c.votes) for c in self.certificates],
        )

    @classmethod
    def from_entry(cls, entry: TallyEntry, roster: Roster, *, trusted: bool = False) -> Self:
        """Return the tally of an entry.

        Args:
            entry: what `to_entry` gave.
            roster: the roster of that tally.
            trusted: whether the entry was never out of one's hands, so that signatures need not be
                verified again.

        Raises:
            ValueError: it is of another roster, or anything in it is not valid.
        """
        tally = cls(roster, entry.subject, f=entry.f)
        if len(entry.ballots) > 2 * len(roster):
            raise ValueError(f"{len(entry.ballots)} ballots of {len(roster)} voters")
        add = tally._join_ballot if trusted else tally.add
        decide = tally._join_certificate if trusted else tally.add_certificate
        epoch, subject = entry.epoch, entry.subject
        for choice, v in entry.ballots:
            add(Ballot(epoch, subject, choice, v.voter, v.expires, v.signature))
        for choice, votes in entry.certificates:
            decide(QuorumCertificate(epoch, subject, choice, votes))
        return tally

    def to_bytes(self) -> bytes:
        """Return the tally and its roster as versioned, canonical bytes."""
        return seal(
            _KIND, _VERSION, msgspec.msgpack.encode((self.roster.to_bytes(), self.to_entry()))
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the tally that ``data`` holds, every signature verified against its own roster.

        Whether that roster is trusted is for the reader to say; `merge` takes no other than its
        own.

        Raises:
            ValueError: ``data`` is malformed, not canonical, or anything in it is not valid.
        """
        _, payload = unseal(_KIND, data, versions={_VERSION})
        try:
            roster, entry = msgspec.msgpack.decode(payload, type=tuple[bytes, TallyEntry])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"no tally: {error}") from None
        tally = cls.from_entry(entry, Roster.from_bytes(roster))
        if tally.to_bytes() != data:
            raise ValueError("no tally: its encoding is not canonical")
        return tally

    def _join_ballot(self, ballot: Ballot) -> bool:
        own = self._ballots.setdefault(ballot.voter, {})
        # A voter can sign one choice many times: the latest expiry counts, then any fixed order.
        later = max((ballot, own.get(ballot.choice, ballot)), key=_seniority)
        return _keep_two(own, ballot.choice, later)

    def _join_certificate(self, certificate: QuorumCertificate) -> bool:
        changed = [self._join_ballot(ballot) for ballot in certificate.ballots()]
        known = self._certificates.get(certificate.choice, certificate)
        least = min(certificate, known)
        return _keep_two(self._certificates, certificate.choice, least) or any(changed)


def _seniority(ballot: Ballot) -> tuple[int, bytes]:
    return ballot.expires, ballot.signature


def _keep_two(places: dict[bytes, V], choice: bytes, value: V) -> bool:
    """Put a value in its place, keep the two with the smallest choices, in order."""
    if places.get(choice) == value:
        return False
    before = dict(places)
    places[choice] = value
    kept = sorted(places)[:2]
    everything = dict(places)
    places.clear()
    places.update((choice, everything[choice]) for choice in kept)
    return places != before
