"""The settings of `jobs.gossip`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from jobs.peer_settings import Transport, check_bootstrap, check_name
from jobs.settings import Duration, JobSettings, Names


class GossipSettings(JobSettings):
    """A local group by default; with a name and an address, one real peer among others."""

    job: ClassVar[str] = "gossip"
    reads: ClassVar[str] = "generated edits; operations as NDJSON from a file or standard input"
    writes: ClassVar[str] = "changes.ndjson, document.json, run.json"

    peers: PositiveInt = Field(8, description="peers of the local group")
    edits: PositiveInt = Field(400, description="edits of the local group, each at a random peer")
    rate: float = Field(200, gt=0, description="edits of the local group in a second")
    seed: int = Field(0, ge=0, description="of the local group's edits")
    patience: Duration = Field(
        timedelta(minutes=1),
        gt=timedelta(0),
        description="how long the local group may take to agree after its last edit",
    )
    transport: Transport = Field(
        "quic",
        description="quic (mutual TLS), or udp (nothing is checked: for one machine or one "
        "trusted network)",
    )
    name: str | None = Field(None, description="this peer's name, as in its certificate")
    listen: str | None = Field(None, description="host:port to listen on")
    advertise: str | None = Field(
        None, description="host:port where others reach this peer, if that is another one"
    )
    bootstrap: Names = Field(
        [], description="members of the group as name@host:port; none for the first peer"
    )
    keys: Path | None = Field(
        None, description="directory of certificates, made by `python -m jobs keys`"
    )
    path: Path | None = Field(
        None, description="file of operations, a line of JSON for each; unset: standard input"
    )
    stay: Duration | None = Field(
        None,
        ge=timedelta(0),
        description="leave so long after the operations have ended; unset: stay until stopped",
    )
    out: Path | None = Field(
        None, description="directory for results; unset: runs/gossip/<time> (needed with -r)"
    )
    round: Duration = Field(
        timedelta(milliseconds=200),
        gt=timedelta(0),
        description="between two rounds of gossip; the same for all peers of a group",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        real = self.name is not None
        for field in ("listen", "advertise", "bootstrap", "keys", "path", "stay"):
            if getattr(self, field) not in (None, []) and not real:
                raise ValueError(f"GOSSIP_{field.upper()} is for a real peer: GOSSIP_NAME names it")
        if real and self.listen is None:
            raise ValueError("GOSSIP_NAME needs GOSSIP_LISTEN")
        if real and self.transport == "quic" and self.keys is None:
            raise ValueError("GOSSIP_NAME needs GOSSIP_KEYS, or GOSSIP_TRANSPORT=udp")
        if self.name is not None:
            local = ("peers", "edits", "rate", "seed", "patience")
            self._refuse(local, "the local group, not a peer that GOSSIP_NAME names")
            check_name("GOSSIP_NAME", self.name)
        check_bootstrap("GOSSIP_BOOTSTRAP", self.bootstrap)
        return self
