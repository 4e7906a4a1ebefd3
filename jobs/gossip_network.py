"""How the streams of a replicated document meet the network."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream

from connectors.mesh import Mesh, Meshes, Outgoing, QuicMesh, Received, UdpMesh
from connectors.quic import Identity
from flows.gossip import DocumentOut, replicated_document
from jobs.peer_settings import Transport
from operators.gossip import Heard, PeerCommand, Say
from state.gossip import Settings

Command = tuple[str, PeerCommand]

LINGER = timedelta(seconds=10)
"""How long a connection is kept to a peer to which there is nothing to say."""


def connect(
    flow: Dataflow,
    meshes: Meshes,
    commands: KeyedStream[PeerCommand],
    every: timedelta,
) -> DocumentOut:
    """Replicate a document among the meshes' peers and whoever they hear, in rounds of `every`."""

    def heard(got: Received) -> Heard:
        return Heard(f"{got.peer}@{got.address}", got.data)

    def outgoing(say: Say) -> Outgoing:
        return Outgoing(say.to, say.data, say.reliable)

    received = op.input("network", flow, meshes.source())
    out = replicated_document(
        op.map_value("heard", received, heard),
        commands,
        settings=Settings(round=every.total_seconds()),
    )
    op.output("send", op.map_value("outgoing", out.say, outgoing), meshes.sink())
    return out


def make_mesh(
    transport: Transport,
    name: str,
    listen: str,
    advertise: str | None = None,
    *,
    keys: Path | None = None,
) -> Mesh:
    """Return a peer's end of the network.

    Raises:
        ValueError: an address or a certificate cannot be used.
        OSError: a file of `keys` cannot be read.
    """
    if transport == "udp":
        return UdpMesh(name, listen, advertise)
    if keys is None:
        raise ValueError("a peer over QUIC needs its keys")
    identity = Identity.load(keys, name)
    return QuicMesh(name, listen, advertise, identity=identity, linger=LINGER)
