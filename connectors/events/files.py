"""Events from CSV, Parquet and NDJSON files; what is wrong goes to a dead-letter file."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.events.columns import Roles, find_roles, parse
from connectors.events.ndjson import NdjsonFile
from connectors.files.atomic import replacing
from connectors.market.readers import PriceFile, open_prices
from state.schemas import EVENTS

_log = logging.getLogger(__name__)


class EventFileSource(FixedPartitionedSource[pa.RecordBatch, int]):
    """Read events from one or more CSV, NDJSON (both also gzipped) or Parquet files.

    A file has a column of times (time, timestamp, datetime, date or ts), one of users (user,
    user_id or uid), one of endpoints (endpoint, path, url or route) and one of latencies in
    milliseconds (latency_ms or duration_ms); case does not matter, other columns are not read. It
    may have one of agents (agent, agent_id, host or instance); without it the file is one agent
    with the file's name. Times are ISO 8601 or epoch numbers, as in price files.

    An item is a ``RecordBatch`` of ``state.schemas.EVENTS``, rows in the order of the files. There
    is one partition. Every process of a cluster reads the files whole, and one emits.

    A bad row becomes a line ``{"file", "line", "reason", "text"}`` of the dead-letter file, in
    order ("row" instead of "line" for Parquet; both count from 1, a CSV header included): a time
    or a latency that cannot be read, a latency that is negative or not finite, no agent, user or
    endpoint, a line that is not a JSON object, too many or too few fields.

    - *Duplicate*, *late*: rows are kept as they are.
    - *Empty*: a file with a header and no rows ends at once; one without a header is an error.
    - *Restart*: goes on with the row after the last snapshot; files that have become shorter
      raise ``ValueError``. The dead-letter file is written whole at the start.

    Args:
        path: A file, a pattern such as ``logs/*.ndjson``, or a sequence of them. Names end in
            .ndjson, .jsonl or .json for NDJSON (before .gz, if any).
        dead_letters: Where rejected rows go (NDJSON). Without it they are only counted, and the
            first is logged.
        batch_rows: Rows in a batch, at most.

    Attributes:
        table: All good rows.
        total_rows: How many there are.
        rejected: How many dead letters there are.

    Raises:
        ValueError: naming the file: it is missing, empty, a directory, unreadable, or lacks a
            column.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        dead_letters: str | Path | None = None,
        batch_rows: int = 65_536,
    ) -> None:
        if batch_rows < 1:
            raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")
        self._paths = _files(path)
        self._dead_letters = None if dead_letters is None else Path(dead_letters)
        self._batch_rows = batch_rows
        frames: list[pl.DataFrame] = []
        self._letters: list[str] = []
        for one in self._paths:
            rows, letters = _load(one)
            frames += rows
            self._letters += letters
        whole = pl.concat(frames).to_arrow().cast(EVENTS) if frames else EVENTS.empty_table()
        self.table: pa.Table = whole
        self.total_rows: int = whole.num_rows
        self.rejected: int = len(self._letters)

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return ["events"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _FilePartition:
        """Write the dead letters, and start or go on after a row."""
        if self._dead_letters is not None:
            self._dead_letters.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._dead_letters) as file:
                file.writelines(f"{line}\n".encode() for line in self._letters)
        if self._letters:
            _log.warning("%d rejected row(s); the first: %s", self.rejected, self._letters[0])
        start = resume_state or 0
        if start > self.total_rows:
            names = ", ".join(map(str, self._paths))
            raise ValueError(f"{names}: {self.total_rows} rows, but was left at row {start}")
        return _FilePartition(self.table, self._batch_rows, start)


class _FilePartition(StatefulSourcePartition[pa.RecordBatch, int]):
    def __init__(self, table: pa.Table, batch_rows: int, start: int) -> None:
        batches = table.combine_chunks().to_batches()
        self._rows = batches[0] if batches else pa.RecordBatch.from_pylist([], EVENTS)
        self._batch_rows = batch_rows
        self._next = start

    def next_batch(self) -> list[pa.RecordBatch]:
        batch = self._rows.slice(self._next, self._batch_rows)
        if not batch.num_rows:
            raise StopIteration
        self._next += batch.num_rows
        return [batch]

    def snapshot(self) -> int:
        return self._next


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for one in [path] if isinstance(path, str | Path) else path:
        if glob.has_magic(str(one)) and not Path(one).exists():
            names = glob.glob(str(one), recursive=True)  # noqa: PTH207 (Path.glob: relative only)
            if not names:
                raise ValueError(f"{one}: no file matches")
            found += sorted(map(Path, names))
        else:
            found.append(Path(one))
    if not found:
        raise ValueError("no event file is given")
    return list(dict.fromkeys(found))


def _open(path: Path) -> PriceFile:
    if path.is_dir():
        raise ValueError(f"{path}: is a directory, not a file of events")
    if Path(path.name.removesuffix(".gz")).suffix not in (".ndjson", ".jsonl", ".json"):
        return open_prices(path)
    try:
        return NdjsonFile(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def _load(path: Path) -> tuple[list[pl.DataFrame], list[str]]:
    """Return the good rows of a file, and its dead letters in order."""
    file = _open(path)
    try:
        roles: Roles = find_roles(file.header, Path(path.name.removesuffix(".gz")).stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    frames = []
    rejects: list[tuple[int, str]] = []
    for piece in file.pieces(roles.columns):
        parsed = parse(piece.columns, piece.lines, roles)
        frames.append(parsed.events)
        rejects += parsed.rejects
    rejects += file.rejects
    letters = [
        json.dumps(
            {
                "file": str(path),
                file.numbered_by: number,
                "reason": reason,
                "text": file.text(number),
            },
            ensure_ascii=False,
        )
        for number, reason in sorted(rejects)
    ]
    return frames, letters
