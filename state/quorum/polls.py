"""Many votes at once, with deadlines, sans I/O: ballots and time in, outcomes out."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from state.identity import IdentityError, Roster, TrustStore
from state.mergeable import seal, unseal
from state.quorum.ballot import Ballot
from state.quorum.certificate import QuorumCertificate
from state.quorum.items import Item, Succession, item_from_bytes
from state.quorum.outcomes import Fork, Outcome, Reason, Rejected, Undecided
from state.quorum.tally import Tally, TallyEntry
from state.thresholds import quorum_size

_KIND, _VERSION = "polls", 1


@dataclass(slots=True)
class _Poll:
    tally: Tally
    opener: str
    """Whose limit it counts against; empty if a certificate opened it."""
    end: int
    """When it is forgotten: nothing that could be counted in it is valid any longer."""
    deadline: int | None = None
    """When its time is up; None while all who voted may be liars."""
    closed: bool = False
    decided: QuorumCertificate | None = None
    accused: set[str] = field(default_factory=set)
    saved: msgspec.Raw | None = None
    """Its snapshot; None when that is to be made."""


class _PollEntry(msgspec.Struct, frozen=True, array_like=True):
    tally: TallyEntry
    opener: str
    end: int
    deadline: int | None
    closed: bool
    decided: QuorumCertificate | None
    accused: list[str]


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    rosters: list[bytes]
    polls: list[msgspec.Raw]
    """Each a `_PollEntry`, encoded when it changed."""
    rejected: dict[Reason, int]


class Polls:
    """The open and lately closed polls of a cluster.

    A poll opens with the first item about its subject in an epoch, and closes when it is decided,
    when no choice can win any more, or when its time is up: ``patience`` after more than ``f``
    voters have voted, so that liars alone do not start the clock, and at the latest when all of its
    ballots have expired. It is remembered until then, for late ballots and evidence. All that is
    held is bounded: ballots of a poll by the members, polls by ``crowd`` for each member.

    A timeout is the opinion of whoever counts. A certificate from elsewhere is a fact: it decides
    a closed poll too. Times are milliseconds on the clock by which ballots expire.

    Args:
        trust: which rosters are accepted. `Succession` items extend it.
        f: how many members of each roster may be faulty.
        patience: how long a poll waits for a quorum.
        longest: how far ahead a ballot may expire; longer ones are rejected.
        crowd: how many polls a member may have opened that are not forgotten.

    Raises:
        ValueError: an accepted roster cannot bear ``f``, or a number is not positive.
    """

    def __init__(
        self, trust: TrustStore, *, f: int, patience: int, longest: int, crowd: int = 10_000
    ) -> None:
        for name, value in (("patience", patience), ("longest", longest), ("crowd", crowd)):
            if value < 1:
                raise ValueError(f"{name} is {value}: at least 1")
        self.trust = TrustStore(*trust.rosters, keep=trust.keep)
        self._f, self._patience, self._longest, self._crowd = f, patience, longest, crowd
        self._polls: dict[tuple[int, str], _Poll] = {}
        self._opened = Counter[str]()
        self._rejected = Counter[Reason]()
        # For each poll its end, as it was when it was put here, and its deadline if it has one.
        self._due: list[tuple[int, tuple[int, str], bool]] = []
        for roster in trust.rosters:
            quorum_size(len(roster), f)

    def __len__(self) -> int:
        """Return how many polls are held."""
        return len(self._polls)

    @property
    def wake_at(self) -> int | None:
        """When :meth:`wake` should be called next, if ever."""
        return self._due[0][0] if self._due else None

    def receive(self, item: Item | bytes, now: int) -> list[Outcome]:
        """Take an item in, or its bytes.

        A tally of another worker is taken ballot by ballot, and rejected ballot by ballot.

        Raises:
            TypeError: it is none of the kinds of items.
        """
        # What was due before this item came is over, even if nobody called.
        out = self.wake(now)
        if isinstance(item, bytes):
            try:
                item = item_from_bytes(item)
            except ValueError as error:
                return out + self._reject(item, "malformed", str(error))
        if isinstance(item, Ballot):
            out += self._ballot(item, now)
        elif isinstance(item, QuorumCertificate):
            out += self._certificate(item, now)
        elif isinstance(item, Tally):
            for ballot in item:
                out += self._ballot(ballot, now)
            for certificate in item.certificates:
                out += self._certificate(certificate, now)
        elif isinstance(item, Succession):
            out += self._succession(item)
        else:
            raise TypeError(f"{item!r} is no ballot, certificate, tally or succession")
        return out

    def wake(self, now: int) -> list[Outcome]:
        """Close the polls whose time is up, and forget those that are over."""
        out: list[Outcome] = []
        while self._due and self._due[0][0] <= now:
            _, key, ends = heapq.heappop(self._due)
            poll = self._polls.get(key)
            if poll is None:
                continue
            over = poll.end <= now
            late = poll.deadline is not None and poll.deadline <= now
            if not poll.closed and (over or late):
                poll.closed, poll.saved = True, None
                out.append(_undecided(poll, "timeout"))
            if over:
                self._forget(key)
            elif ends:  # a later ballot has put it off
                heapq.heappush(self._due, (poll.end, key, True))
        return out

    def finish(self, now: int) -> list[Outcome]:
        """Wake, and tell of the polls that are open at the end of input; they stay open."""
        return self.wake(now) + [
            _undecided(poll, "ended") for poll in self._polls.values() if not poll.closed
        ]

    def to_bytes(self) -> bytes:
        """Return all polls and the accepted rosters, for `restore`."""
        for poll in self._polls.values():
            if poll.saved is None:
                entry = _PollEntry(
                    poll.tally.to_entry(),
                    poll.opener,
                    poll.end,
                    poll.deadline,
                    poll.closed,
                    poll.decided,
                    sorted(poll.accused),
                )
                poll.saved = msgspec.Raw(msgspec.msgpack.encode(entry))
        saved = _Saved(
            [roster.to_bytes() for roster in self.trust.rosters],
            [poll.saved for poll in self._polls.values() if poll.saved is not None],
            dict(self._rejected),
        )
        return seal(_KIND, _VERSION, msgspec.msgpack.encode(saved))

    def restore(self, data: bytes) -> None:
        """Go on where `to_bytes` was called. The data are one's own, and trusted.

        Where its rosters are of later epochs than those that this was made with, they are in force.

        Raises:
            ValueError: ``data`` is malformed.
        """
        _, payload = unseal(_KIND, data, versions={_VERSION})
        saved = msgspec.msgpack.decode(payload, type=_Saved)
        rosters = [Roster.from_bytes(roster) for roster in saved.rosters]
        for roster in rosters:
            mine = self.trust.accepted(roster.epoch)
            if mine is not None and mine != roster:
                raise ValueError(f"what was saved has another roster of epoch {roster.epoch}")
        if rosters[-1].epoch > self.trust.in_force.epoch:
            self.trust = TrustStore(*rosters, keep=self.trust.keep)
        by_epoch = {roster.epoch: roster for roster in (*rosters, *self.trust.rosters)}
        self._rejected = Counter(saved.rejected)
        for raw in saved.polls:
            entry = msgspec.msgpack.decode(raw, type=_PollEntry)
            tally = Tally.from_entry(entry.tally, by_epoch[entry.tally.epoch], trusted=True)
            poll = _Poll(
                tally,
                entry.opener,
                entry.end,
                entry.deadline,
                entry.closed,
                entry.decided,
                set(entry.accused),
            )
            self._hold(poll)
            if poll.deadline is not None:
                self._remind(poll, poll.deadline)

    def _ballot(self, ballot: Ballot, now: int) -> list[Outcome]:
        roster = self.trust.accepted(ballot.epoch)
        if roster is None:
            return self._reject(ballot, "epoch", self._not_accepted(ballot.epoch))
        if ballot.voter not in roster:
            detail = f"{ballot.voter!r} is no member of epoch {ballot.epoch}"
            return self._reject(ballot, "member", detail)
        if ballot.expires <= now:
            return self._reject(ballot, "expired", f"at {ballot.expires}, and it is {now}")
        if ballot.expires > now + self._longest:
            detail = f"expires at {ballot.expires}, more than {self._longest} after {now}"
            return self._reject(ballot, "expiry", detail)
        key = (ballot.epoch, ballot.subject)
        poll = self._polls.get(key)
        if poll is None and self._opened[ballot.voter] >= self._crowd:
            detail = f"{ballot.voter} has opened {self._crowd} polls"
            return self._reject(ballot, "crowd", detail)
        known = None if poll is None else poll.tally.ballot(ballot.voter)
        try:
            tally = Tally(roster, ballot.subject, f=self._f) if poll is None else poll.tally
            changed = tally.add(ballot)
        except ValueError as error:
            return self._reject(ballot, "signature", str(error))
        if poll is None:
            poll = _Poll(tally, ballot.voter, ballot.expires)
            self._hold(poll)
        poll.saved = None
        if changed and ballot.expires > poll.end:
            poll.end = ballot.expires
        if ballot.voter in poll.accused:
            return self._reject(ballot, "equivocated", f"{ballot.voter} has equivocated")
        out = self._accuse(poll, ballot.voter)
        if out:
            return out + self._progress(poll, now)
        if not changed or (known is not None and known.choice == ballot.choice and poll.closed):
            return self._reject(ballot, "duplicate", "the same choice of the same voter is here")
        if poll.closed:
            return self._reject(ballot, "late", "its poll is closed")
        return self._progress(poll, now)

    def _certificate(self, certificate: QuorumCertificate, now: int) -> list[Outcome]:
        roster = self.trust.accepted(certificate.epoch)
        if roster is None:
            return self._reject(certificate, "epoch", self._not_accepted(certificate.epoch))
        if certificate.expires <= now:
            # Else certificates of all times could be sent again, and be held.
            detail = f"at {certificate.expires}, and it is {now}"
            return self._reject(certificate, "expired", detail)
        key = (certificate.epoch, certificate.subject)
        poll = self._polls.get(key)
        try:
            tally = Tally(roster, certificate.subject, f=self._f) if poll is None else poll.tally
            changed = tally.add_certificate(certificate)
        except ValueError as error:
            return self._reject(certificate, "signature", str(error))
        end = min(certificate.expires, now + self._longest)
        if poll is None:
            poll = _Poll(tally, "", end)
            self._hold(poll)
        poll.saved = None
        poll.end = max(poll.end, end)
        if not changed and poll.decided is not None:
            return self._reject(certificate, "duplicate", "the decision is here")
        voters = [vote.voter for vote in certificate.votes]
        return self._accuse(poll, *voters) + self._decide(poll, certificate)

    def _succession(self, item: Succession) -> list[Outcome]:
        try:
            quorum_size(len(item.roster), self._f)
            self.trust.install(item.roster, item.approvals)
        except (IdentityError, ValueError) as error:
            return self._reject(item, "roster", str(error))
        return []

    def _progress(self, poll: _Poll, now: int) -> list[Outcome]:
        """Decide an open poll, give it up, or start its clock."""
        if poll.closed:
            return []
        certificate = poll.tally.conclude(now)
        if certificate is not None:
            return self._decide(poll, certificate)
        if poll.tally.hopeless():
            poll.closed = True
            standing = poll.tally.standing()
            n, q = len(poll.tally.roster), poll.tally.quorum
            return [_undecided(poll, "abstained" if standing.abstained > n - q else "split")]
        if poll.deadline is None and poll.tally.voters > self._f:
            poll.deadline = now + self._patience
            self._remind(poll, poll.deadline)
        return []

    def _decide(self, poll: _Poll, certificate: QuorumCertificate) -> list[Outcome]:
        poll.closed = True
        if poll.decided is None:
            poll.decided = certificate
            return [certificate]
        if poll.decided.choice == certificate.choice:
            return []
        return [Fork(poll.decided, certificate)]

    def _accuse(self, poll: _Poll, *voters: str) -> list[Outcome]:
        """Return the evidence that is new."""
        out: list[Outcome] = []
        for voter in voters:
            evidence = None if voter in poll.accused else poll.tally.equivocation(voter)
            if evidence is not None:
                poll.accused.add(voter)
                out.append(evidence)
        return out

    def _hold(self, poll: _Poll) -> None:
        key = (poll.tally.roster.epoch, poll.tally.subject)
        self._polls[key] = poll
        self._opened[poll.opener] += 1
        heapq.heappush(self._due, (poll.end, key, True))

    def _forget(self, key: tuple[int, str]) -> None:
        opener = self._polls.pop(key).opener
        self._opened[opener] -= 1
        if not self._opened[opener]:
            del self._opened[opener]

    def _remind(self, poll: _Poll, deadline: int) -> None:
        key = (poll.tally.roster.epoch, poll.tally.subject)
        heapq.heappush(self._due, (deadline, key, False))

    def _reject(self, item: Item | bytes, reason: Reason, detail: str) -> list[Outcome]:
        self._rejected[reason] += 1
        return [Rejected(item, reason, detail, self._rejected[reason])]

    def _not_accepted(self, epoch: int) -> str:
        return f"epoch {epoch}; accepted are {', '.join(map(str, self.trust.epochs))}"


def _undecided(poll: _Poll, reason: Literal["timeout", "abstained", "split", "ended"]) -> Undecided:
    tally = poll.tally
    return Undecided(tally.roster.epoch, tally.subject, reason, tally.standing())
