"""Evidence of misbehaviour: two messages that one replica has signed and no correct one signs both.

Only such a pair is evidence. Silence, slowness and wrong digests without a signature never are: a
network can cause the first two, and anybody can invent the third.
"""

from __future__ import annotations

import msgspec

from state.pbft.authentication import Authenticator, valid
from state.pbft.group import Group
from state.pbft.messages import Accusation, Commit, NewView, Prepare, PrePrepare, ViewChange


def proves(accusation: Accusation, group: Group, keys: Authenticator) -> bool:
    """Return whether an accusation proves that a replica has misbehaved."""
    accused, first, second = accusation.accused, accusation.first, accusation.second
    return (
        accused in group.members
        and _conflict(accused, first, second, group)
        and valid(keys, accused, first)
        and valid(keys, accused, second)
    )


def _conflict(accused: str, first: object, second: object, group: Group) -> bool:
    match first, second:
        case PrePrepare(), PrePrepare():
            return (
                group.primary(first.view) == accused
                and (first.view, first.seq) == (second.view, second.seq)
                and first.digest != second.digest
            )
        case (Prepare(), Prepare()) | (Commit(), Commit()):
            return (first.view, first.seq) == (second.view, second.seq) and (
                first.digest != second.digest
            )
        case ViewChange(), ViewChange():
            return first.replica == second.replica == accused and _differ(first, second)
        case NewView(), NewView():
            return group.primary(first.view) == accused and _differ(first, second)
    return False


def _differ(first: ViewChange | NewView, second: ViewChange | NewView) -> bool:
    return first.view == second.view and (
        msgspec.structs.replace(first, signature=b"")
        != msgspec.structs.replace(second, signature=b"")
    )
