import random
import struct
import tracemalloc

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.frames import MAX_MESSAGE, Data, Decoder, FrameError, Kind, Schema, encode
from state.items import MAX_SCHEMAS, ItemDecoder, ItemEncoder

FLAT = st.sampled_from(
    [
        pa.null(),
        pa.bool_(),
        pa.int8(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.binary_view(),
        pa.binary(3),
        pa.date32(),
        pa.timestamp("us", tz="UTC"),
        pa.duration("ns"),
        pa.decimal128(25, 2),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.int64()),
    ]
)
TYPES = st.recursive(
    FLAT,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda kind: pa.list_(kind, 2)),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"part {i}", kind) for i, kind in enumerate(kinds)])
        ),
    ),
    max_leaves=4,
)


def column(kind: pa.DataType, rows: int, rng: random.Random) -> pa.Array:
    """A column of any type, a fifth of it null, from a seed."""
    mask = np.array([rng.random() < 0.2 for _ in range(rows)], dtype=bool)
    if pa.types.is_null(kind):
        return pa.nulls(rows)
    if pa.types.is_struct(kind):
        parts = [column(kind.field(i).type, rows, rng) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=pa.array(mask))
    if pa.types.is_fixed_size_list(kind):
        values = column(kind.value_type, rows * kind.list_size, rng)
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=pa.array(mask))
    if pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ends = np.cumsum([0, *(rng.randrange(4) for _ in range(rows))])
        offsets = pa.array(ends, pa.int64() if pa.types.is_large_list(kind) else pa.int32())
        if pa.types.is_map(kind):
            keys = pa.array([str(i) for i in range(ends[-1])], pa.string())
            items = column(kind.item_type, int(ends[-1]), rng)
            return pa.MapArray.from_arrays(offsets, keys, items, type=kind)
        array = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
        values = column(kind.value_type, int(ends[-1]), rng)
        return array.from_arrays(offsets, values, type=kind, mask=pa.array(mask))
    if pa.types.is_dictionary(kind):
        values = pa.array([3, 1, 2], pa.int64()).cast(kind.value_type)
        indices = pa.array([rng.randrange(3) for _ in range(rows)], kind.index_type, mask=mask)
        return pa.DictionaryArray.from_arrays(indices, values)
    if pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        return pa.array([None if hidden else b"xyz" for hidden in mask], kind)
    numbers = pa.array([rng.randrange(100) for _ in range(rows)], pa.int64(), mask=mask)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        long = [None if hidden else "long enough for a buffer " * 2 for hidden in mask]
        return pa.array(long, pa.string()).cast(kind)
    if pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return numbers.cast(pa.string()).cast(kind)
    if pa.types.is_date32(kind):
        return numbers.cast(pa.int32()).cast(kind)
    return numbers.cast(kind)


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    kinds = draw(st.lists(TYPES, max_size=4))
    rows = draw(st.integers(0, 20))
    rng = random.Random(draw(st.integers(0, 2**32)))
    columns = [column(kind, rows, rng) for kind in kinds]
    batch = pa.record_batch(columns, names=[f"column {i}" for i in range(len(kinds))])
    start = draw(st.integers(0, rows))
    return batch.slice(start, draw(st.integers(0, rows - start)))


def sent(encoder: ItemEncoder, decoder: ItemDecoder, item: object) -> object:
    """What arrives when ``item`` crosses a stream."""
    kind, schema, body = encoder.encode(item)
    wire = encode(Schema(schema, encoder.schemas[schema])) if schema else b""
    wire += encode(Data(5, kind, schema, body))
    *schemas, data = Decoder().feed(wire)
    for frame in schemas:
        assert isinstance(frame, Schema)
        decoder.add_schema(frame)
    assert isinstance(data, Data)
    return decoder.decode(data)


@settings(max_examples=150, deadline=None)
@given(batches())
def test_batches_arrive_as_they_were(batch: pa.RecordBatch) -> None:
    received = sent(ItemEncoder(), ItemDecoder(schema=batch.schema), batch)
    assert isinstance(received, pa.RecordBatch)
    assert received.schema.equals(batch.schema, check_metadata=True)
    assert received.equals(batch)


MESSAGES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(), st.binary())
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(MESSAGES)
def test_messages_and_bytes_arrive_as_they_were(item: object) -> None:
    assert sent(ItemEncoder(), ItemDecoder(), item) == item


class Vote(msgspec.Struct, frozen=True):
    slot: int
    value: str


def test_messages_of_a_type() -> None:
    assert sent(ItemEncoder(), ItemDecoder(Vote), Vote(1, "x")) == Vote(1, "x")
    assert sent(ItemEncoder(), ItemDecoder(), Vote(1, "x")) == {"slot": 1, "value": "x"}
    with pytest.raises(FrameError, match=r"item 5 \(MESSAGE\): Expected `int`, got `str`"):
        sent(ItemEncoder(), ItemDecoder(Vote), {"slot": "1", "value": "x"})


