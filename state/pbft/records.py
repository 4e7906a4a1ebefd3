"""The vote log: what a replica must not forget, as records in the order in which it learnt them.

A replica that is started with the records of its earlier lives sends no vote that contradicts one
that it sent then. A log begins with nothing, or with :class:`Base` and what was kept above it.
"""

from __future__ import annotations

import msgspec

from state.pbft.messages import Claim, Digest, NewView, Signature, ViewChange


class Base(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The state at the last stable checkpoint; everything before it is forgotten."""

    seq: int
    digest: Digest
    state: bytes


class Body(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A batch that later records name by its digest."""

    batch: bytes


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A proposal that was accepted (or, by the primary, made); written before it is voted for."""

    view: int
    seq: int
    digest: Digest
    signature: Signature


class Prepared(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A batch that was prepared; written before the commit is sent."""

    view: int
    seq: int
    digest: Digest


class Final(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A batch that is committed, and everything before it; its body comes before it in the log.

    It is written when something else is, for who forgets it learns it again; but at a checkpoint
    before the CHECKPOINT is sent.
    """

    view: int
    seq: int
    digest: Digest


class Moved(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A view was abandoned; written before the VIEW-CHANGE is sent."""

    change: ViewChange


class Entered(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A view was begun; written before anything is sent in it."""

    new_view: NewView


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """What earlier records said of a slot, when the log is written anew."""

    seq: int
    prepared: Claim | None
    preprepared: list[Claim]


class Adopted(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The state at a checkpoint that came from others and is not stable yet."""

    seq: int
    digest: Digest
    state: bytes


Record = Base | Body | Accepted | Prepared | Final | Moved | Entered | Kept | Adopted

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Return a record's bytes."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> Record:
    """Return a record.

    Raises:
        ValueError: the bytes are none.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"no record of a vote log: {error}") from None
