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

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import bytewax.operators as op
import msgspec
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from state import gossip as protocol
from state.gossip import (
    Deliver,
    Effect,
    Event,
    Fact,
    Leave,
    Peer,
    Publish,
    Published,
    Range,
    Received,
    Restore,
    Send,
    Settings,
    SnapshotTaken,
    StableAdvanced,
    Start,
    Superseded,
    TakeSnapshot,
    Tick,
    Update,
)
from state.mergeable import seal, unseal

_KIND, _VERSION = "gossip-replica", 2


class Heard(NamedTuple):
    """A message of another peer."""

    sender: str
    """The address under which it is a member; the transport vouches for it."""
    data: bytes


class Say(NamedTuple):
    """A message to another peer."""

    to: str
    """Its address."""
    data: bytes
    reliable: bool
    """Whether the transport should send it again when it is lost."""


class Begin(NamedTuple):
    """Start the peer; in the middle of its life: start it anew, with the replica as it is.

    Args:
        address: Where others reach it, as the transport writes it.
        incarnation: Greater than any before, under this name: a clock's milliseconds do.
        bootstrap: Addresses of members of the group; none for the first one.
    """

    address: str
    incarnation: int
    bootstrap: tuple[str, ...] = ()


class Edit(NamedTuple):
    """An operation on the replica, in whatever form it takes them."""

    operation: Any
    origin: str = ""
    """Where it comes from, for whoever reads of its refusal."""


class Look(NamedTuple):
    """Emit the replica's state, as `State`."""


class Expel(NamedTuple):
    """Tell the group that a member is gone for good, so that no one waits for it any longer."""

    member: str
    """Its name."""
    origin: str = ""
    """Where this comes from, for whoever reads of its refusal."""


class Finish(NamedTuple):
    """Tell the others, hand over what they lack, and leave."""


class State(NamedTuple):
    """What a replica was when it was asked for by `Look`."""

    state: bytes
    seen: dict[str, int]
    """For each replica id, up to which number all its updates are in it."""
    neighbours: tuple[str, ...]


class Refused(NamedTuple):
    """An edit, an update or an expulsion that could not be carried out; nothing has changed."""

    source: str
    """The replica whose update it was; for a command, the peer's name."""
    content: Any
    reason: str
    origin: str = ""
    """The command's."""


PeerCommand = Begin | Edit | Look | Expel | Finish


class Replica(Protocol):
    """A state that is edited here, and elsewhere."""

    def edit(self, operation: Any, now_ms: int) -> bytes | None:
        """Carry out an operation; return what other replicas need to know of it, if anything.

        Raises:
            ValueError: it is no operation that can be carried out; nothing has changed.
        """

    def deliver(self, update: bytes) -> None:
        """Take in another replica's update, in any order.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """

    def to_bytes(self) -> bytes:
        """Return the whole state."""

    def restore(self, state: bytes, *, replace: bool) -> None:
        """Merge another replica's whole state, or put it in the place of this one.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """

    def compact(self, cut: Mapping[str, int]) -> None:
        """Forget what is not needed once every replica knows these updates.

        Args:
            cut: For each replica id, how many of its updates every member knows.
        """

    def changes(self) -> Sequence[Any]:
        """Return what has changed since the last call, in order, to be emitted."""


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

    def resume(saved: bytes | None) -> _Node:
        return _Node(saved, replica, settings or Settings(), seed, clock, wall)

    inputs = op.merge("inputs", messages, commands)
    # The logic is not told its key.
    named = op.map("named", inputs, lambda item: (item[0], item))
    every = op.stateful_batch("peer", named, resume)

    def only(kind: type) -> Callable[[_Out], Any]:
        return lambda out: out.item if type(out) is kind else None

    return GossipOut(
        op.filter_map_value("say", every, only(_Said)),
        op.filter_map_value("changes", every, only(_Changed)),
        op.filter_map_value("events", every, only(_Happened)),
    )


class _Out(msgspec.Struct, frozen=True):
    item: Any


class _Said(_Out, frozen=True):
    pass


class _Changed(_Out, frozen=True):
    pass


