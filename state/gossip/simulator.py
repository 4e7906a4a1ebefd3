"""A network of peers that is not there: seeded, repeatable, as bad as it is told to be.

For tests of what is built on :class:`~state.gossip.Peer`, and to see how a group of some size and
some settings behaves before there is one. Everything follows from the seed: two runs with the same
seed and the same calls are the same, message by message.

    >>> world = Simulator(seed=1, loss=0.3)
    >>> nodes = [world.add(f"p{i}", bootstrap=["p0"]) for i in range(20)]
    >>> world.run(5.0)
    >>> nodes[7].publish(b"hello")
    Update(origin='p7#1', seq=1, payload=b'hello')
    >>> world.run_until(lambda: all(len(node.application.updates) for node in nodes), limit=5.0)
    True
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from state.gossip.events import (
    Deliver,
    Effect,
    Event,
    Leave,
    Publish,
    Published,
    Received,
    Rejected,
    Restore,
    Send,
    Settings,
    SnapshotTaken,
    StableAdvanced,
    Start,
    TakeSnapshot,
    Tick,
    Unreachable,
    Update,
)
from state.gossip.messages import Fact, Range
from state.gossip.peer import Peer
from state.simulated_time import SimulatedTime


class Application(Protocol):
    """What holds the state that a peer replicates."""

    def deliver(self, updates: list[Update]) -> None:
        """Take in updates, the node's own ones included."""

    def snapshot(self) -> bytes:
        """Return the whole state."""

    def restore(self, state: bytes, *, replace: bool) -> None:
        """Merge `state`, or put it in this state's place."""

    def compact(self, stable: Mapping[str, int]) -> None:
        """Forget what only mattered to replicas before the cut `stable`."""


class Updates:
    """The simplest application: a dict of the updates, which it never forgets."""

    def __init__(self) -> None:
        self.updates: dict[tuple[str, int], bytes] = {}
        self.delivered = 0

    def deliver(self, updates: list[Update]) -> None:
        """Add updates."""
        self.delivered += len(updates)
        for update in updates:
            self.updates[update.origin, update.seq] = update.payload

    def snapshot(self) -> bytes:
        """Return all updates."""
        lines = (
            f"{origin} {seq} {payload.hex()}"
            for (origin, seq), payload in sorted(self.updates.items())
        )
        return "\n".join(lines).encode()

    def restore(self, state: bytes, *, replace: bool) -> None:
        """Add all updates of another one, or take only those."""
        if replace:
            self.updates.clear()
        for line in state.decode().splitlines():
            origin, seq, payload = line.split(" ")
            self.updates[origin, int(seq)] = bytes.fromhex(payload)

    def compact(self, stable: Mapping[str, int]) -> None:
        """Do nothing: updates are never forgotten."""


class Node:
    """One peer with its application, in a :class:`Simulator`.

    Attributes:
        peer: The peer.
        application: What holds its state.
        skew: What its clock shows, less the true time.
        up: Whether it runs; a node that is not up gets nothing.
        effects: How many effects of each type it had, by name.
    """

    def __init__(self, world: Simulator, peer: Peer, application: Application, skew: float) -> None:
        self._world = world
        self.peer = peer
        self.application = application
        self.skew = skew
        self.up = True
        self.effects: Counter[str] = Counter()
        self._wake = float("inf")

    @property
    def address(self) -> str:
        """The address, which is also the member's name."""
        return self.peer.address

    def publish(self, payload: bytes) -> Update:
        """Publish an update, which the node's own application gets as well."""
        published = [
            effect.update
            for effect in self.step(Publish(self._world.now + self.skew, payload))
            if isinstance(effect, Published)
        ]
        return published[0]

    def leave(self) -> None:
        """Leave the group in good order."""
        self.step(Leave(self._world.now + self.skew))

    def step(self, event: Event) -> list[Effect]:
        """Have the peer take `event`, see to the effects, and return them."""
        effects = self.peer.step(event)
        for effect in effects:
            self._see_to(effect)
        self._set_alarm()
        return effects

    def _set_alarm(self) -> None:
        wake = self.peer.wake_at - self.skew
        if wake < self._wake:
            self._wake = wake
            self._world.schedule(wake, lambda: self._tick(wake))

    def _tick(self, at: float) -> None:
        if at != self._wake or not self.up:
            return
        self._wake = float("inf")
        due = self.peer.wake_at
        if due - self.skew > self._world.now:
            self._set_alarm()  # the peer has moved its timer since
            return
        # Adding what was taken away does not give the same float: that would be too early for ever.
        self.step(Tick(max(self._world.now + self.skew, due)))

    def _see_to(self, effect: Effect) -> None:
        world, application = self._world, self.application
        self.effects[type(effect).__name__] += 1
        if isinstance(effect, Send):
            world.send(self, effect)
        elif isinstance(effect, Deliver):
            application.deliver(effect.updates)
        elif isinstance(effect, Published):
            application.deliver([effect.update])
        elif isinstance(effect, Restore):
            application.restore(effect.state, replace=effect.replace)
        elif isinstance(effect, TakeSnapshot):
            now = world.now + self.skew
            self.step(SnapshotTaken(now, effect.to, application.snapshot()))
        elif isinstance(effect, StableAdvanced):
            application.compact(effect.cut)
        elif isinstance(effect, Rejected):
            raise AssertionError(f"{self.address} rejected {effect.sender}: {effect.reason}")