@pytest.mark.parametrize(
    "item", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aabbcc")[::2]]
)
def test_bytes_like_items_arrive_as_bytes(item: object) -> None:
    assert sent(ItemEncoder(), ItemDecoder(), item) == b"abc"


def test_one_id_for_each_distinct_schema() -> None:
    encoder = ItemEncoder()
    ids = [
        encoder.encode(pa.record_batch({name: pa.array([1], kind)}))[1]
        for name, kind in [("x", pa.int8()), ("x", pa.int16()), ("y", pa.int8()), ("x", pa.int8())]
    ]
    assert ids == [1, 2, 3, 1]
    marked = pa.record_batch({"x": pa.array([1], pa.int8())}).replace_schema_metadata({"k": "v"})
    assert encoder.encode(marked)[1] == 4
    again = ItemEncoder(schemas=encoder.schemas)
    assert again.encode(marked)[1] == 4
    assert again.encode(pa.record_batch({"z": [1]}))[1] == 5


def test_slices_are_sent_without_what_they_hide() -> None:
    batch = pa.record_batch({"x": np.arange(100_000), "s": ["long text"] * 100_000})
    assert len(ItemEncoder().encode(batch.slice(50_000, 10))[2]) < 1000


def test_a_dictionary_column_travels_with_its_values() -> None:
    batch = pa.record_batch({"d": pa.array(["a", "b", "a", None]).dictionary_encode()})
    kind, schema, _ = ItemEncoder().encode(batch)
    assert (kind, schema) == (Kind.TABLE, 0)
    nested = pa.record_batch({"l": pa.ListArray.from_arrays([0, 2, 4], batch.column(0))})
    assert ItemEncoder().encode(nested)[0] == Kind.TABLE


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (pa.table({"x": [1]}), r"to_batches\(\)"),
        (object(), "a object is not sent"),
        ({1j: 1}, "a dict is not sent"),
        (2**70, "a int is not sent"),
        (
            pa.record_batch({"x": pa.array([b"0" * 16], pa.uuid())}),
            "cast the column to its storage",
        ),
        (
            pa.record_batch({"x": pa.RunEndEncodedArray.from_arrays([2], ["x"])}),
            "unions and run-end encoding",
        ),
        (
            pa.record_batch(
                {"x": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.nulls(1)])}
            ),
            "unions and run-end encoding",
        ),
        (pa.record_batch({"x": pa.array([[1]], pa.list_view(pa.int8()))}), "to a list"),
        (
            pa.record_batch({"x": pa.DictionaryArray.from_arrays([0], pa.array([[1]]))}),
            "dictionaries of nested values",
        ),
    ],
)
def test_items_that_are_not_sent(item: object, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        ItemEncoder().encode(item)


def test_items_that_nest_without_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="a list is not sent"):
        ItemEncoder().encode(loop)
    deep = pa.array([1])
    for _ in range(20):
        deep = pa.ListArray.from_arrays([0, 1], deep)
    with pytest.raises(TypeError, match="16 levels"):
        ItemEncoder().encode(pa.record_batch({"x": deep}))


def test_items_have_a_size_limit() -> None:
    encoder = ItemEncoder(max_frame=1000)
    assert len(encoder.encode(bytes(987))[2]) == 987
    for item in (bytes(988), "x" * 1000, pa.record_batch({"x": np.arange(200)})):
        with pytest.raises(FrameError, match="too large"):
            encoder.encode(item)
    with pytest.raises(FrameError, match=f"frame of {MAX_MESSAGE}"):
        ItemEncoder().encode("x" * MAX_MESSAGE)


def test_a_stream_has_a_limit_of_schemas() -> None:
    encoder, decoder = ItemEncoder(), ItemDecoder()
    for i in range(MAX_SCHEMAS):
        encoder.encode(pa.record_batch({f"x{i}": [1]}))
    for identity, body in encoder.schemas.items():
        decoder.add_schema(Schema(identity, body))
    with pytest.raises(FrameError, match="more than 1024"):
        encoder.encode(pa.record_batch({"more": [1]}))
    with pytest.raises(FrameError, match="more than 1024"):
        decoder.add_schema(Schema(MAX_SCHEMAS + 1, encoder.schemas[1]))


# What a receiver asks for


