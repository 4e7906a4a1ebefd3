"""What the parts of a replica share: the time, the keys, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from state.pbft.authentication import Authenticator, close
from state.pbft.events import Effect, Persist, Rejected, Rewrite, Send, Settings
from state.pbft.group import Group
from state.pbft.messages import AnyMessage
from state.pbft.records import Body, Record, encode_record

_NEVER = float("inf")


class Port:
    """Collects the effects of one step: records first, then one bundle for each peer."""

    def __init__(self, group: Group, keys: Authenticator, settings: Settings) -> None:
        self.group = group
        self.keys = keys
        self.settings = settings
        self.name = keys.name
        self.others = group.others(keys.name)
        self.now = float("-inf")
        self.wall = 0.0
        self.rewrite = False
        """Whether the vote log is to be written anew at the end of this step."""
        self.written: set[bytes] = set()
        """Digests of the batches that are in the vote log, or noted for it."""
        self._records: list[Record] = []
        self._notes: list[Record] = []
        self._effects: list[Effect] = []
        self._out: dict[str, list[AnyMessage]] = {}
        self._lazy: list[AnyMessage] = []
        self.lazy_at = _NEVER

    def time(self, now: float, wall: float) -> None:
        """Set the time; it does not run backwards."""
        self.now = max(self.now, now)
        self.wall = wall

    def emit(self, effect: Effect) -> None:
        """Add an effect that is not a message."""
        self._effects.append(effect)

    def persist(self, record: Record) -> None:
        """Write a record before anything of this step leaves."""
        self._records.append(record)

    def note(self, record: Record) -> None:
        """Write a record with the next one that must be written: others can tell it again."""
        self._notes.append(record)

    def note_batch(self, key: bytes, data: bytes) -> None:
        """Note a batch, if the log does not have it: records that come after it may name it."""
        if key not in self.written:
            self.written.add(key)
            self.note(Body(data))

    def persist_notes(self) -> None:
        """Write all that was noted before anything of this step leaves."""
        self._records[:0] = self._notes
        self._notes = []

    def send(self, to: str, *messages: AnyMessage) -> None:
        """Send messages to one peer."""
        self._out.setdefault(to, []).extend(messages)

    def broadcast(self, message: AnyMessage) -> None:
        """Send a message to all other replicas, with those that wait for one."""
        self._flush()
        for to in self.others:
            self.send(to, message)

    def broadcast_lazily(self, message: AnyMessage, within: float) -> None:
        """Send a message to all other replicas with the next one, or after `within` seconds."""
        self._lazy.append(message)
        self.lazy_at = min(self.lazy_at, self.now + within)
        if len(self._lazy) >= self.settings.checkpoint // 2:
            self._flush()

    def tick(self) -> None:
        """Send what has waited long enough."""
        if self.now >= self.lazy_at:
            self._flush()

    def hurry(self) -> None:
        """Send what waits for another message to travel with."""
        self._flush()

    def _flush(self) -> None:
        if self._lazy:
            for to in self.others:
                self.send(to, *self._lazy)
            self._lazy = []
        self.lazy_at = _NEVER

    def take(self, whole: Callable[[], list[Record]]) -> list[Effect]:
        """Return the effects since the last call.

        Args:
            whole: Returns all that the vote log is to hold.
        """
        effects: list[Effect] = []
        if self.rewrite:
            # The new log leaves out what is told here: told later, a crash would lose it for ever.
            effects += self._effects
            self._effects = []
            effects.append(Rewrite(_encoded(whole())))
            self.rewrite = False
            self._notes = []
        elif self._records:
            effects.append(Persist(_encoded([*self._notes, *self._records])))
            self._notes = []
        self._records = []
        if self._out:
            out, self._out = self._out, {}
            effects += [self._bundle(to, said) for to, said in out.items()]
        effects += self._effects
        self._effects = []
        return effects

    def _bundle(self, to: str, said: list[AnyMessage]) -> Send | Rejected:
        try:
            return Send(to, close(self.keys, to, said))
        except KeyError:  # a client that is known to a quorum, but not here
            return Rejected(to, "there is no key for it here: it is not answered")


def _encoded(records: Iterable[Record]) -> list[bytes]:
    return [encode_record(record) for record in records]
