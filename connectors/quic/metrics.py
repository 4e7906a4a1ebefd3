"""What the links of this process do, for Prometheus.

The numbers join those of Bytewax: its API serves the default registry at ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from connectors.quic.connection import Connection
    from connectors.quic.dialer import Dialer
    from connectors.quic.inlet import Inlet
    from connectors.quic.spool import Spool

_LABELS = ("channel", "address", "peer", "direction")


class _Links(Collector):
    """Reads the links at each scrape."""

    def __init__(self) -> None:
        self.sinks: dict[Dialer, tuple[str, Spool]] = {}
        self.sources: set[Inlet] = set()

    def describe(self) -> Iterator[Metric]:
        """Describe nothing ahead, so that registering reads no link."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all links."""
        frames = CounterMetricFamily(
            "braidflow_link_frames", "Frames sent or received", labels=_LABELS
        )
        size = CounterMetricFamily(
            "braidflow_link_bytes", "Bytes of frames sent or received", labels=_LABELS
        )
        trip = GaugeMetricFamily(
            "braidflow_link_round_trip_seconds", "Smoothed round-trip time", labels=_LABELS
        )
        lost = GaugeMetricFamily(
            "braidflow_link_retransmits",
            "Packets of the present connection declared lost and sent again",
            labels=_LABELS,
        )
        depth = GaugeMetricFamily(
            "braidflow_link_queue_frames",
            "Frames not acknowledged (out), or waiting for the flow (in)",
            labels=_LABELS,
        )
        connects = CounterMetricFamily(
            "braidflow_link_connections", "Connections made", labels=_LABELS
        )

        def of_connection(labels: tuple[str, ...], link: Connection | None) -> None:
            if link is not None:
                trip.add_metric(labels, link.round_trip)
                lost.add_metric(labels, link.lost)

        for dialer, (channel, spool) in list(self.sinks.items()):
            labels = (channel, f"{dialer.host}:{dialer.port}", dialer.peer, "out")
            frames.add_metric(labels, dialer.frames)
            size.add_metric(labels, dialer.bytes)
            depth.add_metric(labels, spool.next - spool.first)
            connects.add_metric(labels, dialer.connections)
            of_connection(labels, dialer.link)
        for inlet in list(self.sources):
            labels = (inlet.channel, inlet.address, "", "in")
            frames.add_metric(labels, inlet.frames)
            size.add_metric(labels, inlet.bytes)
            depth.add_metric(labels, inlet.depth)
            for link in inlet.links:
                of_connection((inlet.channel, inlet.address, link.name, "in"), link)
        yield from (frames, size, trip, lost, depth, connects)


_links = _Links()
REGISTRY.register(_links)


def watch_sink(channel: str, dialer: Dialer, spool: Spool) -> None:
    """Show a sink's link until :func:`forget_sink`."""
    _links.sinks[dialer] = channel, spool


def forget_sink(dialer: Dialer) -> None:
    """Show it no longer."""
    _links.sinks.pop(dialer, None)


def watch_source(inlet: Inlet) -> None:
    """Show a source's links until :func:`forget_source`."""
    _links.sources.add(inlet)


def forget_source(inlet: Inlet) -> None:
    """Show them no longer."""
    _links.sources.discard(inlet)
