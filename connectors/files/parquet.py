"""A table as one Parquet file, spooled until its last row is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.files.atomic import naming, replacing
from connectors.files.tables import Position, TableSpec

ROW_GROUP = 131_072
"""Rows in a row group, however the rows came: equal rows make equal files."""


class ParquetTable:
    """Spool rows to `<path>.spool`, an Arrow IPC stream; make the Parquet file when finished.

    A Parquet file cannot grow, and is nothing before its footer is written. A resumed spool is
    cut back to the snapshot's rows. Once the file is made the spool goes; a restart that needs
    fewer rows than are in the file takes them from there. Only a sorted file cannot give them
    back, so its spool stays. While a run goes on, the finished file of an earlier run stays
    readable.
    """

    def __init__(self, path: Path, spec: TableSpec, resume: Position | None) -> None:
        for field in spec.schema:
            if pa.types.is_dictionary(field.type):
                raise ValueError(f"{path}: column {field.name!r} is {field.type}: decode it first")
        self._path = path
        self._spec = spec
        self._spool = path.with_name(path.name + ".spool")
        self._rows = resume[0] if resume else 0
        self._file: BinaryIO | None = None
        self._synced = True
        self._finished = False
        with naming(self._spool):
            if resume is None:
                self._start([])
            elif self._spool.exists():
                self._cut_back()
            else:
                self._finished = self._check_finished()

    def write(self, batch: pa.RecordBatch) -> None:
        """Spool the rows."""
        batch = self._spec.conform(batch, self._path)
        if not batch.num_rows:
            return
        with naming(self._spool):
            if self._file is None:
                self._start(_first_rows(pq.ParquetFile(self._path), self._rows))
            self._append(batch)
        self._rows += batch.num_rows
        self._finished = False

    def snapshot(self) -> Position:
        """Return the number of rows so far, which are on the disk."""
        if self._file is not None and not self._synced:
            with naming(self._spool):
                self._file.flush()
                os.fsync(self._file.fileno())
            self._synced = True
        return self._rows, 0

    def finish(self) -> None:
        """Make the Parquet file."""
        if self._finished:
            return
        self.snapshot()
        if self._file is None:
            # The file holds rows that came after the snapshot and were not sent again.
            with naming(self._spool):
                self._start(_first_rows(pq.ParquetFile(self._path), self._rows))
        with naming(self._spool), pa.OSFile(str(self._spool), "rb") as source:
            groups = self._ordered(pa.ipc.open_stream(source))
            with (
                replacing(self._path) as target,
                pq.ParquetWriter(target, self._spec.schema, compression="zstd") as writer,
            ):
                for group in groups:
                    writer.write_table(group, row_group_size=ROW_GROUP)
        self._finished = True
        if not self._spec.sort_columns:
            self.close()
            self._spool.unlink()

    def close(self) -> None:
        """Close the spool."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _start(self, batches: Iterator[pa.RecordBatch] | list[pa.RecordBatch]) -> None:
        self._spool.unlink(missing_ok=True)
        with replacing(self._spool) as spool:
            spool.write(self._spec.schema.serialize())
            for batch in batches:
                spool.write(batch.serialize())
        self._file = self._spool.open("ab")

    def _append(self, batch: pa.RecordBatch) -> None:
        assert self._file is not None
        self._file.write(batch.serialize())
        self._synced = False

    def _cut_back(self) -> None:
        """Keep the snapshot's rows; what comes after them may be torn."""
        schema = self._spec.schema
        rows, end, rest = 0, 0, None
        try:
            with pa.memory_map(str(self._spool)) as source:
                messages = pa.ipc.MessageReader.open_stream(source)
                found = pa.ipc.read_schema(messages.read_next_message())
                if found != schema:
                    raise ValueError(f"{self._spool}: holds {found.names}, not {schema.names}")
                end = source.tell()
                while rows < self._rows:
                    batch = pa.ipc.read_record_batch(messages.read_next_message(), schema)
                    if rows + batch.num_rows > self._rows:
                        rest = batch.slice(0, self._rows - rows)
                        break
                    rows, end = rows + batch.num_rows, source.tell()
        except (StopIteration, pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"{self._spool}: {rows} rows can be read, but {self._rows} were written before "
                f"the restart: put the file back, or start anew without the recovery data ({error})"
            ) from None
        self._file = self._spool.open("r+b")
        self._file.truncate(end)
        self._file.seek(end)
        if rest is not None:
            self._append(rest)

    def _check_finished(self) -> bool:
        """Return whether the finished file has the snapshot's rows and no more."""
        if not self._path.exists():
            raise FileNotFoundError(
                errno.ENOENT,
                f"is gone, but held {self._rows} rows before the restart: put it back, or start "
                "anew without the recovery data",
                str(self._spool),
            )
        try:
            metadata = pq.read_metadata(self._path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self._path}: {error}") from None
        if metadata.num_rows < self._rows or (
            self._spec.sort_columns and metadata.num_rows > self._rows
        ):
            raise ValueError(
                f"{self._path}: holds {metadata.num_rows} rows, but {self._rows} were written "
                "before the restart: start anew without the recovery data"
            )
        return bool(metadata.num_rows == self._rows)

    def _ordered(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        if not self._spec.sort_columns:
            return _regrouped(batches, self._spec.schema)
        table = pa.Table.from_batches(batches, self._spec.schema)
        ordered = table.take(self._spec.order(table.select(self._spec.sort_columns)))
        return _regrouped(iter(ordered.combine_chunks().to_batches()), self._spec.schema)


def _regrouped(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Cut a stream of batches into tables of `ROW_GROUP` rows each, but for the last."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, ROW_GROUP).combine_chunks()
            held = table.slice(ROW_GROUP).to_batches()
            rows -= ROW_GROUP
    if rows:
        yield pa.Table.from_batches(held, schema).combine_chunks()


def _first_rows(file: pq.ParquetFile, rows: int) -> Iterator[pa.RecordBatch]:
    with file:
        for batch in file.iter_batches():
            if rows <= 0:
                return
            yield batch.slice(0, rows)
            rows -= batch.num_rows
