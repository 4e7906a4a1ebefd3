"""Rumours: how a new update runs through the group, each peer getting its payload about once.

A peer tells of what is new to it in *waves*: at once to `fanout` neighbours, `eager` of them with
the payload, then each round, for `rumour_rounds` rounds, to neighbours that are not known to have
it, the number only. Who lacks it asks; while an answer is due nobody else is asked, so a payload
arrives twice only where it was pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from state.gossip.events import Deliver, Published, Update
from state.gossip.log import Log
from state.gossip.messages import (
    MAX_ROWS,
    Have,
    Range,
    Want,
    encode,
    encode_news,
)
from state.gossip.port import Port
from state.gossip.seen import Seen

MAX_HOT = 4096
"""Rumours at a time; older ones are left to anti-entropy."""
MAX_WANTED = 8192
"""Updates asked for at a time."""
_SOURCES = 4
_TRIES = 6
_PER_UPDATE = 40
_FEW = 64


@dataclass(slots=True)
class _Hot:
    update: Update
    known: int  # neighbours known to have it, as bits
    left: int
    told: int = 0


@dataclass(slots=True)
class _Wanted:
    deadline: float
    sources: list[str]
    tries: int = 1


@dataclass(slots=True)
class Traffic:
    """Payloads that went out and came in."""

    sent: int = 0
    received: int = 0
    duplicates: int = 0
    refused: int = 0
    """Updates that were too long, too far ahead, or of one origin too many."""


def runs(updates: Iterable[Update]) -> list[Range]:
    """Return the numbers of `updates`, joined where they follow each other."""
    pairs = sorted((update.origin, update.seq) for update in updates)
    ranges: list[Range] = []
    at, first, last = "", 0, -1
    for origin, seq in pairs:
        if origin == at and seq == last + 1:
            last = seq
            continue
        if first:
            ranges.append(Range(at, first, last))
        at, first, last = origin, seq, seq
    if first:
        ranges.append(Range(at, first, last))
    return ranges


@dataclass(slots=True)
class _Slots:
    """A bit for each neighbour, so that who knows a rumour is one small number."""

    active: list[str] = field(default_factory=list)
    bits: dict[str, int] = field(default_factory=dict)


class Spreader:
    """What one peer tells, and asks for.

    Args:
        port: Time, dice and the way out.
        active: The list of neighbours, which changes in place.
        seen: What this peer has.
        log: What it can give.
    """

    def __init__(self, port: Port, active: list[str], seen: Seen, log: Log) -> None:
        self._port = port
        self._active = active
        self._seen = seen
        self._log = log
        self._slots = _Slots()
        self._hot: dict[tuple[str, int], _Hot] = {}
        self._fresh: list[_Hot] = []
        self._last_wave = -1e18
        self._wanted: dict[tuple[str, int], _Wanted] = {}
        self._behind: dict[str, None] = {}
        self.traffic = Traffic()

    @property
    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        due = float("inf")
        if self._fresh and self._active:
            due = self._last_wave + self._port.settings.min_gap
        if self._wanted:
            due = min(due, next(iter(self._wanted.values())).deadline)
        return due

    @property
    def hot(self) -> int:
        """The number of rumours that are told of."""
        return len(self._hot)

    @property
    def wanted(self) -> int:
        """The number of updates that were asked for and have not come."""
        return len(self._wanted)

    def tick(self) -> None:
        """Start a wave, and ask again for what did not come."""
        now = self._port.now
        if self._fresh and self._active and now >= self._last_wave + self._port.settings.min_gap:
            self._wave()
        if self._wanted and next(iter(self._wanted.values())).deadline <= now:
            self._ask_again()

    # -- what is new ------------------------------------------------------------------------------

    def publish(self, origin: str, seq: int, payload: bytes) -> None:
        """Take in an update of this peer's own."""
        update = Update(origin, seq, payload)
        self._seen.add(origin, seq)
        self._log.append(update)
        self._heat(update, 0)
        self._port.emit(Published(update))

    def receive(self, sender: str, updates: Sequence[Update]) -> None:
        """Take in updates of others; deliver those that are new."""
        settings, seen, traffic = self._port.settings, self._seen, self.traffic
        bit = self._bit(sender)
        new: list[Update] = []
        traffic.received += len(updates)
        for update in updates:
            origin, seq = update.origin, update.seq
            if seen.has(origin, seq):
                traffic.duplicates += 1
                hot = self._hot.get((origin, seq))
                if hot is not None:
                    hot.known |= bit
                continue
            if (
                len(update.payload) > settings.max_payload
                or not seen.admits(seq, origin)
                or (len(seen) >= settings.max_origins and not seen.knows(origin))
            ):
                traffic.refused += 1
                continue
            seen.add(origin, seq)
            self._wanted.pop((origin, seq), None)
            self._log.append(update)
            self._heat(update, bit)
            new.append(update)
        if new:
            self._port.emit(Deliver(new))

    def _heat(self, update: Update, known: int) -> None:
        hot = _Hot(update, known, self._port.settings.rumour_rounds)
        self._hot[update.origin, update.seq] = hot
        self._fresh.append(hot)
        if len(self._hot) > MAX_HOT:
            del self._hot[next(iter(self._hot))]
            if len(self._fresh) > MAX_HOT:
                del self._fresh[: MAX_HOT // 4]

    # -- telling ----------------------------------------------------------------------------------

    def _bit(self, address: str) -> int:
        """Return the bit of a neighbour, 0 for any other address."""
        slots = self._slots
        if slots.active != self._active:
            slots.active = list(self._active)
            gone = 0
            for old in [a for a in slots.bits if a not in slots.active]:
                gone |= slots.bits.pop(old)
            if gone:
                for hot in self._hot.values():
                    hot.known &= ~gone
                    hot.told &= ~gone
            used = sum(slots.bits.values())
            for new in slots.active:
                if new not in slots.bits:
                    bit = ~used & (used + 1)
                    slots.bits[new] = bit
                    used |= bit
        return slots.bits.get(address, 0)

    def _wave(self) -> None:
        """Tell a few neighbours of all that is new since the last wave."""
        settings, port = self._port.settings, self._port
        fresh, self._fresh = self._fresh, []
        self._last_wave = port.now
        common = fresh[0].known
        for hot in fresh:
            hot.left -= 1
            common &= hot.known
        targets = [a for a in self._active if not self._bit(a) & common]
        if len(targets) > settings.fanout:
            targets = port.rng.sample(targets, settings.fanout)
        small = [hot for hot in fresh if len(hot.update.payload) <= settings.eager_bytes]
        room = 4 * settings.max_datagram
        pushed = sum(len(hot.update.payload) + _PER_UPDATE for hot in small) <= room
        eager, lazy = targets[: settings.eager], targets[settings.eager :]
        if pushed and small:
            self._tell(eager, small, payloads=True)
            if len(small) < len(fresh):
                self._tell(eager, [hot for hot in fresh if hot not in small], payloads=False)
        else:
            lazy = targets
        self._tell(lazy, fresh, payloads=False)

    def _tell(self, targets: list[str], rumours: list[_Hot], *, payloads: bool) -> None:
        """Send rumours to each target that may lack them; encode them once if all lack all."""
        anyone = 0
        for hot in rumours:
            anyone |= hot.known
        everyone = [a for a in targets if not self._bit(a) & anyone]
        if everyone:
            self._send(everyone, rumours, payloads=payloads)
        for address in targets:
            bit = self._bit(address)
            if bit & anyone:
                some = [hot for hot in rumours if not hot.known & bit]
                if some:
                    self._send([address], some, payloads=payloads)

    def _send(self, targets: list[str], rumours: list[_Hot], *, payloads: bool) -> None:
        bits = 0
        for address in targets:
            bits |= self._bit(address)
        for hot in rumours:
            hot.told |= bits
        updates = [hot.update for hot in rumours]
        if payloads:
            self.send_news(targets, updates, more=False)
            return
        ranges = runs(updates)
        for at in range(0, len(ranges), MAX_ROWS):
            self._port.send_bytes(targets, "Have", encode(Have(ranges[at : at + MAX_ROWS])))

    def send_news(self, targets: list[str], updates: list[Update], *, more: bool) -> None:
        """Send updates, packed into datagrams if they are few, else into larger messages."""
        settings = self._port.settings
        size = sum(len(update.payload) + _PER_UPDATE for update in updates)
        room = settings.max_datagram if size <= 8 * settings.max_datagram else 1 << 18
        self.traffic.sent += len(updates) * len(targets)
        pack: list[Update] = []
        packs, left = [pack], room
        for update in updates:
            cost = len(update.payload) + len(update.origin) + 20
            if pack and (cost > left or len(pack) >= MAX_ROWS):
                pack, left = [], room
                packs.append(pack)
            pack.append(update)
            left -= cost
        for pack in packs:
            data = encode_news(pack, more=more and pack is packs[-1])
            self._port.send_bytes(targets, "News", data)

    def round(self) -> None:
        """Tell of rumours again, to neighbours that are not known to have them."""
        if not self._hot or not self._active:
            return
        self._bit("")
        bits = [(address, self._slots.bits[address]) for address in self._active]
        everyone = sum(bit for _, bit in bits)
        lacking: dict[str, list[_Hot]] = {address: [] for address, _ in bits}
        untold: dict[str, bool] = {}
        done: list[tuple[str, int]] = []
        for key, hot in self._hot.items():
            if hot.left <= 0 or not everyone & ~hot.known:
                done.append(key)
                continue
            hot.left -= 1
            for address, bit in bits:
                if not hot.known & bit:
                    lacking[address].append(hot)
                    if not hot.told & bit:
                        untold[address] = True
        for key in done:
            del self._hot[key]
        targets = [address for address, rumours in lacking.items() if rumours]
        self._port.rng.shuffle(targets)
        targets.sort(key=lambda address: address not in untold)
        for address in targets[: self._port.settings.fanout]:
            self._send([address], lacking[address], payloads=False)

    def knows(self, sender: str, ranges: Iterable[Range]) -> None:
        """Note that a neighbour has these updates."""
        bit = self._bit(sender)
        if not bit or not self._hot:
            return
        for row in ranges:
            if row.last - row.first < len(self._hot):
                for seq in range(row.first, row.last + 1):
                    hot = self._hot.get((row.origin, seq))
                    if hot is not None:
                        hot.known |= bit
            else:
                for hot in self._hot.values():
                    update = hot.update
                    if update.origin == row.origin and row.first <= update.seq <= row.last:
                        hot.known |= bit

    def knows_all(self, sender: str) -> None:
        """Note that a neighbour has all that this peer has."""
        bit = self._bit(sender)
        if bit:
            for hot in self._hot.values():
                hot.known |= bit

    # -- asking -----------------------------------------------------------------------------------

    def offered(self, sender: str, ranges: Sequence[Range]) -> None:
        """Ask `sender` for what it has and this peer lacks, unless someone else was asked."""
        self.knows(sender, ranges)
        asking: list[Range] = []
        many = sum(min(row.last - row.first, _FEW) for row in ranges) >= _FEW
        deadline = self._port.now + self._port.settings.round * (5.0 if many else 0.75)
        for row in ranges:
            room = MAX_WANTED - len(self._wanted)
            if room <= 0:
                self._behind[sender] = None
                break
            for part in self._seen.missing(row, room):
                if part.last < row.last and part.last - part.first + 1 == room:
                    self._behind[sender] = None
                if not self._seen.admits(part.last, row.origin):
                    self._behind[sender] = None
                    last = self._seen.high(row.origin) + 1000
                    if last < part.first:
                        continue
                    part = Range(part.origin, part.first, min(part.last, last))
                first = 0
                for seq in range(part.first, part.last + 1):
                    wanted = self._wanted.get((part.origin, seq))
                    if wanted is None:
                        self._wanted[part.origin, seq] = _Wanted(deadline, [sender])
                        first = first or seq
                        continue
                    if sender not in wanted.sources and len(wanted.sources) < _SOURCES:
                        wanted.sources.append(sender)
                    if first:
                        asking.append(Range(part.origin, first, seq - 1))
                        first = 0
                if first:
                    asking.append(Range(part.origin, first, part.last))
        if asking:
            self._ask(sender, asking)

    def _ask(self, target: str, ranges: list[Range]) -> None:
        for at in range(0, len(ranges), MAX_ROWS):
            self._port.send(target, Want(ranges[at : at + MAX_ROWS]))

    def _ask_again(self) -> None:
        now, settings = self._port.now, self._port.settings
        late = []
        for key, wanted in self._wanted.items():
            if wanted.deadline > now:
                break
            late.append((key, wanted))
        by_source: dict[str, list[Update]] = {}
        # Much is late because much was asked for: then patience, not haste.
        pause = settings.round * (0.75 if len(late) <= _FEW else 5.0)
        for key, wanted in late:
            del self._wanted[key]
            if wanted.tries >= _TRIES or self._seen.has(*key):
                continue
            # For a few, each time ask one more of those that have it: losses are independent.
            several = wanted.tries + 1 if len(late) <= _FEW else 1
            sources = wanted.sources
            for i in range(min(several, len(sources))):
                source = sources[(wanted.tries + i) % len(sources)]
                by_source.setdefault(source, []).append(Update(*key, b""))
            wanted.tries += 1
            wanted.deadline = now + pause
            self._wanted[key] = wanted
        for source, updates in by_source.items():
            self._ask(source, runs(updates))

    def hurry(self, sender: str, *, more: bool) -> bool:
        """Return whether `sender` has more for this peer and should be asked right away."""
        if not more and sender not in self._behind:
            return False
        if len(self._wanted) > MAX_WANTED // 2:
            return False
        self._behind.pop(sender, None)
        return True

    def settled(self, sender: str) -> None:
        """Forget what was asked for and came in a snapshot of `sender` instead."""
        for key in [key for key in self._wanted if self._seen.has(*key)]:
            del self._wanted[key]
        self._behind.pop(sender, None)
