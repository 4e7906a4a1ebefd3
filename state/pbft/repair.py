"""Repair: what was lost is sent again, and who is far behind gets what others have.

A replica that waits for something says how far it is (STATUS), to all, at growing intervals; each
answers with what the other lacks. So nothing else need ever be sent twice, and every message may be
lost. A replica that waits for nothing says so now and then, for others may know more.
"""

from __future__ import annotations

from state.pbft.checkpoints import Checkpoints, Transfer
from state.pbft.events import Rejected
from state.pbft.ledger import Ledger
from state.pbft.messages import (
    AnyMessage,
    BatchBody,
    Checkpoint,
    Decided,
    FetchBatches,
    FetchState,
    PrePrepare,
    StatePart,
    Status,
)
from state.pbft.ordering import Ordering
from state.pbft.pace import SHARE, Pace
from state.pbft.port import Port
from state.pbft.slots import Slot, Slots
from state.pbft.views import Views

_HAS, _PREPARED, _COMMITTED = 1, 2, 4
_ANSWERED = 64
"""Slots of one answer."""
_OVERHEAD = 100
"""Bytes of a message around its content, at least."""
_ANSWER_BYTES = 1 << 18
"""Bytes of batches in one answer, or one batch."""
_GRANTED = 4 << 20
"""Bytes of batches and states that a peer gets in one `Settings.resend`, by asking for them."""
_PATIENCE = 3
"""After so many times the usual time to the next commit a replica that waits asks."""
_NEVER = float("inf")


