import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.frames import (
    MAX_CONTROL,
    Ack,
    Control,
    Data,
    Decoder,
    End,
    Ended,
    Frame,
    FrameError,
    Hello,
    Kind,
    Schema,
    Welcome,
    encode,
)

COUNTS = st.integers(0, 2**63 - 1)
NAMES = st.text(min_size=1, max_size=20)
CONTROLS: st.SearchStrategy[Control] = st.one_of(
    st.builds(
        lambda channel, part, low, more: Hello(1, channel, part, 2**62, low, low + more),
        NAMES,
        NAMES,
        st.integers(0, 2**40),
        st.integers(0, 2**40),
    ),
    st.builds(Welcome, COUNTS, COUNTS),
    st.builds(Ack, COUNTS, COUNTS),
    st.builds(End, COUNTS),
    st.just(Ended()),
)
BODIES = st.one_of(st.binary(max_size=60), st.integers(1000, 9000).map(bytes))
DATA = st.builds(
    lambda sequence, kind, schema, body: Data(
        sequence, kind, schema if kind == Kind.BATCH else 0, body
    ),
    st.integers(0, 2**64 - 1),
    st.sampled_from([Kind.BATCH, Kind.TABLE, Kind.BYTES, Kind.MESSAGE]),
    st.integers(1, 2**32 - 1),
    BODIES,
)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    DATA, CONTROLS, st.builds(Schema, st.integers(1, 2**32 - 1), BODIES)
)


def feed_all(decoder: Decoder, wire: bytes, chunk: int) -> list[Frame]:
    starts = range(0, len(wire), chunk)
    return [frame for start in starts for frame in decoder.feed(wire[start : start + chunk])]


# The stream of frames


@given(st.lists(FRAMES, max_size=8), st.data())
def test_any_chunking_gives_the_same_frames(frames: list[Frame], data: st.DataObject) -> None:
    wire = b"".join(map(encode, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    decoder = Decoder()
    found: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        found += decoder.feed(wire[start:end])
    assert found == frames
    assert decoder.pending == 0
    decoder.finish()


def test_byte_by_byte() -> None:
    frames: list[Frame] = [
        Hello(1, "c", "p", 9, 0, 3),
        Schema(1, b"s" * 2000),
        Data(0, Kind.BATCH, 1, b""),
        Data(1, Kind.BYTES, 0, b""),
        Data(2, Kind.MESSAGE, 0, b"m" * 3000),
    ]
    decoder = Decoder()
    wire = b"".join(map(encode, frames))
    assert feed_all(decoder, wire, 1) == frames


@given(FRAMES, st.data())
def test_a_stream_that_ends_inside_a_frame(frame: Frame, data: st.DataObject) -> None:
    wire = encode(frame)
    size = data.draw(st.integers(1, len(wire) - 1))
    decoder = Decoder()
    assert decoder.feed(wire[:size]) == []
    assert decoder.pending == size
    with pytest.raises(FrameError, match=f"inside a frame, after {size} bytes"):
        decoder.finish()


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (struct.pack("<IB", 100, 9), "unknown kind of frame 9"),
        (struct.pack("<IB", 0, 1), "CONTROL frame of 0 bytes is too short"),
        (struct.pack("<IB", 8, 5), "BYTES frame of 8 bytes is too short"),
        (struct.pack("<IB", 12, 3), "BATCH frame of 12 bytes is too short"),
        (struct.pack("<IB", 101, 5), "BYTES frame of 101 bytes; at most 100"),
        (struct.pack("<IB", 2**32 - 1, 3), "BATCH frame of 4294967295 bytes; at most 100"),
        (struct.pack("<IBQI", 13, 3, 7, 0), "batch 7 names no schema"),
        (struct.pack("<IBI", 5, 2, 0), "schema's id is 0"),
        (struct.pack("<IB", 2, 1) + b"\xc1", "malformed control frame"),
        (b"GET / HTTP/1.1\r\n", "unknown kind of frame 47"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_malformed_frames(wire: bytes, reason: str, chunk: int) -> None:
    decoder = Decoder(max_frame=100)
    with pytest.raises(FrameError, match=reason):
        feed_all(decoder, wire, chunk)
    assert decoder.pending == 0
    with pytest.raises(FrameError, match=reason):
        decoder.feed(encode(Ended()))
    with pytest.raises(FrameError, match=reason):
        decoder.finish()


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Ack", "durable": -1, "credit": 0},
        {"type": "Ack", "durable": 2**63, "credit": 0},
        {"type": "Ack", "durable": 0},
        {"type": "Ack", "durable": 0, "credit": 0, "more": 0},
        {"type": "Ack", "durable": 0.5, "credit": 0},
        {"type": "Nack", "durable": 0, "credit": 0},
        {
            "type": "Hello",
            "version": 1,
            "channel": "",
            "part": "p",
            "incarnation": 0,
            "first": 0,
            "next": 0,
        },
        {
            "type": "Hello",
            "version": 1,
            "channel": "c",
            "part": "p",
            "incarnation": 0,
            "first": 2,
            "next": 1,
        },
    ],
)
def test_control_fields_have_limits(fields: dict[str, object]) -> None:
    body = msgspec.msgpack.encode(fields)
    with pytest.raises(FrameError, match="malformed control frame"):
        Decoder().feed(struct.pack("<IB", len(body) + 1, 1) + body)


def test_a_large_control_frame_is_refused_by_its_head() -> None:
    with pytest.raises(FrameError, match=f"at most {MAX_CONTROL}"):
        Decoder().feed(struct.pack("<IB", MAX_CONTROL + 1, 1))


@pytest.mark.parametrize(
    "frame", [Data(-1, Kind.BYTES, 0, b""), Data(0, Kind.CONTROL, 0, b""), Schema(2**32, b"")]
)
def test_frames_that_cannot_be_written(frame: Frame) -> None:
    with pytest.raises(FrameError):
        encode(frame)


def test_small_pieces_of_a_large_frame_do_not_multiply_in_memory() -> None:
    body = bytes(1 << 16)
    wire = encode(Data(0, Kind.BYTES, 0, body))
    decoder = Decoder()
    tracemalloc.start()
    for start in range(0, len(wire) - 8, 2):
        decoder.feed(wire[start : start + 2])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder.pending > len(body) - 16
    assert held < 2 * len(body)
