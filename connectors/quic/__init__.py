"""Links between dataflows over QUIC with mutual TLS."""

from connectors.marks import output
from connectors.quic.connection import Limits
from connectors.quic.identity import Identity
from connectors.quic.sink import QuicSink
from connectors.quic.source import QuicSource, Received
from state.delivery import LinkError

send = output

__all__ = [
    "Identity",
    "Limits",
    "LinkError",
    "QuicSink",
    "QuicSource",
    "Received",
    "output",
    "send",
]
