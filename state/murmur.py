"""MurmurHash3 x64 128 compiled: the arithmetic behind :mod:`state.hashing` and the sketches.

`word_pair` is the hash of a word; `mix_runs` and then `finish` are that of runs of bytes. They are
compiled into the loops here and into the fused loops of `state.sketches`, so it is written once.
Loops are written so that they run on vectors: steps of a few operations over `RUNS` values, without
branches, and reads of strings apart from arithmetic.

All loops release the GIL and are compiled on first use, then kept on disk beside this file (or in
numba's cache directory if that is read-only). Arrays are contiguous and those read are read-only
(`state.column_buffers` makes them so): one compiled version of each loop serves all callers.

numba keys its cache by the file that a loop is in. The loops of `state.sketches` inline functions
of this file, so after a change here delete `__pycache__/*.nb?`.

Source: Austin Appleby, MurmurHash3 (public domain), ``MurmurHash3_x64_128``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

U8: TypeAlias = npt.NDArray[np.uint8]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
Offsets: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
RUNS = 256  # values at once: what is made of them stays in the nearest cache

F = TypeVar("F", bound=Callable[..., Any])

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_F1 = np.uint64(0xFF51AFD7ED558CCD)
_F2 = np.uint64(0xC4CEB9FE1A85EC53)
_A1 = np.uint64(0x52DCE729)
_A2 = np.uint64(0x38495AB5)
_0, _1, _3, _4, _5, _8, _12, _15 = (np.uint64(n) for n in (0, 1, 3, 4, 5, 8, 12, 15))
_16, _27, _31, _33, _52, _63, _64 = (np.uint64(n) for n in (16, 27, 31, 33, 52, 63, 64))
_ALL = np.uint64(2**64 - 1)
_STEPS = np.uint64(8)
_SIGN = np.uint64(1 << 63)
_INFINITE = np.uint64(0x7FF << 52)
_NAN = np.uint64(0x7FF8 << 48)
_2_52 = np.uint64((1023 + 52) << 52)  # the bits of 2.0**52
_BIAS_51, _BIAS_64 = np.uint64(1023 + 51), np.uint64(1023 + 64)


def compiled(function: F) -> F:
    """Compile a loop: without the GIL, kept on disk."""
    return cast(F, numba.njit(nogil=True, cache=True)(function))


def inlined(function: F) -> F:
    """Compile a function into each of its callers."""
    return cast(F, numba.njit(nogil=True, cache=True, inline="always")(function))


def _load_word_code(context: Any, data: Any, at: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        first = builder.ptrtoint(array.data, context.get_value_type(types.uint64))
        word = context.get_value_type(types.uint64).as_pointer()
        return builder.load(builder.inttoptr(builder.add(first, args[1]), word), align=1)

    return types.uint64(data, types.uint64), emit


def _bits_code(context: Any, value: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return (types.float64 if value == types.uint64 else types.uint64)(value), emit


# Eight bytes, little-endian, at any alignment; and the bits of a float as a word, or the reverse.
load_word = cast("Callable[[U8, np.uint64], np.uint64]", intrinsic(_load_word_code))
_bits: Any = intrinsic(_bits_code)


@inlined
def leading_zeros(word: np.uint64) -> np.uint64:
    """Return how many bits there are above the highest 1; 64 for 0."""
    # From the exponent of a float, for which vectors have instructions: 52 bits are exact in it,
    # and the lowest of them is set lest it be 0.
    high = word >> _12
    odd = (high if high != _0 else word << _1) | _1
    exponent: np.uint64 = _bits(_bits(odd | _2_52) - 2.0**52) >> _52
    return (_BIAS_51 if high != _0 else _BIAS_64) - exponent


@inlined
def _rotl(x: np.uint64, bits: np.uint64) -> np.uint64:
    return (x << bits) | (x >> (_64 - bits))


@inlined
def _fmix(k: np.uint64) -> np.uint64:
    k ^= k >> _33
    k *= _F1
    k ^= k >> _33
    k *= _F2
    return k ^ (k >> _33)


@inlined
def mix1(k: np.uint64) -> np.uint64:
    """Mix the first word of a block or tail."""
    return _rotl(k * _C1, _31) * _C2


@inlined
def mix2(k: np.uint64) -> np.uint64:
    """Mix the second word of a block or tail."""
    return _rotl(k * _C2, _33) * _C1


@inlined
def finish(h1: np.uint64, h2: np.uint64, length: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return both words of the hash of ``length`` bytes that were mixed into h1 and h2."""
    h1 ^= length
    h2 ^= length
    h1 += h2
    h2 += h1
    h1 = _fmix(h1)
    h2 = _fmix(h2)
    h1 += h2
    return h1, h2 + h1


