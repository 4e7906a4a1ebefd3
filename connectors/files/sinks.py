"""The sinks: several tables of one run, or one table alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.files.ndjson import NdjsonTable, NewestNdjsonTable
from connectors.files.parquet import ParquetTable
from connectors.files.tables import Position, TableSpec, TableWriter
from connectors.marks import KEY, Mark, check_opened

_FORMATS: dict[str, Callable[[Path, TableSpec, Position | None], TableWriter]] = {
    ".ndjson": NdjsonTable,
    ".parquet": ParquetTable,
}


class RunPosition(NamedTuple):
    """A sink's snapshot."""

    received: int
    ended: bool
    tables: dict[str, Position]


Item = tuple[str, pa.RecordBatch]
"""The name of a table, and rows for it."""


class RunPartition(StatefulSinkPartition[Item | Mark, RunPosition]):
    """The writer of all tables of a run."""

    def __init__(
        self,
        directory: Path,
        tables: Mapping[str, TableSpec],
        finish: Callable[[Path], None] | None,
        resume: RunPosition | None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if resume is not None and set(resume.tables) != set(tables):
            raise ValueError(
                f"{directory}: has the tables {sorted(resume.tables)} since before the restart, "
                f"not {sorted(tables)}: start anew without the recovery data"
            )
        self._directory = directory
        self._finish = finish
        self._opened = resume is not None
        self._received, self._ended = resume[:2] if resume else (0, False)
        self._total: int | None = None
        self._tables: dict[str, TableWriter] = {}
        try:
            for name, spec in tables.items():
                position = resume.tables[name] if resume else None
                path = directory / name
                kind = NewestNdjsonTable if spec.newest else _FORMATS[path.suffix]
                self._tables[name] = kind(path, spec, position)
        except BaseException:
            self.close()
            raise

    def write_batch(self, values: list[Item | Mark]) -> None:
        """Write rows; at the end of input, finish the files.

        Raises:
            ValueError: an unknown table, or a batch of another schema.
            OSError: a file cannot be written; the error names it.
        """
        for value in values:
            if isinstance(value, Mark):
                self._opened = True
                self._total = value.total
                continue
            name, batch = value
            if name not in self._tables:
                raise ValueError(
                    f"{self._directory}: no table {name!r}: choose from {list(self._tables)}"
                )
            self._tables[name].write(batch)
            self._received += 1
            self._ended = False
        if self._total == self._received and not self._ended:
            for table in self._tables.values():
                table.finish()
            if self._finish is not None:
                self._finish(self._directory)
            self._ended = True

    def snapshot(self) -> RunPosition:
        """Return where all tables are, when everything before is on the disk.

        Raises:
            ValueError: the stream did not come through :func:`output`.
        """
        check_opened(self._opened, self._directory)
        positions = {name: table.snapshot() for name, table in self._tables.items()}
        return RunPosition(self._received, self._ended, positions)

    def close(self) -> None:
        """Close the files as they are: the engine calls this after a failure too."""
        for table in self._tables.values():
            table.close()


class RunSink(FixedPartitionedSink[Item | Mark, RunPosition]):
    """Write several named tables of one run into a directory; then call `finish`, once.

    Items are ``(key, (table name, RecordBatch))``; connect them with :func:`output`. A name ends
    in `.ndjson` or `.parquet`. NDJSON files grow line by line, Parquet files appear at the end.
    One worker of the cluster writes everything, in order of arrival.

    - *Empty*: a table without rows is a valid empty file; a stream without items leaves them all.
    - *Existing files* are replaced: NDJSON at the first item, Parquet at the end.
    - *Newest*: a table whose spec says so holds the rows of the newest batch only.
    - *Restart*: rows after the last snapshot are cut off, then come again: none is lost or
      doubled, and a run that was killed leaves the same bytes as one that was not. A finished run
      that is resumed without news stays as it is; with more rows it is finished again. A file
      that is missing or shorter than its snapshot raises an error that names it.
    - *Failure*: when the flow fails or is stopped, nothing is finished: NDJSON files end with a
      whole line, and Parquet rows wait in `<name>.spool`, an Arrow IPC stream. If `finish` raises,
      all tables are complete, and resuming calls it again.

    All processes of a cluster need to see the same directory, since a restart may choose another
    writer.

    Args:
        directory: Made when the first item comes.
        tables: What each file holds.
        finish: Called with the directory when all tables are complete.

    Raises:
        ValueError: a name has another suffix or leads out of the directory, or a Parquet table is
            of the newest rows.
    """

    def __init__(
        self,
        directory: Path | str,
        tables: Mapping[str, TableSpec],
        *,
        finish: Callable[[Path], None] | None = None,
    ) -> None:
        for name in tables:
            if Path(name).name != name or Path(name).suffix not in _FORMATS:
                raise ValueError(f"table {name!r}: a file name that ends in {list(_FORMATS)}")
            if tables[name].newest and Path(name).suffix != ".ndjson":
                raise ValueError(f"table {name!r}: only .ndjson can hold the newest rows")
        self._directory = Path(directory)
        self._tables = dict(tables)
        self._finish = finish

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return [KEY]

    def build_part(
        self, step_id: str, for_part: str, resume_state: RunPosition | None
    ) -> RunPartition:
        """Start the files, or go on from a snapshot."""
        return RunPartition(self._directory, self._tables, self._finish, resume_state)


class _TablePartition(StatefulSinkPartition[pa.RecordBatch | Mark, RunPosition]):
    def __init__(self, name: str, run: RunPartition) -> None:
        self._name = name
        self._run = run

    def write_batch(self, values: list[pa.RecordBatch | Mark]) -> None:
        self._run.write_batch([v if isinstance(v, Mark) else (self._name, v) for v in values])

    def snapshot(self) -> RunPosition:
        return self._run.snapshot()

    def close(self) -> None:
        self._run.close()


class _TableSink(FixedPartitionedSink[pa.RecordBatch | Mark, RunPosition]):
    suffix: str

    def __init__(
        self,
        path: Path | str,
        schema: pa.Schema,
        *,
        sort_by: str | Sequence[str] | None = None,
    ) -> None:
        self._path = Path(path)
        if self._path.suffix != self.suffix:
            raise ValueError(f"{path}: the name must end in {self.suffix}")
        self._run = RunSink(self._path.parent, {self._path.name: TableSpec(schema, sort_by)})

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return self._run.list_parts()

    def build_part(
        self, step_id: str, for_part: str, resume_state: RunPosition | None
    ) -> StatefulSinkPartition[pa.RecordBatch | Mark, RunPosition]:
        """Start the file, or go on from a snapshot."""
        run = self._run.build_part(step_id, for_part, resume_state)
        return _TablePartition(self._path.name, run)


class NdjsonSink(_TableSink):
    """Write ``(key, RecordBatch)`` items to one `.ndjson` file, one JSON object a row.

    Times are RFC 3339 in UTC, floats their shortest exact form, NaN and infinities null. The file
    grows by whole lines; see :class:`RunSink` for restarts, and :class:`TableSpec` for `sort_by`.
    """

    suffix = ".ndjson"


class ParquetSink(_TableSink):
    """Write ``(key, RecordBatch)`` items to one `.parquet` file.

    The file appears when the input ends; see :class:`RunSink` for restarts, and
    :class:`TableSpec` for `sort_by`.
    """

    suffix = ".parquet"
