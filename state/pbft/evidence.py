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


_Signed = PrePrepare | Prepare | Commit | ViewChange | NewView


def _conflict(accused: str, first: _Signed, second: _Signed, group: Group) -> bool:
    """Return whether no correct replica says both."""
    if type(first) is not type(second) or first.view != second.view:
        return False
    if isinstance(first, PrePrepare | NewView) and group.primary(first.view) != accused:
        return False
    if isinstance(first, ViewChange | NewView) or isinstance(second, ViewChange | NewView):
        return _unsigned(first) != _unsigned(second)
    return first.seq == second.seq and first.digest != second.digest


def _unsigned(message: _Signed) -> _Signed:
    return msgspec.structs.replace(message, signature=b"")