@inlined
def word_pair(word: np.uint64, seed: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Hash the 8 bytes of a word to 128 bits."""
    return finish(seed ^ mix1(word), seed, _8)


@inlined
def mix_blocks(
    data: U8, at: np.uint64, blocks: np.uint64, seed: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Mix ``blocks`` blocks of 16 bytes at ``at`` into two words."""
    h1 = seed
    h2 = seed
    for block in range(blocks):
        here = at + (np.uint64(block) << _4)
        h1, h2 = mix_block(h1, h2, mix1(load_word(data, here)), mix2(load_word(data, here + _8)))
    return h1, h2


@inlined
def mix_block(
    h1: np.uint64, h2: np.uint64, k1: np.uint64, k2: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Take the two mixed words of a block into h1 and h2."""
    h1 = (_rotl(h1 ^ k1, _27) + h2) * _5 + _A1
    h2 = (_rotl(h2 ^ k2, _31) + h1) * _5 + _A2
    return h1, h2


@inlined
def measure(offsets: Offsets, lengths: U64) -> tuple[np.uint64, np.uint64]:
    """Write the length of each run; return the shortest and the longest."""
    shortest = _ALL
    longest = _0
    for i in range(offsets.size - 1):
        length = np.uint64(offsets[i + 1]) - np.uint64(offsets[i])
        lengths[i] = length
        shortest = min(shortest, length)
        longest = max(longest, length)
    return shortest, longest


@compiled
def mix_tails(
    offsets: Offsets,
    data: U8,
    lengths: U64,
    shortest: np.uint64,
    longest: np.uint64,
    t1: U64,
    t2: U64,
) -> None:
    """Write what the last bytes of each run add to h1 and h2, whatever the seed."""
    count = offsets.size - 1
    inside = count  # runs before this one may be read 16 bytes at a time
    while inside > 0 and np.uint64(offsets[inside]) + _16 > np.uint64(data.size):
        inside -= 1
    # With as many whole blocks in all runs, the longest run has the longest tail.
    one_word = shortest >> _4 == longest >> _4 and longest & _15 <= _8
    if one_word:
        for i in range(inside):
            t1[i] = load_word(data, np.uint64(offsets[i]) + (lengths[i] & ~_15))
    else:
        for i in range(inside):
            at = np.uint64(offsets[i]) + (lengths[i] & ~_15)
            t1[i] = load_word(data, at)
            t2[i] = load_word(data, at + _8)
    for i in range(inside, count):
        size = lengths[i] & _15
        at = np.uint64(offsets[i + 1]) - size
        t1[i] = _0
        t2[i] = _0
        for place in range(size):
            byte = np.uint64(data[at + np.uint64(place)])
            if place < 8:
                t1[i] |= byte << (np.uint64(place) << _3)
            else:
                t2[i] |= byte << (np.uint64(place - 8) << _3)
    for i in range(count):
        size = lengths[i] & _15
        bits = (size << _3) & _63
        low = (_1 << bits) - _1 if size < _8 else _ALL
        t1[i] = mix1(t1[i] & low)
    if one_word:
        for i in range(count):
            t2[i] = _0
    else:
        for i in range(count):
            size = lengths[i] & _15
            bits = (size << _3) & _63
            high = (_1 << bits) - _1 if size > _8 else _0
            t2[i] = mix2(t2[i] & high)


@compiled
def _mix_heads(
    offsets: Offsets,
    data: U8,
    lengths: U64,
    shortest: np.uint64,
    longest: np.uint64,
    seeds: U64,
    heads: U64,
    k1: U64,
    k2: U64,
) -> None:
    # Block by block, in step; only what is beyond `_STEPS` blocks is mixed run by run.
    count = offsets.size - 1
    if shortest < _16:
        for row in range(seeds.size):
            heads[:, row, :count] = seeds[row]
    for block in range(min(longest >> _4, _STEPS)):
        done = np.uint64(block) << _4
        all_have = shortest >= done + _16
        if all_have:
            for i in range(count):
                at = np.uint64(offsets[i]) + done
                k1[i] = load_word(data, at)
                k2[i] = load_word(data, at + _8)
        else:
            for i in range(count):
                at = np.uint64(offsets[i]) + done if lengths[i] >= done + _16 else _0
                k1[i] = load_word(data, at)
                k2[i] = load_word(data, at + _8)
        for i in range(count):
            k1[i] = mix1(k1[i])
            k2[i] = mix2(k2[i])
        for row in range(seeds.size):
            seed = seeds[row]
            h1 = heads[0, row]
            h2 = heads[1, row]
            if all_have and block == 0:
                for i in range(count):
                    h1[i], h2[i] = mix_block(seed, seed, k1[i], k2[i])
            elif all_have:
                for i in range(count):
                    h1[i], h2[i] = mix_block(h1[i], h2[i], k1[i], k2[i])
            else:
                for i in range(count):
                    more = lengths[i] >= done + _16
                    a, b = mix_block(h1[i], h2[i], k1[i], k2[i])
                    h1[i] = a if more else h1[i]
                    h2[i] = b if more else h2[i]
    if longest >> _4 > _STEPS:
        for i in range(count):
            at = np.uint64(offsets[i]) + (_STEPS << _4)
            while at + _16 <= np.uint64(offsets[i + 1]):
                w1 = mix1(load_word(data, at))
                w2 = mix2(load_word(data, at + _8))
                for row in range(seeds.size):
                    a, b = mix_block(heads[0, row, i], heads[1, row, i], w1, w2)
                    heads[0, row, i] = a
                    heads[1, row, i] = b
                at += _16


@compiled
def mix_runs(
    offsets: Offsets, data: U8, seeds: U64, heads: U64, tails: U64, lengths: U64
) -> np.bool_:
    """Write what `finish` takes of at most `RUNS` runs of bytes: heads ^ tails, and lengths.

    Args:
        offsets: (T + 1,) run i is ``data[offsets[i]:offsets[i + 1]]``.
        data: bytes.
        seeds: (S,).
        heads: (2, S, RUNS) for what whole blocks make of each seed.
        tails: (2, RUNS) for what the bytes after the last whole block add.
        lengths: (RUNS,) for the lengths.

    Returns:
        Whether a run has a whole block. If none has, ``heads`` stay as they are and the seeds
        take their place.
    """
    t1 = tails[0]
    t2 = tails[1]
    shortest, longest = measure(offsets, lengths)
    if longest >= _16:
        _mix_heads(offsets, data, lengths, shortest, longest, seeds, heads, t1, t2)
    mix_tails(offsets, data, lengths, shortest, longest, t1, t2)
    return longest >= _16


@compiled
def hash_words(words: U64, seed: np.uint64, out: U64) -> None:
    """Write the first 64 bits of each word's hash."""
    for i in range(words.size):
        out[i] = word_pair(words[i], seed)[0]


@compiled
def hash_words_chained(words: U64, seeds: U64, out: U64) -> None:
    """Write the first 64 bits of each word's hash, each under its own seed."""
    for i in range(words.size):
        out[i] = word_pair(words[i], seeds[i])[0]


@compiled
def hash_strings(offsets: Offsets, data: U8, seed: np.uint64, out: U64) -> None:
    """Write the first 64 bits of the hash of each run of bytes."""
    seeds = np.full(1, seed)
    heads = np.empty((2, 1, RUNS), np.uint64)
    tails = np.empty((2, RUNS), np.uint64)
    lengths = np.empty(RUNS, np.uint64)
    for start in range(0, out.size, RUNS):
        part = out[start : start + RUNS]
        whole = mix_runs(offsets[start : start + part.size + 1], data, seeds, heads, tails, lengths)
        h1, h2 = heads[0, 0], heads[1, 0]
        t1, t2 = tails[0], tails[1]
        for i in range(part.size):
            a = h1[i] if whole else seed
            b = h2[i] if whole else seed
            part[i] = finish(a ^ t1[i], b ^ t2[i], lengths[i])[0]


@compiled
def hash_strings_chained(offsets: Offsets, data: U8, seeds: U64, out: U64) -> None:
    """Write the first 64 bits of the hash of each run of bytes, each under its own seed."""
    tails = np.empty((2, RUNS), np.uint64)
    lengths = np.empty(RUNS, np.uint64)
    for start in range(0, out.size, RUNS):
        part = out[start : start + RUNS]
        runs = offsets[start : start + part.size + 1]
        shortest, longest = measure(runs, lengths)
        t1, t2 = tails[0], tails[1]
        mix_tails(runs, data, lengths, shortest, longest, t1, t2)
        for i in range(part.size):
            at = np.uint64(runs[i])
            b1, b2 = mix_blocks(data, at, lengths[i] >> _4, seeds[start + i])
            part[i] = finish(b1 ^ t1[i], b2 ^ t2[i], lengths[i])[0]


@compiled
def clear_nulls(valid: U8, first: int, out: U64 | U32) -> None:
    """Write 0 wherever the bitmap ``valid``, read from bit ``first``, says null."""
    for i in range(out.size):
        bit = first + i
        if not (valid[bit >> 3] >> (bit & 7)) & 1:
            out[i] = 0


@compiled
def canonical_floats(words: U64, out: U64) -> None:
    """Write the bits of each float64: those of 0.0 for -0.0 and one pattern for all NaN."""
    for i in range(words.size):
        word = words[i]
        if word == _SIGN:
            word = _0
        if (word & ~_SIGN) > _INFINITE:
            word = _NAN
        out[i] = word
