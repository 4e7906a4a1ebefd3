"""The delta of one insertion, or of the deletion of one run: what typing sends.

Layout, little-endian: u8 0xB5, u8 kind, u16 length of the names, u32 number of the operation, two
references (u8 name, u32 number), the names (varint length, UTF-8), the elements, u32 CRC-32 of all
before. Name 0 is the edge of the document, name 1 the writer. The references of an insertion are
its origins; of a deletion, its first element and, with name 0, how many it deletes.
"""

from __future__ import annotations

import struct
import zlib

from state.crdt.sequence_bytes import Reader, Writer
from state.crdt.sequence_operations import Operations
from state.crdt.sequence_span import MASK, SHIFT

MAGIC = b"\xb5"
NOTHING, TEXT, LIST, DELETION = range(4)

_KEY = struct.Struct("<cBHIBIBI")
_CRC = struct.Struct("<I")
_CACHED = 4096


class Keystrokes:
    """Writes and reads such deltas for one sequence."""

    def __init__(self, ops: Operations) -> None:
        self._ops = ops
        self._written: dict[tuple[int, int, int], tuple[bytes, int, int]] = {}
        self._read: dict[bytes, list[int]] = {}

    def write(self, kind: int, element: int, a: int, b: int, tail: bytes) -> bytes | None:
        """Return the delta of operation `element`, or None where a number is too large."""
        if (element | a | b) & MASK >> 32 << 32:
            return None
        key = element >> SHIFT, a >> SHIFT, b >> SHIFT
        head = self._written.get(key)
        if head is None:
            head = self._head(*key)
        names, at, bt = head
        seq, a, b = element & MASK, a & MASK, b & MASK
        body = _KEY.pack(MAGIC, kind, len(names), seq, at, a, bt, b) + names + tail
        return body + _CRC.pack(zlib.crc32(body))

    def _head(self, own: int, a: int, b: int) -> tuple[bytes, int, int]:
        replicas = list(dict.fromkeys(r for r in (own, a, b) if r))
        names = Writer()
        for replica in replicas:
            names.name(self._ops.names[replica])
        at, bt = (replicas.index(r) + 1 if r else 0 for r in (a, b))
        if len(self._written) >= _CACHED:
            self._written.clear()
        head = self._written[own, a, b] = bytes(names.data), at, bt
        return head

    def read(self, delta: bytes) -> tuple[int, int, int, int, bytes]:
        """Return kind, operation, both references as elements, and the rest of a delta.

        Raises:
            ValueError: `delta` is not what `write` returns.
        """
        if len(delta) < _KEY.size + _CRC.size:
            raise ValueError(f"sequence: {len(delta)} bytes are too few for a delta")
        if zlib.crc32(delta[:-4]) != int.from_bytes(delta[-4:], "little"):
            raise ValueError("sequence: the checksum of a delta does not match")
        magic, kind, size, seq, at, a, bt, b = _KEY.unpack_from(delta)
        if magic != MAGIC:
            raise ValueError("sequence: not the bytes of a delta")
        end = _KEY.size + size
        names = delta[_KEY.size : end]
        bases = self._read.get(names)
        if bases is None:
            bases = self._names(names)
        if at >= len(bases) or bt >= len(bases) or not seq or (at and not a) or (bt and not b):
            raise ValueError("sequence: a delta that refers to nothing")
        if (not at and a) or (not bt and b and kind != DELETION):
            raise ValueError("sequence: a delta that refers to nothing")
        return kind, bases[1] + seq, bases[at] + a, bases[bt] + b, delta[end:-4]

    def _names(self, names: bytes) -> list[int]:
        source = Reader(names)
        found = []
        while source.at < len(names):
            found.append(source.name())
        if not found or len(set(found)) != len(found) or len(found) > 3:
            raise ValueError("sequence: a delta of nobody")
        if len(self._read) >= _CACHED:
            self._read.clear()
        bases = self._read[names] = [0, *(self._ops.intern(name) << SHIFT for name in found)]
        return bases
