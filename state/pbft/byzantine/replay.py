"""Replicas that say again what was said before."""

from __future__ import annotations

import random
from collections import deque

from msgspec.structs import replace

from state.pbft.authentication import Authenticator
from state.pbft.byzantine.actor import Actor, Byzantine
from state.pbft.events import Effect, Event, Received, Send
from state.pbft.messages import AnyMessage, Commit, NewView, Prepare, PrePrepare, ViewChange


class Replay(Byzantine):
    """Says again what was said before; `often` is how often, 0 to 1."""

    def __init__(
        self, replica: Actor, keys: Authenticator, rng: random.Random, often: float = 0.2
    ) -> None:
        super().__init__(replica, keys, rng)
        self._often = often
        self._said: deque[AnyMessage] = deque(maxlen=200)
        self._bundles: deque[bytes] = deque(maxlen=50)

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return the effects, and old words among them."""
        effects = super().step(event)
        if isinstance(event, Received):
            self._bundles += [bundle for _, bundle in event.bundles]
        for effect in list(effects):
            if not isinstance(effect, Send) or self.rng.random() >= self._often:
                continue
            peer = self.rng.choice(self.others)
            if self._bundles and self.rng.random() < 0.2:
                effects.append(Send(peer, self.rng.choice(self._bundles)))
            elif self._said:
                old = [self.rng.choice(self._said) for _ in range(self.rng.randint(1, 4))]
                effects.append(self.to(peer, *map(self._elsewhere, old)))
        return effects

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say it, and remember it."""
        self._said += messages
        return messages

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Remember it."""
        self._said += messages
        return []

    def _elsewhere(self, message: AnyMessage) -> AnyMessage:
        if self.rng.random() < 0.5:
            return message
        if isinstance(message, PrePrepare | Prepare | Commit):
            if self.rng.random() < 0.5:
                return replace(message, view=self.replica.view)
            return replace(message, seq=message.seq + self.rng.randint(1, 3))
        if isinstance(message, ViewChange | NewView):
            return replace(message, view=self.replica.view + self.rng.randint(1, 2))
        return message
