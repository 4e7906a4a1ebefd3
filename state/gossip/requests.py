"""What one peer asks others for: each update of one of them at a time, as long as that works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from state.gossip.events import Update
from state.gossip.log import runs
from state.gossip.messages import MAX_ROWS, Range, Want
from state.gossip.port import Port
from state.gossip.seen import Seen

MAX_WANTED = 8192
"""Updates asked for at a time."""
_SOURCES = 4
_TRIES = 6
_FEW = 64


@dataclass(slots=True)
class _Wanted:
    deadline: float
    sources: list[str]
    tries: int = 1


class Requests:
    """The updates that are on their way to this peer, or should be."""

    def __init__(self, port: Port, seen: Seen) -> None:
        self._port = port
        self._seen = seen
        self._wanted: dict[tuple[str, int], _Wanted] = {}
        self._behind: dict[str, None] = {}

    def __len__(self) -> int:
        """Return the number of updates that were asked for and have not come."""
        return len(self._wanted)

    @property
    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        return next(iter(self._wanted.values())).deadline if self._wanted else float("inf")

    def tick(self) -> None:
        """Ask again for what did not come."""
        if self.due <= self._port.now:
            self._ask_again()

    def came(self, origin: str, seq: int) -> None:
        """Note that an update is there."""
        self._wanted.pop((origin, seq), None)

    def offered(self, sender: str, ranges: Sequence[Range]) -> None:
        """Ask `sender` for what it has and this peer lacks, unless someone else was asked."""
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
