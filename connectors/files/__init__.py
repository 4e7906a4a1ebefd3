"""Result files that survive a restart: NDJSON that grows, Parquet that appears when complete."""

from connectors.files.sinks import NdjsonSink, ParquetSink, RunPosition, RunSink
from connectors.files.tables import TableSpec
from connectors.marks import Mark, output

__all__ = [
    "Mark",
    "NdjsonSink",
    "ParquetSink",
    "RunPosition",
    "RunSink",
    "TableSpec",
    "output",
]
