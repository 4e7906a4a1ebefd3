"""Finds members that do not answer: SWIM, with Lifeguard's doubt in oneself.

Each interval one member is probed: neighbours in a random order, every fifth time a member from
the whole table, every tenth time a dead one (which heals partitions). Who does not answer in time
is probed through others, then suspected, then, unless it refutes that, declared dead.

Lifeguard: a peer that fails to get answers, even the `Nack` of those it asked to probe, or that
has to refute a suspicion of itself, is slower in its next judgements (*awareness*). The first
suspicion leaves much time to refute, and each further accuser shortens it. A suspect is told so
with the very next message to it.

Sources: Das, Gupta and Motivala, "SWIM", DSN 2002; Dadgar, Phillips and Currey, "Lifeguard: local
health awareness for more accurate failure detection", 2017, whose constants are used.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from state.gossip.events import Status
from state.gossip.members import Members
from state.gossip.messages import Ack, Fact, Nack, Ping, PingFor
from state.gossip.port import Port

_FAR_EVERY = 5
_DEAD_EVERY = 10
_CONFIRMATIONS = 3
_SLOWEST = 6  # the longest time to refute, in shortest ones
_MAX_RELAYS = 256


@dataclass(slots=True)
class _Probe:
    number: int
    target: str
    far: bool
    indirect_at: float
    end: float
    asked: int = 0
    nacks: int = 0
    answered: bool = False


@dataclass(slots=True)
class _Relay:
    asker: str
    number: int
    nack_at: float


@dataclass(slots=True)
class _Suspicion:
    fact: Fact
    start: float
    shortest: float
    longest: float
    wanted: int
    deadline: float
    accusers: set[str] = field(default_factory=set)


class Detector:
    """Probes members and judges them.

    Args:
        port: Time, dice and the way out.
        members: The table that is judged.
        neighbours: Returns the addresses of the active view.
        met: Called with the address of a member outside the active view that answered.
        lost: Called with the address of who did not answer.
    """

    def __init__(
        self,
        port: Port,
        members: Members,
        *,
        neighbours: Callable[[], list[str]],
        met: Callable[[str], None],
        lost: Callable[[str], None],
    ) -> None:
        self._port = port
        self._members = members
        self._neighbours = neighbours
        self._met = met
        self._lost = lost
        self._next = port.now + port.settings.probe * port.rng.random()
        self._probe: _Probe | None = None
        self._round: list[str] = []
        self._count = 0
        self._number = 0
        self._relays: dict[int, _Relay] = {}
        self._suspicions: dict[str, _Suspicion] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._refuted = 0
        """How often it has had to say that it lives, and doubted itself for it."""
        self.awareness = 0
        """0 when this peer is well; up to `Settings.awareness` - 1 when it doubts itself."""

    @property
    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        due = self._next
        probe = self._probe
        if probe is not None and not probe.answered:
            due = min(due, probe.end if probe.asked < 0 else probe.indirect_at)
        if self._relays:
            due = min(due, next(iter(self._relays.values())).nack_at)
        if self._deadlines:
            due = min(due, self._deadlines[0][0])
        return due

    def tick(self) -> None:
        """Do what is due."""
        now = self._port.now
        while self._relays:
            number, relay = next(iter(self._relays.items()))
            if relay.nack_at > now:
                break
            del self._relays[number]
            self._port.send(relay.asker, Nack(relay.number))
        while self._deadlines and self._deadlines[0][0] <= now:
            _, name = heapq.heappop(self._deadlines)
            suspicion = self._suspicions.get(name)
            if suspicion is not None and suspicion.deadline <= now:
                del self._suspicions[name]
                self._members.judge(suspicion.fact, Status.DEAD)
        probe = self._probe
        if probe is not None and not probe.answered:
            if probe.asked == 0 and now >= probe.indirect_at:
                self._ask_others(probe)
            if now >= probe.end:
                self._failed(probe)
                self._probe = None
        if now >= self._next:
            self._start()

    def _pace(self) -> float:
        return self.awareness + 1.0

    def _aware(self, change: int) -> None:
        most = self._port.settings.awareness - 1
        self.awareness = max(0, min(most, self.awareness + change))

    def _start(self) -> None:
        settings, now = self._port.settings, self._port.now
        if self._probe is not None and not self._probe.answered:
            self._failed(self._probe)
        self._probe = None
        self._aware(self._members.refuted - self._refuted)
        self._refuted = self._members.refuted
        self._next = now + settings.probe * self._pace()
        self._count += 1
        target, far = self._choose()
        if target is None:
            return
        self._number += 1
        self._probe = _Probe(
            self._number,
            target,
            far,
            now + settings.probe_timeout * self._pace(),
            self._next,
        )
        self._ping(target, self._number, linked=not far)

    def _ping(self, target: str, number: int, *, linked: bool, sure: bool = False) -> None:
        fact = self._members.at(target)
        news = self._members.news(fact.name if fact is not None else "")
        self._port.send(target, Ping(number, linked, sure, news), reliable=sure)

    def _choose(self) -> tuple[str | None, bool]:
        near = self._neighbours()
        if self._count % _DEAD_EVERY == 0 and (dead := self._members.random_dead()) is not None:
            return dead, True
        if self._count % _FAR_EVERY == 0 or not near:
            far = self._members.random(1, near)
            if far:
                return far[0], True
        while self._round:
            target = self._round.pop()
            if target in near:
                return target, False
        self._round = list(near)
        self._port.rng.shuffle(self._round)
        return (self._round.pop(), False) if self._round else (None, False)

    def _ask_others(self, probe: _Probe) -> None:
        fact = self._members.at(probe.target)
        if fact is not None and fact.status == Status.DEAD:
            probe.asked = -1
            return
        near = [address for address in self._neighbours() if address != probe.target]
        self._port.rng.shuffle(near)
        helpers = near[: self._port.settings.indirect]
        if len(helpers) < self._port.settings.indirect:
            missing = self._port.settings.indirect - len(helpers)
            helpers += self._members.random(missing, (*helpers, probe.target))
        # A stream gets through where datagrams are lost; memberlist does the same.
        self._ping(probe.target, probe.number, linked=not probe.far, sure=True)
        for helper in helpers:
            self._port.send(helper, PingFor(probe.number, probe.target))
        probe.asked = len(helpers) or -1
        probe.indirect_at = probe.end

    def _failed(self, probe: _Probe) -> None:
        fact = self._members.at(probe.target)
        if fact is not None and fact.status == Status.DEAD:
            return
        self._aware(max(0, probe.asked - probe.nacks) if probe.asked > 0 else 1)
        self._lost(probe.target)
        if fact is None:
            return
        if fact.status == Status.ALIVE:
            self._members.judge(fact, Status.SUSPECT)
        else:
            self._confirm(msgspec.structs.replace(fact, accuser=self._members.me.name))

    # -- messages ---------------------------------------------------------------------------------

    def pinged(self, sender: str, message: Ping) -> None:
        """Answer a probe."""
        self._members.learn(message.facts)
        fact = self._members.at(sender)
        news = self._members.news(fact.name if fact is not None else "")
        self._port.send(sender, Ack(message.number, news), reliable=message.sure)

    def asked(self, sender: str, message: PingFor) -> None:
        """Probe for another member. Beyond a number of such probes at a time: do nothing."""
        if len(self._relays) >= _MAX_RELAYS:
            return
        self._number += 1
        nack_at = self._port.now + 0.8 * self._port.settings.probe_timeout
        self._relays[self._number] = _Relay(sender, message.number, nack_at)
        self._ping(message.target, self._number, linked=False)

    def answered(self, sender: str, message: Ack) -> None:
        """Take in the answer to a probe."""
        self._members.learn(message.facts)
        relay = self._relays.pop(message.number, None)
        if relay is not None:
            self._port.send(relay.asker, Ack(relay.number, []))
            return
        probe = self._probe
        if probe is None or probe.number != message.number or probe.answered:
            return
        probe.answered = True
        if probe.asked <= 0:
            self._aware(-1)
        if probe.far and sender == probe.target:
            self._met(sender)

    def refused(self, message: Nack) -> None:
        """Note that someone else got no answer either."""
        probe = self._probe
        if probe is not None and probe.number == message.number:
            probe.nacks += 1

    # -- suspicion --------------------------------------------------------------------------------

    def changed(self, fact: Fact, again: bool) -> None:
        """Start, shorten or stop the time that a suspect has."""
        if again:
            self._confirm(fact)
        elif fact.status == Status.SUSPECT:
            self._suspect(fact)
        else:
            self._suspicions.pop(fact.name, None)

    def _suspect(self, fact: Fact) -> None:
        settings, count = self._port.settings, self._members.alive
        shortest = settings.suspicion * max(1.0, math.log10(max(count, 1))) * settings.probe
        # Who is alone with the suspect can expect no one to confirm it.
        wanted = _CONFIRMATIONS if count - 2 >= _CONFIRMATIONS else 0
        longest = shortest * (_SLOWEST if wanted else 1)
        suspicion = _Suspicion(
            fact, self._port.now, shortest, longest, wanted, self._port.now + longest
        )
        suspicion.accusers.add(fact.accuser)
        self._suspicions[fact.name] = suspicion
        heapq.heappush(self._deadlines, (suspicion.deadline, fact.name))

    def _confirm(self, fact: Fact) -> None:
        suspicion = self._suspicions.get(fact.name)
        if (
            suspicion is None
            or fact.accuser in suspicion.accusers
            or len(suspicion.accusers) > suspicion.wanted
        ):
            return
        suspicion.accusers.add(fact.accuser)
        share = math.log(len(suspicion.accusers)) / math.log(suspicion.wanted + 1)
        time = suspicion.longest - (suspicion.longest - suspicion.shortest) * share
        suspicion.deadline = suspicion.start + max(suspicion.shortest, time)
        heapq.heappush(self._deadlines, (suspicion.deadline, fact.name))
        self._members.confirm(fact)
