"""Whole states, for a peer that lacks updates that the log no longer has.

A snapshot stands for a set of updates, and is merged: the application's states are idempotent. It
is *not* merged where that could bring back what was deleted and forgotten, which happens below a
stable cut only:

    the receiver is behind the sender's stable cut   it puts the snapshot in its state's place
    the sender is behind the receiver's stable cut   the receiver takes nothing
    each is behind the other's                       they are of groups that began apart: merged

The first two can only happen to a peer that is new or came back with an old state.
"""

from __future__ import annotations

from collections.abc import Mapping

from state.gossip.events import Deliver, Restore, TakeSnapshot, Update
from state.gossip.log import Log
from state.gossip.messages import MessageError, Range, Snapshot
from state.gossip.port import Port
from state.gossip.seen import Seen

_MAX_ASKED = 64


class Snapshots:
    """Gives and takes snapshots for one peer."""

    def __init__(self, port: Port, seen: Seen, log: Log) -> None:
        self._port = port
        self._seen = seen
        self._log = log
        self._asked: dict[str, float] = {}
        self.given = 0
        self.taken = 0
        self.ignored = 0
        """Snapshots that brought nothing, or came from behind the stable cut."""

    def want(self, to: str) -> None:
        """Ask the application for a snapshot, unless one for `to` is on its way."""
        now = self._port.now
        if self._asked.get(to, now) > now:
            return
        if len(self._asked) >= _MAX_ASKED:
            self._asked = {a: until for a, until in self._asked.items() if until > now}
            if len(self._asked) >= _MAX_ASKED:
                return
        self._asked[to] = now + 20 * self._port.settings.round
        self._port.emit(TakeSnapshot(to))

    def give(self, to: str, state: bytes, stable: Mapping[str, int]) -> None:
        """Send the application's state.

        Raises:
            ValueError: it is larger than the settings allow.
        """
        limit = self._port.settings.max_snapshot
        if len(state) > limit:
            raise ValueError(f"a snapshot of {len(state)} bytes; at most {limit}")
        self.given += 1
        cut = [Range(origin, 1, high) for origin, high in sorted(stable.items()) if high]
        self._port.send(to, Snapshot(state, list(self._seen), cut), reliable=True)

    def take(self, message: Snapshot, stable: Mapping[str, int]) -> dict[str, int] | None:
        """Take over a snapshot; return the stable cut it came with, or None if it was ignored."""
        theirs = Seen()
        try:
            theirs.add_ranges(message.seen)
        except ValueError as error:
            raise MessageError(str(error)) from error
        if any(row.first != 1 for row in message.stable):
            raise MessageError("a stable cut does not begin at 1")
        cut = {row.origin: row.last for row in message.stable}
        if not theirs.covers(cut):
            raise MessageError("a snapshot is behind its own stable cut")
        news = any(self._seen.missing(row, 1) for row in message.seen)
        sender_behind = not theirs.covers(stable)
        behind = not self._seen.covers(cut)
        if not news or (sender_behind and not behind):
            self.ignored += 1
            return None
        self.taken += 1
        replace = behind and not sender_behind
        self._port.emit(Restore(message.state, replace))
        if replace:
            again = self._replace(theirs)
            if again:
                self._port.emit(Deliver(again))
        else:
            self._seen.add_ranges(message.seen)
        return cut

    def _replace(self, theirs: Seen) -> list[Update]:
        """See only what the snapshot and the log hold; return what must be delivered again."""
        again = [update for update in self._log if not theirs.has(update.origin, update.seq)]
        self._seen.clear()
        self._seen.add_ranges(theirs)
        for update in sorted(again, key=lambda update: (update.origin, update.seq)):
            self._seen.add(update.origin, update.seq)
        return again
