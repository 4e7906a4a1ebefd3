"""What the parts of a peer share: the time, the dice, and the way out."""

from __future__ import annotations

import random
from collections.abc import Iterable

from state.gossip.events import Effect, Send, Settings
from state.gossip.messages import Message, encode

_MASK = (1 << 63) - 1


def mix(x: int) -> int:
    """Return 63 well-mixed bits of `x` (the finaliser of SplitMix64, its top bit dropped)."""
    x &= 0xFFFFFFFFFFFFFFFF
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) & _MASK


class Port:
    """Collects the effects of one step; `now` is the latest time that any event had."""

    def __init__(self, address: str, rng: random.Random, now: float, settings: Settings) -> None:
        self.address = address
        self.rng = rng
        self.now = now
        self.settings = settings
        self.effects: list[Effect] = []
        self.sent: dict[str, int] = {}
        """Messages by kind."""
        self.bytes_sent = 0

    def emit(self, effect: Effect) -> None:
        """Add an effect that is not a message."""
        self.effects.append(effect)

    def send(self, to: str, message: Message, *, reliable: bool = False) -> None:
        """Send `message`, as bulk if it is too long for a datagram."""
        self.send_bytes((to,), type(message).__name__, encode(message), reliable=reliable)

    def send_bytes(
        self, targets: Iterable[str], kind: str, data: bytes, *, reliable: bool = False
    ) -> None:
        """Send what was encoded once to all `targets`."""
        size = len(data)
        stream = reliable or size > self.settings.max_datagram
        for to in targets:
            self.effects.append(Send(to, data, stream))
            self.sent[kind] = self.sent.get(kind, 0) + 1
            self.bytes_sent += size

    def take(self) -> list[Effect]:
        """Return the effects since the last call."""
        effects, self.effects = self.effects, []
        return effects
