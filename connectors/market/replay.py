"""Replay prices from a table, as fast as possible or at any speed-up; real daily series included.

The shipped series are the daily closes among the example data of the PyPI package `arch` (Kevin
Sheppard, NCSA licence), read straight from its files: nothing is downloaded, and `arch` itself,
which is slow to import, is not imported.
"""

from __future__ import annotations

import importlib.util
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from pyarrow import csv

from state.schemas import TICKS, TIME

Position = tuple[int, int]
"""A replay's snapshot: the index of the next row, and the checksum of the rows before it."""


@dataclass(frozen=True, slots=True)
class _Shipped:
    path: str
    close: str
    volume: str | None = None


_SHIPPED = {
    "S&P 500": _Shipped("sp500/sp500.csv.gz", "Close", "Volume"),
    "NASDAQ": _Shipped("nasdaq/nasdaq.csv.gz", "Close", "Volume"),
    "WTI": _Shipped("wti/wti.csv.gz", "DCOILWTICO"),
    "VIX": _Shipped("vix/vix.csv.gz", "vix"),
}

DAILY_SERIES = tuple(_SHIPPED)
"""The names that :func:`daily_prices` knows."""


def daily_prices(
    series: Iterable[str] | str | None = None,
    *,
    start: date = date(1999, 1, 4),
    end: date = date(2018, 12, 31),
) -> pa.Table:
    """Return shipped daily closes as ticks, sorted by time, then series.

    The default period is the one in which the S&P 500 file runs; it cuts WTI, which starts in
    1986. VIX starts on 2014-01-03 whatever `start` says. A close is stamped 00:00 UTC of its
    day, since the files know no hour. `size` is the day's volume in shares where the file has
    one that is not zero, else null. Days without a price ("." in the files: exchange holidays)
    have no row.

    Args:
        series: Names from :data:`DAILY_SERIES`; all of them by default.
        start: First day, inclusive.
        end: Last day, inclusive.

    Raises:
        ValueError: a name is unknown or given twice, or no row is left.
        FileNotFoundError: `arch`, or a data file in it, is missing.

    >>> prices = daily_prices(["S&P 500", "WTI"])
    >>> prices.num_rows, str(prices["time"][0]), prices["price"][0].as_py()
    (10051, '1999-01-04 00:00:00+00:00', 1228.099976)
    """
    names = [series] if isinstance(series, str) else list(_SHIPPED if series is None else series)
    for name in names:
        if name not in _SHIPPED:
            raise ValueError(f"unknown daily series {name!r}: choose from {list(_SHIPPED)}")
    if len(set(names)) != len(names):
        raise ValueError(f"daily series {names} has a name twice")
    table = pa.concat_tables([_read_shipped(name) for name in names]) if names else None
    if table is not None:
        first = pa.scalar(datetime(start.year, start.month, start.day, tzinfo=UTC), TIME)
        last = pa.scalar(datetime(end.year, end.month, end.day, tzinfo=UTC), TIME)
        inside = pc.and_(pc.greater_equal(table["time"], first), pc.less_equal(table["time"], last))
        table = table.filter(inside)
    if table is None or not table.num_rows:
        raise ValueError(f"no daily prices of {names} from {start} to {end}")
    return in_order(table)


def in_order(table: pa.Table) -> pa.Table:
    """Return the rows sorted by time, then series; rows equal in both keep their order."""
    series = pc.dictionary_encode(table["series"].combine_chunks())
    names = series.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int32)
    rank[sorted(range(len(names)), key=lambda i: names[i])] = np.arange(len(names))
    keys = (
        rank[series.indices.to_numpy(zero_copy_only=False)],
        table["time"].combine_chunks().cast(pa.int64()).to_numpy(),
    )
    return table.take(pa.array(np.lexsort(keys)))


