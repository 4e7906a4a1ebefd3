"""Replicas that say nothing, or say it late."""

from __future__ import annotations

import random
from collections import deque
from typing import Literal

from state.pbft.authentication import Authenticator
from state.pbft.byzantine.actor import Actor, Byzantine
from state.pbft.events import Effect, Event, Send
from state.pbft.messages import AnyMessage


class Silent(Byzantine):
    """Says nothing.

    Args:
        replica: See :class:`Byzantine`.
        keys: The same.
        rng: The same.
        towards: To "all", to "some" that it chooses, or to all while it leads ("leader").
    """

    def __init__(
        self,
        replica: Actor,
        keys: Authenticator,
        rng: random.Random,
        towards: Literal["all", "some", "leader"] = "all",
    ) -> None:
        super().__init__(replica, keys, rng)
        self._towards = towards
        self._ignored = frozenset(rng.sample(self.others, rng.randint(1, len(self.others))))

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say nothing."""
        if self._towards == "all":
            return []
        if self._towards == "some":
            return [] if to in self._ignored else messages
        return [] if self.leads(self.replica.view) else messages


class Delay(Byzantine):
    """Says everything late: `share` of the timeout after which others give up on a view."""

    def __init__(
        self, replica: Actor, keys: Authenticator, rng: random.Random, share: float = 0.8
    ) -> None:
        super().__init__(replica, keys, rng)
        self._delay = share * self.settings.timeout
        self._held: deque[tuple[float, Send]] = deque()

    @property
    def wake_at(self) -> float:
        """When it wants a `Tick`."""
        due = self._held[0][0] if self._held else float("inf")
        return min(due, self.replica.wake_at)

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return what is due of what was said before."""
        effects: list[Effect] = []
        for effect in super().step(event):
            if isinstance(effect, Send):
                self._held.append((event.now + self._delay, effect))
            else:
                effects.append(effect)
        while self._held and self._held[0][0] <= event.now:
            effects.append(self._held.popleft()[1])
        return effects
