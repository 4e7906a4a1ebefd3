import random
import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from state.arrow_ipc import MAX_EXPANSION, has_dictionary
from state.frames import Data, FrameError, Kind, Schema
from state.items import ItemDecoder


def framed(batch: pa.RecordBatch, expansion: int = MAX_EXPANSION) -> tuple[ItemDecoder, Data]:
    """A batch on the wire as a careless sender writes it, and a decoder that knows its schema."""
    decoder = ItemDecoder(max_expansion=expansion)
    if any(has_dictionary(part.type) for part in batch.schema):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return decoder, Data(0, Kind.TABLE, 0, sink.getvalue().to_pybytes())
    decoder.add_schema(Schema(1, batch.schema.serialize().to_pybytes()))
    return decoder, Data(0, Kind.BATCH, 1, batch.serialize().to_pybytes())


MEMORY = 256 << 20

ONE_OF_EACH = [
    pa.array([1, None, 3], pa.int64()),
    pa.array([True, None, False]),
    pa.array(["a", None, "long enough to have a buffer"]),
    pa.array(["a", None, "long enough to have a buffer"], pa.string_view()),
    pa.array([b"abc", None, b"def"], pa.binary(3)),
    pa.nulls(3),
    pa.array([1, 2, None], pa.timestamp("us", tz="UTC")),
    pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval()),
    pa.array([[1, 2], None, []], pa.large_list(pa.int32())),
    pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
    pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}]),
    pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())),
    pa.array(["a", None, "a"]).dictionary_encode(),
]


@pytest.fixture
def pool() -> Iterator[pa.MemoryPool]:
    """What Arrow allocates from during a test, with counts of its own."""
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(usual)


@pytest.mark.parametrize("column", ONE_OF_EACH, ids=lambda column: str(column.type))
def test_any_flipped_bit_gives_an_item_or_a_frame_error(
    column: pa.Array, pool: pa.MemoryPool
) -> None:
    decoder, data = framed(pa.record_batch({"x": column}))
    rng = random.Random(1)
    accepted = 0
    for i in range(len(data.body)):
        body = bytearray(data.body)
        body[i] ^= 1 << rng.randrange(8)
        try:
            item = decoder.decode(Data(0, data.kind, data.schema, bytes(body)))
        except FrameError:
            continue
        item.column(0).to_string()
        accepted += 1
    assert 0 < accepted < len(data.body)
    assert pool.max_memory() < MEMORY