def _read_shipped(name: str) -> pa.Table:
    spec = importlib.util.find_spec("arch")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the daily prices ship inside the package arch: pip install arch")
    shipped = _SHIPPED[name]
    raw = csv.read_csv(
        Path(spec.origin).parent / "data" / shipped.path,
        convert_options=csv.ConvertOptions(
            column_types={
                "Date": pa.timestamp("us"),
                shipped.close: pa.float64(),
                "Volume": pa.float64(),
            },
            timestamp_parsers=["%m/%d/%Y"],
            null_values=[".", ""],
        ),
    )
    size = (
        pc.replace_with_mask(
            raw[shipped.volume].combine_chunks(),
            pc.equal(raw[shipped.volume], 0.0).combine_chunks(),
            pa.scalar(None, pa.float64()),
        )
        if shipped.volume
        else pa.nulls(raw.num_rows, pa.float64())
    )
    columns = [
        pc.assume_timezone(raw["Date"], "UTC"),
        pa.array([name] * raw.num_rows, pa.string()),
        raw[shipped.close],
        size,
    ]
    table = pa.table(columns, names=TICKS.names)
    return table.filter(pc.is_valid(table["price"])).cast(TICKS)


def check_rate(speed: float | None, batch_rows: int) -> None:
    """Raise ``ValueError`` for a speed-up or a batch size that cannot be."""
    if speed is not None and not (speed > 0 and math.isfinite(speed)):
        raise ValueError(f"speed must be above 0 (event seconds per second), not {speed}")
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")


class ReplayPartition(StatefulSourcePartition[pa.RecordBatch, Position]):
    """One pass over a table that is in order: the partition of every finite price source."""

    def __init__(
        self,
        table: pa.Table,
        resume: Position | None,
        *,
        speed: float | None,
        batch_rows: int,
        clock: Callable[[], datetime],
        name: str,
    ) -> None:
        """Start at the resumed row, and let the schedule start now with that row."""
        batches = table.combine_chunks().to_batches()
        self._rows = batches[0] if batches else pa.RecordBatch.from_pylist([], TICKS)
        self._times: npt.NDArray[np.int64] = (
            self._rows.column("time").cast(pa.int64()).to_numpy(zero_copy_only=False)
        )
        self._batch_rows = batch_rows
        self._speed = speed
        self._clock = clock
        self._next, self._checksum = 0, 0
        if resume is not None:
            self._skip_to(resume, name)
        self._wall_start = clock()
        self._event_start = int(self._times[self._next]) if self._remaining else 0

    @property
    def _remaining(self) -> int:
        return len(self._times) - self._next

    def _skip_to(self, resume: Position, name: str) -> None:
        row, checksum = resume
        if row > len(self._times):
            raise ValueError(f"{name}: has {len(self._times)} rows but was left at row {row}")
        if _checksum(self._rows.slice(0, row), 0) != checksum:
            raise ValueError(
                f"{name}: the first {row} rows are not the ones that were read before the restart"
            )
        self._next, self._checksum = row, checksum

    def next_batch(self) -> list[pa.RecordBatch]:
        """Return the rows that are due as at most one batch."""
        if not self._remaining:
            raise StopIteration
        end = self._end_of_timestamp(min(self._next + self._batch_rows, len(self._times)))
        if self._speed is not None:
            passed = (self._clock() - self._wall_start) / timedelta(microseconds=1)
            due = self._event_start + passed * self._speed
            end = min(end, int(np.searchsorted(self._times, due, side="right")))
        if end <= self._next:
            return []
        batch = self._rows.slice(self._next, end - self._next)
        self._next, self._checksum = end, _checksum(batch, self._checksum)
        return [batch]

    def _end_of_timestamp(self, end: int) -> int:
        """Move `end` back to where a timestamp begins, or on to where it ends if that is none."""
        if end == len(self._times) or self._times[end] != self._times[end - 1]:
            return end
        at = self._times[end]
        back = int(np.searchsorted(self._times, at, side="left"))
        return back if back > self._next else int(np.searchsorted(self._times, at, side="right"))

    def next_awake(self) -> datetime | None:
        """Return when the next row is due, or None if that is at once."""
        if self._speed is None or not self._remaining:
            return None
        wait = (int(self._times[self._next]) - self._event_start) / self._speed
        # Rounded up: a microsecond early would find nothing due.
        return self._wall_start + timedelta(microseconds=math.ceil(wait))

    def snapshot(self) -> Position:
        """Return the next row's index and the checksum of the rows before it."""
        return self._next, self._checksum


