"""Recompute a finished run from its stored inputs, and prove that batch equals stream.

    python -m jobs.recompute market --once
    python -m jobs.recompute market --every "0 3 * * *"

A market run stores the ticks it took in (`ticks.parquet`) and its settings (`run.json`). The
recompute sends all of them through the same flow in one pass, into `recompute/` inside the run's
directory, and compares every result table with the streamed one. Rows must be the same rows;
numbers may differ by a relative 1e-9, since floating-point sums depend on how a stream was cut.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import run_main

from connectors.schedule import ticks
from jobs.market import recompute_flow
from jobs.market_run import RESULTS, RunRecord
from jobs.settings import root_cause

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Comparison:
    """One result table, streamed and recomputed."""

    table: str
    rows: int
    differences: tuple[str, ...]
    """What differs, one line each; empty when batch equals stream."""


def compare(streamed: Path, recomputed: Path) -> Comparison:
    """Compare two result files of one name, column by column.

    Raises:
        OSError: one of them cannot be read.
    """
    a, b = _columns(streamed), _columns(recomputed)
    rows = len(next(iter(a.values()), []))
    others = len(next(iter(b.values()), []))
    if list(a) != list(b) and rows and others:
        return Comparison(streamed.name, rows, (f"columns {list(b)} instead of {list(a)}",))
    if rows != others:
        return Comparison(streamed.name, rows, (f"{others} rows instead of {rows}",))
    lines = [
        f"row {at}, {name}: {b[name][at]!r} instead of {a[name][at]!r}"
        for name in a
        for at in _unequal(a[name], b[name])
    ]
    return Comparison(streamed.name, rows, tuple(lines))


def _columns(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".parquet":
        table: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return table
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _unequal(a: list[Any], b: list[Any]) -> list[int]:
    if not any(isinstance(x, float) for x in a):
        return [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    x, y = (np.array([np.nan if v is None else v for v in side], float) for side in (a, b))
    close = np.isclose(x, y, rtol=TOLERANCE, atol=1e-300, equal_nan=True)
    return np.flatnonzero(~close).tolist()


def newest_run(runs: Path) -> Path:
    """Return the newest finished run below a directory.

    Raises:
        FileNotFoundError: there is none.
    """
    finished = [path.parent for path in runs.glob("*/run.json")]
    if not finished:
        raise FileNotFoundError(
            f"no finished run in {runs}: run the job first, or name one with --of"
        )
    return max(finished, key=lambda path: (path / "run.json").stat().st_mtime)


def recompute(directory: Path) -> list[Comparison]:
    """Run a market run's flow again over its stored ticks, in one pass, and compare.

    Raises:
        FileNotFoundError: the run did not finish, or lost its stored ticks.
    """
    record = RunRecord.read(directory)
    again = directory / "recompute"
    run_main(recompute_flow(record, directory / "ticks.parquet", again))
    return [compare(directory / name, again / name) for name in RESULTS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 when batch equals stream, 1 when not, 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="python -m jobs.recompute", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("job", choices=["market"])
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument("--once", action="store_true", help="recompute now and exit")
    when.add_argument("--every", metavar="CRON", help='recompute at these times: "0 3 * * *"')
    parser.add_argument("--timezone", default="UTC", help="of --every (default UTC)")
    parser.add_argument("--of", type=Path, help="the run's directory (default: the newest)")
    parser.add_argument("--runs", type=Path, default=Path("runs/market"), help="where runs are")
    given = parser.parse_args(arguments)
    if given.once:
        return _once(given.of, given.runs)
    try:
        while True:
            # From now, not from the last time: one that passed meanwhile is not made up for.
            moment = next(ticks(given.every, timezone=given.timezone, start=datetime.now(UTC)))
            print(f"recompute: next at {moment.isoformat()}", flush=True)
            time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
            _once(given.of, given.runs)
    except (StopIteration, ValueError) as error:
        parser.error(str(error) or f"{given.every}: no such time will come")
    except KeyboardInterrupt:
        print("recompute: stopped", file=sys.stderr)
    return 0


def _once(directory: Path | None, runs: Path) -> int:
    try:
        chosen = directory or newest_run(runs)
        comparisons = recompute(chosen)
    except (OSError, ValueError) as error:
        print(f"recompute: {error}", file=sys.stderr)
        return 2
    except BytewaxRuntimeError as error:
        cause = root_cause(error)
        print(f"recompute: {type(cause).__name__}: {cause}", file=sys.stderr)
        return 2
    for comparison in comparisons:
        verdict = (
            f"{len(comparison.differences)} differences" if comparison.differences else "equal"
        )
        print(f"{chosen / comparison.table}: {comparison.rows:,} rows, {verdict}")
        for line in comparison.differences[:5]:
            print(f"  {line}")
    late = next(c for c in comparisons if c.table == "late.ndjson")
    if late.differences:
        print(f"{late.rows:,} ticks came too late for the stream; the batch takes them in order")
    same = not any(comparison.differences for comparison in comparisons)
    print("batch equals stream" if same else "batch DIFFERS from stream")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
