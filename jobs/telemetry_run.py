"""What a telemetry run leaves in its directory, how its answers read, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from connectors.files import TableSpec
from connectors.files.atomic import replacing
from flows.telemetry_state import ANSWERS
from jobs.record import Record
from state.schemas import EVENTS

TABLES = {
    "answers.ndjson": TableSpec(ANSWERS, newest=True),
    "sample.ndjson": TableSpec(EVENTS, newest=True),
}
"""The tables of a run. What is told last is about all events, those before a restart too."""

Row = Mapping[str, Any]
"""A row of ANSWERS."""


class RunRecord(Record, frozen=True):
    """The record of a telemetry run."""

    job: str = "telemetry"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an NDJSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming a line that cannot be read.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            rows.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return rows


def write_answer(directory: Path, rows: Iterable[Row], *, complete: bool) -> None:
    """Replace `answer.json`, which always holds the newest answers, by these."""
    text = json.dumps(as_document(rows, complete=complete), indent=2, default=str) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "answer.json") as file:
        file.write(text.encode())


def as_document(rows: Iterable[Row], *, complete: bool) -> dict[str, Any]:
    """Return answers as one nested document: those about all events, then window by window."""
    windows: dict[Any, dict[str, Any]] = {}
    for row in rows:
        start = row["window_start"]
        if start not in windows:
            ends = {} if start is None else {"start": start, "end": row["window_end"]}
            windows[start] = ends
        told = {k: row[k] for k in ("estimate", "lower", "upper", "confidence", "exact")}
        if told["exact"] is None:
            del told["exact"]
        if row["question"] == "latency quantile":
            windows[start].setdefault("latency_quantiles", {})[row["key"]] = told
        elif row["question"] == "endpoint":
            windows[start].setdefault("endpoints", {})[row["key"]] = told
        else:
            windows[start][row["question"].replace(" ", "_")] = told
    total = windows.pop(None, {})
    return {"complete": complete, **total, "windows": list(windows.values())}


def words(source: str) -> dict[str, str]:
    """Return what users, endpoints and latencies are in events of a source."""
    if source == "host":
        return {"users": "distinct processes", "endpoints": "commands", "latency": "CPU wait"}
    return {"users": "distinct users", "endpoints": "endpoints", "latency": "latency"}


def about(settings: Mapping[str, Any]) -> str:
    """Say what the events of a run are."""
    source = settings["source"]
    if source == "generated":
        return f"a generated workload of {settings['agents']:,} agents, no real data"
    if source == "host":
        return "the processes of this machine, as sampled"
    if source == "children":
        return f"what {', '.join(settings['children'])} told"
    return ", ".join(settings["path"]) if source == "file" else f"events of {source}"


def in_words(rows: Iterable[Row], names: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return each answer about all events as (question, answer, bounds and truth)."""
    total = [row for row in rows if row["window_start"] is None]
    error = next((r["upper"] for r in total if r["question"] == "latency rank error"), 0.0)
    told = []
    for row in total:
        question, key, x = row["question"], row["key"], row["estimate"]
        if question == "latency quantile" and float(key) in (0.5, 0.9, 0.99, 0.999):
            rank = f"rank error {100 * error:.2g} %, {_confidence(row)}: "
            told.append(
                (
                    f"p{100 * float(key):g} {names['latency']}",
                    f"{milliseconds(x)} ms",
                    rank + _bounds(row, milliseconds),
                )
            )
        elif question == "distinct users":
            told.append((names["users"], f"{x:,.0f}", f"{_confidence(row)}: {_bounds(row)}"))
        elif question == "events":
            told.append((question, f"{x:,.0f}", _exactly(row)))
        elif question == "latency mean":
            told.append((f"mean {names['latency']}", f"{milliseconds(x, 6)} ms", _exactly(row, 6)))
        elif question == "endpoint":
            told.append((f"  {key}", f"{x:,.0f}", f"certain: {_bounds(row)}"))
    return told


def _confidence(row: Row) -> str:
    return f"{100 * row['confidence']:g} %"


def _whole(x: float) -> str:
    return f"{x:,.0f}"


def milliseconds(x: float, digits: int = 4) -> str:
    """Write a number with some significant digits, and without an exponent where it is large."""
    return f"{x:,.0f}" if abs(x) >= 10**digits else f"{x:,.{digits}g}"


def _bounds(row: Row, form: Callable[[float], str] = _whole) -> str:
    text = f"{form(row['lower'])}..{form(row['upper'])}"
    return text if row["exact"] is None else f"{text}; exact {form(row['exact'])}"


def _exactly(row: Row, digits: int = 12) -> str:
    return (
        "exact" if row["exact"] is None else f"exact; {milliseconds(row['exact'], digits)} counted"
    )


def finish(directory: Path, record: RunRecord) -> None:
    """Write the record, the answer and the report, and say what was found."""
    from jobs.telemetry_report import render

    rows = read_rows(directory / "answers.ndjson")
    record.write(directory)
    write_answer(directory, rows, complete=True)
    report = render(directory)
    for line in spoken(rows, record.settings):
        print(line)
    if record.rejected:
        print(f"telemetry: {record.rejected:,} bad rows are in {directory / 'dead_letters.ndjson'}")
    print(f"telemetry: see {report}")


def spoken(rows: Iterable[Row], settings: Mapping[str, Any]) -> list[str]:
    """Return the answers as lines for a terminal."""
    names = words(settings["source"])
    lines = [f"telemetry: {about(settings)}"]
    told = in_words(rows, names)
    if not told:
        return [*lines, "telemetry: no events came through"]
    first = True
    width = max(24, *(len(question) for question, _, _ in told))
    for question, answer, rest in told:
        if question.startswith("  ") and first:
            lines.append(f"  busiest {names['endpoints']}")
            first = False
        lines.append(f"  {question:<{width}} {answer:>14}  ({rest})")
    return lines
