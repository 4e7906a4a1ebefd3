"""Read Arrow IPC bytes that a stranger sent.

Arrow's reader checks that its own memory accesses are sound, and `validate(full=True)` that the
values are; neither bounds what a few hostile bytes may cost. A compressed buffer may claim any
size, flatbuffers may name one child a million times, a column without buffers may claim 2^60
rows, a small dictionary may stand for terabytes. So the metadata is walked here first, with bounds
on every offset, and refused when it claims more than the message holds.

Accepted are all flat types, strings and their views, decimals, lists, maps and structs, and
dictionaries of flat values. Refused are compressed bodies, extension types, unions, run-end
encoding, list views, dictionaries of nested values, big-endian data, more than 16 levels of
nesting and more than 4096 fields.

Formats: https://arrow.apache.org/docs/format/Columnar.html and Message.fbs, Schema.fbs beside it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from state.flatbuffer import Flat, Table

MAX_FIELDS = 4096
MAX_DEPTH = 16
MAX_METADATA = 1 << 20
"""Bytes of one message's metadata; a batch of 4096 fields needs a quarter of it."""
MAX_EXPANSION = 1 << 28
"""Bytes that the dictionaries and views of one batch may stand for, by default."""
_WIDEST = 32  # bytes of the widest flat value, a decimal256
_FREE_ROWS = 1 << 20  # rows that a column may have without any byte to show for them

WRITTEN_OUT = frozenset(
    kind.id
    for kind in (
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.string(), pa.large_string(), pa.binary(), pa.timestamp("us"), pa.date32()),
    )
)
"""Ids of the most usual types that are sent and stand for no more than their bytes."""

_EXTENSION = b"ARROW:extension:name"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # MessageHeader of Message.fbs
_TIMESTAMP, _INTERVAL = 10, 11  # of `Type` in Schema.fbs, like the next
_LAST = 26
_REFUSED = {14: "union", 22: "run-end encoded", 25: "list view", 26: "large list view"}
_NESTED = {12, 13, 16, 17, 21}  # list, struct, fixed-size list, map, large list


def refusal(kind: pa.DataType, depth: int = 1) -> str | None:
    """Return why columns of type ``kind`` are not sent, or None if they are.

    >>> import pyarrow as pa
    >>> refusal(pa.list_(pa.string()))
    >>> refusal(pa.list_(pa.uuid()))
    'extension type extension<arrow.uuid>: cast the column to its storage type'
    """
    if isinstance(kind, pa.BaseExtensionType):
        return f"extension type {kind}: cast the column to its storage type"
    if types.is_union(kind) or types.is_run_end_encoded(kind):
        return f"type {kind}: unions and run-end encoding are not sent"
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return f"type {kind}: cast the column to a list"
    if depth > MAX_DEPTH:
        return f"more than {MAX_DEPTH} levels of nesting"
    if types.is_dictionary(kind):
        if types.is_nested(kind.value_type) or types.is_dictionary(kind.value_type):
            return f"type {kind}: dictionaries of nested values are not sent"
        return refusal(kind.value_type, depth)
    for i in range(kind.num_fields):
        reason = refusal(kind.field(i).type, depth + 1)
        if reason:
            return reason
    return None


