"""What replicas and clients say to each other, and its bytes.

All that one step says to one peer is one *bundle*: a msgpack array of messages, with one MAC (see
:mod:`state.pbft.authentication`). Messages that others relay, or that may become evidence, are
signed besides. Digests are SHA-256; each has a prefix of its own, so that no bytes mean two things.

A bundle is refused with :class:`MessageError` when it is of an unknown version or kind, has unknown
fields or a field out of its range. Reading costs time and memory in proportion to the length of the
bytes, whatever they claim.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec

VERSION: Final = 1
MAX_OPERATIONS: Final = 10_000
"""Operations of one request, and requests of one batch."""
MAX_SLOTS: Final = 4096
"""Slots that any list in a message may speak of: no window is larger."""
MAX_GROUP: Final = 256
MAX_CLAIMS: Final = MAX_SLOTS * (MAX_GROUP + 1)
"""Batches that a replica may have accepted: see :func:`state.pbft.selection.most_claims`."""

Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(max_length=64)]
"""64 bytes, or none where a message is not signed."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
Ordinal = Annotated[int, msgspec.Meta(ge=1, le=(1 << 62) - 1)]


class MessageError(ValueError):
    """Bytes of a peer are no bundle, or one beyond the limits."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all messages have in common: nothing but their form."""


class Request(Message, frozen=True, tag=1):
    """Carry out operations, one after the other, once.

    Signed by the client over everything else.
    """

    client: Name
    number: Ordinal
    """Unique in the client's life and growing; several may be under way."""
    low: Ordinal
    """Every request of this client with a number below has been answered."""
    operations: Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)]
    signature: Signature = b""


class PrePrepare(Message, frozen=True, tag=2):
    """The primary proposes a batch; signed over everything but the batch itself.

    The batch is left out where the receiver has it or can ask for it.
    """

    view: Count
    seq: Ordinal
    digest: Digest
    signature: Signature
    batch: bytes = b""


class Prepare(Message, frozen=True, tag=3):
    """A backup has accepted the proposal; signed if `Settings.votes` says so.

    `proof` is the primary's signature on the proposal: who has accepted another one can show both.
    It is empty for what a NEW-VIEW proposed.
    """

    view: Count
    seq: Ordinal
    digest: Digest
    proof: Signature = b""
    signature: Signature = b""


class Commit(Message, frozen=True, tag=4):
    """The batch is prepared here; signed if `Settings.votes` says so."""

    view: Count
    seq: Ordinal
    digest: Digest
    signature: Signature = b""


class Reply(Message, frozen=True, tag=5):
    """What became of a request, to its client."""

    number: Ordinal
    view: Count
    phase: Annotated[int, msgspec.Meta(ge=0, le=2)]
    """A :class:`~state.pbft.events.Phase`."""
    seq: Ordinal
    history: Digest
    """Of all batches up to and with this one."""
    digest: Digest
    """Of the results."""
    results: list[bytes] | None
    """None where another replica sends them in full."""


class Checkpoint(Message, frozen=True, tag=6):
    """The state after `seq` has this digest here."""

    seq: Count
    digest: Digest


