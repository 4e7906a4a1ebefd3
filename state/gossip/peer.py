"""The peer: takes events, has effects, and holds the parts of the protocol."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from state.gossip.detector import Detector
from state.gossip.events import (
    Effect,
    Event,
    Expel,
    Leave,
    Member,
    Publish,
    Received,
    Settings,
    SnapshotTaken,
    Start,
    Status,
    Stopped,
    Tick,
    Unreachable,
    Update,
)
from state.gossip.inbox import Inbox
from state.gossip.log import Log
from state.gossip.members import Members, member_of
from state.gossip.messages import Fact, Range
from state.gossip.overlay import Overlay
from state.gossip.port import Port
from state.gossip.reconciler import Reconciler
from state.gossip.seen import Seen
from state.gossip.snapshots import Snapshots
from state.gossip.spreader import Spreader
from state.gossip.stability import Stability
from state.gossip.statistics import Statistics, Traffic

_LINGER = 5
_NEVER = float("inf")


class Peer:
    """One member of a group that replicates updates.

    What an application kept of an earlier life goes in again: `seen` is the set of updates that
    its state contains, `log` those it can still give to others (its own ones, until they are
    stable, must be among them, or no one may ever get them), `members` who the others were.
    With an `incarnation` as before it must be *all* of what :meth:`seen` said at the end.

    Args:
        name: This member's name, without "#".
        address: Where others reach it; it changes with the incarnation only.
        incarnation: Greater than in any earlier life that may have known more.
        rng: The dice; seeded, they make a run repeatable.
        now: The time, on the clock that the events' times are of.
        settings: The same in the whole group, best.
        seen: Updates in the application's state.
        log: Updates kept to serve others; each must be in `seen` or is added to it.
        stable: What :meth:`stable` returned.
        members: What :meth:`facts` returned.

    Raises:
        ValueError: a name or address is not one, or an incarnation is negative.

    >>> import random
    >>> from state.gossip import Deliver, Publish, Received, Send, Start
    >>> a = Peer("a", "addr-a", 1, rng=random.Random(1), now=0.0)
    >>> b = Peer("b", "addr-b", 1, rng=random.Random(2), now=0.0)
    >>> post = [(a.address, e) for e in a.step(Start(0.0))]
    >>> post += [(b.address, e) for e in b.step(Start(0.0, bootstrap=("addr-a",)))]
    >>> post += [(a.address, e) for e in a.step(Publish(0.0, b"hello"))]
    >>> while post:
    ...     source, effect = post.pop(0)
    ...     if isinstance(effect, Send):
    ...         to = {"addr-a": a, "addr-b": b}[effect.to]
    ...         post += [(to.address, e) for e in to.step(Received(0.1, source, effect.data))]
    ...     elif isinstance(effect, Deliver):
    ...         print(source, effect.updates)
    addr-b [Update(origin='a#1', seq=1, payload=b'hello')]
    """

    def __init__(
        self,
        name: str,
        address: str,
        incarnation: int,
        *,
        rng: random.Random,
        now: float,
        settings: Settings | None = None,
        seen: Iterable[Range] = (),
        log: Iterable[Update] = (),
        stable: Mapping[str, int] | None = None,
        members: Iterable[Fact] = (),
    ) -> None:
        if not name or "#" in name or len(name) > 200:
            raise ValueError(f"{name!r} is no name of a member: 1 to 200 characters, no '#'")
        if not 0 < len(address) <= 255:
            raise ValueError(f"{address!r} is no address: 1 to 255 characters")
        if not 0 <= incarnation < 1 << 63:
            raise ValueError(f"incarnation {incarnation} is not in 0 to 2^63 - 1")
        self.name = name
        self.address = address
        self.incarnation = incarnation
        self.id = f"{name}#{incarnation}"
        self.settings = settings if settings is not None else Settings()
        self._port = port = Port(address, rng, now, self.settings)
        me = Fact(name, address, incarnation, 0, Status.ALIVE)
        self._members = Members(port, me, self._changed)
        self._overlay = Overlay(port, self._members)
        self._seen = Seen(seen)
        self._log = Log(self.settings.log_updates, self.settings.log_bytes)
        # Others may have a stable cut that this peer is behind, until it has had part in one.
        self._log.held = True
        for update in log:
            self._seen.add(update.origin, update.seq)
            self._log.append(update, keep=True)
        if stable:
            self._log.settle(stable)
        self._spreader = Spreader(port, self._overlay.active, self._seen, self._log)
        self._reconciler = Reconciler(port, self._seen, self._members, self._spreader)
        self._snapshots = Snapshots(port, self._seen, self._log)
        self._stability = Stability(port, self._members, self._seen, self._log, stable or {})
        self._detector = Detector(
            port,
            self._members,
            neighbours=lambda: self._overlay.active,
            met=self._met,
            lost=self._overlay.lost,
        )
        self._members.remember(members)
        self._seq = self._seen.top(self.id)
        self._running = False
        self._leaving = _NEVER
        self._next_round = _NEVER
        self._inbox = Inbox(
            port,
            self._members,
            self._overlay,
            self._detector,
            self._seen,
            self._log,
            self._spreader,
            self._reconciler,
            self._snapshots,
            self._stability,
        )

    # -- what it knows ----------------------------------------------------------------------------

    @property
    def wake_at(self) -> float:
        """When a :class:`Tick` is due, on the clock of the events; infinite when stopped."""
        if not self._running:
            return _NEVER
        return min(
            self._next_round,
            self._detector.due if self._leaving == _NEVER else _NEVER,
            self._overlay.due,
            self._spreader.due,
            self._stability.due,
            self._leaving,
        )

    @property
    def running(self) -> bool:
        """Whether it was started and has not stopped."""
        return self._running

    @property
    def publishes(self) -> bool:
        """Whether it takes a `Publish`: it runs and has not begun to leave."""
        return self._running and self._leaving == _NEVER

    @property
    def neighbours(self) -> tuple[str, ...]:
        """The addresses that gossip goes to."""
        return tuple(self._overlay.active)

    @property
    def passive(self) -> tuple[str, ...]:
        """The addresses that replace neighbours that are lost."""
        return tuple(self._overlay.passive)

    def members(self) -> list[Member]:
        """Return all members that did not leave, dead ones and itself included, by name."""
        return [member_of(fact) for _, fact in sorted(self._members.facts.items())]

    def facts(self) -> list[Fact]:
        """Return the same as a next life takes it in."""
        return [fact for _, fact in sorted(self._members.facts.items())]

    def seen(self) -> list[Range]:
        """Return the set of updates published, delivered, or in a snapshot that was restored."""
        return list(self._seen)

    def has(self, origin: str, seq: int) -> bool:
        """Return whether an update is in :meth:`seen`."""
        return self._seen.has(origin, seq)

    def vector(self) -> dict[str, int]:
        """Return up to which number all updates of each origin were seen."""
        return self._seen.highs()

    def log(self) -> list[Update]:
        """Return the updates that it can give to others, in the order in which they came."""
        return list(self._log)

    def stable(self) -> dict[str, int]:
        """Return a cut that every member which has not left or been expelled is known to have."""
        return dict(self._stability.stable)

    def fingerprint(self) -> int:
        """Return a number that is equal where equal sets of updates were seen."""
        return self._seen.table.total

    def statistics(self) -> Statistics:
        """Return what was counted so far."""
        port, snapshots = self._port, self._snapshots
        traffic = self._spreader.traffic
        return Statistics(
            messages_sent=dict(port.sent),
            bytes_sent=port.bytes_sent,
            messages_received=self._inbox.received,
            rejected=self._inbox.rejected,
            payloads=Traffic(traffic.sent, traffic.received, traffic.duplicates, traffic.refused),
            snapshots_given=snapshots.given,
            snapshots_taken=snapshots.taken,
            snapshots_ignored=snapshots.ignored,
            log_dropped=self._log.dropped,
            refuted=self._members.refuted,
            members_refused=self._members.refused,
            log_updates=len(self._log),
            log_bytes=self._log.size,
            origins=len(self._seen),
            rumours=self._spreader.hot,
            wanted=len(self._spreader.requests),
            awareness=self._detector.awareness,
        )

    # -- events -----------------------------------------------------------------------------------

    def step(self, event: Event) -> list[Effect]:
        """Take in an event and return what follows from it, in order.

        An event whose `now` lies before an earlier one's counts as at that one's time. Before
        `Start`, and once stopped, all other events are ignored.

        Raises:
            ValueError: what the application itself gave is too large (a payload, a snapshot), or
                it expels a member that nobody knows. Bytes of other peers never raise.
            RuntimeError: it publishes while the peer is not running.
        """
        port = self._port
        if event.now > port.now:
            port.now = event.now
        if isinstance(event, Received):
            if self._running:
                self._inbox.take(event.sender, event.data)
        elif isinstance(event, Tick):
            if self._running:
                self._tick()
        elif isinstance(event, Publish):
            self._publish(event.payload)
        elif isinstance(event, Start):
            self._start(event.bootstrap)
        elif self._running:
            self._control(event)
        if self._running:
            if self._spreader.due <= port.now:
                self._spreader.tick()
            if self._members.superseded is not None:
                self._running = False
                port.emit(self._members.superseded)
        return port.take()

    def _start(self, bootstrap: tuple[str, ...]) -> None:
        if self._running or self._leaving < _NEVER or self._members.superseded is not None:
            return
        self._running = True
        self._next_round = self._port.now + self.settings.round * self._port.rng.random()
        self._members.spread(self._members.me)
        self._stability.joined = all(address == self.address for address in bootstrap)
        self._overlay.start(bootstrap)
        self._overlay.tick()

    def _publish(self, payload: bytes) -> None:
        if not self.publishes:
            raise RuntimeError(f"{self.id} is not running: it cannot publish")
        if len(payload) > self.settings.max_payload:
            raise ValueError(
                f"a payload of {len(payload)} bytes; at most {self.settings.max_payload}"
            )
        self._seq += 1
        self._spreader.publish(self.id, self._seq, bytes(payload))

    def _control(self, event: Event) -> None:
        if isinstance(event, SnapshotTaken):
            self._snapshots.give(event.to, event.state, self._stability.stable)
        elif isinstance(event, Unreachable):
            self._overlay.lost(event.address)
        elif isinstance(event, Expel):
            fact = self._members.get(event.name)
            if fact is None or event.name == self.name:
                raise ValueError(f"{event.name!r} is no other member")
            if fact.status < Status.LEFT:
                self._members.judge(fact, Status.EXPELLED)
        elif isinstance(event, Leave) and self._leaving == _NEVER:
            self._leave()

    def _leave(self) -> None:
        """Say that this peer leaves, and stay for a while to give what others ask for."""
        self._leaving = self._port.now + _LINGER * self.settings.round
        self._members.say(Status.LEFT)
        self._spreader.round()
        others = self._members.random(self.settings.fanout, self._overlay.active)
        for address in (*self._overlay.active, *others):
            self._reconciler.tell(address, [self._members.me])
            self._reconciler.begin(address)

    def _tick(self) -> None:
        now = self._port.now
        if now >= self._next_round:
            self._round()
        if now >= self._detector.due and self._leaving == _NEVER:
            self._detector.tick()
        if now >= self._overlay.due:
            self._overlay.tick()
        if now >= self._stability.due:
            self._stability.tick(self._someone())
        if now >= self._spreader.due:
            self._spreader.tick()
        if now >= self._leaving:
            self._overlay.leave()
            self._running = False
            self._port.emit(Stopped())

    def _round(self) -> None:
        # Peers must not fall into step: a little chance in every round.
        step = self.settings.round * (0.9 + 0.2 * self._port.rng.random())
        self._next_round = max(self._next_round + step, self._port.now)
        if self._leaving == _NEVER:
            self._overlay.mend()
        self._spreader.round()
        target = self._someone()
        if target is not None:
            self._reconciler.begin(target)

    def _someone(self) -> str | None:
        """Return a random neighbour; where half of them are missing, sometimes any member.

        Not for every missing one: each may cost a connection.
        """
        active = self._overlay.active
        at = int(self._port.rng.random() * max(len(active), (self.settings.active + 1) // 2))
        if at < len(active):
            return active[at]
        far = self._members.random(1, active)
        if far:
            return far[0]
        return active[at % len(active)] if active else None

    # -- what the parts tell each other -----------------------------------------------------------

    def _changed(self, fact: Fact, before: Fact | None, again: bool) -> None:
        self._detector.changed(fact, again)
        if again:
            return
        if before is not None and before.address != fact.address:
            self._overlay.lost(before.address)
        if fact.status >= Status.DEAD:
            self._overlay.lost(fact.address)
        elif fact.status == Status.ALIVE:
            self._overlay.offered([fact.address])

    def _met(self, address: str) -> None:
        """Compare with a peer outside the active view: this joins what fell apart."""
        self._reconciler.begin(address)