@pytest.mark.parametrize("column", ONE_OF_EACH[:-1], ids=lambda column: str(column.type))
def test_any_flipped_bit_of_a_schema(column: pa.Array) -> None:
    body = pa.schema([pa.field("x", column.type)]).serialize().to_pybytes()
    for i in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[i // 8] ^= 1 << (i % 8)
        try:
            ItemDecoder().add_schema(Schema(1, bytes(flipped)))
        except FrameError:
            continue


@pytest.mark.parametrize("column", ONE_OF_EACH, ids=lambda column: str(column.type))
def test_any_truncation(column: pa.Array) -> None:
    decoder, data = framed(pa.record_batch({"x": column}))
    for size in range(len(data.body) - 8):  # the last 8 may be an optional mark of the end
        with pytest.raises(FrameError):
            decoder.decode(Data(0, data.kind, data.schema, data.body[:size]))
    with pytest.raises(FrameError):
        decoder.decode(Data(0, data.kind, data.schema, data.body + b"\0"))


def patched(data: Data, old: bytes, new: bytes) -> Data:
    assert old in data.body
    return Data(data.sequence, data.kind, data.schema, data.body.replace(old, new))


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_compressed_bodies_are_refused(codec: str, dictionary: bool) -> None:
    column = pa.array(["x" * 1000] * 1000)
    batch = pa.record_batch({"x": column.dictionary_encode() if dictionary else column})
    decoder, data = framed(batch)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    if dictionary:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        body = sink.getvalue().to_pybytes()
    else:
        writer = pa.BufferOutputStream()
        with pa.ipc.new_stream(writer, batch.schema, options=options) as stream:
            stream.write_batch(batch)
        reader = pa.ipc.MessageReader.open_stream(writer.getvalue())
        reader.read_next_message()
        body = reader.read_next_message().serialize().to_pybytes()
    with pytest.raises(FrameError, match="compressed Arrow bodies are not read"):
        decoder.decode(Data(0, data.kind, data.schema, body))


@pytest.mark.parametrize("kind", [pa.null(), pa.binary(0), pa.struct([])], ids=str)
def test_rows_that_take_no_bytes_have_a_limit(kind: pa.DataType) -> None:
    batch = pa.record_batch({"x": pa.array([None] * 12345, kind)})
    decoder, data = framed(batch)
    assert decoder.decode(data).num_rows == 12345
    hostile = patched(data, struct.pack("<q", 12345), struct.pack("<q", 1 << 60))
    with pytest.raises(FrameError, match=f"{1 << 60} rows in"):
        decoder.decode(hostile)


def test_values_that_take_no_bytes_have_a_limit() -> None:
    column = pa.ListArray.from_arrays([0, 12345], pa.nulls(12345))
    decoder, data = framed(pa.record_batch({"x": column}))
    assert decoder.decode(data).num_rows == 1
    hostile = patched(data, struct.pack("<q", 12345), struct.pack("<q", 1 << 60))
    with pytest.raises(FrameError, match=f"a column of {1 << 60} values"):
        decoder.decode(hostile)


def test_a_view_claims_buffers_that_are_not_there() -> None:
    column = pa.array(["long enough to have a buffer"] * 3, pa.string_view())
    decoder, data = framed(pa.record_batch({"x": column}))
    for claim in (-1, 1 << 40):
        with pytest.raises(FrameError, match="claims more buffers than there are"):
            decoder.decode(patched(data, struct.pack("<Iq", 1, 1), struct.pack("<Iq", 1, claim)))


def test_buffers_lie_side_by_side_inside_the_body() -> None:
    batch = pa.record_batch({"x": np.arange(100), "y": np.arange(100)})
    decoder, data = framed(batch)
    second = struct.pack("<qq", 832, 800)  # 800 bytes, padded to 64
    if second not in data.body:
        second = struct.pack("<qq", 800, 800)
    for place in [(0, 800), (804, 700), (800, 1 << 40), (-800, 800), (1 << 62, 800), (800, -1)]:
        with pytest.raises(FrameError, match="overlap or lie outside"):
            decoder.decode(patched(data, second, struct.pack("<qq", *place)))


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_few_bytes_that_stand_for_many(view: bool, depth: int) -> None:
    rows, text = 10_000, b"x" * 100_000
    if view:
        views = struct.pack("<i4sii", len(text), text[:4], 0, 0) * rows
        buffers = [None, pa.py_buffer(views), pa.py_buffer(text)]
        column = pa.Array.from_buffers(pa.string_view(), rows, buffers)
    else:
        indices = pa.array(np.zeros(rows, np.int8))
        column = pa.DictionaryArray.from_arrays(indices, pa.array([text.decode()]))
    for _ in range(depth):
        column = pa.StructArray.from_arrays(
            [pa.ListArray.from_arrays([0, len(column)], column)], ["x"]
        )
    batch = pa.record_batch({"bomb": column})
    decoder, data = framed(batch)
    assert len(data.body) < 300_000
    with pytest.raises(FrameError, match="'bomb' stands for more than the 268435456 bytes"):
        decoder.decode(data)
    decoder, data = framed(batch, expansion=rows * len(text))
    assert decoder.decode(data).num_rows == len(column)


class Flatbuffer:
    """Tables whose parts may be shared, which no honest writer makes."""

    def __init__(self) -> None:
        self.data = bytearray(4)

    def table(self, **slots: bytes) -> int:
        """Write a table with inline values by slot number (`s0`, `s3`), return its position."""
        last = max(int(name[1:]) for name in slots)
        self._pad()
        vtable = len(self.data)
        size = 4 + sum(4 if len(value) <= 4 else 8 for value in slots.values())
        offsets, position = {}, 4
        for name, value in slots.items():
            offsets[int(name[1:])] = position
            position += 4 if len(value) <= 4 else 8
        self.data += struct.pack("<HH", 6 + 2 * last, size)
        for i in range(last + 1):
            self.data += struct.pack("<H", offsets.get(i, 0))
        self._pad()
        table = len(self.data)
        self.data += struct.pack("<i", table - vtable)
        for value in slots.values():
            self.data += value.ljust(4 if len(value) <= 4 else 8, b"\0")
        return table

    def point(self, position: int, target: int) -> None:
        struct.pack_into("<I", self.data, position, target - position)

    def vector(self, count: int) -> int:
        self._pad()
        position = len(self.data)
        self.data += struct.pack("<I", count) + bytes(4 * count)
        return position

    def text(self, value: bytes) -> int:
        self._pad()
        position = len(self.data)
        self.data += struct.pack("<I", len(value)) + value + b"\0"
        return position

    def message(self) -> bytes:
        self.data += bytes(-len(self.data) % 8)
        return struct.pack("<Ii", 0xFFFFFFFF, len(self.data)) + self.data

    def _pad(self) -> None:
        self.data += bytes(-len(self.data) % 4)


def shared_children(depth: int, width: int) -> bytes:
    """A schema of ``width ** depth`` fields in ``depth * width`` places."""
    flat = Flatbuffer()
    nothing = bytes(4)
    message = flat.table(s0=b"\x04\0", s1=b"\x01", s2=nothing)
    flat.point(0, message)
    schema = flat.table(s1=nothing)
    flat.point(message + 12, schema)
    waiting = schema + 4
    for level in range(depth):
        vector = flat.vector(width if level else 1)
        flat.point(waiting, vector)
        struct_type = level < depth - 1
        part = flat.table(
            s0=nothing, s2=b"\x0d" if struct_type else b"\x06", s3=nothing, s5=nothing
        )
        for i in range(width if level else 1):
            flat.point(vector + 4 + 4 * i, part)
        flat.point(part + 4, flat.text(b"x"))
        flat.point(part + 12, flat.table(s0=b"\0"))
        waiting = part + 16
    flat.point(waiting, flat.vector(0))
    return flat.message()


def test_a_schema_that_names_one_field_many_times() -> None:
    ItemDecoder().add_schema(Schema(1, shared_children(3, 1)))
    plain = pa.ipc.read_schema(pa.py_buffer(shared_children(3, 2)))
    assert str(plain.field(0).type).count("bool") == 4
    for depth, width in [(14, 2), (5, 8), (3, 1000)]:
        body = shared_children(depth, width)
        assert len(body) < 9000
        with pytest.raises(FrameError, match="names parts of itself many times"):
            ItemDecoder().add_schema(Schema(1, body))


@pytest.mark.parametrize(
    ("kind", "unit", "reason"),
    [
        (11, 0, "intervals are read as months, days, nanoseconds"),
        (11, 1, "intervals are read as months, days, nanoseconds"),
        (11, 2, ""),
        (0, 0, "type 0 is not known"),
        (27, 0, "type 27 is not known"),
    ],
)
def test_types_that_pyarrow_cannot_show(kind: int, unit: int, reason: str) -> None:
    flat = Flatbuffer()
    message = flat.table(s0=b"\x04\0", s1=b"\x01", s2=bytes(4))
    flat.point(0, message)
    schema = flat.table(s1=bytes(4))
    flat.point(message + 12, schema)
    fields = flat.vector(1)
    flat.point(schema + 4, fields)
    part = flat.table(s0=bytes(4), s2=bytes([kind]), s3=bytes(4), s5=bytes(4))
    flat.point(fields + 4, part)
    flat.point(part + 4, flat.text(b"x"))
    flat.point(part + 12, flat.table(s0=bytes([unit, 0])))
    flat.point(part + 16, flat.vector(0))
    decoder = ItemDecoder()
    if reason:
        with pytest.raises(FrameError, match=reason):
            decoder.add_schema(Schema(1, flat.message()))
    else:
        decoder.add_schema(Schema(1, flat.message()))


@pytest.mark.parametrize("big_endian", [False, True])
def test_big_endian_data_is_refused(big_endian: bool) -> None:
    flat = Flatbuffer()
    message = flat.table(s0=b"\x04\0", s1=b"\x01", s2=bytes(4))
    flat.point(0, message)
    schema = flat.table(s0=bytes([big_endian, 0]), s1=bytes(4))
    flat.point(message + 12, schema)
    flat.point(schema + 8, flat.vector(0))
    if not big_endian:
        ItemDecoder().add_schema(Schema(1, flat.message()))
        return
    with pytest.raises(FrameError, match="big-endian data is not read"):
        ItemDecoder().add_schema(Schema(1, flat.message()))


def test_metadata_has_a_limit() -> None:
    batch = pa.record_batch({"x": [1]})
    decoder, data = framed(batch)
    head = struct.pack("<Ii", 0xFFFFFFFF, 8 << 20)
    with pytest.raises(FrameError, match="8388608 bytes of metadata; at most 1048576"):
        decoder.decode(Data(0, data.kind, data.schema, head + bytes(8 << 20)))


def test_schemas_have_a_depth_and_a_number_of_fields() -> None:
    deep = pa.int8()
    for _ in range(16):
        deep = pa.list_(deep)
    for schema, reason in [
        (pa.schema([("x", deep)]), "more than 16 levels"),
        (pa.schema([(f"x{i}", pa.int8()) for i in range(4097)]), "more than 4096 fields"),
    ]:
        with pytest.raises(FrameError, match=reason):
            ItemDecoder().add_schema(Schema(1, schema.serialize().to_pybytes()))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (pa.uuid(), "field 'x': extension types are not read"),
        (pa.run_end_encoded(pa.int32(), pa.string()), "run-end encoded columns are not read"),
        (pa.sparse_union([pa.field("a", pa.int8())]), "union columns are not read"),
        (pa.list_view(pa.int8()), "list view columns are not read"),
        (pa.dictionary(pa.int8(), pa.list_(pa.int8())), "dictionaries of nested values"),
        (pa.dictionary(pa.int8(), pa.string()), "come as TABLE frames"),
    ],
)
def test_types_that_are_not_read(kind: pa.DataType, reason: str) -> None:
    body = pa.schema([pa.field("x", kind)]).serialize().to_pybytes()
    with pytest.raises(FrameError, match=reason):
        ItemDecoder().add_schema(Schema(1, body))


