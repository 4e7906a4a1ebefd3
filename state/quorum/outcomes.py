"""What polls give out."""

from __future__ import annotations

from typing import Literal, NamedTuple

from state.quorum.ballot import Equivocation
from state.quorum.certificate import QuorumCertificate
from state.quorum.items import Item
from state.quorum.tally import Standing

Reason = Literal[
    "malformed",
    "epoch",
    "member",
    "signature",
    "expired",
    "expiry",
    "duplicate",
    "late",
    "equivocated",
    "crowd",
    "roster",
]
"""Why an item was not taken: its bytes are no item, its epoch is not accepted, its voter is no
member, it is not validly signed, it has expired, it expires too far ahead, it is here already, its
poll is closed, its voter has equivocated, its voter has opened too many polls, or it is a roster
that does not follow."""


class Undecided(NamedTuple):
    """A poll without a decision."""

    epoch: int
    subject: str
    reason: Literal["timeout", "abstained", "split", "ended"]
    """`timeout`: its time is up. `abstained`: so many abstain that no choice can win; `split`: none
    can for other reasons. `ended`: the input did, and the poll is still open."""
    standing: Standing


class Fork(NamedTuple):
    """Two decisions of one poll: more than ``f`` voters lied, and are accused."""

    first: QuorumCertificate
    """The one that was made or came first."""
    second: QuorumCertificate


class Rejected(NamedTuple):
    """An item that was not counted."""

    item: Item | bytes
    reason: Reason
    detail: str
    total: int
    """How many items were rejected for this reason so far, this one included."""


Outcome = QuorumCertificate | Undecided | Equivocation | Fork | Rejected
