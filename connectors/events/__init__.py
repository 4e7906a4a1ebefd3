"""Telemetry events: a generated workload, event files, and this machine's own processes."""

from connectors.events.files import EventFileSource
from connectors.events.generated import GeneratedSource, Workload
from connectors.events.host import HostSource

__all__ = ["EventFileSource", "GeneratedSource", "HostSource", "Workload"]