def _checksum(rows: pa.RecordBatch, before: int) -> int:
    """Continue a CRC-32 of times, series and prices over `rows`, however they are batched."""
    if not rows.num_rows:
        return before
    times = rows.column("time").cast(pa.int64()).to_numpy(zero_copy_only=False)
    columns = np.empty(rows.num_rows, dtype=[("time", "<i8"), ("name", "<i8"), ("price", "<f8")])
    encoded = pc.dictionary_encode(rows.column("series"))
    names = [zlib.crc32(name.encode()) for name in encoded.dictionary.to_pylist()]
    columns["time"] = times
    columns["name"] = np.array(names, dtype=np.int64)[encoded.indices.to_numpy()]
    columns["price"] = rows.column("price").to_numpy()
    return zlib.crc32(columns.tobytes(), before)


class ReplaySource(FixedPartitionedSource[pa.RecordBatch, Position]):
    """Replay a table of ticks, or shipped daily series by name, in order of time.

    An item is a ``RecordBatch`` of ``state.schemas.TICKS``. All rows of one timestamp are in the
    same batch, so a batch exceeds `batch_rows` only where a single timestamp does. There is one
    partition. The snapshot is the index of the next row, with a checksum of the rows before it.

    - *Late*: none, the table is sorted first (stably, by time and then series).
    - *Duplicate*: rows are replayed as given; `PriceFileSource` is the one that judges them.
    - *Empty*: a table without rows ends at once.
    - *Restart*: the row after the last snapshot comes first, at once; at a given speed the
      schedule counts on from that row, so the time spent stopped is neither waited for nor
      caught up. A table whose earlier rows changed meanwhile raises ``ValueError``.

    Args:
        prices: A table with the schema TICKS, or names for :func:`daily_prices`; by default all
            shipped daily series.
        speed: Event seconds per second: 1 is real time, 86,400 a day per second. None is as
            fast as the flow takes it. Rows that a busy flow delays are sent as soon as it is
            free: the schedule does not drift.
        batch_rows: Rows in a batch, about. Fewer at a speed, where a batch is what is due.
        clock: Returns the current time; tests pass their own.

    Attributes:
        total_rows: How many rows a whole pass emits.

    Raises:
        ValueError: a wrong schema, a null where TICKS has none, a price that is not finite and
            positive, an unknown series, or a speed or batch size that cannot be.

    >>> source = ReplaySource(["VIX"], batch_rows=1000)
    >>> source.total_rows
    1257
    >>> source.build_part("prices", "prices", None).next_batch()[0].num_rows
    1000
    """

    def __init__(
        self,
        prices: pa.Table | Iterable[str] | None = None,
        *,
        speed: float | None = None,
        batch_rows: int = 8192,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        check_rate(speed, batch_rows)
        if isinstance(prices, pa.Table):
            self._table = in_order(_checked(prices))
        else:
            self._table = daily_prices(prices)
        self._speed = speed
        self._batch_rows = batch_rows
        self._clock = clock
        self.total_rows: int = self._table.num_rows

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return ["prices"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Position | None
    ) -> ReplayPartition:
        """Start the replay, or go on from a snapshot."""
        return ReplayPartition(
            self._table,
            resume_state,
            speed=self._speed,
            batch_rows=self._batch_rows,
            clock=self._clock,
            name="replayed prices",
        )


def _checked(table: pa.Table) -> pa.Table:
    try:
        for name in ("time", "series", "price"):
            if table[name].null_count:
                raise ValueError(f"a null {name}")
        ticks = table.select(TICKS.names).cast(TICKS)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"the prices to replay are not TICKS: {error}") from None
    price = ticks["price"]
    good = pc.and_(pc.is_finite(price), pc.greater(price, 0.0))
    bad = pc.index(good, pa.scalar(False)).as_py()
    if bad >= 0:
        raise ValueError(f"row {bad}: the price {price[bad].as_py()} is not finite and positive")
    return ticks