class _Happened(_Out, frozen=True):
    pass


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """What one life of a peer leaves to the next."""

    incarnation: int
    state: bytes
    seen: list[Range]
    log: list[Update]
    stable: dict[str, int]
    members: list[Fact]


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot: an earlier life, if there was one, and the edits that wait for the next."""

    saved: _Saved | None
    waiting: list[Edit]


class _Node(StatefulBatchLogic[tuple[str, Any], _Out, bytes]):
    """A peer and its replica."""

    def __init__(
        self,
        saved: bytes | None,
        replica: Callable[[str, bytes | None], Replica],
        settings: Settings,
        seed: int | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._make, self._settings, self._seed = replica, settings, seed
        self._clock, self._wall = clock, wall
        self._peer: Peer | None = None
        self._replica: Replica | None = None
        self._begin: Begin | None = None
        self._saved: _Saved | None = None
        self._waiting: list[Edit] = []
        self._out: list[_Out] = []
        if saved is not None:
            version, payload = unseal(_KIND, saved, versions={1, _VERSION})
            if version == 1:
                self._saved = msgspec.msgpack.decode(payload, type=_Saved | None)
            else:
                kept = msgspec.msgpack.decode(payload, type=_Kept)
                self._saved, self._waiting = kept.saved, kept.waiting

    @override
    def on_batch(self, values: list[tuple[str, Any]]) -> tuple[list[_Out], bool]:
        for name, item in values:
            if isinstance(item, Heard):
                if self._peer is not None:
                    self._step(Received(self._clock(), item.sender, item.data))
            elif isinstance(item, Begin):
                self._start(name, item)
                waiting, self._waiting = self._waiting, []
                for edit in waiting:
                    self._edit(name, edit)
            elif self._peer is None and isinstance(item, Edit):
                self._waiting.append(item)
            elif self._peer is None:
                raise ValueError(f"peer {name!r} got {type(item).__name__} before Begin")
            elif isinstance(item, Edit):
                self._edit(name, item)
            elif isinstance(item, Look):
                self._look()
            elif isinstance(item, Expel):
                self._expel(name, item)
            elif isinstance(item, Finish):
                self._step(Leave(self._clock()))
            else:
                raise TypeError(f"peer {name!r} got {item!r}: a message or a command is wanted")
        return self._drain()

    @override
    def on_notify(self) -> tuple[list[_Out], bool]:
        if self._peer is not None:
            self._step(Tick(self._clock()))
        return self._drain()

    @override
    def notify_at(self) -> datetime | None:
        if self._peer is None or math.isinf(self._peer.wake_at):
            return None
        return datetime.now(UTC) + timedelta(seconds=max(self._peer.wake_at - self._clock(), 0))

    @override
    def snapshot(self) -> bytes:
        return seal(_KIND, _VERSION, msgspec.msgpack.encode(_Kept(self._save(), self._waiting)))

    def _drain(self) -> tuple[list[_Out], bool]:
        if self._replica is not None:
            self._out += map(_Changed, self._replica.changes())
        out, self._out = self._out, []
        return out, StatefulBatchLogic.RETAIN

    def _save(self) -> _Saved | None:
        peer, replica = self._peer, self._replica
        if peer is None or replica is None:
            return self._saved
        stable = peer.stable()
        own = [
            update
            for update in peer.log()
            if update.origin.partition("#")[0] == peer.name
            and update.seq > stable.get(update.origin, 0)
        ]
        state = replica.to_bytes()
        return _Saved(peer.incarnation, state, peer.seen(), own, stable, peer.facts())

    def _start(self, name: str, begin: Begin) -> None:
        saved, self._saved = self._save(), None
        if self._replica is not None:
            self._out += map(_Changed, self._replica.changes())
        earlier = -1 if saved is None else saved.incarnation
        incarnation = max(begin.incarnation, earlier + 1)
        self._begin = begin
        now = self._clock()
        self._replica = self._make(f"{name}#{incarnation}", saved.state if saved else None)
        self._peer = Peer(
            name,
            begin.address,
            incarnation,
            rng=random.Random(None if self._seed is None else f"{self._seed} {name}"),
            now=now,
            settings=self._settings,
            seen=saved.seen if saved else (),
            log=saved.log if saved else (),
            stable=saved.stable if saved else None,
            members=saved.members if saved else (),
        )
        self._step(Start(now, begin.bootstrap))

    def _look(self) -> None:
        assert self._replica is not None
        assert self._peer is not None
        seen, neighbours = self._peer.vector(), self._peer.neighbours
        self._out.append(_Happened(State(self._replica.to_bytes(), seen, neighbours)))

    def _edit(self, name: str, edit: Edit) -> None:
        assert self._replica is not None
        assert self._peer is not None
        try:
            if not self._peer.publishes:
                raise ValueError("the peer has left")
            update = self._replica.edit(edit.operation, int(self._wall() * 1000))
        except ValueError as error:
            refused = Refused(name, edit.operation, str(error), edit.origin)
            self._out.append(_Happened(refused))
            return
        if update is not None:
            self._step(Publish(self._clock(), update))

    def _expel(self, name: str, expel: Expel) -> None:
        try:
            self._step(protocol.Expel(self._clock(), expel.member))
        except ValueError as error:
            refused = Refused(name, expel.member, str(error), expel.origin)
            self._out.append(_Happened(refused))

    def _step(self, event: Event) -> None:
        assert self._peer is not None
        for effect in self._peer.step(event):
            self._carry_out(effect)

    def _give_snapshot(self, to: str, state: bytes) -> None:
        try:
            self._step(SnapshotTaken(self._clock(), to, state))
        except ValueError as error:
            refused = Refused("snapshot", None, f"{to} is not sent the state: {error}")
            self._out.append(_Happened(refused))

    def _carry_out(self, effect: Effect) -> None:
        peer, replica, begin = self._peer, self._replica, self._begin
        assert peer is not None
        assert replica is not None
        assert begin is not None
        if isinstance(effect, Send):
            self._out.append(_Said(Say(effect.to, effect.data, effect.reliable)))
        elif isinstance(effect, Deliver):
            for update in effect.updates:
                try:
                    replica.deliver(update.payload)
                except ValueError as error:
                    refused = Refused(update.origin, update.payload, str(error))
                    self._out.append(_Happened(refused))
        elif isinstance(effect, TakeSnapshot):
            self._give_snapshot(effect.to, replica.to_bytes())
        elif isinstance(effect, Restore):
            try:
                replica.restore(effect.state, replace=effect.replace)
            except ValueError as error:
                self._out.append(_Happened(Refused("snapshot", effect.state, str(error))))
        elif isinstance(effect, Superseded):
            self._start(peer.name, begin._replace(incarnation=effect.incarnation + 1))
        else:
            if isinstance(effect, StableAdvanced):
                replica.compact(effect.cut)
            if not isinstance(effect, Published):
                self._out.append(_Happened(effect))
