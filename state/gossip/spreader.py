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
from state.gossip.log import Log, runs
from state.gossip.messages import (
    MAX_ROWS,
    Have,
    Range,
    encode,
    encode_news,
)
from state.gossip.port import Port
from state.gossip.requests import Requests
from state.gossip.seen import Seen
from state.gossip.statistics import Traffic

MAX_HOT = 4096
"""Rumours at a time; older ones are left to anti-entropy."""
_PER_UPDATE = 40


@dataclass(slots=True)
class _Hot:
    update: Update
    known: int  # neighbours known to have it, as bits
    left: int
    told: int = 0


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
        self.requests = Requests(port, seen)
        self.traffic = Traffic()

    @property
    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        due = float("inf")
        if self._fresh and self._active:
            due = self._last_wave + self._port.settings.min_gap
        return min(due, self.requests.due)

    @property
    def hot(self) -> int:
        """The number of rumours that are told of."""
        return len(self._hot)

    def tick(self) -> None:
        """Start a wave, and ask again for what did not come."""
        now = self._port.now
        if self._fresh and self._active and now >= self._last_wave + self._port.settings.min_gap:
            self._wave()
        self.requests.tick()

    # -- what is new ------------------------------------------------------------------------------

    def publish(self, origin: str, seq: int, payload: bytes) -> None:
        """Take in an update of this peer's own."""
        update = Update(origin, seq, payload)
        self._seen.add(origin, seq)
        self._log.append(update, keep=True)
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
            self.requests.came(origin, seq)
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

    def offered(self, sender: str, ranges: Sequence[Range]) -> None:
        """Note what `sender` has, and ask for what is missing here."""
        self.knows(sender, ranges)
        self.requests.offered(sender, ranges)

    def knows_all(self, sender: str) -> None:
        """Note that a neighbour has all that this peer has."""
        bit = self._bit(sender)
        if bit:
            for hot in self._hot.values():
                hot.known |= bit
