"""Gossip as an operator: replicas that reach the same state with no centre.

`gossip_round` runs one :class:`~state.gossip.Peer` and one replica for each key. Its streams are
keyed by the local peer's name, so that one flow can hold one peer or a whole group:

    messages    Heard("b@10.0.0.2:7000", b"...")     what other peers said (from a mesh)
    commands    Begin(...), then Edit(...), Look() and Expel(...), at last Finish()
        |
    gossip_round
        |
    say         Say("b@10.0.0.2:7000", b"...")       what is to be sent (to a mesh)
    changes     whatever the replica reports of its own and of others' edits
    events      members that come and go, messages and edits that were refused, stable cuts, states

A *replica* is what is replicated; `state.crdt` has some. An edit makes an update, the peer spreads
it, and every other replica takes it in exactly once for each life of its peer, in any order.

Restart: a snapshot holds the replica, which updates are in it, and those of its own that may not
be known everywhere yet. A peer that is resumed begins a new incarnation when the next `Begin`
comes, gives these to others, and catches up by anti-entropy. So edits survive that were in a
snapshot or had left; an edit that the input repeats after a crash is made again, which matters
where making it twice is not the same as once (a counter's).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.gossip.items import (
    Begin,
    Edit,
    Expel,
    Finish,
    Heard,
    Look,
    PeerCommand,
    Refused,
    Replica,
    Say,
    State,
)
from operators.gossip.node import Changed, Happened, Node, Out, Said
from state.gossip import Settings


@dataclass(frozen=True, slots=True)
class GossipOut:
    """What `gossip_round` emits, keyed by the local peer's name."""

    say: KeyedStream[Say]
    changes: KeyedStream[Any]
    events: KeyedStream[Any]
    """`Refused`, `State`, and of `state.gossip`: members that come and go, neighbours, `Rejected`,
    `StableAdvanced`, `Stopped`."""


@operator
def gossip_round(
    step_id: str,
    messages: KeyedStream[Heard],
    commands: KeyedStream[PeerCommand],
    replica: Callable[[str, bytes | None], Replica],
    *,
    settings: Settings | None = None,
    seed: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> GossipOut:
    """Replicate by gossip.

    Messages that come before a peer's `Begin` are dropped, as the network may drop any. Edits that
    come before it wait for it (in a snapshot too, for which they must be plain values), as they may
    come from another source; any other command before it is an error.

    Args:
        step_id: Unique name.
        messages: What other peers said.
        commands: What the local peers are to do.
        replica: Makes a replica from its replica id (unique for each incarnation) and the bytes
            of its state, or None for an empty one.
        settings: Of gossip; the same for all peers of a group.
        seed: Of chance, together with the peer's name; None takes the system's.
        clock: Seconds that never run backwards.
        wall: Seconds since 1970, for the time stamps of edits.

    Returns:
        What is to be sent, what changed, and what happened.
    """

    def resume(saved: bytes | None) -> Node:
        return Node(saved, replica, settings or Settings(), seed, clock, wall)

    inputs = op.merge("inputs", messages, commands)
    # The logic is not told its key.
    named = op.map("named", inputs, lambda item: (item[0], item))
    every = op.stateful_batch("peer", named, resume)

    def only(kind: type) -> Callable[[Out], Any]:
        return lambda out: out.item if type(out) is kind else None

    return GossipOut(
        op.filter_map_value("say", every, only(Said)),
        op.filter_map_value("changes", every, only(Changed)),
        op.filter_map_value("events", every, only(Happened)),
    )


__all__ = [
    "Begin",
    "Edit",
    "Expel",
    "Finish",
    "GossipOut",
    "Heard",
    "Look",
    "PeerCommand",
    "Refused",
    "Replica",
    "Say",
    "State",
    "gossip_round",
]
