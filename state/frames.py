"""Frames: what two dataflows say to each other over one ordered stream of bytes.

A frame is a u32 length of the rest, a u8 kind, and the rest, all little-endian:

| kind | rest |
| --- | --- |
| 1 CONTROL | msgpack of one of `Hello`, `Welcome`, `Ack`, `End`, `Ended` |
| 2 SCHEMA | u32 id, an Arrow IPC schema message; once per stream, before its first use |
| 3 BATCH | u64 sequence, u32 schema id, an Arrow IPC record-batch message |
| 4 TABLE | u64 sequence, an Arrow IPC stream of one batch (dictionary-encoded columns) |
| 5 BYTES | u64 sequence, anything |
| 6 MESSAGE | u64 sequence, msgpack |

Sans I/O: bytes in, frames out. Nothing is unpickled. What a stranger may cost is bounded: the
length of a frame before it is held. What the bodies hold is for :mod:`state.items`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

import msgspec

from state.controls import Ack, Control, End, Ended, Hello, Welcome

__all__ = [
    "MAX_CONTROL",
    "MAX_FRAME",
    "MAX_MESSAGE",
    "MAX_SCHEMA",
    "Ack",
    "Control",
    "Data",
    "Decoder",
    "End",
    "Ended",
    "Frame",
    "FrameError",
    "Hello",
    "Kind",
    "Schema",
    "Welcome",
    "encode",
]

MAX_FRAME: Final = 64 << 20
"""Bytes of the longest frame, by default."""
MAX_CONTROL: Final = 16 << 10
MAX_SCHEMA: Final = 1 << 20
MAX_MESSAGE: Final = 2 << 20
"""Bytes of the longest msgpack item: its objects take up to a hundred times as much memory."""


class FrameError(ValueError):
    """The bytes of a peer are no frames, or an item is too large for one."""


class Kind(enum.IntEnum):
    """What a frame carries; the numbers are those on the wire."""

    CONTROL = 1
    SCHEMA = 2
    BATCH = 3
    TABLE = 4
    BYTES = 5
    MESSAGE = 6


@dataclass(frozen=True, slots=True)
class Data:
    """One item of a channel; `schema` is 0 unless `kind` is BATCH."""

    sequence: int
    kind: Kind
    schema: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of the batches that name `id`, as an Arrow IPC schema message."""

    id: int
    body: bytes


Frame = Data | Schema | Control

_HEAD = struct.Struct("<IB")
_SCHEMA_HEAD = struct.Struct("<IBI")
_DATA_HEAD = struct.Struct("<IBQ")
_BATCH_HEAD = struct.Struct("<IBQI")
_SEQUENCE = struct.Struct("<Q")
_BATCH_IDS = struct.Struct("<QI")
_ID = struct.Struct("<I")
_PREFIX = (0, 5, 9, 17, 13, 13, 13)  # bytes before the body, by kind
_KINDS = (None, *Kind)
_SMALL = 1024  # parts of an unfinished frame below this are copied together

_control_encoder = msgspec.msgpack.Encoder()
_control_decoder: msgspec.msgpack.Decoder[Control] = msgspec.msgpack.Decoder(Control)


def encode(frame: Frame) -> bytes:
    """Return the bytes of ``frame``.

    >>> encode(Data(7, Kind.BYTES, 0, b"hello")).hex(" ")
    '0e 00 00 00 05 07 00 00 00 00 00 00 00 68 65 6c 6c 6f'

    Raises:
        FrameError: a field is out of its range.
    """
    try:
        if isinstance(frame, Data):
            length = len(frame.body)
            if frame.kind == Kind.BATCH:
                head = _BATCH_HEAD.pack(length + 13, 3, frame.sequence, frame.schema)
            elif frame.kind >= Kind.TABLE:
                head = _DATA_HEAD.pack(length + 9, frame.kind, frame.sequence)
            else:
                raise FrameError(f"{frame.kind.name} is not a kind of data")
            return b"".join((head, frame.body))
        if isinstance(frame, Schema):
            return _SCHEMA_HEAD.pack(len(frame.body) + 5, 2, frame.id) + frame.body
    except struct.error as error:
        raise FrameError(f"a number of the frame is out of range: {error}") from error
    body = _control_encoder.encode(frame)
    return _HEAD.pack(len(body) + 1, 1) + body


