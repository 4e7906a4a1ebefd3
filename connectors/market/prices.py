"""Prices from CSV and Parquet files, in order of time; what is wrong goes to a dead-letter file."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource

from connectors.market.columns import Form, find_roles, parse
from connectors.market.readers import PriceFile, open_prices
from connectors.market.replay import Position, ReplayPartition, check_rate
from state.schemas import TICKS

_log = logging.getLogger(__name__)

Ties = Literal["reject", "keep"]


class PriceFileSource(FixedPartitionedSource[pa.RecordBatch, Position]):
    """Read prices from one or more CSV (also gzipped) or Parquet files.

    *Long form* has a column of times (time, timestamp, datetime, date or ts), one of series
    (series, symbol, ticker or instrument), one of prices (price, close, adj close or last, in
    this order of preference), and may have one of sizes (size, volume, qty or quantity); other
    columns are not read. Without a series column the file is one series with the file's name
    ("ACME.csv" is "ACME"). *Wide form* has a column of times, and every other column is a
    series; an empty cell means that there is no price then. The form is told by the header,
    where case does not matter.

    Times are ISO 8601, dates, or epoch numbers (seconds, milliseconds, microseconds or
    nanoseconds, told by their size); a time without a zone is UTC, a date is 00:00 UTC.

    An item is a ``RecordBatch`` of ``state.schemas.TICKS``; all rows of one timestamp are in the
    same batch. There is one partition. The snapshot is the index of the next row, with a
    checksum of the rows before it. Every process of a cluster reads the files, and one emits.

    A bad row becomes a line ``{"file", "line", "reason", "text"}`` of the dead-letter file, in
    order ("row" instead of "line" for Parquet; both count from 1, CSV's header included): a time
    or price that cannot be read, a price that is not finite and positive, no series, too many or
    too few fields, a size that is not a number of 0 or more. In wide form only the cell is bad,
    and the rest of its row is read.

    - *Late*: the files are read whole and sorted by time, then series.
    - *Duplicate*: of rows with the same time and series the first in the files is kept and the
      others are dead letters ("duplicate timestamp"). With ``ties="keep"``, for files of single
      trades, all are kept in the order of the files.
    - *Empty*: a file with a header and no rows ends at once; one without a header is an error.
    - *Restart*: goes on with the row after the last snapshot. Rows that were added after it are
      read; if rows before it changed, ``ValueError``. The dead-letter file is written whole at
      the start, also of a resumed run, so that no line is doubled or lost.

    Args:
        path: A file, a pattern such as ``prices/*.csv``, or a sequence of them.
        dead_letters: Where rejected rows go (NDJSON). The directory is made if need be. Without
            it they are only counted, and the first is logged.
        form: "long" or "wide" instead of what the header tells.
        ties: What becomes of rows with the same time and series, "reject" or "keep".
        speed: Event seconds per second; None is as fast as the flow takes it.
        batch_rows: Rows in a batch, about.
        clock: Returns the current time; tests pass their own.

    Attributes:
        total_rows: How many rows a whole pass emits.
        rejected: How many dead letters there are.

    Raises:
        ValueError: naming the file: it is missing, empty, a directory, not UTF-8, not readable
            as Parquet, has no header or no usable column.

    >>> source = PriceFileSource(getfixture("tmp_path") / "no.csv")
    Traceback (most recent call last):
    ...
    ValueError: ...no.csv: no such file
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        dead_letters: str | Path | None = None,
        form: Form = "auto",
        ties: Ties = "reject",
        speed: float | None = None,
        batch_rows: int = 8192,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        check_rate(speed, batch_rows)
        if form not in ("auto", "long", "wide"):
            raise ValueError(f"form must be 'auto', 'long' or 'wide', not {form!r}")
        if ties not in ("reject", "keep"):
            raise ValueError(f"ties must be 'reject' or 'keep', not {ties!r}")
        self._paths = _files(path)
        self._table, self._letters = _load(self._paths, form, ties)
        self._dead_letters = None if dead_letters is None else Path(dead_letters)
        self._speed = speed
        self._batch_rows = batch_rows
        self._clock = clock
        self.total_rows: int = self._table.num_rows
        self.rejected: int = len(self._letters)

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return ["prices"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Position | None
    ) -> ReplayPartition:
        """Write the dead letters, and start or go on from a snapshot."""
        if self._dead_letters is not None:
            _write(self._dead_letters, self._letters)
        if self._letters:
            _log.warning(
                "%d rejected row(s)%s; the first: %s",
                self.rejected,
                f" in {self._dead_letters}" if self._dead_letters else "",
                self._letters[0],
            )
        return ReplayPartition(
            self._table,
            resume_state,
            speed=self._speed,
            batch_rows=self._batch_rows,
            clock=self._clock,
            name=", ".join(map(str, self._paths)),
        )


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [path] if isinstance(path, str | Path) else list(path)
    found: list[Path] = []
    for one in given:
        if glob.has_magic(str(one)) and not Path(one).exists():
            names = glob.glob(str(one), recursive=True)  # noqa: PTH207 (Path.glob: relative only)
            matches = sorted(map(Path, names))
            if not matches:
                raise ValueError(f"{one}: no file matches")
            found += matches
        else:
            found.append(Path(one))
    if not found:
        raise ValueError("no price file is given")
    return list(dict.fromkeys(found))


def _load(paths: Sequence[Path], form: Form, ties: Ties) -> tuple[pa.Table, list[str]]:
    """Return the sorted ticks of all files, and the dead letters in the order of the files."""
    files = [open_prices(path) for path in paths]
    rejects: list[tuple[int, int, str]] = []
    frames = []
    for i, (file, path) in enumerate(zip(files, paths, strict=True)):
        try:
            roles = find_roles(file.header, form, Path(path.name.removesuffix(".gz")).stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        for piece in file.pieces(roles.columns):
            parsed = parse(piece.columns, piece.lines, roles)
            frames.append(parsed.ticks.with_columns(file=pl.lit(i, pl.Int32)))
            rejects += [(i, line, reason) for line, reason in parsed.rejects]
        rejects += [(i, line, reason) for line, reason in file.rejects]
    if not frames:
        return TICKS.empty_table(), _letters(files, paths, rejects)
    ticks = pl.concat(frames).sort("file", "line", maintain_order=True)
    ticks = ticks.sort("time", "series", maintain_order=True)
    if ties == "reject":
        again = ((pl.col("time") == pl.col("time").shift()) & _same("series")).fill_null(False)
        for i, line, series in ticks.filter(again).select("file", "line", "series").iter_rows():
            rejects.append((i, line, f"duplicate timestamp of series {series!r}"))
        ticks = ticks.filter(~again)
    table = ticks.select(TICKS.names).to_arrow().cast(TICKS)
    return table, _letters(files, paths, rejects)


def _same(column: str) -> pl.Expr:
    return pl.col(column) == pl.col(column).shift()


def _letters(
    files: Sequence[PriceFile], paths: Sequence[Path], rejects: list[tuple[int, int, str]]
) -> list[str]:
    return [
        json.dumps(
            {
                "file": str(paths[i]),
                files[i].numbered_by: line,
                "reason": reason,
                "text": files[i].text(line),
            },
            ensure_ascii=False,
        )
        for i, line, reason in sorted(rejects)
    ]


def _write(path: Path, lines: Sequence[str]) -> None:
    """Replace the file at once: a reader, or a second process, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
