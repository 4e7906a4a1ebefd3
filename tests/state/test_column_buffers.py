"""Columns of every layout give the values that Arrow itself gives."""

import datetime
import itertools

import numpy as np
import pyarrow as pa
import pytest

from state.column_buffers import Runs, Words, chunks, column_buffers

DAY = datetime.date(1969, 12, 31)
WORDS = [
    (pa.array([-1, 0, 127], pa.int8()), [-1, 0, 127]),
    (pa.array([65_535], pa.uint16()), [65_535]),
    (pa.array([2**64 - 1], pa.uint64()), [-1]),
    (pa.array([True, False, True]), [1, 0, 1]),
    (pa.array([DAY]), [-1]),
    (pa.array([DAY], pa.date64()), [-86_400_000]),
    (pa.array([5], pa.time32("ms")), [5]),
    (pa.array([5], pa.duration("ns")), [5]),
    (pa.array([-5], pa.timestamp("s", "UTC")), [-5]),
]


@pytest.mark.parametrize(("column", "expected"), WORDS, ids=lambda v: str(getattr(v, "type", "")))
def test_numbers_and_times_are_words(column: pa.Array, expected: list[int]) -> None:
    for form in (column, pa.concat_arrays([column, column]).slice(len(column))):
        buffers = column_buffers(form)
        assert isinstance(buffers, Words)
        assert buffers.words.view(np.int64).tolist() == expected
        assert not buffers.valid.size


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_floats_are_words_of_doubles(kind: pa.DataType) -> None:
    values = [np.float16(v) for v in (1.5, -0.0, np.nan)]
    buffers = column_buffers(pa.array(values, pa.float16()).cast(kind))
    assert isinstance(buffers, Words)
    assert buffers.words.tolist() == np.array([1.5, 0.0, np.nan]).view(np.uint64).tolist()


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3), pa.string(), pa.string_view()],
)
def test_strings_are_runs_of_bytes(kind: pa.DataType) -> None:
    values = [b"abc", None, b"xyz", b"123"]
    column = pa.array([b"...", *values], pa.binary()).cast(kind)
    for form in (column.slice(1), column.slice(1).dictionary_encode()):
        if pa.types.is_dictionary(form.type) and "view" in str(kind):
            continue
        buffers = column_buffers(form)
        assert isinstance(buffers, Runs)
        edges = buffers.offsets.tolist()
        runs = [buffers.data[a:b].tobytes() for a, b in itertools.pairwise(edges)]
        assert [runs[i] for i in (0, 2, 3)] == [b"abc", b"xyz", b"123"]
        bits = np.unpackbits(buffers.valid, bitorder="little")[buffers.first :][:4]
        assert bits.tolist() == [1, 0, 1, 1]


def test_nothing_is_copied_that_needs_no_change() -> None:
    values = np.arange(5)
    buffers = column_buffers(pa.array(values))
    assert isinstance(buffers, Words)
    assert np.shares_memory(buffers.words, values)
    assert not buffers.words.flags.writeable


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.float64(), pa.null(), pa.bool_()])
def test_empty_columns_are_empty(kind: pa.DataType) -> None:
    for column in (pa.array([], kind), pa.nulls(3, kind).slice(3)):
        buffers = column_buffers(column)
        size = len(buffers.words) if isinstance(buffers, Words) else len(buffers.offsets) - 1
        assert size == 0


def test_chunks_of_anything_are_arrays() -> None:
    assert [c.to_pylist() for c in chunks(np.array([1, 2]))] == [[1, 2]]
    assert [c.to_pylist() for c in chunks(pa.chunked_array([[1], [2]]))] == [[1], [2]]
    with pytest.raises(ValueError, match="one dimension"):
        list(chunks(np.zeros((1, 1))))
    for kind in (pa.list_(pa.int64()), pa.decimal128(9), pa.month_day_nano_interval()):
        with pytest.raises(TypeError, match="no hash"):
            column_buffers(pa.array([], kind))