def test_schemas_come_before_their_batches_and_never_change() -> None:
    encoder, decoder = ItemEncoder(), ItemDecoder()
    encoder.encode(pa.record_batch({"x": [1]}))
    kind, schema, body = encoder.encode(pa.record_batch({"y": ["a"]}))
    with pytest.raises(FrameError, match="names schema 2, which never came"):
        decoder.decode(Data(0, kind, schema, body))
    decoder.add_schema(Schema(2, encoder.schemas[2]))
    decoder.add_schema(Schema(2, encoder.schemas[2]))
    assert decoder.decode(Data(0, kind, schema, body)).to_pydict() == {"y": ["a"]}
    with pytest.raises(FrameError, match="schema 2 comes again and differs"):
        decoder.add_schema(Schema(2, encoder.schemas[1]))


ASKED = pa.schema([pa.field("time", pa.int64()), pa.field("price", pa.float64(), nullable=False)])


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (ASKED.remove(1), r"column 1, 'price' \(double, not null\), is missing"),
        (ASKED.append(pa.field("size", pa.int8())), r"column 2, 'size' \(int8\), is one too many"),
        (ASKED.set(0, pa.field("when", pa.int64())), r"column 0 is 'when' \(int64\), not 'time'"),
        (ASKED.set(0, pa.field("time", pa.int32())), r"'time' \(int32\), not 'time' \(int64\)"),
        (ASKED.set(1, pa.field("price", pa.float64())), r"\(double\), not .* not null"),
    ],
)
@pytest.mark.parametrize("dictionary", [False, True])
def test_batches_of_another_schema(found: pa.Schema, reason: str, dictionary: bool) -> None:
    asked = ASKED
    if dictionary:
        extra = pa.field("kind", pa.dictionary(pa.int8(), pa.string()))
        asked, found = asked.append(extra), found.append(extra)
        if len(found) != len(asked):
            reason = "column"
    batch = found.empty_table().to_batches()
    one = batch[0] if batch else pa.RecordBatch.from_pylist([], schema=found)
    with pytest.raises(FrameError, match=reason):
        sent(ItemEncoder(), ItemDecoder(schema=asked), one)


def test_metadata_does_not_make_another_schema() -> None:
    batch = pa.RecordBatch.from_pylist([], schema=ASKED.with_metadata({"k": "v"}))
    assert sent(ItemEncoder(), ItemDecoder(schema=ASKED), batch) == batch


NOT_NULL = pa.schema([pa.field("x", pa.int64(), nullable=False)])


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (
            pa.RecordBatch.from_arrays([pa.array([1, None])], schema=NOT_NULL),
            "column 'x' has nulls and may not",
        ),
        (
            pa.record_batch({"x": pa.array([b"\xff"]).view(pa.string())}),
            "Invalid UTF8",
        ),
        (pa.record_batch({"x": pa.nulls(2_000_000)}), "2000000 rows in 0 bytes"),
        (
            pa.record_batch({"x": pa.array(["x" * 30_000] * 10_000).dictionary_encode()}),
            "'x' stands for more than",
        ),
    ],
)
def test_what_a_receiver_refuses_is_not_sent(batch: pa.RecordBatch, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        ItemEncoder().encode(batch)


def test_a_schema_that_a_receiver_refuses_is_not_sent() -> None:
    wide = pa.record_batch({f"x{i}": [1] for i in range(4097)})
    with pytest.raises(TypeError, match="more than 4096 fields"):
        ItemEncoder().encode(wide)
    assert ItemEncoder().encode(wide.select(range(4096)))[0] == Kind.BATCH


def test_a_receiver_checks_for_nulls_itself() -> None:
    lax = pa.RecordBatch.from_arrays([pa.array([1, None])], names=["x"])
    decoder = ItemDecoder()
    decoder.add_schema(Schema(1, NOT_NULL.serialize().to_pybytes()))
    with pytest.raises(FrameError, match="column 'x' has nulls and may not"):
        decoder.decode(Data(0, Kind.BATCH, 1, lax.serialize().to_pybytes()))


# Hostile messages


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 900,
        b"\x91" * 1_000_000 + b"\xc0",
        b"\xc1",
        b"",
        b"\xc0\xc0",
        b"\xa1\xff",
    ],
)
def test_malformed_messages(body: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(FrameError, match=r"item 3 \(MESSAGE\)"):
        ItemDecoder().decode(Data(3, Kind.MESSAGE, 0, body))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "unit", [b"\x90", b"\x81\x00\x90", b"\x81\x00" * 100 + b"\x80", b"\xd4\x05x"]
)
def test_the_largest_message_has_a_bounded_cost(unit: bytes) -> None:
    count = (MAX_MESSAGE - 5) // len(unit) // 8
    tracemalloc.start()
    item = ItemDecoder().decode(
        Data(0, Kind.MESSAGE, 0, b"\xdd" + struct.pack(">I", count) + unit * count)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(item) == count
    assert 8 * peak < 256 << 20
    with pytest.raises(FrameError, match=f"at most {MAX_MESSAGE}"):
        ItemDecoder().decode(Data(0, Kind.MESSAGE, 0, bytes(MAX_MESSAGE + 1)))
