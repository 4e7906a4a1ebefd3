"""Links between dataflows over QUIC with mutual TLS."""

from connectors.quic.connection import Limits
from connectors.quic.identity import Identity
from connectors.quic.sink import QuicSink, send
from connectors.quic.source import QuicSource, Received
from state.delivery import LinkError

__all__ = ["Identity", "Limits", "LinkError", "QuicSink", "QuicSource", "Received", "send"]