class Decoder:
    """Cuts a stream of bytes into frames, however it is chunked.

    A frame is held until it is whole: at most ``max_frame`` bytes and one chunk. The first error
    breaks the decoder for good, since what follows cannot be told apart; frames that came before
    the bad one in the same `feed` are lost with it, and are sent again on a new stream.

    >>> decoder = Decoder()
    >>> wire = encode(Welcome(next=3, credit=100)) + encode(Data(3, Kind.BYTES, 0, b"abc"))
    >>> decoder.feed(wire[:7]), decoder.pending
    ([], 7)
    >>> decoder.feed(wire[7:])
    [Welcome(next=3, credit=100), Data(sequence=3, kind=<Kind.BYTES: 5>, schema=0, body=b'abc')]
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._limits = (
            0,
            min(max_frame, MAX_CONTROL),
            min(max_frame, MAX_SCHEMA),
            max_frame,
            max_frame,
            max_frame,
            min(max_frame, MAX_MESSAGE + 9),
        )
        self._broken = ""
        self._head = bytearray()  # of the unfinished frame, up to its body
        self._want = _HEAD.size
        self._parts: list[bytes | bytearray | memoryview] = []  # of its body
        self._missing = -1  # bytes of its body; -1 while the head is unfinished
        self._held = 0

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._head) + self._held

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes, in order.

        Raises:
            FrameError: ``data`` does not continue a stream of frames within the limits.
        """
        if self._broken:
            raise FrameError(self._broken)
        try:
            return self._feed(bytes(data))
        except FrameError as error:
            self._broken = str(error)
            self._reset()
            raise

    def finish(self) -> None:
        """Note the end of the stream.

        Raises:
            FrameError: it is inside a frame, or an error came before.
        """
        if self._broken:
            raise FrameError(self._broken)
        if self._head:
            raise FrameError(f"the stream ends inside a frame, after {self.pending} bytes of it")

    def _feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        position = self._resume(data, 0, frames) if self._head else 0
        size = len(data)
        unpack, limits = _HEAD.unpack_from, self._limits
        while position + 5 <= size:
            length, kind = unpack(data, position)
            if not 0 < kind < 7 or length > limits[kind] or length + 4 < _PREFIX[kind]:
                raise self._refusal(length, kind)
            end = position + 4 + length
            if end > size:
                break
            frames.append(_frame(kind, data, position, data[position + _PREFIX[kind] : end]))
            position = end
        if position < size:
            self._resume(data, position, frames)
        return frames

    def _resume(self, data: bytes, position: int, frames: list[Frame]) -> int:
        """Add to the unfinished frame from ``position`` on; return where it ends in ``data``."""
        head = self._head
        while self._missing < 0:
            taken = data[position : position + self._want - len(head)]
            head += taken
            position += len(taken)
            if len(head) < self._want:
                return position
            length, kind = _HEAD.unpack_from(head)
            if not 0 < kind < 7 or length > self._limits[kind] or length + 4 < _PREFIX[kind]:
                raise self._refusal(length, kind)
            self._want = _PREFIX[kind]
            if len(head) == self._want:
                self._missing = length + 4 - self._want
        taken_size = min(self._missing, len(data) - position)
        if taken_size >= _SMALL:
            self._parts.append(memoryview(data)[position : position + taken_size])
        elif taken_size:
            if not self._parts or not isinstance(self._parts[-1], bytearray):
                self._parts.append(bytearray())
            last = self._parts[-1]
            assert isinstance(last, bytearray)
            last += data[position : position + taken_size]
        self._held += taken_size
        self._missing -= taken_size
        if not self._missing:
            frames.append(_frame(head[4], bytes(head), 0, b"".join(self._parts)))
            self._reset()
        return position + taken_size

    def _reset(self) -> None:
        self._head = bytearray()
        self._want = _HEAD.size
        self._parts = []
        self._missing = -1
        self._held = 0

    def _refusal(self, length: int, kind: int) -> FrameError:
        if not 0 < kind < 7:
            return FrameError(f"unknown kind of frame {kind}: not this protocol, or a newer one")
        name = Kind(kind).name
        if length > self._limits[kind]:
            return FrameError(f"a {name} frame of {length} bytes; at most {self._limits[kind]}")
        return FrameError(f"a {name} frame of {length} bytes is too short for its own head")


def _frame(kind: int, head: bytes, position: int, body: bytes) -> Frame:
    """Return the frame whose head is at ``position`` of ``head``."""
    if kind == Kind.BATCH:
        sequence, schema = _BATCH_IDS.unpack_from(head, position + 5)
        if not schema:
            raise FrameError(f"batch {sequence} names no schema")
        return Data(sequence, Kind.BATCH, schema, body)
    if kind >= Kind.TABLE:
        known = _KINDS[kind]
        assert known is not None
        return Data(_SEQUENCE.unpack_from(head, position + 5)[0], known, 0, body)
    if kind == Kind.SCHEMA:
        identity = _ID.unpack_from(head, position + 5)[0]
        if not identity:
            raise FrameError("a schema's id is 0")
        return Schema(identity, body)
    try:
        return _control_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"malformed control frame: {error}") from error
