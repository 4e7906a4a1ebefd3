"""From the vote log to a replica that goes on where it was, and back."""

from __future__ import annotations

from collections.abc import Sequence

from state.pbft.checkpoints import Checkpoints, Snapshot
from state.pbft.execution import Execution
from state.pbft.ledger import Ledger
from state.pbft.messages import Claim, NewView, ViewChange
from state.pbft.ordering import Ordering
from state.pbft.port import Port
from state.pbft.records import (
    Accepted,
    Adopted,
    Base,
    Body,
    Entered,
    Final,
    Kept,
    Moved,
    Prepared,
    Record,
    decode_record,
)
from state.pbft.slots import Slots
from state.pbft.views import Views


def replay(
    log: Sequence[bytes],
    port: Port,
    slots: Slots,
    execution: Execution,
    checkpoints: Checkpoints,
    ledger: Ledger,
    ordering: Ordering,
    views: Views,
) -> None:
    """Bring the parts of a new replica to where the log's records leave them.

    Raises:
        ValueError: the log makes no sense.
    """
    name, group = port.name, port.group
    moved: ViewChange | None = None
    entered: NewView | None = None
    written: set[bytes] = set()
    for data in log:
        record = decode_record(data)
        match record:
            case Base() | Adopted():
                snapshot = Snapshot(record.seq, record.state, port.settings.chunk)
                if snapshot.digest != record.digest:
                    raise ValueError(f"the vote log's state after {record.seq} is another")
                execution.restore(record.seq, record.state)
                ledger.final = ledger.logged = record.seq
                if isinstance(record, Adopted):
                    ledger.adopted = record.seq
                    checkpoints.add(snapshot)
                else:
                    checkpoints.settle(snapshot)
                    slots.advance(record.seq)
                    ordering.next = record.seq + 1
            case Body():
                written.add(slots.put_batch(record.batch))
            case Moved():
                moved = record.change
                ordering.leave(moved.view)
            case Entered():
                entered = record.new_view
                selected = entered.selected
                last = selected[-1].seq if selected else entered.checkpoint.seq
                ordering.enter(entered.view, last)
            case Kept():
                slot = slots.slot(record.seq, ordering.view)
                slot.prepared = record.prepared
                slot.preprepared = {each.digest: each.view for each in record.preprepared}
                if record.prepared is not None:
                    slot.commits[name] = (record.prepared.view, record.prepared.digest)
            case Accepted():
                slot = slots.slot(record.seq, record.view)
                slot.digest, slot.signature = record.digest, record.signature
                slot.accepted = True
                slot.preprepared[record.digest] = record.view
                if group.primary(record.view) != name:
                    slot.prepares[name] = record.digest
                if record.view == ordering.view:
                    ordering.next = max(ordering.next, record.seq + 1)
            case Prepared():
                slot = slots.slot(record.seq, record.view)
                slot.prepared = Claim(record.seq, record.digest, record.view)
                slot.commits[name] = (record.view, record.digest)
            case Final():
                slot = slots.slot(record.seq, ordering.view)
                slot.committed = (record.view, record.digest)
                ledger.logged = record.seq
    for slot in slots:
        for digest in slot.preprepared:
            if slots.batch(digest) is None:
                raise ValueError(f"the vote log lacks a batch of slot {slot.seq}")
    port.written = written
    views.resume(moved, entered)


def whole_log(
    port: Port,
    slots: Slots,
    checkpoints: Checkpoints,
    ledger: Ledger,
    ordering: Ordering,
    views: Views,
) -> list[Record]:
    """Return records that bring a new replica to where these parts are."""
    stable = checkpoints.stable
    records: list[Record] = [Base(stable.seq, stable.digest, stable.data)]
    if views.new_view is not None:
        records.append(Entered(views.new_view))
    if not ordering.active:
        records.append(Moved(views.own))
    written: set[bytes] = set()
    for slot in slots:
        named = set(slot.preprepared)
        if slot.committed is not None and ledger.adopted < slot.seq <= ledger.final:
            named.add(slot.committed[1])
        for digest in sorted(named - written):
            data = slots.batch_bytes(digest)
            assert data is not None
            records.append(Body(data))
            written.add(digest)
        claims = [Claim(slot.seq, digest, view) for digest, view in slot.preprepared.items()]
        if slot.prepared is not None or claims:
            records.append(Kept(slot.seq, slot.prepared, claims))
        if slot.view == ordering.view and slot.accepted and ordering.active:
            assert slot.digest is not None
            records.append(Accepted(slot.view, slot.seq, slot.digest, slot.signature))
    adopted = checkpoints.own(ledger.adopted)
    if adopted is not None and adopted.seq > stable.seq:
        records.append(Adopted(adopted.seq, adopted.digest, adopted.data))
    records += [
        Final(slot.committed[0], slot.seq, slot.committed[1])
        for slot in slots
        if slot.committed is not None and ledger.adopted < slot.seq <= ledger.final
    ]
    port.written = written
    return records