class Repair:
    """Says what this replica lacks, and gives others what they lack."""

    def __init__(
        self,
        port: Port,
        slots: Slots,
        ledger: Ledger,
        ordering: Ordering,
        checkpoints: Checkpoints,
        views: Views,
    ) -> None:
        self._port = port
        self._slots = slots
        self._ledger = ledger
        self._ordering = ordering
        self._checkpoints = checkpoints
        self._views = views
        self.transfer: Transfer | None = None
        self.at = _NEVER
        """When the next STATUS is due."""
        self._attempt = 0
        self._turn = 0
        self._idle = True
        self._since = 0.0
        """When something was last committed, or began to be waited for."""
        self._pace = Pace(port.settings.resend / 4, port.settings.timeout / SHARE)
        self._answered: dict[str, float] = {}
        self._granted: dict[str, tuple[float, int]] = {}
        self._behind: tuple[int, float] | None = None
        """A checkpoint of others that is not reached here, and since when it is known."""

    # -- asking -----------------------------------------------------------------------------------

    def watch(self, outstanding: bool, progress: bool) -> None:
        """Set when to ask: soon when something waits, seldom when nothing does."""
        port = self._port
        if self.transfer is not None and self._overtaken(self.transfer.target):
            self.transfer = None
        waits = outstanding or self.transfer is not None or not self._ordering.active
        if progress and not self._idle:
            self._pace.add(port.now - self._since - self._lazy())
        if progress or waits == self._idle or self.at == _NEVER:
            self._attempt = 0
            self._idle = not waits
            self._since = port.now
            self.at = port.now + self._interval()

    def _lazy(self) -> float:
        settings = self._port.settings
        return settings.lazy_fast if settings.fast else settings.lazy

    def _interval(self) -> float:
        settings = self._port.settings
        if self._idle:
            return settings.longest_resend
        wait = settings.resend * 2.0 ** min(self._attempt, 30)
        if self._attempt == 0:
            wait = max(wait, _PATIENCE * self._pace.median)
        return min(self._lazy() + wait, settings.longest_resend)

    def tick(self) -> bool:
        """Say what is lacking, when it is time; return whether it is."""
        port = self._port
        if port.now < self.at:
            return False
        self._attempt += 1
        self.at = port.now + self._interval()
        port.broadcast(self._status())
        missing = sorted(self._ordering.missing())
        if missing:
            # Somebody else each time: as many copies as there are replicas would be in the way.
            port.send(port.others[self._attempt % len(port.others)], FetchBatches(missing))
        self._catch_up()
        if self.transfer is not None:
            self._fetch_state()
        return True

    def entered(self) -> None:
        """Get at once what a view began with and is not here."""
        new_view = self._views.new_view
        if new_view is not None and new_view.checkpoint.seq > self._ledger.final:
            self.want(new_view.checkpoint)
        missing = sorted(self._ordering.missing())
        if missing:
            self._port.broadcast(FetchBatches(missing))

    def _status(self) -> Status:
        final, marks = self._ledger.final, bytearray()
        for seq in range(final + 1, self._slots.low + self._slots.window + 1):
            marks.append(self._mark(self._slots.get(seq)))
        return Status(
            self._ordering.view,
            self._ordering.active,
            self._slots.low,
            final,
            bytes(marks).rstrip(b"\0"),
        )

    def _mark(self, slot: Slot | None) -> int:
        if slot is None:
            return 0
        here = slot.view == self._ordering.view
        return (
            _HAS * (here and slot.accepted)
            | _PREPARED * (here and slot.is_prepared())
            | _COMMITTED * (slot.committed is not None)
        )

    # -- answering --------------------------------------------------------------------------------

    def on_status(self, sender: str, status: Status) -> None:
        """Send a replica what it lacks and this one has."""
        port, ordering, views = self._port, self._ordering, self._views
        if port.now < self._answered.get(sender, -_NEVER) + port.settings.resend / 2:
            return
        self._answered[sender] = port.now
        answer: list[AnyMessage] = []
        here, there = (ordering.view, ordering.active), (status.view, status.active)
        if here > there and ordering.active and views.new_view is not None:
            answer.append(views.new_view)
        elif not ordering.active and ordering.view >= status.view:
            answer.append(views.own)
        answer += [
            Checkpoint(each.seq, each.digest)
            for each in self._checkpoints.until(self._ledger.final)
            if each.seq > status.stable
        ]
        answer += self._lacking(sender, status)
        if answer:
            port.send(sender, *answer)

    def _lacking(self, sender: str, status: Status) -> list[AnyMessage]:
        """Return proposals, batches and votes that another replica lacks."""
        answer: list[AnyMessage] = []
        size = 0
        same = self._ordering.active and (status.view, status.active) == (self._ordering.view, True)
        for slot in (*self._slots.past(), *self._slots):
            if slot.seq <= status.final or len(answer) > 3 * _ANSWERED:
                continue
            place = slot.seq - status.final - 1
            mark = status.slots[place] if place < len(status.slots) else 0
            if not mark & _HAS and size <= _ANSWER_BYTES and self._gives(slot, sender):
                for message in self._proposal(slot, same):
                    answer.append(message)
                    size += len(message.batch)
            if slot.committed is not None and slot.seq <= self._ledger.final:
                if not mark & _COMMITTED:
                    answer.append(Decided(slot.committed[0], slot.seq, slot.committed[1]))
                continue
            for vote in self._ordering.votes_for(slot):
                lacks = _COMMITTED if not hasattr(vote, "proof") else _PREPARED
                if not mark & lacks and (same or lacks == _COMMITTED):
                    answer.append(vote)
        return answer

    def _gives(self, slot: Slot, receiver: str) -> bool:
        """Return whether it is this replica that sends a proposal again.

        The primary does, and f + 1 others in turn, so that at least one correct replica does.
        """
        group, name = self._port.group, self._port.name
        if group.primary(self._ordering.view) in (name, receiver):
            return True
        place = (group.replicas.index(name) - group.replicas.index(receiver)) % group.n - 1
        return (place + slot.seq) % (group.n - 1) <= group.f

    def _proposal(self, slot: Slot, same: bool) -> list[PrePrepare | BatchBody]:
        digest = slot.committed[1] if slot.committed is not None else slot.digest
        if digest is None:
            return []
        data = self._slots.batch_bytes(digest)
        if data is None:
            return []
        if same and slot.view == self._ordering.view and slot.signature and slot.digest == digest:
            return [PrePrepare(slot.view, slot.seq, digest, slot.signature, data)]
        return [BatchBody(data)]

    def on_fetch_batches(self, sender: str, wanted: FetchBatches) -> None:
        """Send batches that are here."""
        for digest in wanted.digests:
            data = self._slots.batch_bytes(digest)
            if data is not None and self._grants(sender, len(data)):
                self._port.send(sender, BatchBody(data))

    def on_fetch_state(self, sender: str, wanted: FetchState) -> None:
        """Send part of a state that is here."""
        part = self._checkpoints.serve(wanted)
        if part is not None and self._grants(sender, len(part.data)):
            self._port.send(sender, part)

    def _grants(self, sender: str, size: int) -> bool:
        """Return whether a peer may have so much: a few bytes ask for many."""
        now = self._port.now
        since, granted = self._granted.get(sender, (-_NEVER, 0))
        if now >= since + self._port.settings.resend:
            since, granted = now, 0
        if granted >= _GRANTED:
            return False
        self._granted[sender] = since, granted + size + _OVERHEAD
        return True

    # -- state transfer ---------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Get a state from others when this replica cannot get there by itself."""
        port, final = self._port, self._ledger.final
        ahead = [c for c in self._checkpoints.agreed(port.group.f + 1) if c.seq > final]
        own = self._checkpoints.agreed(port.group.quorum)
        differing = [c for c in own if c.seq <= final and self._differs(c)]
        if differing:
            self.want(differing[-1])
            return
        if not ahead:
            self._behind = None
            return
        target = ahead[-1]
        if self._behind is None or self._behind[0] <= final:
            self._behind = (ahead[0].seq, port.now)
        patience = 8 * port.settings.resend
        if target.seq > self._slots.low + self._slots.window or (
            port.now >= self._behind[1] + patience
        ):
            self.want(target)

    def _overtaken(self, target: Checkpoint) -> bool:
        """Return whether this replica has got to a checkpoint by itself."""
        return target.seq <= self._ledger.final and not self._differs(target)

    def _differs(self, agreed: Checkpoint) -> bool:
        own = self._checkpoints.own(agreed.seq)
        return own is not None and own.digest != agreed.digest

    def want(self, target: Checkpoint) -> None:
        """Begin to get the state at a checkpoint that f + 1 replicas vouch for."""
        known, now = self.transfer, self._port.now
        if known is not None and not known.gives_way(target, now):
            return
        here = self._checkpoints.stable.by_hash() | (known.by_hash() if known is not None else {})
        self.transfer = Transfer(target, self._port.settings, now, here)
        self._fetch_state()

    def _fetch_state(self) -> None:
        assert self.transfer is not None
        others = self._port.others
        self._turn += 1
        for i, wanted in enumerate(self.transfer.wanted()):
            # Somebody else each time, for one that does not answer, or answers wrongly.
            self._port.send(others[(i + self._turn) % len(others)], wanted)

    def on_state_part(self, sender: str, part: StatePart) -> bool:
        """Take part of a state; return whether this replica has moved to it."""
        transfer = self.transfer
        if transfer is None:
            return False
        known = transfer.too_large
        if not transfer.take(part, self._port.now):
            if (part.seq, part.digest) == (transfer.target.seq, transfer.target.digest):
                self._port.emit(Rejected(sender, f"part {part.index} of a state is wrong"))
            return False
        if transfer.too_large:
            if not known:
                most = self._port.settings.max_state
                what = f"the state after {part.seq} has more than `max_state`, {most} bytes"
                self._port.emit(Rejected(sender, f"{what}: this replica stays behind"))
            return False
        # As long as parts come, who does not send theirs is soon passed over.
        self._attempt = 0
        self.at = min(self.at, self._port.now + self._interval())
        snapshot = transfer.done()
        if snapshot is None:
            if transfer.idle:
                self._fetch_state()
            elif (wanted := transfer.next()) is not None:
                self._port.send(sender, wanted)
            return False
        self.transfer = self._behind = None
        try:
            self._ledger.adopt(snapshot)
        except ValueError as error:
            self._port.emit(Rejected(sender, f"the state after {snapshot.seq}: {error}"))
            return False
        return True
