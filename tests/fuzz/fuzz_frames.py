"""A coverage-guided fuzzer of what a stranger may send: `Decoder` and `ItemDecoder`.

    python tests/fuzz/fuzz_frames.py -runs=200000
    python tests/fuzz/fuzz_frames.py -max_total_time=3600 -seed=7
    python tests/fuzz/fuzz_frames.py crash-...

Flags are libFuzzer's. Seeds are streams with one batch of each type, made here. Arrow's C++ is not
instrumented, so mutations keep the frames whole and go into their bodies: three of four times the
lengths are put right again after one body was changed.

Allowed are items and `FrameError`. Anything else ends the run with the input in `crash-*`: another
exception, a signal, a minute on one input, more than 256 MB, or an accepted batch that cannot be
read and written again.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
from pathlib import Path

import atheris
import pyarrow as pa

PARTS = ["state.frames", "state.items", "state.arrow_ipc", "state.flatbuffer"]
with atheris.instrument_imports(include=PARTS):
    from state.frames import (
        Ack,
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
    from state.items import ItemDecoder, ItemEncoder

MEMORY = 256 << 20
INTERESTING = (0, 1, 7, 8, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 60, -1, -8)


def seeds() -> list[bytes]:
    """Streams with every kind of frame and one small batch of every type."""
    columns = [
        pa.array([1, None, 3], pa.int64()),
        pa.array([1.5, 2.5, None], pa.float32()),
        pa.array([True, None, False]),
        pa.array(["a", None, "long enough to have a buffer"]),
        pa.array(["a", None, "long enough to have a buffer"], pa.string_view()),
        pa.array([b"a", None, b"b"], pa.large_binary()),
        pa.array([b"abc", None, b"def"], pa.binary(3)),
        pa.array([b"a", None, b"long enough to have a buffer"], pa.binary_view()),
        pa.nulls(3),
        pa.array([1, 2, None], pa.timestamp("us", tz="UTC")),
        pa.array([1, 2, None], pa.decimal128(9, 2)),
        pa.array([1, 2, None], pa.duration("s")),
        pa.array([1, 2, None], pa.time64("us")),
        pa.array([0, 86_400_000, None], pa.date64()),
        pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval()),
        pa.array([[1, 2], None, []]),
        pa.array([["a"], None, ["b", None]], pa.large_list(pa.string())),
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
        pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}]),
        pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array([1, None, 1]).dictionary_encode(),
        pa.DictionaryArray.from_arrays([0, 0, None], pa.array(["a" * 20], pa.string_view())),
        pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
        pa.array([[{"x": [1]}], None, [None]]),
    ]
    batches = [pa.record_batch({"x": column}) for column in columns]
    batches.append(pa.record_batch(columns, names=[f"c{i}" for i in range(len(columns))]))
    batches.append(pa.record_batch(columns[:4], names=list("abcd")).slice(1, 0))
    streams = [_stream([batch]) for batch in batches]
    refused = [
        pa.array([b"0" * 16], pa.uuid()),
        pa.RunEndEncodedArray.from_arrays([2], ["x"]),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
        pa.array([[1]], pa.list_view(pa.int8())),
    ]
    for column in refused:
        streams += _refused(pa.record_batch({"x": column}))
    streams += _refused(batches[3], pa.ipc.IpcWriteOptions(compression="lz4"))
    streams.append(_stream([b"", b"bytes", {"k": [1, None, 2.5, "s", b"b"]}, [], list(range(20))]))
    streams.append(_stream([*batches[:4], "and", b"more"]))
    controls: list[Frame] = [
        Hello(1, "channel", "part", 1, 0, 9),
        Welcome(3, 1000),
        Ack(2, 1000),
        End(9),
        Ended(),
    ]
    streams.append(b"".join(map(encode, controls)))
    return streams


def _stream(items: list[object]) -> bytes:
    encoder = ItemEncoder()
    parts = [encoder.encode(item) for item in items]
    frames: list[Frame] = [Schema(*pair) for pair in encoder.schemas.items()]
    frames += [Data(i, *part) for i, part in enumerate(parts)]
    return b"".join(map(encode, frames))


def _refused(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> list[bytes]:
    """Streams with a batch that `ItemEncoder` does not write, as BATCH and as TABLE."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    body = sink.getvalue()
    reader = pa.ipc.MessageReader.open_stream(body)
    schema, data = (reader.read_next_message().serialize().to_pybytes() for _ in range(2))
    return [
        encode(Schema(1, schema)) + encode(Data(0, Kind.BATCH, 1, data)),
        encode(Data(0, Kind.TABLE, 0, body.to_pybytes())),
    ]


def receive(data: bytes) -> None:
    """Take ``data`` as the bytes of a peer."""
    decoder, items = Decoder(), ItemDecoder()
    size = 1 + sum(data[:2]) * 4
    try:
        for start in range(0, len(data), size):
            for frame in decoder.feed(data[start : start + size]):
                if isinstance(frame, Schema):
                    items.add_schema(frame)
                elif isinstance(frame, Data):
                    use(items.decode(frame))
        decoder.finish()
    except FrameError:
        pass
    peak = pa.default_memory_pool().max_memory()
    if peak > MEMORY:
        raise MemoryError(f"Arrow took {peak} bytes")


def use(item: object) -> None:
    """Read an accepted item as an operator would."""
    if isinstance(item, pa.RecordBatch):
        again = ItemEncoder().encode(item)
        assert again[2]
        str(item.schema)
        if item.num_rows <= 1000:
            for column in item.columns:
                column.to_string()
                pa.concat_arrays([column, column])


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one body of the stream ``data`` and keep its frames, three of four times."""
    rng = random.Random(seed)
    if rng.random() < 0.25:
        return bytes(atheris.Mutate(data, max_size))
    frames = _split(data)
    if not frames:
        return bytes(atheris.Mutate(data, max_size))
    chosen = rng.randrange(len(frames))
    body = bytearray(frames[chosen])
    action = rng.randrange(5)
    if action == 0:
        body[1:] = atheris.Mutate(bytes(body[1:]), max(max_size - len(data) + len(body), 1))
    elif action == 1 and len(frames) > 1:
        frames[rng.randrange(len(frames))] = bytes(body)
    elif action == 2 and len(body) > 1:
        position = rng.randrange(len(body))
        body[position] ^= 1 << rng.randrange(8)
    elif len(body) > 8:
        width, code = rng.choice([(1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")])
        position = rng.randrange(len(body) - width + 1) // width * width
        value = rng.choice(INTERESTING) + rng.randrange(-1, 2)
        struct.pack_into(code, body, position, value & ((1 << 8 * width) - 1))
    frames[chosen] = bytes(body)
    return b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)[:max_size]


def _split(data: bytes) -> list[bytes]:
    frames: list[bytes] = []
    position = 0
    while position + 5 <= len(data):
        length = struct.unpack_from("<I", data, position)[0]
        if not 0 < length <= len(data) - position - 4:
            break
        frames.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return frames


def main() -> None:
    """Fuzz until libFuzzer's flags say to stop, or try the inputs named."""
    with tempfile.TemporaryDirectory() as corpus:
        for i, seed in enumerate(seeds()):
            (Path(corpus) / f"seed-{i:02d}").write_bytes(seed)
        limits = ["-timeout=60", "-rss_limit_mb=512", "-max_len=8192"]
        named = any(Path(argument).is_file() for argument in sys.argv[1:])
        arguments = [sys.argv[0], *limits, *sys.argv[1:], *([] if named else [corpus])]
        atheris.Setup(arguments, receive, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
