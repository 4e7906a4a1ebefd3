"""The stable cut: what every member is known to have, agreed on without a centre.

In an *epoch* each member votes once with its version vector; votes are joined by the minimum, and
the set of voters travels with it. When all members have voted (those that are suspected or dead
must have voted as well; those that left or were expelled need not), the minimum is stable and the
next epoch begins. Votes only say what a member has, which stays true, so they may come in any
order and any number of times; a late epoch is answered with the newer one. Stable cuts themselves
are joined by the maximum.

A member is its replica id: one that comes back after losing state has a new one and votes anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from state.gossip.events import StableAdvanced
from state.gossip.log import Log
from state.gossip.members import Members
from state.gossip.messages import Cut, MessageError, Range
from state.gossip.port import Port
from state.gossip.seen import Seen, key_of


class Stability:
    """One peer's part in agreeing on the stable cut."""

    def __init__(
        self, port: Port, members: Members, seen: Seen, log: Log, stable: Mapping[str, int]
    ) -> None:
        self._port = port
        self._members = members
        self._seen = seen
        self._log = log
        self.stable = dict(stable)
        self.joined = False
        """Whether it is in a group: a peer that still looks for its group agrees with no one."""
        self._epoch = 0
        self._cut: dict[str, int] = {}
        self._voters: set[int] = set()
        self._next = port.now + port.settings.stability * port.rng.random()
        self._vote()

    @property
    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        return self._next

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._cut = {}
        self._voters = set()
        self._vote()

    def _vote(self) -> None:
        me = self._me()
        if me in self._voters:
            return
        mine = self._seen.highs()
        self._cut = _minimum(self._cut, mine) if self._voters else mine
        self._voters.add(me)

    def _me(self) -> int:
        me = self._members.me
        return key_of(f"{me.name}#{me.incarnation}")

    def _finish(self) -> None:
        """Begin the next epoch if all members have voted."""
        facts = self._members.facts
        self.joined = self.joined or len(facts) > 1
        if not self.joined:
            return
        if len(self._voters) < len(facts):
            return
        for fact in facts.values():
            if key_of(f"{fact.name}#{fact.incarnation}") not in self._voters:
                return
        self.advance(self._cut)
        # All who are known have voted with this peer: cuts that they agree on from here on have
        # its vote. Only one who has kept an older cut to itself could still be ahead of it.
        self._log.held = False
        self._begin(self._epoch + 1)

    def advance(self, cut: Mapping[str, int]) -> None:
        """Join what is known to be stable."""
        grown = False
        for origin, high in cut.items():
            if high > self.stable.get(origin, 0):
                self.stable[origin] = high
                grown = True
        if grown:
            self._log.settle(self.stable)
            self._port.emit(StableAdvanced(dict(self.stable)))

    def tick(self, target: str | None) -> None:
        """Send this peer's view of the epoch to `target`, unless there is nothing to agree on."""
        now, settings = self._port.now, self._port.settings
        self._next = now + settings.stability * (0.5 + self._port.rng.random())
        self._finish()
        if target is not None and self.stable != self._seen.highs():
            self._send(target)

    def _send(self, to: str) -> None:
        voters = np.fromiter(sorted(self._voters), "<u8").tobytes()
        message = Cut(self._epoch, _ranges(self._cut), voters, _ranges(self.stable))
        self._port.send(to, message)

    def receive(self, sender: str, message: Cut) -> None:
        """Join what another member knows of the epoch."""
        if len(message.voters) % 8 or any(
            row.first != 1 for rows in (message.cut, message.stable) for row in rows
        ):
            raise MessageError("a cut with half a voter, or that does not begin at 1")
        stable = {row.origin: row.last for row in message.stable}
        if self._seen.covers(stable):
            # Behind the cut this peer must not compact to it: it may lack what it stands for.
            self.advance(stable)
        if message.epoch < self._epoch:
            self._send(sender)
            return
        cut = {row.origin: row.last for row in message.cut}
        voters = set(np.frombuffer(message.voters, "<u8").tolist())
        if message.epoch > self._epoch:
            self._epoch, self._cut, self._voters = message.epoch, cut, voters
        elif not voters <= self._voters:
            self._cut = _minimum(self._cut, cut)
            self._voters |= voters
        self._vote()
        self._finish()


def _minimum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {origin: min(high, b[origin]) for origin, high in a.items() if origin in b}


def _ranges(cut: Mapping[str, int]) -> list[Range]:
    return [Range(origin, 1, high) for origin, high in sorted(cut.items()) if high]
