"""The table of all members, and how news about them spreads.

Of two facts about one member the greater (incarnation, final or not, revision, status) wins;
`LEFT` and `EXPELLED` are final, the revision is raised by the member itself to refute what is
said of it. So the table is a join-semilattice, and peers agree however facts travel. News rides on
probes and digests, each at most 4 * ceil(log10(n + 1)) times from one peer (as in memberlist); what
that misses is found by comparing tables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable

import msgspec

from state.gossip.events import (
    Effect,
    Member,
    MemberDown,
    MemberLeft,
    MemberSuspected,
    MemberUp,
    Status,
    Superseded,
)
from state.gossip.messages import Fact
from state.gossip.port import Port, mix
from state.gossip.seen import key_of
from state.gossip.tables import Table

_PER_MESSAGE = 6
_MAX_FINAL = 4096
_LIVE = (Status.ALIVE, Status.SUSPECT)


def rank(fact: Fact) -> tuple[int, bool, int, int]:
    """Return what is compared when two facts about one member meet."""
    return fact.incarnation, fact.status >= Status.LEFT, fact.revision, fact.status


@functools.lru_cache(maxsize=1 << 14)
def _row(fact: Fact) -> int:
    """Return the hash of what all peers that agree on `fact` have in their tables."""
    words = fact.incarnation * 0x9E3779B97F4A7C15 + (fact.revision << 2) + fact.status
    return mix(key_of(fact.name) ^ mix(words)) ^ key_of(fact.address)


def member_of(fact: Fact) -> Member:
    """Return the member that `fact` is about."""
    return Member(fact.name, fact.address, fact.incarnation, fact.status)


class Members:
    """All members but those that left, by name; the peer itself is one of them.

    Args:
        port: Time, dice and the way out.
        me: The first fact about the peer itself.
        changed: Called with each fact that won, the one before it (or None), and whether it
            is only that one more member suspects what was suspected.
    """

    def __init__(
        self, port: Port, me: Fact, changed: Callable[[Fact, Fact | None, bool], None]
    ) -> None:
        self._port = port
        self._changed = changed
        self.me = me
        self.facts: dict[str, Fact] = {}
        self.names: dict[str, str] = {}
        """Names by address, of members that did not leave."""
        self.table = Table()
        self.alive = 0
        """Members that are not dead, the peer itself included."""
        self._final: dict[str, Fact] = {}
        self._queue: dict[str, int] = {}
        self._dead: dict[str, None] = {}  # addresses; not a set, whose order differs by run
        self._cached: tuple[int, list[str]] = (-1, [])
        self.superseded: Superseded | None = None
        self.refuted = 0
        """How often this peer had to say that it lives."""
        self.refused = 0
        """Facts about new members beyond the limit of members."""
        self._store(me)

    def __len__(self) -> int:
        """Return the number of members that did not leave, dead ones included."""
        return len(self.facts)

    def get(self, name: str) -> Fact | None:
        """Return what is known of `name`, even if it left."""
        return self.facts.get(name) or self._final.get(name)

    def at(self, address: str) -> Fact | None:
        """Return the member that is at `address`, if one is known."""
        name = self.names.get(address)
        return None if name is None else self.facts[name]

    def is_live(self, address: str) -> bool:
        """Return whether a member at `address` is not known to be dead (or is not known)."""
        fact = self.at(address)
        return fact is None or fact.status in _LIVE

    def remember(self, facts: Iterable[Fact]) -> None:
        """Take in what was known in an earlier life: nothing of it is news."""
        for fact in facts:
            if fact.name == self.me.name or len(self.facts) >= self._port.settings.max_members:
                continue
            if fact.status == Status.SUSPECT:
                # The time it had to refute that is over, and it may have done so.
                fact = msgspec.structs.replace(fact, status=Status.ALIVE, accuser="")
            known = self.get(fact.name)
            if known is None or rank(known) < rank(fact):
                self._store(fact)

    def learn(self, facts: Iterable[Fact]) -> list[Fact]:
        """Take in what is said; return what is known better here, to tell whoever said it."""
        return [known for fact in facts if (known := self._learn(fact)) is not None]

    def _learn(self, fact: Fact) -> Fact | None:
        if fact.name == self.me.name:
            return self._hear_of_me(fact)
        known = self.get(fact.name)
        if known is not None:
            mine, theirs = rank(known), rank(fact)
            if mine == theirs:
                if fact.status == Status.SUSPECT and fact.accuser != known.accuser:
                    self._changed(fact, known, True)
                return None
            if mine > theirs:
                return known
        elif len(self.facts) >= self._port.settings.max_members:
            self.refused += 1
            return None
        self._apply(fact, known)
        return None

    def _hear_of_me(self, fact: Fact) -> Fact | None:
        me = self.me
        if fact.incarnation > me.incarnation or (
            fact.incarnation == me.incarnation
            and fact.status >= Status.LEFT
            and me.status < Status.LEFT
        ):
            if self.superseded is None:
                self.superseded = Superseded(fact.incarnation)
            return None
        if rank(fact) > rank(me):
            self.refuted += fact.status != Status.ALIVE
            self.say(Status.ALIVE, fact.revision + 1)
        return None if rank(fact) == rank(me) else self.me

    def say(self, status: Status, revision: int | None = None) -> None:
        """Change what this peer says of itself."""
        me = self.me
        revision = me.revision + 1 if revision is None else revision
        self.me = Fact(me.name, me.address, me.incarnation, min(revision, (1 << 63) - 1), status)
        self._store(self.me)
        self.spread(self.me)

    def judge(self, fact: Fact, status: Status) -> None:
        """Note what this peer itself found out of a member."""
        accuser = self.me.name if status == Status.SUSPECT else ""
        self._apply(
            Fact(fact.name, fact.address, fact.incarnation, fact.revision, status, accuser),
            self.get(fact.name),
        )

    def _apply(self, fact: Fact, known: Fact | None) -> None:
        self._store(fact)
        self.spread(fact)
        effect: Effect | None = None
        status = fact.status
        if status >= Status.LEFT:
            if known is not None and known.status < Status.LEFT:
                effect = MemberLeft(member_of(fact))
        elif status == Status.DEAD:
            if known is None or known.status != Status.DEAD:
                effect = MemberDown(member_of(fact))
        elif status == Status.SUSPECT:
            effect = MemberSuspected(member_of(fact))
        elif known is None or known.status != status or known.incarnation != fact.incarnation:
            effect = MemberUp(member_of(fact))
        if effect is not None:
            self._port.emit(effect)
        self._changed(fact, known, False)

    def _store(self, fact: Fact) -> None:
        name = fact.name
        known = self.facts.pop(name, None)
        if known is not None:
            self.alive -= known.status in _LIVE
            if self.names.get(known.address) == name:
                del self.names[known.address]
            self._dead.pop(known.address, None)
        self._final.pop(name, None)
        if fact.status >= Status.LEFT:
            self.table.drop(name)
            self._final[name] = fact
            if len(self._final) > _MAX_FINAL:
                del self._final[next(iter(self._final))]
            return
        self.facts[name] = fact
        self.names[fact.address] = name
        self.alive += fact.status in _LIVE
        if fact.status == Status.DEAD:
            self._dead[fact.address] = None
        if name not in self.table.keys:
            self.table.name(name, key_of(name))
        self.table.put(name, _row(fact))

    def spread(self, fact: Fact) -> None:
        """Tell others of `fact` with the next messages."""
        self._queue.pop(fact.name, None)
        self._queue[fact.name] = 4 * math.ceil(math.log10(len(self.facts) + 1.1))

    def news(self, about: str = "") -> list[Fact]:
        """Return a few facts to add to a message; first what is said of the member `about`."""
        told: list[Fact] = []
        if about:
            fact = self.facts.get(about)
            if fact is not None and fact.status != Status.ALIVE:
                told.append(fact)
        if not self._queue:
            return told
        for name in list(self._queue)[:_PER_MESSAGE] if len(self._queue) < 64 else self._first():
            left = self._queue.pop(name) - 1
            fact = self.get(name)
            if fact is None:
                continue
            if name != about:
                told.append(fact)
            if left > 0:
                self._queue[name] = left
        return told

    def _first(self) -> list[str]:
        names = iter(self._queue)
        return [next(names) for _ in range(_PER_MESSAGE)]

    def of_names(self, names: Iterable[str]) -> list[Fact]:
        """Return the facts about members of these names."""
        return [self.facts[name] for name in names]

    def confirm(self, fact: Fact) -> None:
        """Tell of another member that suspects what is suspected here as well."""
        self.facts[fact.name] = fact
        self.spread(fact)

    def random_dead(self) -> str | None:
        """Return the address of a random dead member."""
        return self._port.rng.choice(list(self._dead)) if self._dead else None

    def random(self, count: int, besides: Iterable[str] = ()) -> list[str]:
        """Return up to `count` addresses of random live members.

        Tries as many as are likely to do, not all members.
        """
        addresses = self._addresses()
        excluded = {*besides, self.me.address}
        chosen: list[str] = []
        for _ in range(8 * count + 8 if addresses else 0):
            address = addresses[int(self._port.rng.random() * len(addresses))]
            fact = self.at(address)
            if address in excluded or fact is None or fact.status not in _LIVE:
                continue
            excluded.add(address)
            chosen.append(address)
            if len(chosen) == count:
                break
        return chosen

    def _addresses(self) -> list[str]:
        stamp = self.table.total
        if self._cached[0] != stamp:
            self._cached = (stamp, list(self.names))
        return self._cached[1]
