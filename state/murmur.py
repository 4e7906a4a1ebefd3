"""MurmurHash3 x64 128 compiled: the arithmetic behind :mod:`state.hashing` and the sketches.

`word_pair` and `bytes_pair` are the hash; they are inlined into the loops here and into the fused
loops of `state.sketches`, so it is written once. All loops release the GIL and are compiled on
first use, then kept on disk beside this file (or in numba's cache directory if that is read-only).
Arrays are contiguous and those read are read-only (`state.column_buffers` makes them so): one
compiled version of each loop serves all callers.

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
F = TypeVar("F", bound=Callable[..., Any])

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_F1 = np.uint64(0xFF51AFD7ED558CCD)
_F2 = np.uint64(0xC4CEB9FE1A85EC53)
_A1 = np.uint64(0x52DCE729)
_A2 = np.uint64(0x38495AB5)
_0, _1, _4, _5, _7, _8, _15 = (np.uint64(n) for n in (0, 1, 4, 5, 7, 8, 15))
_16, _27, _31, _33, _37, _64 = (np.uint64(n) for n in (16, 27, 31, 33, 37, 64))
_SIGN = np.uint64(1 << 63)
_INFINITE = np.uint64(0x7FF << 52)
_NAN = np.uint64(0x7FF8 << 48)


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


def _leading_zeros_code(context: Any, word: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], context.get_value_type(types.boolean)(0))

    return types.uint64(types.uint64), emit


# Eight bytes, little-endian, at any alignment; and the leading zeros of a word (64 for 0).
_load_word = cast("Callable[[U8, np.uint64], np.uint64]", intrinsic(_load_word_code))
leading_zeros = cast("Callable[[np.uint64], np.uint64]", intrinsic(_leading_zeros_code))


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
def _part(data: U8, at: np.uint64, size: np.uint64) -> np.uint64:
    # The first `size` bytes at `at`, 0..8 of them: in one read where that stays in the buffer.
    if size == _0:
        return _0
    if at + _8 <= np.uint64(data.size):
        return _load_word(data, at) & (~_0 >> (_64 - (size << np.uint64(3))))
    word = _0
    for i in range(size):
        word |= np.uint64(data[at + np.uint64(i)]) << (np.uint64(i) << np.uint64(3))
    return word


@inlined
def mix_blocks(
    data: U8, at: np.uint64, blocks: np.uint64, seed: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Mix ``blocks`` blocks of 16 bytes at ``at`` into two words."""
    h1 = seed
    h2 = seed
    for block in range(blocks):
        here = at + (np.uint64(block) << _4)
        h1 ^= mix1(_load_word(data, here))
        h1 = (_rotl(h1, _27) + h2) * _5 + _A1
        h2 ^= mix2(_load_word(data, here + _8))
        h2 = (_rotl(h2, _31) + h1) * _5 + _A2
    return h1, h2


@inlined
def mixed_tail(data: U8, at: np.uint64, size: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return what the last ``size`` bytes, 0..15 of them, add to h1 and h2 whatever the seed."""
    low = min(size, _8)
    return mix1(_part(data, at, low)), mix2(_part(data, at + _8, size - low))


@inlined
def bytes_pair(
    data: U8, at: np.uint64, length: np.uint64, seed: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Hash ``length`` bytes at ``at`` to 128 bits."""
    blocks = length >> _4
    h1, h2 = mix_blocks(data, at, blocks, seed)
    t1, t2 = mixed_tail(data, at + (blocks << _4), length & _15)
    return finish(h1 ^ t1, h2 ^ t2, length)


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
    for i in range(offsets.size - 1):
        at = np.uint64(offsets[i])
        out[i] = bytes_pair(data, at, np.uint64(offsets[i + 1]) - at, seed)[0]


@compiled
def hash_strings_chained(offsets: Offsets, data: U8, seeds: U64, out: U64) -> None:
    """Write the first 64 bits of the hash of each run of bytes, each under its own seed."""
    for i in range(offsets.size - 1):
        at = np.uint64(offsets[i])
        out[i] = bytes_pair(data, at, np.uint64(offsets[i + 1]) - at, seeds[i])[0]


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
