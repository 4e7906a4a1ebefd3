import struct

import pyarrow as pa
import pytest

from state.flatbuffer import Flat


def schema_metadata(*names: str) -> bytes:
    message: bytes = pa.schema([(name, pa.int32()) for name in names]).serialize().to_pybytes()
    (length,) = struct.unpack_from("<i", message, 4)
    return message[8 : 8 + length]


def names_in(metadata: bytes) -> list[bytes]:
    """Walk a message as Message.fbs and Schema.fbs describe it."""
    flat = Flat(metadata)
    schema = flat.table(flat.target(flat.root(), 2, "header"))
    return [flat.string(field, 0) for field in flat.tables(schema, 1)]


def test_what_arrow_wrote_is_read() -> None:
    assert names_in(schema_metadata("x", "temperature")) == [b"x", b"temperature"]
    flat = Flat(schema_metadata("x"))
    assert flat.u16(flat.slot(flat.root(), 0)) == 4  # MetadataVersion.V5
    assert flat.u8(flat.slot(flat.root(), 1)) == 1  # MessageHeader.Schema
    assert flat.slot(flat.root(), 50) == 0


def test_any_changed_word_is_refused_or_read_in_bounds() -> None:
    metadata = schema_metadata("first", "second")
    refused = 0
    for position in range(0, len(metadata) - 3, 4):
        for word in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000):
            changed = bytearray(metadata)
            struct.pack_into("<I", changed, position, word)
            try:
                assert sum(map(len, names_in(bytes(changed)))) <= 2 * len(metadata)
            except (ValueError, struct.error, IndexError):
                refused += 1
    assert refused > 50


def test_tables_that_are_named_many_times_cost_no_more_than_the_buffer() -> None:
    # A root whose one vector names the same table a thousand times.
    count = 1000
    vtable = struct.pack("<HHH", 6, 8, 4)
    root = struct.pack("<iI", 6, 4)
    start = 4 + len(vtable) + len(root)
    child = start + 4 + 4 * count
    vector = struct.pack("<I", count) + b"".join(
        struct.pack("<I", child - (start + 4 + 4 * i)) for i in range(count)
    )
    data = struct.pack("<I", 4 + len(vtable)) + vtable + root + vector
    # The child's vtable claims a table of 60,000 bytes.
    data += struct.pack("<i", -4) + struct.pack("<HH", 4, 60_000)
    flat = Flat(data)
    with pytest.raises(ValueError, match="many times"):
        list(flat.tables(flat.root(), 0))
