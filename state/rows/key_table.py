"""The loops behind `KeyIndex`: a hash table of row numbers, read many keys at a time.

The table is open-addressing with linear probing. An entry holds the lower 32 bits of its key's
hash above the key's row number, and a key is compared only where these bits agree. That decides:
equal hashes never count as equal keys.

A table of millions of keys is larger than the processor's caches, so what a look-up costs is its
waiting for memory: for the entry, for where the key begins, for the key. Keys are therefore taken
in blocks, and each of the three is asked for on behalf of the whole block before it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import llvmlite.ir  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

from state.murmur import U8, U64, Offsets, compiled, inlined, load_word

I64: TypeAlias = npt.NDArray[np.int64]

EMPTY = np.uint64(2**64 - 1)

_BLOCK = 128
_ROW = np.uint64(2**32 - 1)
_0, _1, _8, _32 = (np.uint64(n) for n in (0, 1, 8, 32))


def _prefetch_code(context: Any, array: Any, at: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word = llvmlite.ir.IntType(8).as_pointer(), llvmlite.ir.IntType(32)
        first = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(first, [args[1]]), byte)
        kind = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [byte, word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # To read, to stay in all caches, data.
        builder.call(prefetch, [place, *(word(n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), emit


# Ask for an element of an array that will be read soon. Reads nothing, so any place is allowed.
_prefetch = cast("Callable[[npt.NDArray[Any], np.uint64], None]", intrinsic(_prefetch_code))


@compiled
def move(old: U64, new: U64) -> None:
    """Enter all entries of a table into an empty one of another size."""
    mask = np.uint64(new.size - 1)
    for place in range(old.size):
        entry = old[place]
        if entry != EMPTY:
            at = (entry >> _32) & mask
            while new[at] != EMPTY:
                at = (at + _1) & mask
            new[at] = entry


@compiled
def find_words(words: U64, hashes: U64, table: U64, keys: U64, count: int, found: I64) -> int:
    """Write the row of each word; enter those that are new, from row `count` on.

    Returns:
        How many keys there are now.
    """
    mask = np.uint64(table.size - 1)
    places = np.empty(_BLOCK, np.uint64)
    for start in range(0, words.size, _BLOCK):
        size = min(_BLOCK, words.size - start)
        _probe(hashes[start : start + size], table, places)
        for i in range(size):
            entry = table[places[i]]
            if entry != EMPTY:
                _prefetch(keys, entry & _ROW)
        for i in range(size):
            word = words[start + i]
            tag = hashes[start + i] << _32
            at = places[i]
            entry = table[at]
            while entry != EMPTY and ((entry ^ tag) >> _32 or keys[entry & _ROW] != word):
                at = (at + _1) & mask
                entry = table[at]
            if entry == EMPTY:
                entry = tag | np.uint64(count)
                table[at] = entry
                keys[count] = word
                count += 1
            found[start + i] = np.int64(entry & _ROW)
    return count


@compiled
def find_runs(
    offsets: Offsets,
    data: U8,
    hashes: U64,
    table: U64,
    ends: U64,
    keys: U8,
    count: int,
    found: I64,
) -> int:
    """Write the row of each run of bytes; enter those that are new, from row `count` on.

    Key r is ``keys[ends[r] : ends[r + 1]]``.

    Returns:
        How many keys there are now.
    """
    mask = np.uint64(table.size - 1)
    places = np.empty(_BLOCK, np.uint64)
    for start in range(0, hashes.size, _BLOCK):
        size = min(_BLOCK, hashes.size - start)
        _probe(hashes[start : start + size], table, places)
        for i in range(size):
            entry = table[places[i]]
            if entry != EMPTY:
                _prefetch(ends, entry & _ROW)
        for i in range(size):
            entry = table[places[i]]
            if entry != EMPTY:
                row = entry & _ROW
                _prefetch(keys, ends[row])
                _prefetch(keys, ends[row + _1] - _1)
        for i in range(size):
            first = np.uint64(offsets[start + i])
            length = np.uint64(offsets[start + i + 1]) - first
            tag = hashes[start + i] << _32
            at = places[i]
            entry = table[at]
            while entry != EMPTY:
                if not (entry ^ tag) >> _32:
                    begin = ends[entry & _ROW]
                    other = length ^ (ends[(entry & _ROW) + _1] - begin)
                    # Not in a function of its own: numba would count references to the arrays.
                    if other == _0 and length < _8:
                        for n in range(length):
                            here = np.uint64(n)
                            other |= np.uint64(keys[begin + here] ^ data[first + here])
                    elif other == _0:
                        last = length - _8
                        other = load_word(keys, begin + last) ^ load_word(data, first + last)
                        here = _0
                        while here < last and other == _0:
                            other = load_word(keys, begin + here) ^ load_word(data, first + here)
                            here += _8
                    if other == _0:
                        break
                at = (at + _1) & mask
                entry = table[at]
            if entry == EMPTY:
                entry = tag | np.uint64(count)
                table[at] = entry
                begin = ends[count]
                for place in range(length):
                    keys[begin + np.uint64(place)] = data[first + np.uint64(place)]
                ends[count + 1] = begin + length
                count += 1
            found[start + i] = np.int64(entry & _ROW)
    return count


@inlined
def _probe(hashes: U64, table: U64, places: U64) -> None:
    """Write where each hash is, or where it would be entered."""
    mask = np.uint64(table.size - 1)
    for i in range(hashes.size):
        _prefetch(table, hashes[i] & mask)
    for i in range(hashes.size):
        tag = hashes[i] << _32
        at = hashes[i] & mask
        while table[at] != EMPTY and (table[at] ^ tag) >> _32:
            at = (at + _1) & mask
        places[i] = at
