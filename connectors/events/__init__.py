"""Telemetry events: a generated workload, this machine's own processes, and event files.

`connectors.events.files` is imported apart, since its parsers are slow to import.
"""

from connectors.events.generated import GeneratedSource, Workload
from connectors.events.host import HostSource

__all__ = ["GeneratedSource", "HostSource", "Workload"]
