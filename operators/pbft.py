"""Byzantine agreement as an operator: replicas that execute the same batches in the same order.

`pbft_replica` runs one :class:`~state.pbft.Replica` for each key. Its streams are keyed by the
local replica's name, so that one flow can hold one replica or a whole group:

    inputs      Begin("n1"), then what peers say: Heard("n2", b"..."), or a mesh's own messages
        |
    pbft_replica
        |
    say         what is to be sent: Say("n2", b"..."), or a mesh's own messages
    committed   Committed: batches that are final, in order
    events      views, stable checkpoints, transfers, evidence, what was refused; Standing

All messages that one activation of the flow brings are one `Received`, so what they make the
replica say to a peer is one bundle.

**The log, and not the flow's snapshot, is the memory of a replica.** A vote must be on the disk
before it is sent, and a snapshot is written when its epoch ends: a replica that went on from the
last one would have forgotten what it said since, and might say the opposite. So the caller gives
a :class:`Log` for each replica (`connectors.vote_log.VoteLog` is one), which the operator writes
before it lets go of a message. A snapshot of the flow holds the replica's view and its last stable
checkpoint, and nothing more:

    resume with the log                     goes on where the log ends, however old the snapshot is
    resume with no log, or an older one     is refused with :class:`LogLost`: the replica may have
                                            voted in what is missing. Under another name, in a new
                                            roster, it can take part and is sent the state
    a log and no snapshot                   goes on where the log ends: nothing else is needed

A log that lacks only votes since its last checkpoint looks like one that was never longer: that it
is whole is for the log to see to. What was on its way when a process died is lost, as the network
may lose it; replicas ask again.

`committed` after a restart begins anew behind the last stable checkpoint, so a batch may come
again: its `seq` tells. None is left out but for what a state transfer has brought (`Transferred`):
before a log forgets a batch, that has been handed to the steps below.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import bytewax.operators as op
import msgspec
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from state.mergeable import seal, unseal
from state.pbft import (
    Committed,
    Effect,
    Event,
    Persist,
    Received,
    Rewrite,
    Send,
    Standing,
    Start,
    Tick,
    Transferred,
)
from state.pbft.byzantine import Actor

_KIND, _VERSION = "pbft-replica", 1
_REPORT = 0.25
"""Seconds between two `Standing`, at least."""


class Heard(NamedTuple):
    """A message of a peer."""

    peer: str
    """Who sent it, as the transport says; its MAC is checked."""
    data: bytes


class Say(NamedTuple):
    """A message to a peer."""

    peer: str
    data: bytes


class Begin(NamedTuple):
    """Start the replica or client of this name, which is also the key of the item."""

    name: str


class Message(Protocol):
    """What peers said, in whatever form the transport has it."""

    @property
    def peer(self) -> str:
        """Who sent it."""

    @property
    def data(self) -> bytes:
        """A bundle."""


class Log(Protocol):
    """The durable memory of one replica."""

    def read(self) -> Sequence[bytes]:
        """Return all records, in order."""

    def append(self, records: Sequence[bytes]) -> None:
        """Add records; they survive a crash once this returns."""

    def rewrite(self, records: Sequence[bytes]) -> None:
        """Put records in the place of all others, at once or not at all."""

    def close(self) -> None:
        """Let go of it."""


class LogLost(ValueError):
    """A snapshot is ahead of the vote log that came with it: the replica must not go on."""


@dataclass(frozen=True, slots=True)
class ReplicaOut:
    """What `pbft_replica` emits, keyed by the local replica's name."""

    say: KeyedStream[Any]
    """What `outgoing` makes, for each message."""
    committed: KeyedStream[Committed]
    events: KeyedStream[Any]
    """`Standing` when it has changed, at most four times a second; and of `state.pbft`:
    `ViewEntered`, `ViewAbandoned`, `Stable`, `Transferred`, `Diverged`, `Evidence`, `Rejected`."""