class Claim(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A batch that a replica has prepared or pre-prepared: last in `view`."""

    seq: Ordinal
    digest: Digest
    view: Count


class ViewChange(Message, frozen=True, tag=7):
    """`replica` wants to move to `view`; signed over everything else."""

    view: Ordinal
    replica: Name
    stable: Count
    """Its last stable checkpoint; the claims are of later slots."""
    checkpoints: Annotated[list[Checkpoint], msgspec.Meta(max_length=64)]
    """Its checkpoints from the stable one on."""
    prepared: Annotated[list[Claim], msgspec.Meta(max_length=MAX_SLOTS)]
    """For each slot the last batch that was prepared (P)."""
    preprepared: Annotated[list[Claim], msgspec.Meta(max_length=MAX_CLAIMS)]
    """For each slot and batch the last view in which it was accepted (Q)."""
    signature: Signature = b""


class Selected(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A slot that a new view begins with."""

    seq: Ordinal
    digest: Digest


class NewView(Message, frozen=True, tag=8):
    """The primary of `view` begins it with what follows from `view_changes`; signed by it."""

    view: Ordinal
    view_changes: Annotated[list[ViewChange], msgspec.Meta(max_length=MAX_GROUP)]
    checkpoint: Checkpoint
    selected: Annotated[list[Selected], msgspec.Meta(max_length=MAX_SLOTS)]
    """Every slot after the checkpoint, without a gap."""
    signature: Signature = b""


class Status(Message, frozen=True, tag=9):
    """How far the sender is, so that others can send it what it lacks."""

    view: Count
    active: bool
    """Whether it has the view's NEW-VIEW."""
    stable: Count
    final: Count
    """Everything up to here is committed."""
    slots: Annotated[bytes, msgspec.Meta(max_length=MAX_SLOTS)]
    """A byte for each slot after `final`: 1 it has the proposal, 2 it is prepared, 4 committed."""


class FetchBatches(Message, frozen=True, tag=10):
    """Send me the batches with these digests, if you have them."""

    digests: Annotated[list[Digest], msgspec.Meta(max_length=MAX_SLOTS)]


class BatchBody(Message, frozen=True, tag=11):
    """The answer to :class:`FetchBatches`, one batch each."""

    batch: bytes


class FetchState(Message, frozen=True, tag=12):
    """Send me part of the state at a checkpoint: chunk `index`, or the list of chunks if -1."""

    seq: Count
    digest: Digest
    index: Annotated[int, msgspec.Meta(ge=-1, le=1 << 20)]


class StatePart(Message, frozen=True, tag=13):
    """The answer to :class:`FetchState`."""

    seq: Count
    digest: Digest
    index: Annotated[int, msgspec.Meta(ge=-1, le=1 << 20)]
    data: bytes


class Accusation(Message, frozen=True, tag=14):
    """Two signed messages of one replica that no correct one signs both."""

    accused: Name
    first: PrePrepare | Prepare | Commit | ViewChange | NewView
    second: PrePrepare | Prepare | Commit | ViewChange | NewView


class Decided(Message, frozen=True, tag=15):
    """The batch is committed here; for one who lacks it and may have left its view.

    That f + 1 say so is enough: one of them is correct, and has seen a quorum of commits.
    """

    view: Count
    seq: Ordinal
    digest: Digest


AnyMessage = (
    Request
    | PrePrepare
    | Prepare
    | Commit
    | Reply
    | Checkpoint
    | ViewChange
    | NewView
    | Status
    | FetchBatches
    | BatchBody
    | FetchState
    | StatePart
    | Accusation
    | Decided
)


class Batch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is proposed under one sequence number; no requests: nothing happens."""

    time_ms: Count
    requests: Annotated[list[Request], msgspec.Meta(max_length=MAX_OPERATIONS)]


_encoder = msgspec.msgpack.Encoder()
_bundles = msgspec.msgpack.Decoder(tuple[int, list[AnyMessage]])
_batches = msgspec.msgpack.Decoder(Batch)


def encode(messages: list[AnyMessage]) -> bytes:
    """Return a bundle's bytes."""
    return _encoder.encode((VERSION, messages))


def decode(data: bytes) -> list[AnyMessage]:
    """Return the messages of a bundle.

    Raises:
        MessageError: it is none.
    """
    try:
        version, messages = _bundles.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"no bundle of messages: {error}") from None
    if version != VERSION:
        raise MessageError(f"a bundle of version {version}; this one is {VERSION}")
    return messages


def encode_batch(batch: Batch) -> bytes:
    """Return a batch's bytes, which its digest is of."""
    return _encoder.encode(batch)


def decode_batch(data: bytes) -> Batch:
    """Return a batch.

    Raises:
        MessageError: the bytes are none.
    """
    try:
        return _batches.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"no batch: {error}") from None


def digest(kind: str, data: bytes) -> bytes:
    """Return the SHA-256 of `data` as a `kind`: "batch", "results", "history", "state"..."""
    return hashlib.sha256(b"braidflow-pbft/" + kind.encode() + b"\0" + data).digest()


NULL: Final = encode_batch(Batch(0, []))
"""The batch that fills a gap when a view begins."""
NULL_DIGEST: Final = digest("batch", NULL)

Signed = Request | PrePrepare | Prepare | Commit | ViewChange | NewView


def signed_part(message: Signed, signer: str) -> bytes:
    """Return what the signature of a message is over: all its fields, and who signs."""
    if isinstance(message, PrePrepare):
        fields: tuple[object, ...] = (message.view, message.seq, message.digest)
    elif isinstance(message, Prepare | Commit):
        fields = (message.view, message.seq, message.digest)
    else:
        fields = (msgspec.structs.replace(message, signature=b""),)
    return _encoder.encode((type(message).__name__, signer, *fields))
