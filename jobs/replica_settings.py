"""The settings of `jobs.replica`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from jobs.settings import Duration, JobSettings, Names

_REAL = ("name", "listen", "advertise", "peers", "keys", "roster", "clients", "log", "path")
"""What only one real replica or client has."""

_LOCAL = ("replicas", "users", "requests", "rate", "batch")
"""What only the local group has."""

Misbehaviour = Literal["equivocate", "silent", "forge", "replay", "delay"]


class ReplicaSettings(JobSettings):
    """A local group by default; with a role, one real replica or client of a group."""

    job: ClassVar[str] = "replica"
    reads: ClassVar[str] = "a generated workload; a client: operations as NDJSON, or standard input"
    writes: ClassVar[str] = "committed.ndjson, events.ndjson, answers.ndjson, run.json"

    role: Literal["local", "replica", "client"] = Field(
        "local", description="local (a group on this machine), replica or client"
    )
    machine: Literal["store", "locks"] = Field(
        "store", description="what is replicated: store (keys and values) or locks (with leases)"
    )
    replicas: PositiveInt = Field(4, description="of the local group: 3f + 1 bear f liars")
    users: PositiveInt = Field(3, description="clients of the local group")
    requests: PositiveInt = Field(600, description="of the local group's clients, in all")
    rate: float = Field(
        60, ge=0, description="requests of the local group in a second; 0: when one is answered"
    )
    window: PositiveInt = Field(
        1, description="requests that a client has under way, at most; they come in any order"
    )
    batch: PositiveInt = Field(1, description="operations of one request of the local group")
    seed: int = Field(0, ge=0, description="of the local group's workload")
    patience: Duration = Field(
        timedelta(seconds=30),
        gt=timedelta(0),
        description="how long the local group, or a client, waits for an answer",
    )
    byzantine: Misbehaviour | None = Field(
        None, description="how this replica, or the local group's first, misbehaves; unset: not"
    )
    name: str | None = Field(None, description="who this is, as in the keys")
    listen: str | None = Field(None, description="host:port to listen on")
    advertise: str | None = Field(
        None, description="host:port where others reach it, if that is another one"
    )
    peers: Names = Field([], description="where the replicas are, as name@host:port")
    keys: Path | None = Field(
        None,
        description="directory with ca.crt, NAME.pem and NAME.identity.json, made by "
        "`python -m jobs keys`",
    )
    roster: Path | None = Field(
        None, description="file of the replicas' public keys; unset: roster.json with the keys"
    )
    clients: Path | None = Field(
        None, description="file of the clients' public keys; unset: clients.json with the keys"
    )
    log: Path | None = Field(
        None, description="file of a replica's votes, which it must never lose"
    )
    sync: bool = Field(
        True,
        description="whether a replica waits for its disk; without, a power failure may make it "
        "forget votes, a killed process does not",
    )
    path: Path | None = Field(
        None, description="file of a client's operations; unset: standard input"
    )
    timeout: Duration = Field(
        timedelta(seconds=1),
        gt=timedelta(0),
        description="until a silent primary is replaced; doubles; the same for all replicas",
    )
    fast: bool = Field(
        False, description="answer speculatively where all replicas agree; the same for all"
    )
    votes: Literal["mac", "signature"] = Field(
        "mac", description="how votes are authenticated; signature: double votes are evidence"
    )
    datagram: int = Field(
        1200,
        ge=1200,
        le=16_000,
        description="bytes of a UDP payload; more where jumbo frames are known to pass",
    )
    out: Path | None = Field(
        None, description="directory for results; unset: runs/replica/<time> (needed with -r)"
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.role == "local":
            for field in _REAL:
                if getattr(self, field) not in (None, []):
                    raise ValueError(f"REPLICA_{field.upper()} needs REPLICA_ROLE")
            if self.replicas < 4:
                raise ValueError(f"REPLICA_REPLICAS={self.replicas}: 4 bear one liar, 7 two")
            return self
        self._refuse(_LOCAL, f"the local group, not REPLICA_ROLE={self.role}")
        if self.role == "replica":
            self._refuse(("window", "patience"), "clients and the local group")
        needed = ("name", "keys", "peers", *(("listen", "log") * (self.role == "replica")))
        for field in needed:
            if not getattr(self, field):
                raise ValueError(f"REPLICA_ROLE={self.role} needs REPLICA_{field.upper()}")
        if self.role == "client" and (self.byzantine or self.log):
            raise ValueError("REPLICA_BYZANTINE and REPLICA_LOG are for replicas")
        if self.role == "replica" and self.path:
            raise ValueError("REPLICA_PATH is for clients")
        for peer in self.peers:
            name, at, address = peer.partition("@")
            if not name or not at or ":" not in address:
                raise ValueError(f"REPLICA_PEERS: {peer!r} is not name@host:port")
        return self
