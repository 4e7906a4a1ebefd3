"""What a market run leaves in its directory, and how it ends."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from connectors.files import TableSpec
from jobs.record import Record
from state.schemas import ALERTS, EDGES, HYPOTHESES, SCORED, TICKS

TABLES = {
    "ticks.parquet": TableSpec(TICKS),
    "returns.parquet": TableSpec(SCORED),
    "alerts.ndjson": TableSpec(ALERTS),
    "edges.parquet": TableSpec(EDGES),
    "hypotheses.ndjson": TableSpec(HYPOTHESES),
    "late.ndjson": TableSpec(TICKS),
}
"""Rows keep the order in which the flow makes them, which is the same on any number of workers."""

RESULTS = tuple(name for name in TABLES if name != "ticks.parquet")
"""The tables that a recompute must reproduce."""


class RunRecord(Record, frozen=True):
    """The record of a market run."""

    rows: dict[str, int] = msgspec.field(default_factory=dict)
    """Of each table."""


def finish(directory: Path, record: RunRecord) -> None:
    """Write the record and the report, and say what was found."""
    from jobs.market_report import render

    rows = {name: _count(directory / name) for name in TABLES}
    record = msgspec.structs.replace(record, rows=rows)
    record.write(directory)
    report = render(directory)
    print(
        f"market: {rows['ticks.parquet']:,} ticks -> {rows['alerts.ndjson']} crash alerts, "
        f"{rows['hypotheses.ndjson']} causal hypotheses"
    )
    if not rows["edges.parquet"]:
        print("market: no links were tested: fewer than two series, or too few rows in a window")
    if record.rejected:
        print(f"market: {record.rejected:,} bad rows are in {directory / 'dead_letters.ndjson'}")
    if rows["late.ndjson"]:
        print(f"market: {rows['late.ndjson']:,} ticks came too late: {directory / 'late.ndjson'}")
    print(f"market: see {report}")


def _count(path: Path) -> int:
    if path.suffix == ".parquet":
        count: int = pq.read_metadata(path).num_rows
        return count
    with path.open("rb") as lines:
        return sum(1 for _ in lines)
