"""Which rosters count: a chain of epochs, each approved by a quorum of the one before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from state.identity.identities import IdentityError, PrivateIdentity
from state.identity.roster import Roster
from state.thresholds import quorum_size

_DOMAIN = b"roster"


def approve(identity: PrivateIdentity, previous: Roster, roster: Roster) -> bytes:
    """Return a member's signature for letting ``roster`` follow ``previous``."""
    return identity.sign(_DOMAIN, previous.digest + roster.to_bytes())


class TrustStore:
    """The roster in force, and those of earlier epochs that are still accepted.

    The first roster is trusted because whoever made the store put it there. Each later one needs a
    greater epoch and the approvals of a quorum of the roster in force, so that no f liars can
    replace the members. A chain cannot fork: of two rosters that follow the same one, honest
    members approve one only. The store does no more than check what it is given.

    >>> old = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(4)]
    >>> first = Roster("demo", 1, tuple(member.public for member in old))
    >>> second = Roster("demo", 2, first.members[1:])
    >>> trust = TrustStore(first)
    >>> trust.install(second, {m.name: approve(m, first, second) for m in old[:3]})
    >>> trust.in_force.epoch, trust.epochs
    (2, (1, 2))

    Args:
        rosters: those that are trusted from the start, the one in force last; mostly one.
        keep: how many epochs before the one in force are still accepted, for what was signed just
            before a change. Members that were removed for lying stay trusted so long.

    Raises:
        IdentityError: there are no rosters, they are of several clusters, or epochs do not ascend.
        ValueError: ``keep`` is negative.
    """

    def __init__(self, *rosters: Roster, keep: int = 1) -> None:
        if keep < 0:
            raise ValueError(f"keep is {keep}: at least 0")
        if not rosters:
            raise IdentityError("a trust store needs a roster to begin with")
        for before, roster in itertools.pairwise(rosters):
            _check_order(before, roster)
        self._rosters = list(rosters[-keep - 1 :])
        self._keep = keep

    @property
    def keep(self) -> int:
        """How many epochs before the one in force are still accepted."""
        return self._keep

    @property
    def rosters(self) -> tuple[Roster, ...]:
        """The rosters that are accepted, by epoch."""
        return tuple(self._rosters)

    @property
    def cluster(self) -> str:
        """The cluster's name, the same in all epochs."""
        return self.in_force.cluster

    @property
    def in_force(self) -> Roster:
        """The roster of the greatest epoch."""
        return self._rosters[-1]

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that are accepted, ascending."""
        return tuple(roster.epoch for roster in self._rosters)

    def accepted(self, epoch: int) -> Roster | None:
        """Return the roster of an epoch that is accepted, if it is."""
        return next((roster for roster in self._rosters if roster.epoch == epoch), None)

    def install(self, roster: Roster, approvals: Mapping[str, bytes]) -> None:
        """Put the next roster in force; after an error nothing has changed.

        Installing the roster in force again does nothing.

        Args:
            roster: of the same cluster and a greater epoch.
            approvals: signatures made by :func:`approve`, by the names of members in force.

        Raises:
            IdentityError: it is of another cluster or not of a greater epoch, or fewer than a
                quorum of the members in force have validly approved it.
        """
        before = self.in_force
        if roster == before:
            return
        _check_order(before, roster)
        message = before.digest + roster.to_bytes()
        approved = sum(
            before.verify(name, _DOMAIN, message, approvals[name])
            for name in before.names
            if name in approvals
        )
        needed = quorum_size(len(before), before.max_faults)
        if approved < needed:
            raise IdentityError(
                f"{roster.cluster}: epoch {roster.epoch} is approved by {approved} members of "
                f"epoch {before.epoch}; {needed} are needed"
            )
        self._rosters = [*self._rosters, roster][-self._keep - 1 :]


def _check_order(before: Roster, roster: Roster) -> None:
    if roster.cluster != before.cluster:
        raise IdentityError(f"a roster of {roster.cluster!r}, not {before.cluster!r}")
    if roster.epoch <= before.epoch:
        raise IdentityError(
            f"{roster.cluster}: epoch {roster.epoch} does not follow {before.epoch}"
        )
