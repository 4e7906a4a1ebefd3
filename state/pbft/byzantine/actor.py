"""A replica as others see it, and one whose words are changed on the way out."""

from __future__ import annotations

import random
from typing import Protocol

import msgspec
from msgspec.structs import replace

from state.pbft.authentication import MAC_BYTES, Authenticator, close
from state.pbft.events import Effect, Event, Phase, Received, Send, Settings
from state.pbft.group import Group
from state.pbft.messages import AnyMessage, MessageError, Reply, decode, digest
from state.pbft.replica import Standing


class Actor(Protocol):
    """A replica as others see it, whether it is correct or not."""

    name: str
    group: Group
    settings: Settings

    @property
    def view(self) -> int:
        """The view it is in."""

    @property
    def active(self) -> bool:
        """Whether that view has begun."""

    @property
    def wake_at(self) -> float:
        """When it wants a `Tick`."""

    def step(self, event: Event) -> list[Effect]:
        """Take an event, return effects."""

    def standing(self) -> Standing:
        """Return how it stands."""


class Byzantine:
    """A replica whose words are changed on the way out; this one's are not yet.

    Args:
        replica: What it would be if it were correct.
        keys: Its own.
        rng: Of all its chance.
    """

    def __init__(self, replica: Actor, keys: Authenticator, rng: random.Random) -> None:
        self.replica = replica
        self.keys = keys
        self.rng = rng
        self.name = replica.name
        self.group = replica.group
        self.settings = replica.settings
        self.others = self.group.others(self.name)

    @property
    def view(self) -> int:
        """The view it is in."""
        return self.replica.view

    @property
    def active(self) -> bool:
        """Whether that view has begun."""
        return self.replica.active

    @property
    def wake_at(self) -> float:
        """When it wants a `Tick`."""
        return self.replica.wake_at

    def standing(self) -> Standing:
        """Return how the replica in it stands."""
        return self.replica.standing()

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return the effects, with other words in them."""
        effects: list[Effect] = []
        for effect in self.replica.step(event):
            if isinstance(effect, Send):
                said = self.instead(effect.to, decode(effect.data[MAC_BYTES:]))
                if said:
                    effects.append(Send(effect.to, close(self.keys, effect.to, said)))
            else:
                effects.append(effect)
        if isinstance(event, Received):
            for sender, bundle in event.bundles:
                try:
                    heard = decode(bundle[MAC_BYTES:])
                except MessageError:
                    continue
                effects += self.heard(sender, heard)
        return effects

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Return what to say to `to` in the place of `messages`."""
        return messages

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Return what to say besides, to a sender or anyone."""
        return []

    def leads(self, view: int) -> bool:
        """Return whether it is the primary of a view."""
        return self.group.primary(view) == self.name

    def invented(self) -> bytes:
        """Return a digest of nothing."""
        return self.rng.randbytes(32)

    def false_reply(self, reply: Reply) -> Reply:
        """Return other results, with their digest, as if they were committed."""
        results = [self.rng.randbytes(16) for _ in reply.results or [b""]]
        known = digest("results", msgspec.msgpack.encode(results))
        return replace(reply, phase=Phase.COMMITTED, digest=known, results=results)

    def to(self, peer: str, *messages: AnyMessage) -> Effect:
        """Return a bundle for a peer."""
        return Send(peer, close(self.keys, peer, list(messages)))
