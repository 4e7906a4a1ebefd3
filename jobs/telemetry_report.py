"""Render one telemetry run as one HTML page; see `jobs.page` for what such pages are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.page import write_page
from jobs.telemetry_run import RunRecord, about, in_words, milliseconds, read_rows, words

_SAMPLE = 100
_WINDOWS = 2_000


def render(directory: Path) -> Path:
    """Write `report.html` beside the result files of a telemetry run; return its path.

    Reads `answers.ndjson`, `sample.ndjson` and, if there, `run.json`. Without answers the page says
    so. Of more than 2,000 windows the last ones are drawn.

    Raises:
        FileNotFoundError: a result file is missing.
        ValueError: a line of an NDJSON file, or `run.json`, cannot be read.
    """
    rows = read_rows(directory / "answers.ndjson")
    sample = read_rows(directory / "sample.ndjson")
    settings: Mapping[str, Any] = {}
    if (directory / "run.json").exists():
        settings = RunRecord.read(directory).settings
    total = [row for row in rows if row["window_start"] is None]
    names = words(settings.get("source", "events"))
    single = {row["question"]: row for row in total if row["key"] is None}
    quantiles = {row["key"]: row for row in total if row["question"] == "latency quantile"}
    endpoints = [row for row in total if row["question"] == "endpoint"]
    return write_page(
        directory,
        "telemetry_report.html",
        data={
            "quantiles": [_curve(row) for row in quantiles.values()],
            "endpoints": [[row["key"], *_interval(row)] for row in endpoints],
            "windows": _windows(rows),
            "names": names,
        },
        about=about(settings) if settings else "events",
        generated=settings.get("source") == "generated",
        names=names,
        ms=milliseconds,
        shape=_shape(settings),
        single=single,
        p50=quantiles.get("0.5"),
        p99=quantiles.get("0.99"),
        rank_error=single["latency rank error"]["upper"] if single.get("latency rank error") else 0,
        told=in_words([row for row in total if row["question"] != "endpoint"], names),
        endpoints=endpoints,
        windows=[row for row in rows if row["window_start"] and row["question"] in _WINDOWED],
        sample=sample[:_SAMPLE],
        sampled=len(sample),
        settings=settings,
    )


_WINDOWED = ("events", "distinct users", "latency mean")


def _interval(row: Mapping[str, Any]) -> list[float | None]:
    return [row["estimate"], row["lower"], row["upper"], row["exact"]]


def _curve(row: Mapping[str, Any]) -> list[float | None]:
    return [float(row["key"]), *_interval(row)]


def _windows(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return [start in ms, events, users' interval, p99's interval] of each window."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["window_start"] is not None:
            at = found.setdefault(row["window_start"], {})
            at[row["question"] + (row["key"] or "")] = row
    return [
        [
            round(datetime.fromisoformat(start).timestamp() * 1000),
            at["events"]["estimate"],
            _interval(at["distinct users"]),
            _interval(at["latency quantile0.99"]),
        ]
        for start, at in sorted(found.items())
    ][-_WINDOWS:]


def _shape(settings: Mapping[str, Any]) -> str:
    """Say how wide the levels of the tree were."""
    if settings.get("role") == "root":
        count = len(settings["children"])
        return f"{count} {'child' if count == 1 else 'children'} of the root, each a process"
    if not settings:
        return ""
    widths = [settings["hosts"]]
    while widths[-1] > 1:
        widths.append(-(-widths[-1] // settings["fan_in"]))
    return " → ".join(map(str, widths))
