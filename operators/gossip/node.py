"""A peer and its replica, as the stateful logic of one key."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from bytewax.operators import StatefulBatchLogic
from typing_extensions import override

from operators.gossip.items import (
    Begin,
    Edit,
    Expel,
    Finish,
    Heard,
    Look,
    Refused,
    Replica,
    Say,
    State,
)
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


class Out(msgspec.Struct, frozen=True):
    """What a node emits; its type is the stream that it is for."""

    item: Any


class Said(Out, frozen=True):
    """For `GossipOut.say`."""


class Changed(Out, frozen=True):
    """For `GossipOut.changes`."""


class Happened(Out, frozen=True):
    """For `GossipOut.events`."""


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


class Node(StatefulBatchLogic[tuple[str, Any], Out, bytes]):
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
        self._out: list[Out] = []
        if saved is not None:
            version, payload = unseal(_KIND, saved, versions={1, _VERSION})
            if version == 1:
                self._saved = msgspec.msgpack.decode(payload, type=_Saved | None)
            else:
                kept = msgspec.msgpack.decode(payload, type=_Kept)
                self._saved, self._waiting = kept.saved, kept.waiting

    @override
    def on_batch(self, values: list[tuple[str, Any]]) -> tuple[list[Out], bool]:
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
    def on_notify(self) -> tuple[list[Out], bool]:
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

    def _drain(self) -> tuple[list[Out], bool]:
        if self._replica is not None:
            self._out += map(Changed, self._replica.changes())
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
            self._out += map(Changed, self._replica.changes())
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
        self._out.append(Happened(State(self._replica.to_bytes(), seen, neighbours)))

    def _edit(self, name: str, edit: Edit) -> None:
        assert self._replica is not None
        assert self._peer is not None
        try:
            if not self._peer.publishes:
                raise ValueError("the peer has left")
            update = self._replica.edit(edit.operation, int(self._wall() * 1000))
        except ValueError as error:
            refused = Refused(name, edit.operation, str(error), edit.origin)
            self._out.append(Happened(refused))
            return
        if update is not None:
            self._step(Publish(self._clock(), update))

    def _expel(self, name: str, expel: Expel) -> None:
        try:
            self._step(protocol.Expel(self._clock(), expel.member))
        except ValueError as error:
            refused = Refused(name, expel.member, str(error), expel.origin)
            self._out.append(Happened(refused))

    def _step(self, event: Event) -> None:
        assert self._peer is not None
        for effect in self._peer.step(event):
            self._carry_out(effect)

    def _give_snapshot(self, to: str, state: bytes) -> None:
        try:
            self._step(SnapshotTaken(self._clock(), to, state))
        except ValueError as error:
            refused = Refused("snapshot", None, f"{to} is not sent the state: {error}")
            self._out.append(Happened(refused))

    def _carry_out(self, effect: Effect) -> None:
        peer, replica, begin = self._peer, self._replica, self._begin
        assert peer is not None
        assert replica is not None
        assert begin is not None
        if isinstance(effect, Send):
            self._out.append(Said(Say(effect.to, effect.data, effect.reliable)))
        elif isinstance(effect, Deliver):
            for update in effect.updates:
                try:
                    replica.deliver(update.payload)
                except ValueError as error:
                    refused = Refused(update.origin, update.payload, str(error))
                    self._out.append(Happened(refused))
        elif isinstance(effect, TakeSnapshot):
            self._give_snapshot(effect.to, replica.to_bytes())
        elif isinstance(effect, Restore):
            try:
                replica.restore(effect.state, replace=effect.replace)
            except ValueError as error:
                self._out.append(Happened(Refused("snapshot", effect.state, str(error))))
        elif isinstance(effect, Superseded):
            self._start(peer.name, begin._replace(incarnation=effect.incarnation + 1))
        else:
            if isinstance(effect, StableAdvanced):
                replica.compact(effect.cut)
            if not isinstance(effect, Published):
                self._out.append(Happened(effect))