@operator
def pbft_replica(
    step_id: str,
    inputs: KeyedStream[Any],
    replica: Callable[[str, Sequence[bytes]], Actor],
    log: Callable[[str], Log],
    *,
    outgoing: Callable[[str, bytes], Any] = Say,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> ReplicaOut:
    """Take part in a replicated state machine that bears liars.

    Messages that come before a replica's `Begin` are dropped, as the network may drop any.

    Args:
        step_id: Unique name.
        inputs: What peers said, each a `Message`; a `Begin` first, each time that the flow is
            started.
        replica: Makes a replica from its name and the records of its log.
        log: Opens a replica's log.
        outgoing: Makes the item for a message from the receiver's name and the bytes.
        clock: Seconds that never run backwards.
        wall: Seconds since 1970, which the primary proposes as the time of its batches.

    Returns:
        What is to be sent, what was agreed on, and what happened.

    Raises:
        LogLost: while the flow runs, when a snapshot is ahead of its log.
        ValueError: the log makes no sense, a replica begins twice, or its `Begin` has another name.
    """

    def resume(saved: bytes | None) -> _Node:
        return _Node(saved, replica, log, outgoing, clock, wall)

    every = op.stateful_batch("replica", inputs, resume)
    return ReplicaOut(
        op.flat_map_value("say", every, lambda out: out.said),
        op.flat_map_value("committed", every, _Out.all_committed),
        op.flat_map_value("events", every, _Out.all_events),
    )


@dataclass(slots=True)
class _Way:
    """How much was returned that the log may forget, and how much of it is in the steps below.

    They get it when an activation of the replica's step ends, which may call the logic many times.
    """

    given: int = 0
    gone: int = 0


@dataclass(slots=True)
class _Out:
    """What one call of the logic leads to."""

    said: list[Any]
    committed: list[Committed]
    events: list[Any]
    way: _Way

    def __bool__(self) -> bool:
        return bool(self.said or self.committed or self.events)

    @property
    def tells(self) -> int:
        """How many of the two streams have something that is told but once."""
        moved = any(isinstance(event, Transferred) for event in self.events)
        return 2 if self.committed or moved else 0

    def all_committed(self) -> list[Committed]:
        """Return what is in one of the streams below; it is on its way."""
        self.way.gone += self.tells // 2
        return self.committed

    def all_events(self) -> list[Any]:
        """Return what is in the other one."""
        self.way.gone += self.tells // 2
        return self.events


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """How far a replica is known to have been."""

    name: str
    view: int
    stable: int


class _Node(StatefulBatchLogic[Any, _Out, bytes]):
    """A replica, its log, and the messages that wait for the log."""

    def __init__(
        self,
        saved: bytes | None,
        replica: Callable[[str, Sequence[bytes]], Actor],
        log: Callable[[str], Log],
        say: Callable[[str, bytes], Any],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._make, self._open, self._say = replica, log, say
        self._clock, self._wall = clock, wall
        self._replica: Actor | None = None
        self._log: Log | None = None
        self._held: list[Effect] = []
        """A new log, and what may not leave before it is written."""
        self._way = _Way()
        self._later: list[tuple[str, bytes]] = []
        """Messages that came while something is held."""
        self._standing: Standing | None = None
        self._report_at = math.inf
        self._saved: _Saved | None = None
        if saved is not None:
            _, payload = unseal(_KIND, saved, versions={_VERSION})
            self._saved = msgspec.msgpack.decode(payload, type=_Saved | None)

    @override
    def on_batch(self, values: list[Any]) -> tuple[Iterable[_Out], bool]:
        out = _Out([], [], [], self._way)
        bundles = []
        for item in values:
            if type(item) is Begin:
                self._begin(item.name, out)
            else:
                bundles.append((item.peer, item.data))
        if bundles and self._replica is not None:
            self._hear(bundles, out)
        return self._emit(out)

    @override
    def on_notify(self) -> tuple[Iterable[_Out], bool]:
        out = _Out([], [], [], self._way)
        if self._replica is not None and self._release(out):
            later, self._later = self._later, []
            if later:
                self._hear(later, out)
            else:
                self._step(Tick(self._clock(), self._wall()), out)
        return self._emit(out)

    @override
    def on_eof(self) -> tuple[Iterable[_Out], bool]:
        out = _Out([], [], [], self._way)
        # What cannot be released is dropped: the old log is as good, and messages may be lost.
        self._release(out)
        if self._replica is not None:
            out.events.append(self._replica.standing())
        if self._log is not None:
            self._log.close()
            self._log = None
        return [out], StatefulBatchLogic.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        if self._replica is None or self._log is None:
            return None
        due = 0.0 if self._held else min(self._replica.wake_at, self._report_at)
        if math.isinf(due):
            return None
        return datetime.now(UTC) + timedelta(seconds=max(due - self._clock(), 0))

    @override
    def snapshot(self) -> bytes:
        # Never ahead of the log: what it has not written yet is left to the next snapshot.
        if self._replica is not None and not self._held:
            standing = self._replica.standing()
            self._saved = _Saved(self._replica.name, standing.view, standing.stable)
        return seal(_KIND, _VERSION, msgspec.msgpack.encode(self._saved))

    def _begin(self, name: str, out: _Out) -> None:
        if self._replica is not None:
            raise ValueError(f"replica {self._replica.name!r} begins twice")
        self._log = self._open(name)
        self._replica = self._make(name, self._log.read())
        if self._replica.name != name:
            raise ValueError(f"Begin({name!r}) was given replica {self._replica.name!r}")
        self._compare(self._replica)
        self._report_at = self._clock()
        self._step(Start(self._clock(), self._wall()), out)

    def _compare(self, replica: Actor) -> None:
        saved, found = self._saved, replica.standing()
        if saved is None:
            return
        if saved.name != replica.name:
            raise ValueError(f"a snapshot of replica {saved.name!r} under the key {replica.name!r}")
        if found.view < saved.view or found.stable < saved.stable:
            raise LogLost(
                f"{replica.name}: its vote log ends in view {found.view} after checkpoint "
                f"{found.stable}, but it has been in view {saved.view} after checkpoint "
                f"{saved.stable}: votes are missing, so it must not go on under this name"
            )

    def _step(self, event: Event, out: _Out) -> None:
        assert self._replica is not None
        effects = self._replica.step(event)
        if any(isinstance(effect, Rewrite) for effect in effects):
            # What is final is handed on before the log forgets it; the rest waits for the log.
            self._held = [effect for effect in effects if isinstance(effect, Rewrite | Send)]
            effects = [effect for effect in effects if not isinstance(effect, Rewrite | Send)]
        self._carry_out(effects, out)
        self._release(out)

    def _hear(self, bundles: list[tuple[str, bytes]], out: _Out) -> None:
        if self._release(out):
            self._step(Received(self._clock(), self._wall(), bundles), out)
        else:
            self._later += bundles

    def _release(self, out: _Out) -> bool:
        """Carry out what is held, if it may be; return whether nothing is held any more."""
        if self._held and (out.tells or self._way.given > self._way.gone):
            return False
        held, self._held = self._held, []
        self._carry_out(held, out)
        return True

    def _carry_out(self, effects: list[Effect], out: _Out) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                out.said.append(self._say(effect.to, effect.data))
            elif isinstance(effect, Committed):
                out.committed.append(effect)
            elif isinstance(effect, Persist):
                assert self._log is not None
                self._log.append(effect.records)
            elif isinstance(effect, Rewrite):
                assert self._log is not None
                self._log.rewrite(effect.records)
            else:
                out.events.append(effect)

    def _emit(self, out: _Out) -> tuple[Iterable[_Out], bool]:
        if self._replica is not None and self._clock() >= self._report_at:
            standing = self._replica.standing()
            self._report_at = self._clock() + _REPORT
            if standing != self._standing:
                self._standing = standing
                out.events.append(standing)
        self._way.given += out.tells
        return ([out] if out else []), StatefulBatchLogic.RETAIN
