"""Result files that survive a restart: NDJSON that grows, Parquet that appears when complete."""

from connectors.files.sinks import Mark, NdjsonSink, ParquetSink, RunPosition, RunSink, output
from connectors.files.tables import TableSpec

__all__ = [
    "Mark",
    "NdjsonSink",
    "ParquetSink",
    "RunPosition",
    "RunSink",
    "TableSpec",
    "output",
]
