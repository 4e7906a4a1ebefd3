"""The links that carry gossip: a small symmetric active view and a larger passive one.

A peer that joins asks one peer of the group, which takes it for a neighbour and sends random walks
that find it more. A link that breaks is replaced out of the passive view, which shuffles keep
fresh. All of it is repaired where messages are lost: probes say whether their sender takes the
receiver for a neighbour.

Source: Leitao, Pereira and Rodrigues, "HyParView: a membership protocol for reliable gossip-based
broadcast", DSN 2007; the lengths of walks are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable

from state.gossip.events import NeighbourDown, NeighbourUp
from state.gossip.members import Members
from state.gossip.messages import (
    Disconnect,
    ForwardJoin,
    Join,
    Neighbour,
    Shuffle,
    Shuffled,
)
from state.gossip.port import Port

_LONGEST_PAUSE = 5.0
"""Seconds between two tries to find links, or to reach a bootstrap peer that nobody knows."""
_WALK = 6
_PASSIVE_AT = 3
_SAMPLE_ACTIVE = 3
_SAMPLE_PASSIVE = 4
_ANSWER = 2.0
"""Seconds for an answer to who asks for a link: a connection has to be made first."""


class Overlay:
    """The active and passive views of one peer, as addresses.

    Args:
        port: Time, dice and the way out.
        members: Tells who is known to be dead.
    """

    def __init__(self, port: Port, members: Members) -> None:
        self._port = port
        self._members = members
        self.active: list[str] = []
        self.passive: list[str] = []
        self._asked: dict[str, float] = {}
        self._bootstrap: list[str] = []
        self._next_join = float("inf")
        self._join_pause = 0.5
        self._next_shuffle = port.now + port.settings.shuffle * (0.5 + port.rng.random())
        self._mend_at = port.now
        self._pause = 0.0
        self.closed = False

    @property
    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        return min(self._next_shuffle, self._next_join)

    def start(self, bootstrap: Iterable[str]) -> None:
        """Join the group of one of these addresses."""
        self._bootstrap = [address for address in bootstrap if address != self._port.address]
        if self._bootstrap:
            self._next_join = self._port.now
        for address in self._members.random(self._port.settings.passive):
            self._keep(address)

    def tick(self) -> None:
        """Do what is due."""
        now, settings = self._port.now, self._port.settings
        if now >= self._next_join:
            self._join()
        if now >= self._next_shuffle:
            self._next_shuffle = now + settings.shuffle * (0.5 + self._port.rng.random())
            self._shuffle()

    def _join(self) -> None:
        """Ask to be let in, also later by bootstrap peers of which nobody has told.

        They may belong to another part of the group, that was begun behind a partition.
        """
        unknown = [a for a in self._bootstrap if self._members.at(a) is None]
        targets = unknown if self.active else self._bootstrap
        if not targets or self.closed:
            self._next_join = float("inf")
            return
        self._join_pause = min(2 * self._join_pause, _LONGEST_PAUSE) if self.active else 1.0
        self._next_join = self._port.now + self._join_pause * (1 + self._port.rng.random())
        target = self._port.rng.choice(targets)
        self._port.send(target, Join(self._members.me), reliable=True)

    def mend(self) -> None:
        """Ask peers of the passive view to replace links that are missing; once a round."""
        if self.closed:
            return
        now, settings = self._port.now, self._port.settings
        if self._asked:
            for address in [a for a, until in self._asked.items() if until <= now]:
                self._refused(address)
                self._forget(address)
        if now < self._mend_at:
            return
        missing = settings.active - len(self.active) - len(self._asked)
        if missing <= 0:
            return
        if not self.active and not self._asked and self._bootstrap and self._next_join > now:
            self._next_join = min(self._next_join, now + settings.round)
        candidates = [a for a in self.passive if a not in self._asked]
        if not candidates:
            candidates = self._members.random(missing, [*self.active, *self._asked])
        # Where all others have their links, half of one's own would be missing for ever.
        urgent = 2 * len(self.active) < settings.active
        for _ in range(min(missing, len(candidates))):
            at = int(self._port.rng.random() * len(candidates))
            self.ask(candidates.pop(at), urgent=urgent)

    def ask(self, address: str, *, urgent: bool) -> None:
        """Ask `address` to be a neighbour."""
        if address in self.active or address == self._port.address or self.closed:
            return
        self._asked[address] = self._port.now + max(_ANSWER, 3 * self._port.settings.round)
        self._port.send(address, Neighbour(urgent, answer=False), reliable=True)

    def _refused(self, address: str) -> None:
        """Note that who was asked does not become a neighbour, and ask others less often."""
        if self._asked.pop(address, None) is not None:
            most = _LONGEST_PAUSE if self.active else 1.0
            self._pause = min(most, max(2 * self._pause, self._port.settings.round))
            self._mend_at = self._port.now + self._pause

    def lost(self, address: str) -> None:
        """Note that `address` cannot be reached."""
        self._refused(address)
        self._forget(address)
        self._remove(address)

    def leave(self) -> None:
        """Give up all links and make no more."""
        self.closed = True
        for address in list(self.active):
            self._port.send(address, Disconnect(), reliable=True)
            self._remove(address)

    # -- messages ---------------------------------------------------------------------------------

    def joined(self, sender: str, message: Join) -> None:
        """Let a peer in, and have it found by others."""
        if self.closed:
            return
        self._port.send(sender, Neighbour(urgent=True, answer=True), reliable=True)
        others = [address for address in self.active if address != sender]
        self._add(sender)
        for address in others:
            self._port.send(address, ForwardJoin(message.fact, _WALK), reliable=True)

    def forwarded(self, sender: str, message: ForwardJoin) -> None:
        """Take a joining peer for a neighbour at the end of a walk, or let it walk on."""
        address = message.fact.address
        if self.closed or address == self._port.address or address in self.active:
            return
        onward = [a for a in self.active if a not in (sender, address)]
        if message.hops == 0 or not onward:
            self.ask(address, urgent=True)
            return
        if message.hops == _PASSIVE_AT:
            self._keep(address)
        target = self._port.rng.choice(onward)
        hops = min(message.hops, _WALK) - 1
        self._port.send(target, ForwardJoin(message.fact, hops), reliable=True)

    def neighbour(self, sender: str, message: Neighbour) -> None:
        """Answer who wants to be a neighbour, or take in the answer."""
        if self.closed:
            self._port.send(sender, Disconnect(), reliable=True)
            return
        room = len(self.active) < self._port.settings.active
        if message.answer:
            wanted = self._asked.pop(sender, None) is not None or self._next_join < float("inf")
            if wanted or room:  # late, but here it is
                self._add(sender)
            elif sender not in self.active:
                self._port.send(sender, Disconnect(), reliable=True)
            return
        if message.urgent or room or sender in self.active:
            self._asked.pop(sender, None)
            self._add(sender)
            self._port.send(sender, Neighbour(urgent=False, answer=True), reliable=True)
        else:
            self._keep(sender)
            self._port.send(sender, Disconnect(), reliable=True)

    def disconnected(self, sender: str) -> None:
        """Note that `sender` is no neighbour (any more)."""
        self._refused(sender)
        if sender in self.active:
            self._remove(sender)
            self._keep(sender)

    def pinged(self, sender: str, linked: bool) -> None:
        """Mend a link that only one end knows of."""
        if not linked or sender in self.active:
            return
        if len(self.active) < self._port.settings.active and not self.closed:
            self._add(sender)
        else:
            self._port.send(sender, Disconnect(), reliable=True)

    def shuffled(self, sender: str, message: Shuffle) -> None:
        """Let a shuffle walk on, or exchange addresses with its origin."""
        if message.origin == self._port.address:
            return
        hops = min(message.hops, _WALK) - 1
        onward = [a for a in self.active if a not in (sender, message.origin)]
        if hops > 0 and onward:
            target = self._port.rng.choice(onward)
            walk = Shuffle(message.origin, hops, message.addresses)
            self._port.send(target, walk, reliable=True)
            return
        mine = self._sample(self.passive, len(message.addresses))
        self._port.send(message.origin, Shuffled(mine), reliable=True)
        self.offered(message.addresses)

    def offered(self, addresses: Iterable[str]) -> None:
        """Add addresses to the passive view."""
        for address in addresses:
            self._keep(address)

    # -- views ------------------------------------------------------------------------------------

    def _shuffle(self) -> None:
        if not self.active or self.closed:
            return
        sample = [
            self._port.address,
            *self._sample(self.active, _SAMPLE_ACTIVE),
            *self._sample(self.passive, _SAMPLE_PASSIVE),
        ]
        target = self._port.rng.choice(self.active)
        self._port.send(target, Shuffle(self._port.address, _WALK, sample), reliable=True)

    def _sample(self, addresses: list[str], count: int) -> list[str]:
        return self._port.rng.sample(addresses, min(count, len(addresses)))

    def _add(self, address: str) -> None:
        if address in self.active or address == self._port.address:
            return
        self._forget(address)
        if len(self.active) >= self._port.settings.active:
            dropped = self._port.rng.choice(self.active)
            self._port.send(dropped, Disconnect(), reliable=True)
            self._remove(dropped)
            self._keep(dropped)
        self.active.append(address)
        self._pause, self._mend_at = 0.0, self._port.now
        self._port.emit(NeighbourUp(address))

    def _remove(self, address: str) -> None:
        if address in self.active:
            self.active.remove(address)
            self._port.emit(NeighbourDown(address))

    def _keep(self, address: str) -> None:
        if (
            address == self._port.address
            or address in self.active
            or address in self.passive
            or not self._members.is_live(address)
        ):
            return
        if len(self.passive) >= self._port.settings.passive:
            self.passive.pop(int(self._port.rng.random() * len(self.passive)))
        self.passive.append(address)

    def _forget(self, address: str) -> None:
        if address in self.passive:
            self.passive.remove(address)
