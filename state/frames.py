"""Frames: what two dataflows say to each other over one ordered stream of bytes.

A frame is a u32 length of the rest, a u8 kind, and the rest, all little-endian:

| kind | rest |
| --- | --- |
| 1 CONTROL | msgpack of one of `Hello`, `Welcome`, `Ack`, `End`, `Ended`, `Refuse` |
| 2 SCHEMA | u32 id, an Arrow IPC schema message; once per stream, before its first use |
| 3 BATCH | u64 sequence, u32 schema id, an Arrow IPC record-batch message |
| 4 TABLE | u64 sequence, an Arrow IPC stream of one batch (dictionary-encoded columns) |
| 5 BYTES | u64 sequence, anything |
| 6 MESSAGE | u64 sequence, msgpack |

Sans I/O: bytes in, frames out. Nothing is unpickled. What a stranger may cost is bounded: the
length of a frame before it is held, an Arrow message before Arrow reads it
(:mod:`state.arrow_ipc`), a msgpack message by its size and a pass over its structure.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa

from state import arrow_ipc
from state.controls import Ack, Control, End, Ended, Hello, Refuse, Welcome

__all__ = [
    "MAX_CONTROL",
    "MAX_FRAME",
    "MAX_MESSAGE",
    "MAX_SCHEMA",
    "MAX_SCHEMAS",
    "Ack",
    "Control",
    "Data",
    "Decoder",
    "End",
    "Ended",
    "Frame",
    "FrameError",
    "Hello",
    "ItemDecoder",
    "ItemEncoder",
    "Kind",
    "Refuse",
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
MAX_SCHEMAS: Final = 1024
"""Distinct schemas on one stream."""


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
_structure = msgspec.msgpack.Decoder(msgspec.Raw)


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


class ItemEncoder:
    r"""Turns the items of one stream into frame bodies.

    A ``RecordBatch`` becomes BATCH, or TABLE if a column is dictionary-encoded; bytes, bytearray
    and memoryview become BYTES; what msgspec can encode becomes MESSAGE (a Struct arrives as a
    map, unless the receiver names its type). A slice is sent as the rows it shows.

    Args:
        max_frame: bytes of the longest frame that the receiver takes.
        schemas: those of an earlier encoder whose frames are still to be sent, so that ids go on
            from there.

    >>> import pyarrow as pa
    >>> encoder = ItemEncoder()
    >>> kind, schema, body = encoder.encode(pa.record_batch({"x": [1, 2]}))
    >>> kind.name, schema, list(encoder.schemas)
    ('BATCH', 1, [1])
    >>> encoder.encode({"temperature": 21.5})
    (<Kind.MESSAGE: 6>, 0, b'\x81\xabtemperature\xcb@5\x80\x00\x00\x00\x00\x00')
    """

    def __init__(
        self, max_frame: int = MAX_FRAME, schemas: Mapping[int, bytes] | None = None
    ) -> None:
        self.schemas: dict[int, bytes] = dict(schemas or {})
        """Arrow IPC schema messages by id, from 1; one for each distinct schema so far."""
        self._ids = {body: identity for identity, body in self.schemas.items()}
        self._max_body = max_frame - 13
        self._encoder = msgspec.msgpack.Encoder()
        self._last: pa.Schema | None = None
        self._last_id = 0  # 0: sent as TABLE

    def encode(self, item: object) -> tuple[Kind, int, bytes]:
        """Return the kind, schema id (0 if none) and body of the frame for ``item``.

        Raises:
            TypeError: items of this type, or with a column of this type, are not sent.
            FrameError: the frame would be larger than the receiver takes, it is one schema too
                many, or the batch is not valid (nulls where its schema has none, text that is
                not UTF-8).
        """
        if isinstance(item, pa.RecordBatch):
            return self._encode_batch(item)
        if isinstance(item, bytes | bytearray | memoryview):
            return Kind.BYTES, 0, self._sized(bytes(item), self._max_body)
        if isinstance(item, pa.Table):
            raise TypeError("a pyarrow Table is not an item: send the batches of its to_batches()")
        try:
            body = self._encoder.encode(item)
        except (TypeError, OverflowError, RecursionError) as error:
            raise TypeError(
                f"a {type(item).__name__} is not sent: items are record batches, bytes or what "
                f"msgspec can encode ({error})"
            ) from error
        return Kind.MESSAGE, 0, self._sized(body, min(self._max_body, MAX_MESSAGE))

    def _encode_batch(self, batch: pa.RecordBatch) -> tuple[Kind, int, bytes]:
        schema = batch.schema
        if self._last is None or not (
            schema is self._last or schema.equals(self._last, check_metadata=True)
        ):
            self._last_id = self._identify(schema)
            self._last = schema
        # Read back what a receiver would refuse: once it is in a spool, it is sent for ever.
        try:
            if self._last_id:
                body = self._sized(batch.serialize().to_pybytes(), self._max_body)
                arrow_ipc.read_batch(body, schema)
                return Kind.BATCH, self._last_id, body
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, schema) as writer:
                writer.write_batch(batch)
            body = self._sized(sink.getvalue().to_pybytes(), self._max_body)
            arrow_ipc.read_stream(body)
            return Kind.TABLE, 0, body
        except ValueError as error:
            raise FrameError(f"a batch cannot be sent: {error}") from error

    def _identify(self, schema: pa.Schema) -> int:
        for part in schema:
            reason = arrow_ipc.refusal(part.type)
            if reason:
                raise TypeError(f"column {part.name!r} is not sent: {reason}")
        body = self._sized(schema.serialize().to_pybytes(), MAX_SCHEMA - 5)
        try:
            arrow_ipc.read_schema(body)
        except ValueError as error:
            raise TypeError(f"batches of this schema are not sent: {error}") from error
        if any(arrow_ipc.has_dictionary(part.type) for part in schema):
            return 0
        identity = self._ids.get(body)
        if identity is None:
            if len(self.schemas) >= MAX_SCHEMAS:
                raise FrameError(f"more than {MAX_SCHEMAS} different schemas on one stream")
            identity = max(self.schemas, default=0) + 1
            self._ids[body] = identity
            self.schemas[identity] = body
        return identity

    def _sized(self, body: bytes, most: int) -> bytes:
        if len(body) > most:
            raise FrameError(f"an item of {len(body)} bytes is too large for a frame of {most}")
        return body


class ItemDecoder:
    """Turns frames of one stream back into items, trusting nothing in them.

    Args:
        message: the type that MESSAGE items must have (as msgspec reads it).
        schema: the schema that every batch must have, metadata aside; None for any.
        max_expansion: bytes that the dictionaries and views of one batch may stand for.

    >>> import pyarrow as pa
    >>> encoder, decoder = ItemEncoder(), ItemDecoder()
    >>> kind, schema, body = encoder.encode(pa.record_batch({"x": [1, 2]}))
    >>> decoder.add_schema(Schema(schema, encoder.schemas[schema]))
    >>> decoder.decode(Data(0, kind, schema, body)).to_pydict()
    {'x': [1, 2]}
    """

    def __init__(
        self,
        message: Any = Any,
        schema: pa.Schema | None = None,
        max_expansion: int = arrow_ipc.MAX_EXPANSION,
    ) -> None:
        self._messages = msgspec.msgpack.Decoder(message)
        self._schema = schema
        self._max_expansion = max_expansion
        self._schemas: dict[int, tuple[bytes, pa.Schema]] = {}

    def add_schema(self, schema: Schema) -> None:
        """Know ``schema`` from here on. The same one twice is the same as once.

        Raises:
            FrameError: it is malformed, has a type that is not read, has the id of a different
                one, or is one too many.
        """
        known = self._schemas.get(schema.id)
        if known is not None:
            if known[0] != schema.body:
                raise FrameError(f"schema {schema.id} comes again and differs")
            return
        if len(self._schemas) >= MAX_SCHEMAS:
            raise FrameError(f"more than {MAX_SCHEMAS} schemas on one stream")
        if len(schema.body) > MAX_SCHEMA:
            raise FrameError(f"schema {schema.id} has {len(schema.body)} bytes")
        try:
            read = arrow_ipc.read_schema(schema.body)
            if any(arrow_ipc.has_dictionary(part.type) for part in read):
                raise ValueError("batches with dictionary-encoded columns come as TABLE frames")
        except ValueError as error:
            raise FrameError(f"schema {schema.id}: {error}") from error
        self._schemas[schema.id] = (schema.body, read)

    def decode(self, data: Data) -> Any:
        """Return the item in ``data``. A batch refers to the memory of ``data.body``.

        Raises:
            FrameError: the body is malformed, of another schema or type than asked for, or would
                take far more memory than its size.
        """
        try:
            if data.kind == Kind.BYTES:
                return data.body
            if data.kind == Kind.MESSAGE:
                return self._decode_message(data.body)
            if data.kind == Kind.TABLE:
                batch = arrow_ipc.read_stream(data.body, expansion=self._max_expansion)
                self._compare(batch.schema)
                return batch
            if data.schema not in self._schemas:
                raise FrameError(f"it names schema {data.schema}, which never came")
            schema = self._schemas[data.schema][1]
            self._compare(schema)
            return arrow_ipc.read_batch(data.body, schema, expansion=self._max_expansion)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise FrameError(f"item {data.sequence} ({data.kind.name}): {error}") from error

    def _decode_message(self, body: bytes) -> Any:
        if len(body) > MAX_MESSAGE:
            raise FrameError(f"{len(body)} bytes; at most {MAX_MESSAGE}")
        # Reading as Raw builds nothing: an array that claims four billion items in five bytes
        # fails here, before a list is made for it.
        _structure.decode(body)
        return self._messages.decode(body)

    def _compare(self, found: pa.Schema) -> None:
        if self._schema is None or found.equals(self._schema):
            return
        raise FrameError(f"another schema than asked for: {_difference(self._schema, found)}")


def _difference(asked: pa.Schema, found: pa.Schema) -> str:
    """Say where two schemas that are not equal differ first."""
    for i, (want, got) in enumerate(zip(asked, found, strict=False)):
        if not want.equals(got):
            return f"column {i} is {_describe(got)}, not {_describe(want)}"
    if len(found) > len(asked):
        return f"column {len(asked)}, {_describe(found.field(len(asked)))}, is one too many"
    return f"column {len(found)}, {_describe(asked.field(len(found)))}, is missing"


def _describe(part: pa.Field) -> str:
    return f"{part.name!r} ({part.type}{'' if part.nullable else ', not null'})"
