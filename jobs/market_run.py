"""What a market run leaves in its directory, and how it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow.parquet as pq

from connectors.files import TableSpec
from jobs.market_settings import MarketSettings
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


class RunRecord(msgspec.Struct, frozen=True):
    """The settings of a finished run and what it counted: `run.json`."""

    settings: dict[str, Any]
    finished: datetime
    rejected: int
    rows: dict[str, int] = {}

    @classmethod
    def of(cls, settings: MarketSettings, rejected: int) -> Self:
        """Return the record of a run that has just ended."""
        return cls(settings.model_dump(mode="json"), datetime.now(UTC), rejected)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the record of a finished run.

        Raises:
            FileNotFoundError: the run did not finish.
            ValueError: the record is damaged.
        """
        try:
            return msgspec.json.decode((directory / "run.json").read_bytes(), type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"{directory / 'run.json'}: {error}") from error


def finish(directory: Path, record: RunRecord) -> None:
    """Write the record and the report, and say what was found."""
    from jobs.market_report import render

    rows = {name: _count(directory / name) for name in TABLES}
    record = msgspec.structs.replace(record, rows=rows)
    text = json.dumps(msgspec.to_builtins(record), indent=2) + "\n"
    (directory / "run.json").write_text(text, encoding="utf-8")
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
