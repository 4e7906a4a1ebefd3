"""Number keys in the order in which they come, and find the number of a key again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from state.column_buffers import Words, column_buffers
from state.hashing import hash64
from state.murmur import U8, U64
from state.rows.key_table import EMPTY, find_runs, find_words, move

I64 = npt.NDArray[np.int64]

_FIRST = 1024
_STEP = 1 << 14  # keys before which it is made sure that they fit
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
        self._sort = _sort(kind)
        self._text = self._sort != "integer"
        if not self._sort or types.is_unsigned_integer(kind):
            raise TypeError(f"keys of type {kind}: signed integers, strings or binary are wanted")
        self.kind = kind
        self._count = 0
        self._table: U64 = np.full(2 * _FIRST, EMPTY, np.uint64)
        self._words: U64 = np.empty(0 if self._text else _FIRST, np.uint64)
        self._ends: U64 = np.zeros(_FIRST + 1 if self._text else 1, np.uint64)
        self._data: U8 = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self._count

    def rows(self, column: pa.Array) -> I64:
        """Return the row number of each key; new keys get the next numbers.

        Args:
            column: (T,) keys, without nulls, of the index's type or another width of it.

        Raises:
            ValueError: a key is null, or there would be more than 2**31 - 1.
            TypeError: the column is of another type.
        """
        if column.null_count:
            raise ValueError("a key is null")
        if _sort(column.type) != self._sort:
            raise TypeError(f"keys of type {column.type} among those of {self.kind}")
        if self._count + len(column) > _MOST:
            raise ValueError(f"more than {_MOST} keys")
        found = np.empty(len(column), np.int64)
        hashes = hash64(column)
        buffers = column_buffers(column)
        # Most keys of a batch may be known, so there is made room for a part of it at a time.
        for start in range(0, len(column), _STEP):
            part = slice(start, min(start + _STEP, len(column)))
            self._reserve(part.stop - start)
            if isinstance(buffers, Words):
                self._count = find_words(
                    buffers.words[part],
                    hashes[part],
                    self._table,
                    self._words,
                    self._count,
                    found[part],
                )
            else:
                offsets = buffers.offsets[start : part.stop + 1]
                more = int(offsets[-1] - offsets[0])
                self._data = _grown(self._data, int(self._ends[self._count]) + more)
                self._count = find_runs(
                    offsets,
                    buffers.data,
                    hashes[part],
                    self._table,
                    self._ends,
                    self._data,
                    self._count,
                    found[part],
                )
        return found

    def keys(self, rows: I64 | None = None) -> pa.Array:
        """Return the keys of all rows in their order, or of some rows."""
        if self._text:
            # No copies: what has been written is never written again.
            ends = self._ends[: self._count + 1]
            buffers = [None, pa.py_buffer(ends), pa.py_buffer(self._data[: int(ends[-1])])]
            wide = pa.large_string() if self._sort == "string" else pa.large_binary()
            every = pa.Array.from_buffers(wide, self._count, buffers)
        else:
            every = pa.array(self._words[: self._count].view(np.int64))
        if rows is not None:
            every = every.take(pa.array(rows))
        return every.cast(self.kind)

    def _reserve(self, more: int) -> None:
        need = self._count + more
        if self._text:
            self._ends = _grown(self._ends, need + 1)
        else:
            self._words = _grown(self._words, need)
        if 3 * need > 2 * len(self._table):
            table = np.full(1 << (2 * need - 1).bit_length(), EMPTY, np.uint64)
            move(self._table, table)
            self._table = table


def _sort(kind: pa.DataType) -> str:
    """Return which keys compare with which."""
    if types.is_string(kind) or types.is_large_string(kind):
        return "string"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "binary"
    return "integer" if types.is_integer(kind) else ""


def _grown(array: Any, need: int) -> Any:
    """Return the array with room for `need`, at least twice as much as before."""
    if need <= len(array):
        return array
    made = np.empty(max(need, 2 * len(array)), array.dtype)
    made[: len(array)] = array
    return made
