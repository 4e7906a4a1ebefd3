"""Number keys in the order in which they come, and find the number of a key again.

An open-addressing table of 32-bit row numbers with linear probing, over the keys themselves and
their hashes. Equal hashes never count as equal keys: the keys are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from state.column_buffers import Words, column_buffers
from state.hashing import hash64
from state.murmur import U8, U64, Offsets, compiled

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_FIRST = 1024
_MOST = (1 << 31) - 1


class KeyIndex:
    """Rows by key.

    Args:
        kind: Arrow type of the keys: whole numbers, strings or binary.

    Raises:
        TypeError: keys of this type are not supported.

    >>> index = KeyIndex(pa.string())
    >>> index.rows(pa.array(["b", "a", "b"])).tolist(), index.rows(pa.array(["c", "a"])).tolist()
    ([0, 1, 0], [2, 1])
    >>> index.keys().to_pylist()
    ['b', 'a', 'c']
    """

    def __init__(self, kind: pa.DataType) -> None:
        self._text = _is_text(kind)
        if not self._text and not types.is_signed_integer(kind):
            raise TypeError(f"keys of type {kind}: signed integers, strings or binary are wanted")
        self.kind = kind
        self._count = 0
        self._table: I32 = np.full(2 * _FIRST, -1, np.int32)
        self._hashes: U64 = np.empty(_FIRST, np.uint64)
        self._words: U64 = np.empty(0 if self._text else _FIRST, np.uint64)
        self._ends: I64 = np.zeros(_FIRST + 1 if self._text else 1, np.int64)
        self._data: U8 = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self._count

    def rows(self, column: pa.Array) -> I64:
        """Return the row number of each key; new keys get the next numbers.

        Args:
            column: (T,) keys, without nulls, of the index's type or one that casts to it.

        Raises:
            ValueError: a key is null, or there would be more than 2**31 - 1.
            TypeError: the column is of another type.
        """
        if column.null_count:
            raise ValueError("a key is null")
        if _is_text(column.type) is not self._text or (
            not self._text and not types.is_integer(column.type)
        ):
            raise TypeError(f"keys of type {column.type} among those of {self.kind}")
        found = np.empty(len(column), np.int64)
        hashes = hash64(column)
        self._reserve(len(column))
        buffers = column_buffers(column)
        if isinstance(buffers, Words):
            self._count = _find_words(
                buffers.words, hashes, self._table, self._hashes, self._words, self._count, found
            )
        else:
            extra = int(buffers.offsets[-1] - buffers.offsets[0]) if len(column) else 0
            self._data = _grown(self._data, int(self._ends[self._count]) + extra)
            self._count = _find_runs(
                buffers.offsets,
                buffers.data,
                hashes,
                self._table,
                self._hashes,
                self._ends,
                self._data,
                self._count,
                found,
            )
        return found

    def keys(self, rows: I64 | None = None) -> pa.Array:
        """Return the keys of all rows in their order, or of some rows."""
        if self._text:
            used = int(self._ends[self._count])
            every = pa.Array.from_buffers(
                pa.large_binary(),
                self._count,
                [
                    None,
                    pa.py_buffer(self._ends[: self._count + 1].copy()),
                    pa.py_buffer(self._data[:used].copy()),
                ],
            )
        else:
            every = pa.array(self._words[: self._count].view(np.int64))
        if rows is not None:
            every = every.take(pa.array(rows))
        return every.cast(self.kind)

    def _reserve(self, more: int) -> None:
        need = self._count + more
        if need > _MOST:
            raise ValueError(f"more than {_MOST} keys")
        if need > len(self._hashes):
            self._hashes = _grown(self._hashes, need)
            if self._text:
                self._ends = _grown(self._ends, need + 1)
            else:
                self._words = _grown(self._words, need)
        if 3 * need > 2 * len(self._table):
            size = 1 << (2 * need - 1).bit_length()
            self._table = np.full(size, -1, np.int32)
            _fill(self._hashes, self._count, self._table)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _grown(array: Any, need: int) -> Any:
    """Return the array with room for `need`, at least twice as much as before."""
    if need <= len(array):
        return array
    made = np.empty(max(need, 2 * len(array)), array.dtype)
    made[: len(array)] = array
    return made


@compiled
def _fill(hashes: U64, count: int, table: I32) -> None:
    mask = np.uint64(table.size - 1)
    for row in range(count):
        at = hashes[row] & mask
        while table[at] >= 0:
            at = (at + np.uint64(1)) & mask
        table[at] = row


@compiled
def _find_words(
    words: U64, hashes: U64, table: I32, known: U64, keys: U64, count: int, found: I64
) -> int:
    mask = np.uint64(table.size - 1)
    for i in range(words.size):
        at = hashes[i] & mask
        row = table[at]
        while row >= 0 and keys[row] != words[i]:
            at = (at + np.uint64(1)) & mask
            row = table[at]
        if row < 0:
            row = np.int32(count)
            table[at] = row
            keys[row] = words[i]
            known[row] = hashes[i]
            count += 1
        found[i] = row
    return count


@compiled
def _find_runs(
    offsets: Offsets,
    data: U8,
    hashes: U64,
    table: I32,
    known: U64,
    ends: I64,
    keys: U8,
    count: int,
    found: I64,
) -> int:
    mask = np.uint64(table.size - 1)
    for i in range(hashes.size):
        start = np.int64(offsets[i])
        length = np.int64(offsets[i + 1]) - start
        at = hashes[i] & mask
        row = table[at]
        while row >= 0:
            if known[row] == hashes[i] and ends[row + 1] - ends[row] == length:
                begin = ends[row]
                same = True
                for j in range(length):
                    if keys[begin + j] != data[start + j]:
                        same = False
                        break
                if same:
                    break
            at = (at + np.uint64(1)) & mask
            row = table[at]
        if row < 0:
            row = np.int32(count)
            table[at] = row
            known[row] = hashes[i]
            begin = ends[row]
            for j in range(length):
                keys[begin + j] = data[start + j]
            ends[row + 1] = begin + length
            count += 1
        found[i] = row
    return count
