"""Settings of `jobs.telemetry`, in a module that imports fast."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from jobs.settings import Duration, JobSettings, Names

Role = Literal["local", "leaf", "region", "root"]


class Slice(NamedTuple):
    """One of `of` equal shares of the agents, counted from 0."""

    share: int
    of: int

    def __str__(self) -> str:
        return f"{self.share + 1}/{self.of}"


def _slice(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", value)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("write i/n, such as 3/9, with i from 1 to n")
    return Slice(int(match[1]) - 1, int(match[2]))


def _address(value: object) -> object:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) < 65536:
            raise ValueError("write host:port, such as 127.0.0.1:4433")
    return value


Address = Annotated[str, BeforeValidator(_address)]

_LINKED = ("name", "listen", "parent", "parent_name", "children", "keys", "spool")
_NEEDS: dict[Role, tuple[str, ...]] = {
    "local": (),
    "leaf": ("name", "parent", "parent_name", "keys", "spool"),
    "region": _LINKED,
    "root": ("name", "listen", "children", "keys"),
}
"""What a role cannot do without; it may have nothing else of `_LINKED`."""


class TelemetrySettings(JobSettings):
    """Answer questions about a million agents in a tree, each answer with its error."""

    job: ClassVar[str] = "telemetry"
    reads: ClassVar[str] = "a generated workload; CSV, Parquet or NDJSON events; /proc"
    writes: ClassVar[str] = "answer.json, answers.ndjson, sample.ndjson, report.html, ..."

    source: str = Field(
        "generated",
        description="generated (a generated workload, no real data), file, host (this machine's "
        "processes), children (a region's or a root's, unless said), an entry point of the group "
        "braidflow.connectors, or an import path such as mypkg.feeds:MyFeed",
    )
    path: Names = Field([], description="event files for the source `file`")
    agents: PositiveInt = Field(1_000_000, description="agents, and so events, to generate")
    seed: int = Field(0, ge=0, description="of the generated workload and of the sample")
    period: Duration = Field(
        timedelta(hours=1), gt=timedelta(0), description="event time that generated events cover"
    )
    rate: float | None = Field(
        None, gt=0, description="generated events a second of each host; unset: full speed"
    )
    limit: PositiveInt | None = Field(
        None, description="end the source `host` after so many samples; unset: at Ctrl-C"
    )
    every: Duration = Field(
        timedelta(seconds=1),
        gt=timedelta(0),
        description="time between samples of the source `host`, and between interim answers",
    )
    hosts: PositiveInt = Field(64, description="hosts that the agents live on: the tree's leaves")
    fan_in: int = Field(8, ge=2, description="states that are merged at one inner node")
    window: Duration | None = Field(
        None, gt=timedelta(0), description="length of event-time windows that are answered too"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    top: PositiveInt = Field(10, description="how many of the busiest endpoints to name")
    exact: bool | None = Field(
        None,
        description="show exact answers beside; unset: where one process can read all the input "
        "again (generated and file, role local)",
    )
    out: Path | None = Field(
        None,
        description="directory for results (of a leaf: for rows it could not use); unset: "
        "runs/telemetry/<time> (needed with -r)",
    )
    role: Role = Field("local", description="local (the whole tree), leaf, region or root")
    name: str | None = Field(None, description="this node's name, as in its certificate")
    listen: Address | None = Field(None, description="host:port for children (region, root)")
    parent: Address | None = Field(None, description="host:port of the parent (leaf, region)")
    parent_name: str | None = Field(None, description="name in the parent's certificate")
    children: Names = Field([], description="names of the nodes below (region, root)")
    keys: Path | None = Field(
        None, description="directory of certificates, made by `python -m jobs keys`"
    )
    spool: Path | None = Field(
        None, description="directory for what the parent has not acknowledged (leaf, region)"
    )
    slice: Annotated[Slice | None, BeforeValidator(_slice)] = Field(
        None, description="i/n: the share of the agents that this leaf reports; unset: all it reads"
    )

    idle: Duration = Field(
        timedelta(seconds=10),
        gt=timedelta(0),
        description="a link that hears nothing for so long is made anew",
    )
    recovery: Path | None = Field(
        None, description="directory of snapshots, for `python -m jobs.telemetry`"
    )
    epoch: Duration = Field(
        timedelta(seconds=1),
        gt=timedelta(0),
        description="time between snapshots, for `python -m jobs.telemetry`",
    )

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, values: dict[str, object]) -> dict[str, object]:
        """Let a path mean the source `file`, and children that events come from them."""
        if "source" in values:
            return values
        if values.get("path"):
            return {**values, "source": "file"}
        return {**values, "source": "children"} if values.get("children") else values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        needed = _NEEDS[self.role]
        for field in _LINKED:
            given = getattr(self, field) not in (None, [])
            name = f"TELEMETRY_{field.upper()}"
            if given and field not in needed:
                raise ValueError(f"{name} is not for TELEMETRY_ROLE={self.role}")
            if not given and field in needed:
                raise ValueError(f"TELEMETRY_ROLE={self.role} needs {name}")
        if self.recovery and not self.out and self.role in ("local", "root"):
            raise ValueError("TELEMETRY_RECOVERY needs TELEMETRY_OUT, to find the files it began")
        if self.slice is not None and self.role != "leaf":
            raise ValueError(f"TELEMETRY_SLICE is for a leaf, not TELEMETRY_ROLE={self.role}")
        if len(set(self.children)) != len(self.children):
            raise ValueError("TELEMETRY_CHILDREN has a name twice")
        if self.source == "file" and not self.path and self.role in ("local", "leaf"):
            raise ValueError("TELEMETRY_SOURCE=file needs TELEMETRY_PATH")
        if self.source == "children" and self.role in ("local", "leaf"):
            raise ValueError(f"TELEMETRY_SOURCE=children is not for TELEMETRY_ROLE={self.role}")
        if self.path and self.source != "file":
            raise ValueError(f"TELEMETRY_PATH is for TELEMETRY_SOURCE=file, not {self.source}")
        if self.source in ("file", "host"):
            generated = ("agents", "period", "rate")
            self._refuse(generated, f"TELEMETRY_SOURCE=generated, not {self.source}")
        if self.source in ("generated", "file"):
            self._refuse(("limit",), f"TELEMETRY_SOURCE=host, not {self.source}")
        if self.exact and self.source not in ("generated", "file"):
            raise ValueError(f"TELEMETRY_EXACT: {self.source} cannot be read again")
        if self.exact and self.role in ("leaf", "region"):
            raise ValueError(f"TELEMETRY_EXACT: a {self.role} gives no answers")
        return self

    @property
    def knows_the_truth(self) -> bool:
        """Whether exact answers are shown."""
        if self.exact is None:
            return self.role == "local" and self.source in ("generated", "file")
        return self.exact
