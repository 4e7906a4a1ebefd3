"""What polls take in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from state.identity import Roster
from state.mergeable import sealed_kind
from state.quorum.ballot import Ballot
from state.quorum.certificate import QuorumCertificate
from state.quorum.tally import Tally


class Succession(NamedTuple):
    """The next roster, with the approvals that put it in force."""

    roster: Roster
    approvals: Mapping[str, bytes]


Item = Ballot | QuorumCertificate | Tally | Succession

_KINDS: dict[str, type[Ballot] | type[QuorumCertificate] | type[Tally]] = {
    "ballot": Ballot,
    "quorum-certificate": QuorumCertificate,
    "tally": Tally,
}


def item_from_bytes(data: bytes) -> Item:
    """Return the ballot, certificate or tally that ``data`` holds.

    Raises:
        ValueError: ``data`` is malformed or none of these.
    """
    kind = sealed_kind(data)
    if kind not in _KINDS:
        raise ValueError(f"a {kind} is no ballot, certificate or tally")
    return _KINDS[kind].from_bytes(data)
