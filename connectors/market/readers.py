"""Read CSV and Parquet files in pieces, with the exact number of every row.

CSV goes through Python's `csv` reader, which counts physical lines also where a quoted field runs
over several; the columns it yields are parsed together afterwards.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_PIECE = 100_000
_DELIMITERS = ",;\t"
_KNOWN = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_null,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows as columns, and the number of each row in its file."""

    columns: dict[str, pl.Series]
    lines: pl.Series


class PriceFile(Protocol):
    """A file of columns. `rejects` holds (number, reason) of rows that `pieces` left out."""

    header: list[str]
    rejects: list[tuple[int, str]]
    numbered_by: str

    def pieces(self, names: Sequence[str]) -> Iterator[Piece]:
        """Yield the rows of the file once, in order, with the columns of these names."""

    def text(self, number: int) -> str:
        """Return the raw row of that number."""


def open_prices(path: Path) -> PriceFile:
    """Open a CSV (also gzipped) or a Parquet file, told apart by name and content.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a directory, not a file of prices")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if not magic:
            raise ValueError(f"{path}: the file is empty")
        if magic == b"PAR1" or path.suffix in (".parquet", ".pq"):
            return ParquetPrices(path)
        return CsvPrices(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


class CsvPrices:
    """A CSV file with a header line; separated by comma, semicolon or tab.

    Numbers are physical lines from 1, the header included; a row over several lines has the
    number of its first. A row over several lines that is malformed is judged by its first line
    alone, and reading goes on with the next: one stray quote cannot swallow the rows after it.
    Blank lines are skipped.
    """

    numbered_by = "line"

    def __init__(self, path: Path) -> None:
        """Read the text and its header."""
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            try:
                data = gzip.decompress(data)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{path}: the gzip data is damaged: {error}") from error
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ValueError(f"{path}: line {line} is not UTF-8: {error.reason}") from None
        # StringIO breaks lines as CSV does; str.splitlines would also break at form feeds.
        self._lines = list(io.StringIO(text, newline=""))
        self._start = next((i for i, line in enumerate(self._lines) if line.strip()), -1)
        if self._start < 0:
            raise ValueError(f"{path}: the file is empty")
        self._quoted = '"' in text
        first = self._lines[self._start]
        self._delimiter = max(_DELIMITERS, key=first.count)
        try:
            self.header = next(csv.reader([first], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise ValueError(f"{path}: the header line is malformed: {error}") from error
        self.rejects: list[tuple[int, str]] = []
        self._ends: dict[int, int] = {}

    def pieces(self, names: Sequence[str]) -> Iterator[Piece]:
        """Yield the well-formed rows as columns of text."""
        if not self._quoted:
            yield from self._unquoted(names)
            return
        records = self._records()
        at = [(name, self.header.index(name)) for name in names]
        while rows := list(islice(records, _PIECE)):
            lines, *columns = zip(*rows, strict=True)
            yield Piece(
                {name: pl.Series(name, columns[i], dtype=pl.String) for name, i in at},
                pl.Series("line", lines, dtype=pl.Int64),
            )

    def _unquoted(self, names: Sequence[str]) -> Iterator[Piece]:
        """Read a file without any quotes, where a line is a row: several times faster."""
        width = len(self.header)
        for begin in range(self._start + 1, len(self._lines), _PIECE):
            piece = self._lines[begin : begin + _PIECE]
            delimiters = np.array([line.count(self._delimiter) for line in piece])
            wrong = np.flatnonzero(delimiters != width - 1)
            for i in wrong.tolist():
                if delimiters[i] or piece[i].strip():
                    self._reject(begin + i, self._wrong_width(int(delimiters[i]) + 1))
            right = np.flatnonzero(delimiters == width - 1)
            if not len(right):
                continue
            rows = piece if not len(wrong) else [piece[i] for i in right.tolist()]
            frame = pl.read_csv(
                "\n".join([row.rstrip("\r\n") for row in rows]).encode(),
                has_header=False,
                separator=self._delimiter,
                quote_char=None,
                infer_schema=False,
            )
            yield Piece(
                {name: frame.to_series(self.header.index(name)) for name in names},
                pl.Series("line", right + begin + 1, dtype=pl.Int64),
            )

    def _wrong_width(self, fields: int) -> str:
        return f"{fields} fields, the header has {len(self.header)}"

    def _records(self) -> Iterator[list[int | str]]:
        width, at = len(self.header), self._start + 1
        while at < len(self._lines):
            base = at
            ahead = map(self._lines.__getitem__, range(base, len(self._lines)))
            reader = csv.reader(ahead, delimiter=self._delimiter, strict=True)
            while True:
                start = at
                try:
                    fields = next(reader, None)
                except csv.Error as error:
                    at = self._reject(start, f"malformed: {error}")
                    break
                if fields is None:
                    return
                at = base + reader.line_num
                if len(fields) == width:
                    if at - start > 1:
                        self._ends[start + 1] = at
                    yield [start + 1, *fields]
                elif "".join(fields).strip() or len(fields) > 1:
                    after = self._reject(start, self._wrong_width(len(fields)))
                    if after != at:
                        at = after
                        break

    def _reject(self, start: int, reason: str) -> int:
        self.rejects.append((start + 1, reason))
        return start + 1

    def text(self, number: int) -> str:
        """Return the raw line or lines of a row."""
        return "".join(self._lines[number - 1 : self._ends.get(number, number)]).rstrip("\r\n")


class ParquetPrices:
    """A Parquet file. Numbers are rows from 1."""

    numbered_by = "row"

    def __init__(self, path: Path) -> None:
        """Read the file's columns."""
        try:
            self._table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
        self._path = path
        self.header: list[str] = self._table.column_names
        self.rejects: list[tuple[int, str]] = []

    def pieces(self, names: Sequence[str]) -> Iterator[Piece]:
        """Yield all rows; the types of the columns tell how they are parsed."""
        columns = {}
        for name in names:
            column = self._table[name]
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if not any(is_known(column.type) for is_known in _KNOWN):
                raise ValueError(f"{self._path}: column {name!r} has the type {column.type}")
            columns[name] = pl.Series(name, pl.from_arrow(column))
        yield Piece(columns, pl.int_range(1, self._table.num_rows + 1, eager=True, dtype=pl.Int64))

    def text(self, number: int) -> str:
        """Return a row as JSON, since the file has no text."""
        (row,) = self._table.slice(number - 1, 1).to_pylist()
        return json.dumps(row, default=str, ensure_ascii=False)
