"""The column hash against the `mmh3` library, value by value."""

import mmh3
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.hashing import hash64, hash_rows


def reference(data: bytes, seed: int = 0) -> int:
    return mmh3.hash64(data, seed, x64arch=True, signed=False)[0]


@given(st.lists(st.binary(max_size=70)), st.integers(0, 2**32 - 1))
def test_binary_equals_mmh3(values: list[bytes], seed: int) -> None:
    assert hash64(pa.array(values, pa.binary()), seed).tolist() == [
        reference(v, seed) for v in values
    ]


LENGTHS = [(0, n) for n in (15, 16, 127, 128, 144, 1000)]
LENGTHS += [(36, 36), (32, 32), (8, 8), (32, 40), (32, 41), (16, 60), (140, 141), (150, 300)]


@pytest.mark.parametrize(("shortest", "longest"), LENGTHS)
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_many_runs_equal_mmh3(kind: pa.DataType, shortest: int, longest: int) -> None:
    rng = np.random.default_rng(longest)
    values = [rng.bytes(int(size)) for size in rng.integers(shortest, longest + 1, size=2500)]
    expected = [reference(v, 7) for v in values]
    assert hash64(pa.array(values, kind), 7).tolist() == expected
    seeds = np.full(len(values), 7, np.uint64)
    assert hash64(pa.array(values, kind), seeds).tolist() == expected


@given(st.lists(st.text(max_size=20)), st.integers(0, 5))
def test_a_slice_of_strings_equals_mmh3(values: list[str], skip: int) -> None:
    column = pa.array(values, pa.string()).slice(skip)
    assert hash64(column).tolist() == [reference(v.encode()) for v in values[skip:]]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_equal_mmh3_of_their_eight_bytes(values: list[int]) -> None:
    expected = [reference(v.to_bytes(8, "little", signed=True)) for v in values]
    assert hash64(pa.array(values, pa.int64())).tolist() == expected


def test_width_and_encoding_of_a_column_do_not_matter() -> None:
    values = [1, 2, 250]
    of_int64 = hash64(pa.array(values, pa.int64())).tolist()
    for kind in (pa.uint8(), pa.int16(), pa.uint32(), pa.uint64()):
        assert hash64(pa.array(values, kind)).tolist() == of_int64
    words = pa.array(["a", "b", "a"])
    for column in (words.dictionary_encode(), words.cast(pa.large_string())):
        assert hash64(column).tolist() == hash64(words).tolist()


def test_equal_floats_hash_equally() -> None:
    signed = hash64(pa.array([0.0, -0.0, float("nan"), -float("nan")]))
    assert signed[0] == signed[1]
    assert signed[2] == signed[3]


def test_nulls_hash_to_zero_beside_values() -> None:
    hashed = hash64(pa.array([5, None, 5]))
    assert hashed[1] == 0
    assert hashed[0] == hashed[2] != 0


def test_times_hash_by_their_ticks() -> None:
    ticks = pa.array([1, 2], pa.int64())
    assert hash64(ticks.cast(pa.timestamp("us", tz="UTC"))).tolist() == hash64(ticks).tolist()
    assert hash64(pa.array([3], pa.date32())).tolist() == hash64(pa.array([3])).tolist()


def test_rows_chain_columns_in_order() -> None:
    a, b = pa.array([1, 2]), pa.array(["x", "y"])
    assert hash_rows([a, b]).tolist() != hash_rows([b, a]).tolist()
    assert hash_rows([a, b])[0] == hash64(pa.array(["x"]), np.array([hash64(a)[0]]))[0]


@given(st.lists(st.none() | st.text(max_size=20), max_size=9), st.integers(0, 5))
def test_every_row_may_have_a_seed_of_its_own(values: list[str | None], skip: int) -> None:
    column = pa.array(values, pa.string()).slice(skip)
    seeds = np.arange(len(column), dtype=np.uint64)
    expected = [
        0 if value is None else reference(value.encode(), seed)
        for seed, value in enumerate(values[skip:])
    ]
    assert hash64(column, seeds).tolist() == expected
    numbers = pa.array(seeds)
    assert hash64(numbers, seeds).tolist() == [
        reference(seed.to_bytes(8, "little"), seed) for seed in range(len(column))
    ]


def test_seeds_of_64_bits_chain() -> None:
    seed = 2**64 - 1
    both = hash64(pa.array(["a" * 40, "b"]), np.full(2, seed, np.uint64))
    assert both.tolist() == hash64(pa.array(["a" * 40, "b"]), seed).tolist()


def test_what_has_no_hash_is_refused() -> None:
    with pytest.raises(TypeError, match="list"):
        hash64(pa.array([[1]]))
    with pytest.raises(ValueError, match="at least one column"):
        hash_rows([])
