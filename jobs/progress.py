"""Show how far a run is: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import sys
from typing import TextIO

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class RunProgress:
    """Counts rows as they pass and shows them on standard error.

    Args:
        job: the word that lines begin with.
        total: rows expected, or None for a stream without an end.
        stream: where to show; a terminal gets a bar, anything else a line per tenth (or per
            100,000 rows when the total is unknown).
    """

    def __init__(self, job: str, total: int | None, stream: TextIO = sys.stderr) -> None:
        self._job = job
        self._total = total
        self._rows = 0
        self._said = 0
        self._bar: Progress | None = None
        self._stream = stream
        if stream.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rows, at {task.fields[at]}"),
                TimeElapsedColumn(),
                console=Console(file=stream),
            )
            self._task = self._bar.add_task(job, total=total, at="the start")

    def close(self) -> None:
        """Stop showing; the terminal is left as it was."""
        if self._bar:
            self._bar.stop()

    def advance(self, batch: pa.RecordBatch) -> None:
        """Count a batch, whose `time` column says where the run is."""
        if not batch.num_rows:
            return
        self._rows += batch.num_rows
        at = f"{batch['time'][-1].as_py():%Y-%m-%d %H:%M}".removesuffix(" 00:00")
        if self._bar:
            self._bar.start()
            self._bar.update(self._task, completed=self._rows, at=at)
            return
        step = max(1, self._total // 10) if self._total else 100_000
        if self._rows // step > self._said // step:
            self._said = self._rows
            of = f" of {self._total:,}" if self._total else ""
            print(f"{self._job}: {self._rows:,}{of} rows, at {at}", file=self._stream, flush=True)