class Simulator(SimulatedTime):
    """Peers, and a network between them that loses, delays, doubles and cuts.

    Args:
        seed: Of all chance in the run.
        loss: The share of datagrams that are lost.
        latency: The least and the greatest delay of a message, in seconds.
        duplicated: The share of datagrams that arrive twice.
        reliable: Whether reliable messages always arrive (later, for what was lost on the way);
            if not, they are lost like datagrams. To a node that is down or cut off they never
            do, and the sender is told so.
        settings: Of all peers.
    """

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.0,
        latency: tuple[float, float] = (0.01, 0.05),
        duplicated: float = 0.0,
        reliable: bool = True,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.seed = seed
        self.loss = loss
        self.latency = latency
        self.duplicated = duplicated
        self.reliable = reliable
        self.settings = settings if settings is not None else Settings()
        self.nodes: dict[str, Node] = {}
        self.messages = 0
        self.bytes = 0
        self._sides: dict[str, int] = {}

    def add(
        self,
        name: str,
        *,
        incarnation: int = 1,
        bootstrap: Iterable[str] = (),
        application: Application | None = None,
        skew: float = 0.0,
        seen: Iterable[Range] = (),
        log: Iterable[Update] = (),
        stable: Mapping[str, int] | None = None,
        members: Iterable[Fact] = (),
    ) -> Node:
        """Start a peer; its address is its name. One that was there before is replaced."""
        peer = Peer(
            name,
            name,
            incarnation,
            rng=random.Random(self.random.getrandbits(64)),
            now=self.now + skew,
            settings=self.settings,
            seen=seen,
            log=log,
            stable=stable,
            members=members,
        )
        node = Node(self, peer, application if application is not None else Updates(), skew)
        old = self.nodes.get(name)
        if old is not None:
            old.up = False
        self.nodes[name] = node
        node.step(Start(self.now + skew, tuple(bootstrap)))
        return node

    def kill(self, name: str) -> Node:
        """Stop a node at once; return what is left of it."""
        node = self.nodes[name]
        node.up = False
        return node

    def split(self, *sides: Iterable[str]) -> None:
        """Cut the network: nodes reach those of their own side only.

        Those that are on no side reach each other.
        """
        self._sides = {name: i for i, side in enumerate(sides) for name in side}

    def heal(self) -> None:
        """Undo :meth:`split`."""
        self._sides = {}

    def up(self) -> list[Node]:
        """Return the nodes that run."""
        return [node for node in self.nodes.values() if node.up and node.peer.running]

    # -- messages ---------------------------------------------------------------------------------

    def send(self, source: Node, effect: Send) -> None:
        """Put a message on its way."""
        self.messages += 1
        self.bytes += len(effect.data)
        chance = self.random.random
        delay = self._delay()
        reliable = effect.reliable and self.reliable
        if reliable:
            while chance() < self.loss:
                delay += 2 * self.latency[1]
        elif chance() < self.loss:
            return
        self._later(source, effect, delay, reliable)
        if not reliable and self.duplicated and chance() < self.duplicated:
            self._later(source, effect, self._delay(), reliable=False)

    def _delay(self) -> float:
        least, most = self.latency
        return least + (most - least) * self.random.random()

    def _later(self, source: Node, effect: Send, delay: float, reliable: bool) -> None:
        self.schedule(self.now + delay, lambda: self._arrive(source, effect, reliable))

    def _arrive(self, source: Node, effect: Send, reliable: bool) -> None:
        target = self.nodes.get(effect.to)
        a, b = self._sides.get(source.address), self._sides.get(effect.to)
        if target is not None and target.up and a == b:
            target.step(Received(self.now + target.skew, source.address, effect.data))
        elif reliable and source.up:
            self.schedule(self.now + 0.5, lambda: self._fail(source, effect.to))

    def _fail(self, source: Node, address: str) -> None:
        if source.up:
            source.step(Unreachable(self.now + source.skew, address))
