"""Read newline-delimited JSON objects in pieces, with the number of every line."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from connectors.market.readers import Piece

_PIECE = 100_000
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class NdjsonFile:
    """A file of one JSON object a line (also gzipped), read as a table of text.

    It reads like the files of `connectors.market.readers`: its header is all names of the first
    `_PIECE` lines, numbers are lines from 1, blank lines are skipped, and a line that is not one
    JSON object is a reject. Text and numbers are values; true, false, lists and objects are not,
    and read as no value.
    """

    numbered_by = "line"

    def __init__(self, path: Path) -> None:
        """Read the lines.

        Raises:
            ValueError: the file is empty, its gzip data are damaged, or it has no object.
        """
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            try:
                data = gzip.decompress(data)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{path}: the gzip data is damaged: {error}") from error
        self._lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        self.rejects: list[tuple[int, str]] = []
        names: dict[str, None] = {}
        for _, row in self._rows(0, _PIECE):
            names.update(dict.fromkeys(row))
        if not names:
            raise ValueError(f"{path}: no line is a JSON object")
        self.header = list(names)
        self.rejects.clear()

    def pieces(self, names: Sequence[str]) -> Iterator[Piece]:
        """Yield the objects as columns of text."""
        for start in range(0, len(self._lines), _PIECE):
            rows = list(self._rows(start, start + _PIECE))
            if not rows:
                continue
            numbers, objects = zip(*rows, strict=True)
            columns = {
                name: pl.Series(name, [_text(row.get(name)) for row in objects], pl.String)
                for name in names
            }
            yield Piece(columns, pl.Series("line", numbers, dtype=pl.Int64))

    def _rows(self, start: int, end: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(self._lines[start:end], start + 1):
            if not line.strip():
                continue
            try:
                yield number, _OBJECT.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.rejects.append((number, f"not a JSON object: {error}"))

    def text(self, number: int) -> str:
        """Return the line of that number; bytes that are not UTF-8 read as U+FFFD."""
        return self._lines[number - 1].decode("utf-8", "replace").rstrip("\r")


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and value.is_integer() and math.fabs(value) < 2**53:
        return str(int(value))
    return repr(value)
