"""Ordering: proposals, prepares and commits of the current view."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import msgspec

from state.pbft.authentication import sign, valid
from state.pbft.events import Rejected
from state.pbft.ledger import Ledger
from state.pbft.messages import (
    MAX_OPERATIONS,
    NULL,
    NULL_DIGEST,
    Accusation,
    Batch,
    Claim,
    Commit,
    Decided,
    MessageError,
    Prepare,
    PrePrepare,
    decode_batch,
    digest,
    encode_batch,
)
from state.pbft.port import Port
from state.pbft.records import Accepted, Prepared
from state.pbft.requests import Requests
from state.pbft.selection import most_fresh
from state.pbft.slots import Slot, Slots

_AROUND_OPERATION, _AROUND_REQUEST = 5, 1000
"""Bytes that a batch has for each, at most, beside what the operations are."""

_Vote = TypeVar("_Vote", Prepare, Commit)


class Ordering:
    """What a replica does for a slot, as primary and as backup."""

    def __init__(self, port: Port, slots: Slots, ledger: Ledger, requests: Requests) -> None:
        self._port = port
        self._slots = slots
        self._ledger = ledger
        self._requests = requests
        self.view = 0
        self.active = True
        self.next = 1
        """The sequence number of the primary's next proposal."""
        self._begun = 0
        """Up to here it is the NEW-VIEW that proposes, and nothing else."""
        self.accusations: list[Accusation] = []
        """Found, and not dealt with yet."""
        settings = port.settings
        self._largest = (
            max(settings.batch_bytes, settings.max_request)
            + _AROUND_OPERATION * MAX_OPERATIONS
            + _AROUND_REQUEST * settings.batch_operations
        )

    @property
    def leads(self) -> bool:
        """Whether this replica is the primary of a view that has begun."""
        return self.active and self._port.group.primary(self.view) == self._port.name

    # -- the primary ------------------------------------------------------------------------------

    def propose(self) -> None:
        """Propose what waits, as far as pipeline and watermarks allow."""
        settings, port = self._port.settings, self._port
        self.next = max(self.next, self._ledger.final + 1)
        while (
            self._requests.queued
            and self.leads
            and self._slots.inside(self.next)
            and self.next - 1 - self._ledger.executed < settings.pipeline
        ):
            slot = self._slots.slot(self.next, self.view)
            self.next += 1
            if self._full(slot):
                self._offer(slot, NULL)
                continue
            requests = self._requests.next_batch()
            batch = Batch(max(int(port.wall * 1000), self._ledger.time_ms), requests)
            self._offer(slot, encode_batch(batch), batch)

    def _full(self, slot: Slot) -> bool:
        """Return whether no other batch than the null one is accepted for a slot any more."""
        return len(slot.preprepared) >= most_fresh(self._port.group.n)

    def _offer(self, slot: Slot, data: bytes, batch: Batch | None = None) -> None:
        port = self._port
        slot.digest = self._slots.put_batch(data, batch)
        proposal = PrePrepare(self.view, slot.seq, slot.digest, b"", data)
        slot.signature = sign(port.keys, proposal)
        self._accept(slot)
        port.broadcast(msgspec.structs.replace(proposal, signature=slot.signature))
        self._progress(slot)
        self._ledger.advance(self.active)

    # -- backups ----------------------------------------------------------------------------------

    def on_pre_prepare(self, sender: str, message: PrePrepare) -> None:
        """Note a proposal, whoever brings it; vote for it if its batch is good."""
        port = self._port
        primary = port.group.primary(message.view)
        if (
            message.view != self.view
            or not self.active
            or not self._slots.inside(message.seq)
            or primary == port.name
        ):
            return
        slot = self._slots.slot(message.seq, self.view)
        if slot.digest is None and message.seq <= self._begun:
            return
        if slot.digest is None or slot.digest != message.digest:
            if not valid(port.keys, primary, message):
                port.emit(Rejected(sender, f"proposal {message.seq} has no valid signature"))
                return
            if slot.digest is not None:
                self._accuse_primary(slot, message.digest, message.signature)
                return
            slot.digest, slot.signature = message.digest, message.signature
            for other, proof in slot.proofs.items():
                self._accuse_primary(slot, other, proof)
        if message.batch and not slot.accepted:
            if digest("batch", message.batch) != message.digest:
                port.emit(Rejected(sender, f"the batch of proposal {message.seq} is another"))
                return
            self.take_batch(sender, message.batch)
        self._consider(slot)  # if it is a batch that was here before

    def take_batch(self, sender: str, data: bytes) -> None:
        """Take a batch that some slot names, and vote for it where it was proposed."""
        key = digest("batch", data)
        if self._slots.batch(key) is not None or key not in self.missing():
            return
        if len(data) > self._largest:
            self._port.emit(Rejected(sender, f"a batch of {len(data)} bytes is too large"))
            return
        try:
            self._slots.put_batch(data, decode_batch(data))
        except MessageError as error:
            self._port.emit(Rejected(sender, str(error)))
            return
        self.accept_all()

    def accept_all(self) -> None:
        """Vote for the proposals of this view whose batches are here."""
        for slot in self._slots:
            if slot.view == self.view and slot.digest is not None and not slot.accepted:
                self._consider(slot)

    def missing(self) -> set[bytes]:
        """Return the digests of batches that are needed and not here."""
        missing = set()
        for slot in self._slots:
            if slot.view == self.view and slot.digest is not None and not slot.accepted:
                missing.add(slot.digest)
            if slot.seq > self._ledger.final:
                # That f + 1 have prepared a batch is no proof yet, but one of them is correct.
                if len(slot.commits) > self._port.group.f:
                    votes = Counter(slot.commits.values())
                    missing.update(d for (_, d), n in votes.items() if n > self._port.group.f)
                if slot.committed is not None:
                    missing.add(slot.committed[1])
        return {key for key in missing if self._slots.batch(key) is None}

    def _consider(self, slot: Slot) -> None:
        """Vote for a proposal if its batch is here and good."""
        if not self.active or slot.accepted or slot.refused or slot.digest is None:
            return
        batch = self._slots.batch(slot.digest)
        if batch is None:
            return
        if slot.signature and slot.digest != NULL_DIGEST:
            fault = self._fault(batch)
            if self._full(slot) and slot.digest not in slot.preprepared:
                fault = f"{len(slot.preprepared)} other batches were accepted there before"
            if fault is not None:
                slot.refused = True
                primary = self._port.group.primary(self.view)
                self._port.emit(Rejected(primary, f"proposal {slot.seq}: {fault}"))
                return
        self._accept(slot)
        port = self._port
        if port.group.primary(self.view) != port.name:
            vote = Prepare(self.view, slot.seq, slot.digest, slot.signature)
            vote = self._signed(vote)
            slot.prepares[port.name] = slot.digest
            if port.settings.fast:
                port.broadcast_lazily(vote, port.settings.lazy_fast)
            else:
                port.broadcast(vote)
        self._progress(slot)

    def _fault(self, batch: Batch) -> str | None:
        """Return what is wrong with a fresh batch."""
        skew, most = batch.time_ms / 1000 - self._port.wall, self._port.settings.max_skew
        # A time that was agreed on before may be ahead of all clocks, if they were set back.
        if skew < -most or (skew > most and batch.time_ms > self._ledger.time_ms):
            return f"its time is {skew:+.3f} s from the time here"
        for request in batch.requests:
            fault = self._requests.fault(request)
            if fault is not None:
                return fault
        return None

    def _accept(self, slot: Slot) -> None:
        assert slot.digest is not None
        slot.accepted = True
        slot.preprepared[slot.digest] = self.view
        data = self._slots.batch_bytes(slot.digest)
        assert data is not None
        self._port.note_batch(slot.digest, data)
        self._port.persist(Accepted(self.view, slot.seq, slot.digest, slot.signature))

    # -- votes ------------------------------------------------------------------------------------

    def on_prepare(self, sender: str, message: Prepare) -> None:
        """Count a backup's vote for a proposal."""
        if (
            message.view != self.view
            or not self.active
            or not self._slots.inside(message.seq)
            or sender == self._port.group.primary(self.view)
        ):
            return
        slot = self._slots.slot(message.seq, self.view)
        if not self._counts(sender, message, slot, slot.prepares.get(sender)):
            return
        slot.prepares[sender] = message.digest
        if message.proof and message.digest != slot.digest:
            if slot.digest is None:
                slot.proofs.setdefault(message.digest, message.proof)
            else:
                self._accuse_primary(slot, message.digest, message.proof)
        self._progress(slot)

    def on_commit(self, sender: str, message: Commit) -> None:
        """Count a replica's word that a batch is prepared there, in whatever view."""
        if not self._slots.inside(message.seq):
            return
        slot = self._slots.get(message.seq) or self._slots.slot(message.seq, self.view)
        before = slot.commits.get(sender)
        if before is not None and before[0] > message.view:
            return
        same = before[1] if before is not None and before[0] == message.view else None
        if not self._counts(sender, message, slot, same):
            return
        slot.commits[sender] = (message.view, message.digest)
        self._progress(slot)

    def on_decided(self, sender: str, message: Decided) -> None:
        """Take a batch as committed when f + 1 others have it so.

        To have it so is more than to have it prepared, so each counts as a commit as well: the one
        who knows may have got the last commit of somebody who has fallen silent since.
        """
        if not self._slots.inside(message.seq):
            return
        slot = self._slots.get(message.seq) or self._slots.slot(message.seq, self.view)
        slot.decided[sender] = (message.view, message.digest)
        views = [view for view, digest in slot.decided.values() if digest == message.digest]
        if slot.committed is None and len(views) > self._port.group.f:
            slot.committed = (min(views), message.digest)
        self._count_commits(slot)

    def _counts(
        self, sender: str, message: Prepare | Commit, slot: Slot, before: bytes | None
    ) -> bool:
        """Return whether a vote is the sender's first of its view, and signed if it has to be."""
        if before == message.digest:
            return False
        if self._port.settings.votes == "signature":
            if not valid(self._port.keys, sender, message):
                self._port.emit(Rejected(sender, f"a vote on {message.seq} is not signed"))
                return False
            other = slot.signed.get((type(message), sender))
            if other is None or other.view < message.view:
                slot.signed[type(message), sender] = message
            elif other.view == message.view and other.digest != message.digest:
                self.accusations.append(Accusation(sender, other, message))
        return before is None

    def _progress(self, slot: Slot) -> None:
        """See whether a slot is prepared, or committed, now."""
        port, quorum = self._port, self._port.group.quorum
        if (
            slot.view == self.view
            and slot.accepted
            and not slot.is_prepared()
            and sum(each == slot.digest for each in slot.prepares.values()) >= quorum - 1
        ):
            assert slot.digest is not None
            slot.prepared = Claim(slot.seq, slot.digest, self.view)
            port.persist(Prepared(self.view, slot.seq, slot.digest))
            slot.commits[port.name] = (self.view, slot.digest)
            self._send_commit(slot)
        self._count_commits(slot)

    def _count_commits(self, slot: Slot) -> None:
        """See whether a quorum has prepared one batch in one view, or knows it decided in any."""
        if slot.committed is None:
            for vote in set(slot.commits.values()):
                names = {name for name, each in slot.commits.items() if each == vote}
                names |= {name for name, (_, known) in slot.decided.items() if known == vote[1]}
                if len(names) >= self._port.group.quorum:
                    slot.committed = vote

    def _send_commit(self, slot: Slot) -> None:
        assert slot.digest is not None
        port, settings = self._port, self._port.settings
        vote = self._signed(Commit(self.view, slot.seq, slot.digest))
        if settings.fast:
            port.broadcast_lazily(vote, settings.lazy_fast)
        elif settings.tentative and slot.seq == self._ledger.final + 1:
            port.broadcast_lazily(vote, settings.lazy)
        else:
            port.broadcast(vote)

    def votes_for(self, slot: Slot) -> list[Prepare | Commit]:
        """Return this replica's votes on a slot in this view, to be sent again."""
        name, votes = self._port.name, list[Prepare | Commit]()
        if slot.view == self.view and slot.digest is not None and name in slot.prepares:
            votes.append(self._signed(Prepare(self.view, slot.seq, slot.digest, slot.signature)))
        if name in slot.commits:
            votes.append(
                self._signed(Commit(slot.commits[name][0], slot.seq, slot.commits[name][1]))
            )
        return votes

    def _signed(self, vote: _Vote) -> _Vote:
        if self._port.settings.votes == "signature":
            return msgspec.structs.replace(vote, signature=sign(self._port.keys, vote))
        return vote

    def _accuse_primary(self, slot: Slot, other: bytes, proof: bytes) -> None:
        """Accuse the primary if it has signed another proposal for a slot."""
        assert slot.digest is not None
        second = PrePrepare(self.view, slot.seq, other, proof)
        primary = self._port.group.primary(self.view)
        if slot.signature and other != slot.digest and valid(self._port.keys, primary, second):
            first = PrePrepare(self.view, slot.seq, slot.digest, slot.signature)
            self.accusations.append(Accusation(primary, first, second))

    # -- views ------------------------------------------------------------------------------------

    def leave(self, view: int) -> None:
        """Take part in no view until `view` begins."""
        self.view = self._ledger.view = view
        self.active = False
        self._requests.unqueue_all()

    def enter(self, view: int, last: int) -> None:
        """Take part in `view`, whose first `last` slots are already proposed."""
        self.view = self._ledger.view = view
        self.active = True
        self.next = last + 1
        self._begun = last
        self._requests.unqueue_all()
