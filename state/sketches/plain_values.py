"""Values of a column in one plain type, sorted or counted, and as canonical bytes.

    integers            int64 (uint64 for uint64)
    floats              float64; -0.0 as 0.0, one NaN
    strings, binary     large_string, large_binary
    booleans, times     as they are, unit and zone included

so equal values of narrow and wide columns are one.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from state import murmur
from state.column_buffers import Words, column_buffers

_FIXED = {
    str(kind): kind
    for kind in (
        pa.null(),
        pa.bool_(),
        pa.int64(),
        pa.uint64(),
        pa.float64(),
        pa.large_string(),
        pa.large_binary(),
        pa.date32(),
        pa.date64(),
        *(pa.time32(unit) for unit in ("s", "ms")),
        *(pa.time64(unit) for unit in ("us", "ns")),
        *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
    )
}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=([A-Za-z0-9_+:/-]{1,64}))?\]")
_HEAD = struct.Struct("<BI")  # bytes of the type's name, values


def plain_values(column: pa.Array) -> pa.Array:
    """Return the values of ``column``, nulls included, in their plain type.

    Raises:
        TypeError: the column's type has no plain one.
    """
    kind = column.type
    if types.is_dictionary(kind):
        return plain_values(column.dictionary_decode())
    if (str(kind) in _FIXED and not types.is_floating(kind)) or _timestamp(kind):
        return column
    if types.is_integer(kind):
        return column.cast(pa.int64())
    if types.is_floating(kind):
        buffers = column_buffers(column)
        mask = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        assert isinstance(buffers, Words)
        return pa.array(buffers.words.view(np.float64), mask=mask)
    if types.is_string(kind) or types.is_string_view(kind):
        return column.cast(pa.large_string())
    if types.is_binary(kind) or types.is_binary_view(kind) or _is_bytes(kind):
        return column.cast(pa.large_binary())
    raise TypeError(f"values of type {kind} are not counted; cast them to string or binary first")


def values_bytes(values: pa.Array) -> bytes:
    """Return plain values without nulls as bytes.

    Layout, little-endian: u8 length of the type's name, u32 number of values, the name, then
    8 bytes per value, or u32 lengths and the bytes of all values.
    """
    name = str(values.type).encode()
    head = _HEAD.pack(len(name), len(values)) + name
    buffers = column_buffers(values)
    if isinstance(buffers, Words):
        return head + buffers.words.astype("<u8").tobytes()
    lengths = np.diff(buffers.offsets).astype("<u4").tobytes()
    return head + lengths + buffers.data[buffers.offsets[0] : buffers.offsets[-1]].tobytes()


def read_values(data: bytes) -> pa.Array:
    """Return the values in ``data``, sorted and distinct.

    Raises:
        ValueError: ``data`` is not what `values_bytes` writes of sorted, distinct, plain values.
    """
    if len(data) < _HEAD.size:
        raise ValueError("values: truncated")
    length, count = _HEAD.unpack_from(data)
    kind = _parsed(data[_HEAD.size : _HEAD.size + length].decode())
    body = data[_HEAD.size + length :]
    if types.is_null(kind):
        if count or body:
            raise ValueError("values: of no type")
        return pa.nulls(0)
    if types.is_large_string(kind) or types.is_large_binary(kind):
        values = _read_runs(body, count, kind)
    else:
        values = _read_words(body, count, kind)
    if count and not is_sorted_set(values):
        raise ValueError("values: not sorted, or not distinct")
    return values


def is_sorted_set(values: pa.Array) -> bool:
    """Return whether plain values are in ascending order and distinct, NaN last."""
    if types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    if types.is_integer(values.type):
        numbers = values.to_numpy()
        return bool((numbers[:-1] < numbers[1:]).all())
    if types.is_floating(values.type):
        numbers = values.to_numpy()
        if len(numbers) and np.isnan(numbers[-1]):
            numbers = numbers[:-1]
        return bool((numbers[:-1] < numbers[1:]).all() and not np.isnan(numbers[:1]).any())
    return pc.all(pc.less(values[:-1], values[1:]), min_count=0).as_py() is True


def _read_words(body: bytes, count: int, kind: pa.DataType) -> pa.Array:
    if len(body) != 8 * count:
        raise ValueError(f"values: {count} values of {kind} in {len(body)} bytes")
    words = np.frombuffer(body, "<i8").astype(np.int64)
    if types.is_floating(kind):
        bits = np.empty(count, np.uint64)
        murmur.canonical_floats(words.view(np.uint64), bits)
        if (bits.view(np.int64) != words).any():
            raise ValueError("values: floats that are not canonical")
        return pa.array(words.view(np.float64))
    if kind == pa.uint64():
        return pa.array(words.view(np.uint64))
    width = 32 if types.is_boolean(kind) else kind.bit_width
    largest = 1 if types.is_boolean(kind) else (1 << (width - 1)) - 1
    smallest = 0 if types.is_boolean(kind) else -largest - 1
    if count and (words.min() < smallest or words.max() > largest):
        raise ValueError(f"values: out of the range of {kind}")
    whole = pa.array(words if width == 64 else words.astype(np.int32))
    return whole.cast(kind) if types.is_boolean(kind) else whole.view(kind)


def _read_runs(body: bytes, count: int, kind: pa.DataType) -> pa.Array:
    if len(body) < 4 * count:
        raise ValueError(f"values: {count} lengths in {len(body)} bytes")
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.frombuffer(body, "<u4", count), out=offsets[1:])
    if len(body) != 4 * count + offsets[-1]:
        raise ValueError(f"values: {offsets[-1]} bytes of values in {len(body)}")
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(body[4 * count :])]
    values = pa.Array.from_buffers(kind, count, buffers)
    values.validate(full=True)
    return values


def _parsed(name: str) -> pa.DataType:
    kind = _FIXED.get(name)
    match = None if kind else _TIMESTAMP.fullmatch(name)
    if match:
        kind = pa.timestamp(match[1], match[2])
    if kind is None:
        raise ValueError(f"values: of unknown type {name!r}")
    return kind


def _timestamp(kind: Any) -> bool:
    return bool(types.is_timestamp(kind) and _TIMESTAMP.fullmatch(str(kind)))


def _is_bytes(kind: Any) -> bool:
    return bool(types.is_fixed_size_binary(kind) and not types.is_decimal(kind))
