"""Render one market run as one HTML page; see `jobs.page` for what such pages are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from jobs.page import write_page

_POINTS = 24_000
"""Points of all price lines together; the shipped daily series fit in whole."""
_CELLS = 40_000
_PAIRS = 40
_ALERTS = 2_000
_HYPOTHESES = 500
_SLICES = 80
"""The run is cut in so many slices to find those with unusually many alerts."""

_DETECTORS = "detectors"


@dataclass(frozen=True, slots=True)
class _Run:
    """The result files of one run, times in milliseconds since 1970."""

    returns: pl.DataFrame
    alerts: list[dict[str, Any]]
    edges: pl.DataFrame
    hypotheses: list[dict[str, Any]]
    settings: dict[str, Any]

    @property
    def names(self) -> list[str]:
        names = [*self.returns["series"], *self.edges["cause"], *self.edges["effect"]]
        return sorted({*names, *(a["series"] for a in self.alerts)})


def render(directory: Path) -> Path:
    """Write `report.html` beside the result files of a market run; return its path.

    Reads `returns.parquet`, `alerts.ndjson`, `edges.parquet`, `hypotheses.ndjson` and, if there,
    `run.json`. Empty files give a page that says so. An earlier report is replaced at one stroke.
    Long series are thinned to the extremes of equal stretches of time, and the number of links
    and alerts drawn is bounded; the page says what it leaves out.

    Raises:
        FileNotFoundError: a result file is missing.
        ValueError: a line of an NDJSON file, or `run.json`, cannot be read.
    """
    run = _read(directory)
    ranked = sorted(run.hypotheses, key=lambda h: (-h["confidence"], h["q"], h["text"]))
    data = _payload(run)
    return write_page(
        directory,
        "market_report.html",
        data=data,
        names=run.names,
        period=_period(run),
        counts={
            "prices": run.returns.height,
            "alerts": len(run.alerts),
            "windows": len(data["windows"]),
            "tests": run.edges.height,
            "links": int(run.edges["significant"].sum()),
            "hypotheses": len(ranked),
        },
        alerts=sorted(run.alerts[:_ALERTS], key=lambda a: (a["time"], a["series"])),
        hypotheses=ranked[:_HYPOTHESES],
        pairs_shown=len(data["pairs"]),
        pairs_all=run.edges.select("cause", "effect").n_unique(),
        notes=sorted(run.edges["note"].drop_nulls().unique()),
        settings=run.settings,
        level=data["level"],
        day=_formatter(data["day"]),
        join=_join,
    )


def thin(
    times: npt.NDArray[np.int64], columns: Sequence[npt.NDArray[np.float64]], limit: int
) -> npt.NDArray[np.intp]:
    """Return the sorted indices of at most about `limit` rows that keep every column's extremes.

    Time is cut in equal stretches; each keeps its first and last row and, of every column, the
    rows of the least and the greatest value. At most `limit` rows are all kept.

    Args:
        times: ascending, shape (n,).
        columns: finite values, each of shape (n,).
        limit: at least 2 + 2 * len(columns).

    >>> spike = np.zeros(1000)
    >>> spike[500] = 9.0
    >>> kept = thin(np.arange(1000), [spike], 40)
    >>> len(kept) <= 40, 500 in kept
    (True, True)
    """
    if len(times) <= limit:
        return np.arange(len(times))
    stretches = max(1, limit // (2 + 2 * len(columns)))
    borders = np.linspace(times[0], times[-1], stretches + 1)[1:-1]
    parts = np.split(np.arange(len(times)), np.searchsorted(times, borders))
    keep: list[int] = []
    for part in parts:
        if len(part):
            ends = [int(part[0]), int(part[-1])]
            low = [int(part[np.argmin(column[part])]) for column in columns]
            high = [int(part[np.argmax(column[part])]) for column in columns]
            keep += ends + low + high
    return np.unique(np.array(keep, dtype=np.intp))


def _read(directory: Path) -> _Run:
    record: dict[str, Any] = {}
    if (directory / "run.json").exists():
        try:
            record = json.loads((directory / "run.json").read_bytes())
        except ValueError as error:
            raise ValueError(f"{directory / 'run.json'}: {error}") from None
    alerts = list(_lines(directory / "alerts.ndjson", ("time",)))
    # The deepest first: these are the ones to keep where there are too many to draw.
    alerts.sort(key=lambda a: (a["drawdown"], a["time"], a["series"]))
    return _Run(
        returns=_table(directory / "returns.parquet", ["time"]).sort("series", "time"),
        alerts=alerts,
        edges=_table(directory / "edges.parquet", ["start", "end"]),
        hypotheses=list(_lines(directory / "hypotheses.ndjson", ("start", "end"))),
        settings=record.get("settings") or {},
    )


def _table(path: Path, times: list[str]) -> pl.DataFrame:
    return pl.read_parquet(path).with_columns(pl.col(times).dt.epoch("ms"))


def _lines(path: Path, times: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                for name in times:
                    row[name] = round(datetime.fromisoformat(row[name]).timestamp() * 1000)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error!r}") from None
            yield row


def _payload(run: _Run) -> dict[str, Any]:
    names = run.names
    at = {name: i for i, name in enumerate(names)}
    times = run.returns["time"].to_numpy()
    shown = run.alerts[:_ALERTS]
    detectors = sorted({d for a in shown for d in a[_DETECTORS]})
    return {
        "day": bool(len(times)) and not (times % 86_400_000).any(),
        "level": float(run.settings.get("level", 0.05)),
        "names": names,
        "series": [_line(run.returns, name, max(300, _POINTS // len(names))) for name in names],
        "detectors": detectors,
        "alerts": [
            [
                a["time"],
                at[a["series"]],
                a["price"],
                _short(a["log_return"]),
                _short(a["drawdown"]),
                _short(a["score"]),
                [detectors.index(d) for d in a[_DETECTORS]],
            ]
            for a in shown
        ],
        "periods": _crashes([a["time"] for a in run.alerts], times),
        **_links(run.edges, at),
    }


def _line(returns: pl.DataFrame, name: str, limit: int) -> dict[str, Any]:
    """Return one series as time steps, prices indexed to 100 at its start, and drawdowns."""
    rows = returns.filter(pl.col("series") == name)
    times = rows["time"].to_numpy()
    price, drawdown = rows["price"].to_numpy(), rows["drawdown"].to_numpy()
    kept = thin(times, [price, drawdown], limit)
    steps = np.diff(times[kept], prepend=0)
    unit = int(np.gcd.reduce(steps[1:])) if len(kept) > 1 else 1
    first = float(price[0]) if len(price) else 1.0
    return {
        "start": int(times[0]) if len(times) else 0,
        "unit": unit,
        "steps": [0, *(steps[1:] // unit).tolist()] if len(kept) else [],
        "first": first,
        "index": [_short(100 * p / first, 6) for p in price[kept].tolist()],
        "drawdown": [_short(d) for d in drawdown[kept].tolist()],
    }


def _links(edges: pl.DataFrame, at: dict[str, int]) -> dict[str, Any]:
    """Return windows, pairs (most often linked first) and what was found in them."""
    windows = edges.select("window", "start", "end", "rows").unique("window").sort("window")
    pairs = (
        edges.group_by("cause", "effect")
        .agg(pl.col("significant").sum(), pl.col("q").min())
        .sort("significant", "q", "cause", "effect", descending=[True, False, False, False])
        .head(_PAIRS)
        .select("cause", "effect")
        .with_row_index("pair")
    )
    cells = (
        edges.join(pairs, on=["cause", "effect"])
        .filter(pl.col("q").is_finite())
        .join(windows.select("window").with_row_index("at"), on="window")
        .sort("q", "at", "pair", "method")
    )
    # All significant lags; where there are none, the lag that came nearest.
    best = cells.unique(["at", "pair", "method"], keep="first", maintain_order=True)
    cells = pl.concat(
        [cells.filter("significant"), best.filter(~pl.col("significant"))], how="vertical"
    ).head(_CELLS)
    return {
        "windows": windows.select("start", "end", "rows").rows(),
        "pairs": [(at[c], at[e]) for _, c, e in pairs.rows()],
        "cells": [
            [
                row["at"],
                row["pair"],
                int(row["method"] == "pcmci"),
                row["lag"],
                _short(row["weight"]),
                _short(row["q"], 3),
                int(row["significant"]),
            ]
            for row in cells.iter_rows(named=True)
        ],
    }


def _crashes(alerts: list[int], times: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the stretches of the run with unusually many alerts."""
    if not alerts or not len(times) or times.min() == times.max():
        return []
    counts, borders = np.histogram(alerts, bins=_SLICES, range=(times.min(), times.max()))
    many = counts >= max(3.0, float(counts.mean() + counts.std()))
    starts = np.flatnonzero(many & ~np.concatenate(([False], many[:-1])))
    ends = np.flatnonzero(many & ~np.concatenate((many[1:], [False]))) + 1
    return [(int(borders[a]), int(borders[b])) for a, b in zip(starts, ends, strict=True)]


def _short(value: float | None, digits: int = 4) -> float | None:
    """Round to significant digits; what is not finite is not known."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _period(run: _Run) -> tuple[int, int] | None:
    if not run.returns.height:
        return None
    times = run.returns["time"].to_numpy()
    return int(times.min()), int(times.max())


def _formatter(daily: bool) -> Any:
    pattern = "%Y-%m-%d" if daily else "%Y-%m-%d %H:%M:%S"
    return lambda ms: datetime.fromtimestamp(ms / 1000, UTC).strftime(pattern)


def _join(names: Sequence[str], most: int = 6) -> str:
    """Return names as a person lists them."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