def has_dictionary(kind: pa.DataType) -> bool:
    """Return whether a dictionary-encoded column is anywhere in type ``kind``."""
    if types.is_dictionary(kind):
        return True
    return any(has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def read_schema(body: bytes) -> pa.Schema:
    """Return the schema that the IPC message ``body`` holds.

    Raises:
        ValueError: it is not exactly one sound schema message, or has a type refused here.
    """
    with _refusing():
        messages = _messages(body)
        if len(messages) > 1:
            raise ValueError("more than a schema message")
        _check_schema(messages[0])
        return pa.ipc.read_schema(pa.py_buffer(body))


def read_batch(body: bytes, schema: pa.Schema, *, expansion: int = MAX_EXPANSION) -> pa.RecordBatch:
    """Return the batch of ``schema`` that the IPC message ``body`` holds, fully validated.

    The batch refers to the memory of ``body``.

    Raises:
        ValueError: it is not exactly one sound record-batch message of that schema, it is
            compressed, or its views stand for more than ``expansion`` bytes.
    """
    with _refusing():
        messages = _messages(body)
        message = messages[0]
        if message.kind != _BATCH or len(messages) > 1:
            raise ValueError("not one record-batch message")
        _check_batch(message, message.header)
        return _checked(pa.ipc.read_record_batch(pa.py_buffer(body), schema), expansion)


def read_stream(body: bytes, *, expansion: int = MAX_EXPANSION) -> pa.RecordBatch:
    """Return the only batch of the self-contained IPC stream ``body``, fully validated.

    Raises:
        ValueError: as of :func:`read_schema` and :func:`read_batch`; or the stream is not a
            schema, at most one dictionary for each of its fields, and one batch.
    """
    with _refusing():
        schema, *dictionaries = _messages(body)
        _check_schema(schema)
        if not dictionaries:
            raise ValueError("the stream has no batch")
        batch = dictionaries.pop()
        known = set(schema.dictionaries)
        for message in dictionaries:
            if message.kind != _DICTIONARY:
                raise ValueError("the stream is not a schema, its dictionaries and one batch")
            flat = message.flat
            slot = flat.slot(message.header, 0)
            identity = flat.i64(slot) if slot else 0
            if identity not in known:
                raise ValueError(f"dictionary {identity} is unknown or comes twice")
            known.remove(identity)
            delta = flat.slot(message.header, 2)
            if delta and flat.u8(delta):
                raise ValueError("dictionary deltas are not read")
            _check_batch(message, flat.table(flat.target(message.header, 1, "dictionary data")))
        if batch.kind != _BATCH:
            raise ValueError("the stream does not end with a record batch")
        _check_batch(batch, batch.header)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            return _checked(reader.read_next_batch(), expansion)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what Arrow and the walk over the metadata raise into ValueError."""
    try:
        yield
    except MemoryError:  # also one of Arrow's: the machine's trouble, not the peer's
        raise
    except (struct.error, IndexError) as error:
        raise ValueError("the metadata points outside itself") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


@dataclass(slots=True)
class _Message:
    """One IPC message: its metadata, and how long its body is."""

    flat: Flat
    kind: int
    header: Table
    body_length: int
    dictionaries: list[int] = field(default_factory=list)


def _messages(body: bytes) -> list[_Message]:
    """Split ``body`` into its messages, which must fill it exactly."""
    found: list[_Message] = []
    position = 0
    while position < len(body):
        mark, length = struct.unpack_from("<Ii", body, position)
        position += 8
        if mark != 0xFFFFFFFF or length < 0:
            raise ValueError("not an Arrow IPC message")
        if length == 0:  # end of stream
            break
        if length % 8 or position + length > len(body):
            raise ValueError("the message's metadata is cut off or not padded")
        if length > MAX_METADATA:
            raise ValueError(f"{length} bytes of metadata; at most {MAX_METADATA}")
        flat = Flat(body[position : position + length])
        root = flat.root()
        version, kind, size = flat.slot(root, 0), flat.slot(root, 1), flat.slot(root, 3)
        if not version or flat.u16(version) != 4:  # MetadataVersion.V5
            raise ValueError("not Arrow IPC metadata of version 5")
        for pair in flat.tables(root, 4):
            flat.string(pair, 0)
            flat.string(pair, 1)
        message = _Message(
            flat,
            flat.u8(kind) if kind else 0,
            flat.table(flat.target(root, 2, "header")),
            flat.i64(size) if size else 0,
        )
        position += length + message.body_length
        if message.body_length < 0 or position > len(body):
            raise ValueError("the message's body is cut off")
        found.append(message)
        if len(found) > MAX_FIELDS + 2:
            raise ValueError("too many messages in one frame")
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes follow the last message")
    if not found:
        raise ValueError("no message")
    return found


def _check_schema(message: _Message) -> None:
    flat = message.flat
    if message.kind != _SCHEMA or message.body_length:
        raise ValueError("not a schema message")
    endianness = flat.slot(message.header, 0)
    if endianness and flat.u16(endianness):
        raise ValueError("big-endian data is not read")
    flat.vector(message.header, 3, 8)
    for pair in flat.tables(message.header, 2):
        flat.string(pair, 0)
        flat.string(pair, 1)
    waiting = [(part, 1) for part in flat.tables(message.header, 1)]
    count = 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels of nesting")
        try:
            name = flat.string(part, 0).decode()
        except UnicodeDecodeError as error:
            raise ValueError("a field's name is not UTF-8") from error
        _check_field(message, part, name)
        waiting.extend((child, depth + 1) for child in flat.tables(part, 5))


def _check_field(message: _Message, part: Table, name: str) -> None:
    flat = message.flat
    slot = flat.slot(part, 2)
    kind = flat.u8(slot) if slot else 0
    if kind in _REFUSED:
        raise ValueError(f"field {name!r}: {_REFUSED[kind]} columns are not read")
    if not 0 < kind <= _LAST:
        raise ValueError(f"field {name!r}: type {kind} is not known here")
    if kind == _INTERVAL:
        unit = flat.slot(flat.table(flat.target(part, 3, "type")), 0)
        if not unit or flat.u16(unit) != 2:  # pyarrow has no class for the others
            raise ValueError(f"field {name!r}: intervals are read as months, days, nanoseconds")
    if kind == _TIMESTAMP:
        zone = flat.string(flat.table(flat.target(part, 3, "type")), 1)
        if not zone.isascii():
            raise ValueError(f"field {name!r}: the time zone is not ASCII")
    for pair in flat.tables(part, 6):
        flat.string(pair, 1)
        if flat.string(pair, 0) == _EXTENSION:
            raise ValueError(f"field {name!r}: extension types are not read")
    if flat.slot(part, 4):
        if kind in _NESTED:
            raise ValueError(f"field {name!r}: dictionaries of nested values are not read")
        dictionary = flat.table(flat.target(part, 4, "dictionary"))
        identity = flat.slot(dictionary, 0)
        message.dictionaries.append(flat.i64(identity) if identity else 0)


def _check_batch(message: _Message, header: Table) -> None:
    """Refuse a batch whose metadata claims more than its body holds."""
    flat, size = message.flat, message.body_length
    if flat.slot(header, 3):
        raise ValueError("compressed Arrow bodies are not read: write without compression")
    rows = flat.slot(header, 0)
    most = max(8 * size, _FREE_ROWS)
    if rows and not 0 <= flat.i64(rows) <= most:
        raise ValueError(f"{flat.i64(rows)} rows in {size} bytes")
    for length, nulls in flat.pairs(header, 1):
        if not 0 <= nulls <= length <= most:
            raise ValueError(f"a column of {length} values with {nulls} nulls in {size} bytes")
    end = 0
    buffers = flat.pairs(header, 2)
    for offset, length in buffers:
        if length < 0 or offset < end or offset % 8 or offset + length > size:
            raise ValueError("the columns' buffers overlap or lie outside the body")
        end = offset + length
    start, count = flat.vector(header, 4, 8)
    for position in range(start, start + 8 * count, 8):
        if not 0 <= flat.i64(position) <= len(buffers):
            raise ValueError("a view column claims more buffers than there are")


def _checked(batch: pa.RecordBatch, expansion: int) -> pa.RecordBatch:
    batch.validate(full=True)
    left = expansion
    for part, column in zip(batch.schema, batch.columns, strict=True):
        if column.null_count and not part.nullable:
            raise ValueError(f"column {part.name!r} has nulls and may not")
        left -= _expanded(column)
        if left < 0:
            raise ValueError(
                f"column {part.name!r} stands for more than the {expansion} bytes allowed"
            )
    return batch


def _expanded(column: pa.Array) -> int:
    """Return how many bytes the dictionaries and views in ``column`` stand for."""
    kind = column.type
    if kind.id in WRITTEN_OUT:
        return 0
    if types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            flat = types.is_fixed_size_binary(kind.value_type)
            return len(column) * (kind.value_type.byte_width if flat else _WIDEST)
        sizes = pc.cast(_lengths(column.dictionary), pa.int64())
        return int(pc.sum(sizes.take(column.indices)).as_py() or 0)
    if _is_view(kind):
        return int(pc.sum(pc.cast(_lengths(column), pa.int64())).as_py() or 0)
    if types.is_struct(kind):
        return sum(_expanded(column.field(i)) for i in range(kind.num_fields))
    if types.is_map(kind):
        return _expanded(column.keys) + _expanded(column.items)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _expanded(column.values)
    return 0


def _is_view(kind: pa.DataType) -> bool:
    return bool(types.is_binary_view(kind) or types.is_string_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    plain = types.is_string(kind) or types.is_binary(kind)
    return bool(plain or types.is_large_string(kind) or types.is_large_binary(kind)) or _is_view(
        kind
    )


def _lengths(column: pa.Array) -> pa.Array:
    if not _is_view(column.type):
        return pc.binary_length(column)
    views = np.frombuffer(column.buffers()[1], dtype="<i4")[::4]
    sizes = views[column.offset : column.offset + len(column)].astype(np.int64)
    return pa.array(sizes, mask=column.is_null().to_numpy(zero_copy_only=False))
