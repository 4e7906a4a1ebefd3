"""What `benchmarks.pbft` orders its processes to do, and what they answer."""

from __future__ import annotations

import msgspec

from benchmarks.pbft_load import Load
from connectors.quic import Limits
from state.pbft import Settings

CLIENT = "client"
CLUSTER = "benchmark"
FAILED = b"!"
"""With this begins the last line of a process that cannot go on; why follows."""


class Begin(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Listen; answered with the address.

    Args:
        name: Of this peer; `CLIENT` is the client.
        replicas: The names of all replicas.
        transport: ``quic``, ``tls``, ``https``, or ``dataflow``: QUIC, and replicas in dataflows.
        keys: Directory of certificates.
        logs: Directory of vote logs, which must have none of this group.
        settings: Of the protocol.
        limits: Of QUIC.
        sync: Whether the vote log waits for the disk.
        listen: ``host:port``.
        advertise: Where others reach it, if that is another place.
    """

    name: str
    replicas: list[str]
    transport: str
    keys: str
    logs: str
    settings: Settings
    limits: Limits
    sync: bool
    listen: str = "127.0.0.1:0"
    advertise: str | None = None


class Peers(msgspec.Struct, frozen=True, tag=True):
    """Where all are; a replica starts."""

    addresses: dict[str, str]


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Have the client make requests; answered with `Answered`."""

    load: Load


class Tell(msgspec.Struct, frozen=True, tag=True):
    """Tell how things are: `Told`."""


class End(msgspec.Struct, frozen=True, tag=True):
    """Close everything."""


Order = Begin | Peers | Ask | Tell | End


class Told(msgspec.Struct):
    """How a process is doing.

    Args:
        cpu: Seconds of processor time that it has used.
        final: The last batch that is final and nothing is executed beyond it; -1 if something is.
        state: Digest of the machine's state.
        log: Digest of all batches in order; empty if a part of them came as a state.
        notes: What happened that should not have, and how often.
        sent: Messages.
    """

    cpu: float
    final: int = 0
    state: str = ""
    log: str = ""
    notes: dict[str, int] = {}
    sent: int = 0


class Answered(msgspec.Struct):
    """What the client's requests came to.

    Args:
        seconds: From the first request to the last answer.
        latencies: Of each request, seconds.
        phases: How many were certain by which rule.
        results: Digest of all results, in the order of the load.
        error: Why it failed; empty if it did not.
    """

    seconds: float = 0.0
    latencies: list[float] = []
    phases: dict[str, int] = {}
    results: str = ""
    error: str = ""
