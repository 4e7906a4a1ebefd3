"""Show a running telemetry job: a live table on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from typing import TextIO

import pyarrow as pa
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.progress import RunProgress
from jobs.telemetry_run import Row, in_words


class Board:
    """Counts events as they pass and shows the newest answers, on standard error.

    Args:
        title: what the events are.
        names: what users, endpoints and latencies are in them.
        total: events expected, or None.
        stream: a terminal gets the table, anything else lines.
    """

    def __init__(
        self, title: str, names: dict[str, str], total: int | None, stream: TextIO = sys.stderr
    ) -> None:
        self._title = title
        self._names = names
        self._total = total
        self._events = 0
        self._rows: Sequence[Row] = ()
        self._lines: RunProgress | None = None
        self._live: Live | None = None
        if stream.isatty():
            self._live = Live(
                console=Console(file=stream), refresh_per_second=4, get_renderable=self.table
            )
        else:
            self._lines = RunProgress("telemetry", total, stream)

    def advance(self, batch: pa.RecordBatch) -> None:
        """Count a batch of EVENTS."""
        self._events += batch.num_rows
        if self._lines:
            self._lines.advance(batch)
        self._start()

    def answer(self, rows: Sequence[Row]) -> None:
        """Show these rows of ANSWERS, the number of events first, from now on."""
        self._rows = rows
        self._start()

    def _start(self) -> None:
        if self._live and not self._live.is_started:
            # After a failure nobody else would give the terminal its cursor back.
            atexit.register(self.close)
            self._live.start()

    def table(self) -> Group:
        """Return what is shown."""
        of = f" of {self._total:,}" if self._total else ""
        table = Table(box=None, pad_edge=False)
        table.add_column("question")
        table.add_column("answer", justify="right")
        table.add_column("bounds")
        for row in in_words(self._rows, self._names):
            table.add_row(*map(Text, row))
        # A root reads no events itself.
        events = self._events or next((int(r["estimate"]) for r in self._rows[:1]), 0)
        head = Text(f"telemetry: {self._title}: {events:,}{of} events")
        return Group(head, table) if table.rows else Group(head)

    def close(self) -> None:
        """Stop showing; the last answers are left to whoever prints the end."""
        if self._lines:
            self._lines.close()
        if self._live and self._live.is_started:
            self._live.transient = True
            self._live.stop()
            atexit.unregister(self.close)
