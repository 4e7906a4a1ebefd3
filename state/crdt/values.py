"""Plain values as canonical bytes: deterministic CBOR (RFC 8949, section 4.2).

Plain values are None, bool, int of any size, float, str, bytes, lists (tuples count as lists) and
dicts with str keys. Each has exactly one encoding, and `decode` refuses every other, so equal
values have equal bytes in every Python. 1, 1.0 and True are three values; every NaN is one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

MAX_DEPTH = 32
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_NAN = b"\xf9\x7e\x00"
# The least numbers that need 1, 2, 4 and 8 bytes.
_LEAST = (24, 1 << 8, 1 << 16, 1 << 32)


def encode(value: Any, *, max_depth: int = MAX_DEPTH) -> bytes:
    """Return the one encoding of `value`.

    Raises:
        ValueError: it is no plain value, or its containers are nested more than `max_depth` deep.

    >>> encode({"b": [1, 1.0], "a": None}).hex()
    'a26161f661628201f93c00'
    """
    out = bytearray()
    _write(out, value, max_depth)
    return bytes(out)


def decode(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value that `encode` wrote; arrays come back as lists.

    Takes time and memory in proportion to `data`, whatever counts it announces.

    Raises:
        ValueError: `data` is truncated, too long, not canonical, nested more than `max_depth`
            deep, or of a type that is no plain value.

    >>> decode(bytes.fromhex("a26161f661628201f93c00"))
    {'a': None, 'b': [1, 1.0]}
    """
    value, end = _read(data, 0, max_depth)
    if end != len(data):
        raise ValueError(f"values: {len(data) - end} bytes follow the value")
    return value


def encode_key(value: Any) -> bytes:
    """Return the encoding of an element of a set or a key of a map.

    Raises:
        ValueError: it is no plain value, or not hashable: keys are scalars and tuples of keys.
    """
    _check_key(value)
    return encode(value)


def decode_key(data: bytes) -> Any:
    """Return the hashable value that `encode_key` wrote; arrays come back as tuples.

    Raises:
        ValueError: as `decode`, or `data` holds a dict.
    """
    return _frozen(decode(data))


def _check_key(value: Any) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | dict):
            raise ValueError(f"values: a {type(item).__name__} cannot be an element or a key")
        if isinstance(item, tuple):
            stack += item


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple([_frozen(item) for item in value])
    if isinstance(value, dict):
        raise ValueError("values: a dict cannot be an element or a key")
    return value


def _head(out: bytearray, major: int, n: int) -> None:
    major <<= 5
    if n < 24:
        out.append(major | n)
    elif n < 1 << 8:
        out += bytes((major | 24, n))
    elif n < 1 << 16:
        out.append(major | 25)
        out += n.to_bytes(2, "big")
    elif n < 1 << 32:
        out.append(major | 26)
        out += n.to_bytes(4, "big")
    else:
        out.append(major | 27)
        out += n.to_bytes(8, "big")


def _text(out: bytearray, value: str, depth: int = 0) -> None:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise ValueError("values: a str with surrogates, which are no characters") from None
    _head(out, 3, len(raw))
    out += raw


def _write(out: bytearray, value: Any, depth: int) -> None:
    (_WRITERS.get(type(value)) or _writer(type(value)))(out, value, depth)


def _writer(kind: type) -> Callable[[bytearray, Any, int], None]:
    """Return what writes values of a class that is derived from a plain one."""
    for base in kind.__mro__:
        if base in _WRITERS:
            return _WRITERS[base]
    raise ValueError(f"values: a {kind.__name__} is not a plain value")


