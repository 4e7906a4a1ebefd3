"""Items of a stream as the bodies of frames: record batches, bytes, messages.

Nothing is unpickled. What a stranger may cost is bounded: an Arrow message before Arrow reads it
(:mod:`state.arrow_ipc`), a msgpack message by its size and a pass over its structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa

from state import arrow_ipc
from state.frames import MAX_FRAME, MAX_MESSAGE, MAX_SCHEMA, Data, FrameError, Kind, Schema

MAX_SCHEMAS: Final = 1024
"""Distinct schemas on one stream."""

_structure = msgspec.msgpack.Decoder(msgspec.Raw)


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
