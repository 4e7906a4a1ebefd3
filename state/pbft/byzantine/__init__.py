"""Replicas that misbehave, each in a way that has a name, with their own keys and nobody else's.

A :class:`Byzantine` is a real :class:`~state.pbft.Replica` between whose mouth and whose peers
somebody sits and changes what it says. So it knows the protocol, keeps up with it, and lies well.
They are for tests, and to watch a group survive one.

    equivocate   tells one half of the group this and the other half that: proposals, votes,
                 checkpoints, view changes and replies, each signed and consistent for its half
    silent       says nothing: to all, to some, or whenever it leads
    forge        makes up what it cannot know or sign: others' signatures, requests, claims, new
                 views that do not follow, states, accusations, bytes that mean nothing
    replay       says again, to anyone, what it or others said before, in other views and slots
    delay        says everything late, just before others would lose patience

For tests alone there are :class:`Usurp`, which equivocates and begins the views that it leads
twice, each half of the group with a NEW-VIEW of its own; and :class:`LyingClient`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal

from state.pbft.authentication import Authenticator
from state.pbft.byzantine.actor import Actor, Byzantine
from state.pbft.byzantine.client import LyingClient
from state.pbft.byzantine.equivocate import Equivocate, Plot
from state.pbft.byzantine.forge import Forge
from state.pbft.byzantine.replay import Replay
from state.pbft.byzantine.silent import Delay, Silent
from state.pbft.byzantine.usurp import Usurp

__all__ = [
    "BEHAVIOURS",
    "Actor",
    "Behaviour",
    "Byzantine",
    "Delay",
    "Equivocate",
    "Forge",
    "LyingClient",
    "Plot",
    "Replay",
    "Silent",
    "Usurp",
]

Behaviour = Literal["equivocate", "silent", "forge", "replay", "delay"]

BEHAVIOURS: Final[dict[Behaviour, Callable[[Actor, Authenticator, random.Random], Byzantine]]] = {
    "equivocate": Equivocate,
    "silent": Silent,
    "forge": Forge,
    "replay": Replay,
    "delay": Delay,
}
"""What makes a replica misbehave, by name."""
