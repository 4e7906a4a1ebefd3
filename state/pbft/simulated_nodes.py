"""The processes of a simulation: replicas with their disks, and clients."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from state.pbft.authentication import MAC_BYTES, Authenticator
from state.pbft.byzantine import Actor, LyingClient
from state.pbft.client import Client
from state.pbft.events import (
    Answer,
    ClientEffect,
    Event,
    Persist,
    Received,
    Rewrite,
    Send,
    Start,
    Submit,
    Tick,
)
from state.pbft.machine import StateMachine
from state.pbft.messages import Request, decode
from state.pbft.replica import Replica

if TYPE_CHECKING:
    from state.pbft.simulator import Simulator

EPOCH = 1_700_000_000.0
"""The true time when a simulation begins, seconds since 1970."""


class Node:
    """A process of a :class:`Simulator`: a clock, a mailbox, and what runs in it.

    Attributes:
        id: Its own name; two twins have one `name` and an `id` each.
        up: Whether it runs; what is sent to it meanwhile is lost.
        effects: How many of each type it had, by name.
        wall: How far its wall clock is from the true time.
    """

    def __init__(self, world: Simulator, id: str, name: str) -> None:  # noqa: A002
        self.world = world
        self.id = id
        self.name = name
        self.up = False
        self.paused = False
        self.wall = 0.0
        self.rate = 1.0
        self.offset = 0.0
        self.effects: Counter[str] = Counter()
        self.inbox: list[tuple[str, bytes]] = []
        self._alarm = math.inf

    @property
    def now(self) -> float:
        """What its clock shows that does not run backwards."""
        return self.offset + self.rate * self.world.now

    def receive(self, bundles: list[tuple[str, bytes]]) -> None:
        """Take in what has arrived."""
        if not self.up:
            return
        if self.paused:
            self.inbox += bundles
            return
        now, wall = self.now, EPOCH + self.world.now + self.wall
        self.take(Received(now, wall, bundles))

    def pause(self) -> None:
        """Stop the process for a while; it does not know."""
        self.paused = True

    def resume(self) -> None:
        """Go on; all that has arrived meanwhile is there at once."""
        self.paused = False
        bundles, self.inbox = self.inbox, []
        self._alarm = math.inf
        if self.up:
            self.receive(bundles)

    def take(self, event: Any) -> None:
        """Have what runs here take an event."""
        raise NotImplementedError

    def _wake_at(self) -> float:
        raise NotImplementedError

    def _set_alarm(self) -> None:
        wake = (self._wake_at() - self.offset) / self.rate
        if wake < self._alarm:
            self._alarm = wake
            self.world.schedule(wake, lambda: self._ring(wake))

    def _ring(self, at: float) -> None:
        if at != self._alarm or not self.up or self.paused:
            return
        self._alarm = math.inf
        due = self._wake_at()
        if (due - self.offset) / self.rate > self.world.now:
            self._set_alarm()  # it has moved its timer since
            return
        # Converting back and forth does not give the same float: it would be early for ever.
        self.take(Tick(max(self.now, due), EPOCH + self.world.now + self.wall))


class ReplicaNode(Node):
    """A replica, its machine and its disk.

    Attributes:
        disk: The vote log: what is left of it after a crash.
        replica: What runs, in this life; None before the first.
        correct: Whether the invariants hold for it.
    """

    def __init__(
        self,
        world: Simulator,
        id: str,  # noqa: A002
        name: str,
        wrap: Callable[[Replica, Authenticator, random.Random], Actor] | None,
    ) -> None:
        super().__init__(world, id, name)
        self.wrap = wrap
        self.correct = wrap is None
        self.disk: list[bytes] = []
        self.replica: Actor | None = None
        self.machine: StateMachine = world.machine()
        self.lives = 0
        self._fuse: int | None = None

    def start(self) -> None:
        """Start from what is on the disk, with a clock that has nothing to do with the last."""
        world = self.world
        self.lives += 1
        self.up, self.paused, self.inbox, self._alarm = True, False, [], math.inf
        self._fuse = None
        self.machine = world.machine()
        keys = world.keys[self.name]
        replica = Replica(
            world.group, keys, self.machine, settings=world.settings, clients=world.known_clients,
            log=list(self.disk),
        )  # fmt: skip
        self.replica = replica
        if self.wrap is not None:
            self.replica = self.wrap(replica, keys, random.Random(world.random.random()))
        if self.correct:
            world.judge.started(self.id)
        self.take(Start(self.now, EPOCH + world.now + self.wall))

    def crash(self) -> None:
        """Lose everything but the disk."""
        self.up = False
        self._fuse = None

    def crash_soon(self, effects: int | None) -> None:
        """Crash when so many more effects were carried out, maybe amid those of one step.

        None: not after all.
        """
        self._fuse = effects

    def take(self, event: Event) -> None:
        """Have the replica take an event, and carry out its effects in order."""
        assert self.replica is not None
        world = self.world
        for effect in self.replica.step(event):
            if self._fuse is not None:
                self._fuse -= 1
                if self._fuse < 0:
                    if isinstance(effect, Persist):  # torn: some of the records are whole
                        self.disk += effect.records[: world.random.randint(0, len(effect.records))]
                        world.happened["torn"] += 1
                    self.crash()
                    return
            self.effects[type(effect).__name__] += 1
            if isinstance(effect, Send):
                world.send(self, effect)
            elif isinstance(effect, Persist):
                self.disk += effect.records
            elif isinstance(effect, Rewrite):
                self.disk = list(effect.records)
            elif self.correct:
                world.observe(self, effect)
        self._set_alarm()

    def _wake_at(self) -> float:
        assert self.replica is not None
        return self.replica.wake_at


class ClientNode(Node):
    """A client, which runs from the start and does not crash."""

    def __init__(self, world: Simulator, name: str, *, first: int = 1) -> None:
        super().__init__(world, name, name)
        self.up = True
        self.client = Client(
            world.group, world.keys[name], first=first, now=self.now, settings=world.settings
        )

    def submit(self, operations: list[bytes]) -> None:
        """Have operations carried out, one after the other."""
        self.take(Submit(self.now, operations))

    def take(self, event: Received | Tick | Submit) -> None:
        """Have the client take an event, and see to the effects."""
        world = self.world
        effects: list[ClientEffect] = self.client.step(event)
        for effect in effects:
            self.effects[type(effect).__name__] += 1
            if isinstance(effect, Send):
                for message in decode(effect.data[MAC_BYTES:]):
                    if isinstance(message, Request):
                        world.judge.requested(message)
                world.send(self, effect)
            elif isinstance(effect, Answer):
                world.judge.answered(self.name, effect)
        self._set_alarm()

    def _wake_at(self) -> float:
        return self.client.wake_at


class LiarNode(Node):
    """A client that lies, whenever it is told to, and hears nothing."""

    def __init__(self, world: Simulator, name: str) -> None:
        super().__init__(world, name, name)
        rng = random.Random(f"liar {world.seed} {name}")
        self.client = LyingClient(
            world.group, world.keys[name], rng, world.settings, world.client_names
        )

    def lie(self) -> None:
        """Say what no correct client says."""
        sends = self.client.lie()
        for request in self.client.signed:
            self.world.judge.requested(request)
        self.client.signed.clear()
        self.world.happened["lies"] += 1
        for each in sends:
            self.world.send(self, each)
