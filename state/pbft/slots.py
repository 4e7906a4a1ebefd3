"""Slots: what is known of each sequence number between the watermarks."""

from __future__ import annotations

from collections.abc import Iterator

from state.pbft.messages import (
    NULL,
    NULL_DIGEST,
    Batch,
    Claim,
    Commit,
    Prepare,
    decode_batch,
    digest,
)


class Slot:
    """One sequence number.

    What belongs to the current view is forgotten when the view changes; claims and decisions stay.
    """

    __slots__ = (
        "accepted",
        "commits",
        "committed",
        "decided",
        "digest",
        "prepared",
        "prepares",
        "preprepared",
        "proofs",
        "refused",
        "seq",
        "signature",
        "signed",
        "view",
    )

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.prepared: Claim | None = None
        """P: the batch that was prepared last."""
        self.preprepared: dict[bytes, int] = {}
        """Q: for each batch that was accepted, the last view in which it was."""
        self.decided: dict[str, tuple[int, bytes]] = {}
        """What others say is committed there."""
        self.committed: tuple[int, bytes] | None = None
        """The view and the digest that a quorum committed: final."""
        self.commits: dict[str, tuple[int, bytes]] = {}
        """The last word of each replica, that it has prepared a batch in a view: a quorum of equal
        ones proves that it is decided, in whatever view this replica is."""
        self.begin(-1)

    def begin(self, view: int) -> None:
        """Forget what belonged to the view before `view`."""
        self.view = view
        self.digest: bytes | None = None
        """What the primary proposed in this view, once it is known."""
        self.signature = b""
        """The primary's, on the proposal; none if the NEW-VIEW proposed it."""
        self.accepted = False
        """Whether the batch is here, was found good, and was voted for."""
        self.refused = False
        """Whether the batch is here and is not good."""
        self.prepares: dict[str, bytes] = {}
        self.proofs: dict[bytes, bytes] = {}
        """Signatures of the primary that came with votes, before its proposal did."""
        self.signed: dict[tuple[type, str], Prepare | Commit] = {}
        """The last vote of each kind and replica, if votes are signed, to find a second."""

    def is_prepared(self) -> bool:
        """Return whether the proposal of this view is prepared here."""
        claim = self.prepared
        return claim is not None and claim.view == self.view and claim.digest == self.digest


class Slots:
    """The slots above the last stable checkpoint, and the batches that they name."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.low = 0
        """The low watermark: the last stable checkpoint."""
        self._slots: dict[int, Slot] = {}
        self._past: dict[int, Slot] = {}
        self._batches: dict[bytes, tuple[bytes, Batch]] = {NULL_DIGEST: (NULL, decode_batch(NULL))}

    def __iter__(self) -> Iterator[Slot]:
        return iter([self._slots[seq] for seq in sorted(self._slots)])

    def after(self, seq: int) -> Iterator[Slot]:
        """Return the slots above `seq` and the low watermark."""
        return iter([self._slots[each] for each in self._slots if each > seq])

    def past(self) -> Iterator[Slot]:
        """Return the slots up to the last stable checkpoint that are kept for who needs them."""
        return iter([self._past[seq] for seq in sorted(self._past)])

    def inside(self, seq: int) -> bool:
        """Return whether `seq` lies between the watermarks."""
        return self.low < seq <= self.low + self.window

    def get(self, seq: int) -> Slot | None:
        """Return a slot of which anything is known."""
        return self._slots.get(seq)

    def slot(self, seq: int, view: int) -> Slot:
        """Return a slot between the watermarks, ready for `view`."""
        found = self._slots.get(seq)
        if found is None:
            found = self._slots[seq] = Slot(seq)
        if found.view != view:
            found.begin(view)
        return found

    def advance(self, low: int) -> None:
        """Move the watermarks to a checkpoint, and forget the batches that no slot names any more.

        Slots are kept for half a window more, for those who are a little behind.
        """
        self.low = low
        for seq in [seq for seq in self._slots if seq <= low]:
            self._past[seq] = self._slots.pop(seq)
        for seq in [seq for seq in self._past if seq <= low - self.window // 2]:
            del self._past[seq]
        named = {NULL_DIGEST}
        for slot in (*self._slots.values(), *self._past.values()):
            named.update(slot.preprepared)
            named.update(d for d in (slot.digest, slot.committed and slot.committed[1]) if d)
        self._batches = {key: batch for key, batch in self._batches.items() if key in named}

    def put_batch(self, data: bytes, batch: Batch | None = None) -> bytes:
        """Keep a batch; return its digest.

        Raises:
            MessageError: the bytes are no batch.
        """
        key = digest("batch", data)
        if key not in self._batches:
            self._batches[key] = (data, batch or decode_batch(data))
        return key

    def batch(self, key: bytes) -> Batch | None:
        """Return a batch that is here."""
        found = self._batches.get(key)
        return None if found is None else found[1]

    def batch_bytes(self, key: bytes) -> bytes | None:
        """Return the bytes of a batch that is here."""
        found = self._batches.get(key)
        return None if found is None else found[0]
