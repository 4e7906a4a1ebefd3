"""A table as newline-delimited JSON that people can `tail -f` while it grows."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from connectors.files.atomic import naming, replacing
from connectors.files.tables import Position, TableSpec

_ENCODER = msgspec.json.Encoder()


class NdjsonTable:
    """Append rows to the file itself; if the table is sorted, sort the file when it is finished.

    A resumed file is cut back to the snapshot's byte. A sorted file cannot be, so its lines in
    order of arrival stay beside it, in `<path>.spool`.
    """

    def __init__(self, path: Path, spec: TableSpec, resume: Position | None) -> None:
        for field in spec.schema:
            _check_type(field.name, field.type, path)
        self._path = path
        self._spec = spec
        self._spool = path.with_name(path.name + ".spool")
        self._rows, self._bytes = resume or (0, 0)
        if resume is None:
            with replacing(path):  # someone who reads the file of an earlier run keeps that one
                pass
            self._spool.unlink(missing_ok=True)
        self._file: BinaryIO | None = None
        if not self._spool.exists():
            self._open()
        self._synced = True

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows as whole lines, in one write."""
        batch = self._spec.conform(batch, self._path)
        if not batch.num_rows:
            return
        lines = _ENCODER.encode_lines(_in_utc(batch).to_pylist())
        file = self._file or self._open()
        with naming(self._path):
            file.write(lines)
            file.flush()
        self._rows += batch.num_rows
        self._bytes += len(lines)
        self._synced = False

    def snapshot(self) -> Position:
        """Return rows and bytes so far, which are on the disk."""
        if self._file is not None and not self._synced:
            with naming(self._path):
                os.fsync(self._file.fileno())
            self._synced = True
        return self._rows, self._bytes

    def finish(self) -> None:
        """Put the lines in order."""
        if self._file is None:
            self._open()
        self.snapshot()
        self.close()
        if not self._spec.sort_columns:
            return
        arrived = self._path.read_bytes()
        lines = arrived.splitlines(keepends=True)
        order = self._spec.order(_keys(lines, self._spec, self._path)).to_pylist()
        with replacing(self._spool) as copy:
            copy.write(arrived)
        with replacing(self._path) as ordered:
            ordered.writelines(lines[i] for i in order)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        """Open the file after the last row, its rows in the order in which they came."""
        with naming(self._path):
            if self._spool.exists():
                self._spool.replace(self._path)
            self._file = _reopen(self._path, self._rows, self._bytes)
        return self._file


class NewestNdjsonTable:
    """Replace the file by each batch that comes.

    A restart has nothing to cut back: what was written after the snapshot is replaced when it comes
    again. An empty batch makes an empty file.

    Raises:
        FileNotFoundError: the file that a snapshot is about is gone.
    """

    def __init__(self, path: Path, spec: TableSpec, resume: Position | None) -> None:
        for field in spec.schema:
            _check_type(field.name, field.type, path)
        self._path = path
        self._spec = spec
        self._position = resume or (0, 0)
        if resume is None:
            self._replace(b"")
        elif not path.exists():
            raise _gone(path, self._position[0])

    def write(self, batch: pa.RecordBatch) -> None:
        """Make these rows the file's only ones."""
        batch = self._spec.conform(batch, self._path)
        lines = _ENCODER.encode_lines(_in_utc(batch).to_pylist())
        self._replace(lines)
        self._position = batch.num_rows, len(lines)

    def _replace(self, lines: bytes) -> None:
        with replacing(self._path) as file:
            file.write(lines)

    def snapshot(self) -> Position:
        """Return the newest rows and bytes, which are on the disk."""
        return self._position

    def finish(self) -> None:
        """Leave the file as it is: it is whole at any time."""

    def close(self) -> None:
        """Leave the file as it is: it is not held open."""


def _reopen(path: Path, rows: int, size: int) -> BinaryIO:
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        raise _gone(path, rows) from None
    held = file.seek(0, os.SEEK_END)
    if held < size:
        file.close()
        raise ValueError(
            f"{path}: holds {held} bytes, but had {size} before the restart: put the file back, "
            "or start anew without the recovery data"
        )
    file.seek(max(size - 1, 0))
    if size and file.read(1) != b"\n":
        file.close()
        raise ValueError(f"{path}: byte {size} does not end a line: the file was changed")
    file.truncate(size)
    file.seek(size)
    return file


def _gone(path: Path, rows: int) -> FileNotFoundError:
    return FileNotFoundError(
        errno.ENOENT,
        f"is gone, but held {rows} rows before the restart: put it back, or start anew "
        "without the recovery data",
        str(path),
    )


def _check_type(name: str, kind: pa.DataType, path: Path) -> None:
    if pa.types.is_timestamp(kind) and (kind.tz is None or kind.unit == "ns"):
        raise ValueError(
            f"{path}: column {name!r} is {kind}; times in JSON need a time zone and at most "
            "microseconds"
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _check_type(name, kind.value_type, path)
    elif pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
        raise ValueError(f"{path}: column {name!r} is {kind}, which is not written to JSON")


def _in_utc(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with every column of times in UTC."""
    columns = [
        column.cast(pa.timestamp(column.type.unit, "UTC"))
        if pa.types.is_timestamp(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _keys(lines: list[bytes], spec: TableSpec, path: Path) -> pa.Table:
    """Read the sort columns back from the lines."""
    fields = [spec.schema.field(name) for name in spec.sort_columns]
    kinds = [datetime if pa.types.is_timestamp(f.type) else Any for f in fields]
    row = msgspec.defstruct(
        "Row",
        [(f"k{i}", kind | None if kind is datetime else kind) for i, kind in enumerate(kinds)],
        rename={f"k{i}": field.name for i, field in enumerate(fields)},
    )
    decoder = msgspec.json.Decoder(row)
    try:
        rows = [decoder.decode(line) for line in lines]
        return pa.table(
            {
                field.name: pa.array([getattr(r, f"k{i}") for r in rows], type=field.type)
                for i, field in enumerate(fields)
            },
        )
    except (msgspec.DecodeError, pa.ArrowException) as error:
        raise ValueError(f"{path}: a line is not what was written: {error}") from error
