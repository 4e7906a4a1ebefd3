"""Both words of the compiled hash against the `mmh3` library, at every length and place."""

import mmh3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.murmur import (
    RUNS,
    canonical_floats,
    clear_nulls,
    compiled,
    finish,
    leading_zeros,
    mix_runs,
    word_pair,
)


@compiled
def pair_of_bytes(data, at, length, seed):
    offsets = np.array([at, at + length], np.int64)
    heads, tails = np.empty((2, 1, RUNS), np.uint64), np.empty((2, RUNS), np.uint64)
    lengths = np.empty(RUNS, np.uint64)
    if not mix_runs(offsets, data, np.full(1, seed), heads, tails, lengths):
        heads[:, 0, 0] = seed
    return finish(heads[0, 0, 0] ^ tails[0, 0], heads[1, 0, 0] ^ tails[1, 0], lengths[0])


@compiled
def pair_of_word(word, seed):
    return word_pair(word, seed)


@compiled
def zeros_of(word):
    return leading_zeros(word)


@pytest.mark.parametrize("length", range(50))
def test_bytes_are_hashed_in_any_place(length: int) -> None:
    data = np.random.default_rng(length).integers(256, size=length + 9, dtype=np.uint8)
    for before, after in ((0, 0), (3, 0), (0, 5), (9, 0), (1, 8)):
        buffer = data[: before + length + after]
        found = pair_of_bytes(buffer, before, length, np.uint64(9001))
        value = buffer[before : before + length].tobytes()
        assert found == mmh3.hash64(value, 9001, x64arch=True, signed=False)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_words_are_eight_bytes(word: int, seed: int) -> None:
    expected = mmh3.hash64(word.to_bytes(8, "little"), seed, x64arch=True, signed=False)
    assert pair_of_word(np.uint64(word), np.uint64(seed)) == expected


@pytest.mark.parametrize("bit", range(64))
def test_leading_zeros(bit: int) -> None:
    for word in (1 << bit, (2 << bit) - 1, (1 << bit) + (1 << bit >> 1)):
        assert zeros_of(np.uint64(word)) == 63 - bit
    assert zeros_of(np.uint64(0)) == 64


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 9))
def test_bits_say_what_is_null(valid: list[bool], first: int) -> None:
    bits = np.packbits(np.array([True] * first + valid, bool), bitorder="little")
    for kind in (np.uint64, np.uint32):
        out = np.full(len(valid), 7, kind)
        clear_nulls(bits, first, out)
        assert out.tolist() == [7 * v for v in valid]


def test_floats_of_equal_value_have_equal_bits() -> None:
    nans = [0x7FF0000000000001, 0xFFF8000000000000, 0x7FFFFFFFFFFFFFFF]
    kept = np.array([1.5, -1.5, np.inf, -np.inf, 5e-324]).view(np.uint64)
    words = np.array([*nans, 0, 1 << 63, *kept], np.uint64)
    out = np.empty_like(words)
    canonical_floats(words, out)
    assert out.tolist() == [0x7FF8 << 48] * 3 + [0, 0, *kept.tolist()]
