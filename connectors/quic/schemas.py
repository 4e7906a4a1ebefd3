"""The schemas that the frames of a spool name, appended to one file.

A record is u32 id, u32 length, u32 CRC-32 of the body, and the body, little-endian. A torn last one
is cut off when the file is opened: no frame names it yet.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from connectors.files.atomic import write_all

_HEADER = struct.Struct("<III")


class Schemas:
    """The file of schemas of one spool.

    Args:
        path: the file.
        fd: the same, open; whoever opened it closes it.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.fd = fd
        self.bodies: dict[int, bytes] = {}
        """Schemas by id."""
        self._path = path
        data = path.read_bytes()
        position = 0
        while position + _HEADER.size <= len(data):
            number, length, check = _HEADER.unpack_from(data, position)
            body = data[position + _HEADER.size : position + _HEADER.size + length]
            if len(body) < length or zlib.crc32(body) != check:
                break
            self.bodies[number] = body
            position += _HEADER.size + length
        self._size = position
        os.ftruncate(fd, position)

    def add(self, number: int, body: bytes) -> None:
        """Keep a schema. Twice the same is once.

        Raises:
            ValueError: ``number`` has another schema.
            OSError: the disk is full; nothing was added.
        """
        if number in self.bodies:
            if self.bodies[number] != body:
                raise ValueError(f"{self._path.parent}: schema {number} is another one already")
            return
        record = _HEADER.pack(number, len(body), zlib.crc32(body)) + body
        write_all(self.fd, record, self._size)
        self._size += len(record)
        self.bodies[number] = body
