"""Turn the columns of an event file, text or typed, into events and rejected rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from connectors.market.columns import TIME_NAMES, parse_numbers, parse_times
from state.schemas import EVENTS

AGENT_NAMES = ("agent", "agent_id", "host", "instance")
USER_NAMES = ("user", "user_id", "uid")
ENDPOINT_NAMES = ("endpoint", "path", "url", "route")
LATENCY_NAMES = ("latency_ms", "duration_ms")


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column is what. Without `agent` the whole file is the one agent of that `name`."""

    time: str
    agent: str | None
    user: str
    endpoint: str
    latency: str
    name: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        named = (self.time, self.agent, self.user, self.endpoint, self.latency)
        return [name for name in named if name is not None]


def find_roles(header: Sequence[str], name: str) -> Roles:
    """Tell the columns of a file by their names.

    Raises:
        ValueError: saying which column the header lacks.

    >>> find_roles(["ts", "user_id", "url", "duration_ms"], "web-1").endpoint
    'url'
    """
    known = {column.strip().lower(): column for column in reversed(header)}

    def first(names: Sequence[str]) -> str | None:
        return next((known[n] for n in names if n in known), None)

    def needed(role: str, names: Sequence[str]) -> str:
        found = first(names)
        if found is None:
            raise ValueError(f"no column of {role} (one of {', '.join(names)}) in {list(header)}")
        return found

    return Roles(
        needed("times", TIME_NAMES[:5]),
        first(AGENT_NAMES),
        needed("users", USER_NAMES),
        needed("endpoints", ENDPOINT_NAMES),
        needed("latencies", LATENCY_NAMES),
        name,
    )


@dataclass(frozen=True, slots=True)
class Parsed:
    """Good rows with the columns of EVENTS, and (line, reason) of each rejected one."""

    events: pl.DataFrame
    rejects: list[tuple[int, str]]


def parse(columns: Mapping[str, pl.Series], lines: pl.Series, roles: Roles) -> Parsed:
    """Parse the rows of one piece of a file; `lines` are their numbers in it."""
    time, latency = parse_times(columns[roles.time]), parse_numbers(columns[roles.latency])
    agent = pl.repeat(roles.name, len(lines), dtype=pl.String, eager=True)
    names = {
        "agent": agent if roles.agent is None else _named(columns[roles.agent]),
        "user": _named(columns[roles.user]),
        "endpoint": _named(columns[roles.endpoint]),
    }
    faults = {
        "time": time.is_null(),
        **{f"no {role}": (column == "").fill_null(True) for role, column in names.items()},
        "latency": ~(latency.is_finite() & (latency >= 0)).fill_null(False),
    }
    frame = pl.DataFrame({"time": time, **names, "latency_ms": latency})
    bad = pl.select(pl.any_horizontal(*faults.values())).to_series()
    rejects: list[tuple[int, str]] = []
    if bad.any():
        raw = {"time": columns[roles.time], "latency": columns[roles.latency]}
        for at in bad.arg_true().to_list():
            fault = next(name for name, mask in faults.items() if mask[at])
            rejects.append((lines[at], _reason(fault, raw[fault][at]) if fault in raw else fault))
        frame = frame.filter(~bad)
    return Parsed(frame.select(EVENTS.names), rejects)


def _named(column: pl.Series) -> pl.Series:
    return column.cast(pl.String).str.strip_chars()


def _reason(what: str, raw: object) -> str:
    if raw is None or not str(raw).strip():
        return f"no {what}"
    wanted = "a time" if what == "time" else "a finite number of 0 or more"
    return f"{what} {str(raw)!r} is not {wanted}"