def _integer(out: bytearray, value: int, depth: int) -> None:
    if 0 <= value < 24:
        out.append(value)
        return
    major, n = (0, value) if value >= 0 else (1, -1 - value)
    if n < 1 << 64:
        _head(out, major, n)
        return
    raw = n.to_bytes((n.bit_length() + 7) // 8, "big")
    out.append(0xC2 + major)
    _head(out, 2, len(raw))
    out += raw


def _binary(out: bytearray, value: bytes, depth: int) -> None:
    _head(out, 2, len(value))
    out += value


def _sequence(out: bytearray, value: Sequence[Any], depth: int) -> None:
    if not depth:
        raise ValueError("values: nested too deep")
    _head(out, 4, len(value))
    for item in value:
        kind = type(item)
        (_WRITERS.get(kind) or _writer(kind))(out, item, depth - 1)


def _float(value: float) -> bytes:
    if math.isnan(value):
        return _NAN
    for code in (25, 26):
        try:
            raw = _FLOATS[code].pack(value)
        except OverflowError:
            continue
        if _FLOATS[code].unpack(raw)[0] == value:
            return bytes((0xE0 | code,)) + raw
    return b"\xfb" + _FLOATS[27].pack(value)


def _mapping(out: bytearray, value: dict[Any, Any], depth: int) -> None:
    if not depth:
        raise ValueError("values: nested too deep")
    rows = []
    for key, item in value.items():
        if not isinstance(key, str):
            raise ValueError(f"values: a dict's key is a {type(key).__name__}, not a str")
        name = bytearray()
        _text(name, key)
        rows.append((bytes(name), item))
    _head(out, 5, len(rows))
    for raw, item in sorted(rows, key=lambda row: row[0]):
        out += raw
        _write(out, item, depth - 1)


def _nothing(out: bytearray, value: None, depth: int) -> None:
    out.append(0xF6)


def _truth(out: bytearray, value: bool, depth: int) -> None:
    out.append(0xF5 if value else 0xF4)


def _real(out: bytearray, value: float, depth: int) -> None:
    out += _float(value)


_WRITERS: dict[type, Callable[[bytearray, Any, int], None]] = {
    type(None): _nothing,
    bool: _truth,
    int: _integer,
    float: _real,
    str: _text,
    bytes: _binary,
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
}


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data):
        raise ValueError("values: truncated")
    major, n = data[at] >> 5, data[at] & 31
    if major == 7:
        return _simple(data, at, n)
    at += 1
    if n >= 24:
        n, at = _argument(data, at, n)
    if major == 0:
        return n, at
    if major == 1:
        return -1 - n, at
    if major == 6:
        return _bignum(data, at, n)
    if n > len(data) - at:
        raise ValueError("values: a length beyond the end of the data")
    if major == 2:
        return bytes(data[at : at + n]), at + n
    if major == 3:
        try:
            return str(data[at : at + n], "utf-8"), at + n
        except UnicodeDecodeError:
            raise ValueError("values: text that is not UTF-8") from None
    if not depth:
        raise ValueError("values: nested too deep")
    if major == 5:
        return _read_mapping(data, at, n, depth - 1)
    items = []
    for _ in range(n):
        item, at = _read(data, at, depth - 1)
        items.append(item)
    return items, at


def _argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """Read the number of 1 to 8 bytes that `info`, of 24 and more, announces."""
    if info > 27:
        raise ValueError("values: an indefinite length or a reserved code")
    end = at + (1 << (info - 24))
    if end > len(data):
        raise ValueError("values: truncated")
    n = int.from_bytes(data[at:end], "big")
    if n < _LEAST[info - 24]:
        raise ValueError("values: a number that is not in its shortest form")
    return n, end


def _bignum(data: bytes, at: int, tag: int) -> tuple[int, int]:
    if tag not in (2, 3) or at >= len(data) or data[at] >> 5 != 2:
        raise ValueError("values: a tag that is not that of a big integer")
    raw, at = _read(data, at, 0)
    if len(raw) < 9 or not raw[0]:
        raise ValueError("values: a big integer that is not in its shortest form")
    n = int.from_bytes(raw, "big")
    return (n if tag == 2 else -1 - n), at


def _simple(data: bytes, at: int, info: int) -> tuple[Any, int]:
    if info in (20, 21):
        return info == 21, at + 1
    if info == 22:
        return None, at + 1
    if info not in _FLOATS:
        raise ValueError("values: a simple value that is not plain")
    end = at + 1 + _FLOATS[info].size
    if end > len(data):
        raise ValueError("values: truncated")
    value = _FLOATS[info].unpack_from(data, at + 1)[0]
    if _float(value) != data[at:end]:
        raise ValueError("values: a float that is not in its shortest form")
    return value, end


def _read_mapping(data: bytes, at: int, n: int, depth: int) -> tuple[dict[str, Any], int]:
    items: dict[str, Any] = {}
    before = b""
    for _ in range(n):
        start = at
        if at >= len(data) or data[at] >> 5 != 3:
            raise ValueError("values: a dict's key is not text")
        key, at = _read(data, at, 0)
        if data[start:at] <= before:
            raise ValueError("values: the keys of a dict are not in order")
        before = data[start:at]
        items[key], at = _read(data, at, depth)
    return items, at
