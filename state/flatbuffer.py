"""Read a flatbuffer that a stranger sent, as far as Arrow's metadata needs it.

Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

Table: TypeAlias = tuple[int, int, int]
"""Where a table is, where its vtable is, and the vtable's size."""

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")
_PAIR = struct.Struct("<qq")  # FieldNode (length, nulls) and Buffer (offset, length)


class Flat:
    """A flatbuffer read with bounds on every offset, and a budget on all that is visited.

    A writer lays out each table, vector and string once. Visiting more bytes than the buffer has
    means that parts are shared, which is how small buffers describe huge things.

    Raises:
        ValueError: from any method: an offset leads before the buffer, or the budget is spent.
        struct.error, IndexError: an offset leads beyond it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = 2 * len(data)

    def table(self, position: int) -> Table:
        """Return the table at ``position`` as its position, its vtable and the vtable's size."""
        vtable = position - _I32.unpack_from(self._data, position)[0]
        if vtable < 0:
            raise ValueError("the metadata points outside itself")
        size = _U16.unpack_from(self._data, vtable)[0]
        self._spend(_U16.unpack_from(self._data, vtable + 2)[0] + 4)
        return position, vtable, size

    def root(self) -> Table:
        """Return the table that the buffer is about."""
        return self.table(self.u32(0))

    def slot(self, table: Table, index: int) -> int:
        """Return where field ``index`` of ``table`` is, 0 if it has its default value."""
        position, vtable, size = table
        entry = 4 + 2 * index
        if entry + 2 > size:
            return 0
        offset: int = _U16.unpack_from(self._data, vtable + entry)[0]
        return position + offset if offset else 0

    def target(self, table: Table, index: int, name: str) -> int:
        """Return the position that the offset in field ``index`` points to."""
        slot = self.slot(table, index)
        if not slot:
            raise ValueError(f"the metadata has no {name}")
        return slot + self.u32(slot)

    def vector(self, table: Table, index: int, width: int) -> tuple[int, int]:
        """Return where the vector in field ``index`` starts, and how many items it has."""
        slot = self.slot(table, index)
        if not slot:
            return 0, 0
        start = slot + self.u32(slot)
        count = self.u32(start)
        if start + 4 + count * width > len(self._data):
            raise ValueError("a vector of the metadata is longer than the metadata")
        self._spend(4 + count * width)
        return start + 4, count

    def tables(self, table: Table, index: int) -> Iterator[Table]:
        """Yield the tables of the vector in field ``index``."""
        start, count = self.vector(table, index, 4)
        for position in range(start, start + 4 * count, 4):
            yield self.table(position + self.u32(position))

    def pairs(self, table: Table, index: int) -> list[tuple[int, int]]:
        """Return the vector of (i64, i64) structs in field ``index``."""
        start, count = self.vector(table, index, _PAIR.size)
        return list(_PAIR.iter_unpack(self._data[start : start + count * _PAIR.size]))

    def string(self, table: Table, index: int) -> bytes:
        """Return the bytes of the string in field ``index``, empty if it has none."""
        start, count = self.vector(table, index, 1)
        return self._data[start : start + count]

    def u8(self, position: int) -> int:
        """Return the unsigned byte at ``position``."""
        return self._data[position]

    def u16(self, position: int) -> int:
        """Return the unsigned 16-bit number at ``position``."""
        value: int = _U16.unpack_from(self._data, position)[0]
        return value

    def u32(self, position: int) -> int:
        """Return the unsigned 32-bit number at ``position``."""
        value: int = _U32.unpack_from(self._data, position)[0]
        return value

    def i64(self, position: int) -> int:
        """Return the signed 64-bit number at ``position``."""
        value: int = _I64.unpack_from(self._data, position)[0]
        return value

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError("the metadata names parts of itself many times")