def test_names_that_are_not_text() -> None:
    body = pa.schema([("name", pa.int8())]).serialize().to_pybytes()
    with pytest.raises(FrameError, match="name is not UTF-8"):
        ItemDecoder().add_schema(Schema(1, body.replace(b"name", b"na\xff\xfe")))


def test_tables_are_one_batch_and_its_dictionaries() -> None:
    one = pa.record_batch({"x": pa.array(["a"]).dictionary_encode()})
    for batches, reason in [([], "has no batch"), ([one, one], "schema, its dictionaries and one")]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, one.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        with pytest.raises(FrameError, match=reason):
            ItemDecoder().decode(Data(0, Kind.TABLE, 0, sink.getvalue().to_pybytes()))


@pytest.mark.parametrize(
    ("deltas", "chosen", "reason"),
    [
        (False, [0, 1, 3, 4], "dictionary 0 is unknown or comes twice"),
        (True, [0, 3, 4], "dictionary deltas are not read"),
    ],
)
def test_a_dictionary_comes_once_and_whole(deltas: bool, chosen: list[int], reason: str) -> None:
    values = pa.array(["a", "b"])
    columns = [
        pa.DictionaryArray.from_arrays([0], values[:1]),
        pa.DictionaryArray.from_arrays([1], values),
    ]
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    schema = pa.schema([("x", columns[0].type)])
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for column in columns:
            writer.write_batch(pa.record_batch([column], schema=schema))
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    messages = [reader.read_next_message().serialize().to_pybytes() for _ in range(5)]
    with pytest.raises(FrameError, match=reason):
        ItemDecoder().decode(Data(0, Kind.TABLE, 0, b"".join(messages[i] for i in chosen)))
